# shellcheck shell=sh
# What the scripts beside this one share.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# Made by the scripts, ignored by git, removed by make clean.
tools=$root/.tools

say() { printf '%s\n' "$*" >&2; }
step() { say "==> $*"; }
die() {
	say "error: $*"
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
need() { have "$1" || die "$1 is missing: $2"; }

need_go() { need go "get it from https://go.dev/dl, or let a registry be reachable"; }
need_docker() {
	need docker "get it from https://docs.docker.com/engine/install"
	docker_error=$(docker version 2>&1 >/dev/null) ||
		die "Docker does not answer: $docker_error
Start it (systemctl start docker, or Docker Desktop), and see that you may use it (docker info)."
}

# scratch_dir makes $work, a folder that goes when the script ends. It is in
# $tools, as /tmp may be small or noexec.
scratch_dir() {
	mkdir -p "$tools"
	work=$(mktemp -d "$tools/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM
}

# go_build PACKAGE VERSION OUT [FLAG...] builds a static program from a module of
# its own, so that its dependencies stay out of this project's go.mod.
go_build() {
	package=$1 version=$2 out=$3
	shift 3
	mkdir -p "$work/module"
	(
		cd "$work/module"
		[ -f go.mod ] || go mod init build >/dev/null 2>&1
		say "downloading $package@$version and its dependencies"
		go get "$@" "$package@$version" >get.log 2>&1 || {
			cat get.log >&2
			die "$package@$version cannot be downloaded: see above, and go env GOPROXY"
		}
		say "compiling; this takes minutes the first time"
		CGO_ENABLED=0 go build -trimpath "$@" -o "$out" "$package"
	)
}
