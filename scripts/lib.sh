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

# one_line TEXT makes an error of Docker one line, without what every one has.
one_line() { printf '%s' "$1" | sed 's/^[Ee]rror response from daemon: //; s/^error during connect: //' | tr -s '\n\t ' ' ' | cut -c 1-300; }

need_docker() {
	need docker "get it from https://docs.docker.com/engine/install"
	docker_error=$(docker version 2>&1 >/dev/null) && return
	case $docker_error in
	*"permission denied"*) die "you may not use Docker: sudo usermod -aG docker $(id -un), and log in again; or start this with sudo" ;;
	*"Cannot connect"* | *"connection refused"* | *"no such file"* | *"no such host"*)
		die "Docker does not run${DOCKER_HOST:+ at DOCKER_HOST=$DOCKER_HOST}: start it with sudo systemctl start docker, or start Docker Desktop" ;;
	esac
	die "Docker does not answer: $(one_line "$docker_error")"
}

# elapsed SINCE writes the time since then as 1:05.
elapsed() {
	elapsed=$(($(date +%s) - $1))
	printf '%d:%02d' $((elapsed / 60)) $((elapsed % 60))
}

# sign_of_life WHAT tells, until it is killed, that something goes on: on a terminal in
# one line that counts, elsewhere in a line every 30 seconds.
sign_of_life() {
	since=$(date +%s) next=30
	# The shell that waits for it may have been killed.
	while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
		if [ -t 2 ]; then
			printf '\r      %s … %s ' "$1" "$(elapsed "$since")" >&2
		elif [ $(($(date +%s) - since)) -ge $next ]; then
			say "      $1 … $(elapsed "$since")"
			next=$((next + 30))
		fi
	done
}

# attempt WHAT LOG COMMAND... runs what may take minutes, with a sign of life. What it
# prints goes to $log in .tools/log. Sets $status. Not to be called where set -e does not
# hold, as behind if or ||: there it would not hold in COMMAND either.
attempt() {
	what=$1 log=$tools/log/$2.log
	shift 2
	mkdir -p "$tools/log"
	sign_of_life "$what" &
	ticking=$!
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	kill "$ticking" 2>/dev/null || true
	wait "$ticking" 2>/dev/null || true
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

# patiently is attempt, and ends the script if that fails.
patiently() {
	attempt "$@"
	[ "$status" = 0 ] || die_of_log
}

# die_of_log says why what attempt has tried failed, as far as $log tells.
die_of_log() {
	if grep -qi 'no space left on device' "$log"; then
		die "$what: the disk is full; df -h and docker system df show of what. All it said is in $log"
	fi
	if ours=$(grep '^error: ' "$log"); then
		say "$ours"
	else
		tail -n 20 "$log" | sed 's/^/    /' >&2
		say "error: $what: failed, see above"
	fi
	say "All it said is in $log"
	exit 1
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
		go get "$@" "$package@$version" ||
			die "$package@$version cannot be downloaded: is there a network, and is go env GOPROXY right?"
		CGO_ENABLED=0 go build -trimpath "$@" -o "$out" "$package"
	)
}
