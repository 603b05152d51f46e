#!/bin/sh
# Builds the binary, for everything that needs it: make, both Dockerfiles, and
# what measures it.
#
#     scripts/build.sh OUT [LINKER FLAG...]
#
# A relative OUT starts at the project's folder. VERSION and COMMIT go into the
# binary. GOOS, GOARCH and GOARM name another machine that it is for.
#
# It shares nothing with the other scripts, as a Dockerfile copies it alone.
set -eu
cd "$(dirname -- "$0")/.."

out=${1:-}
case $out in
'' | -*) # no file is called --help
	echo "error: \"$out\" is no file to build: scripts/build.sh OUT [LINKER FLAG...]" >&2
	exit 2
	;;
esac
command -v go >/dev/null || {
	echo "error: go is missing: get it from https://go.dev/dl" >&2
	exit 1
}
shift
# Without other flags the symbols and the debugger's tables stay out.
[ $# -gt 0 ] || set -- -s -w

# Where the program begins, see internal/early/entry.go.
case $(go env GOARCH) in
amd64 | arm64 | arm) set -- "$@" -E early_entry ;;
esac

# HTTP/2 stays out too: the server speaks HTTP/1.1 only. So does what Go would tell of
# the repository: a clone, an archive and a Dockerfile build the same bytes.
CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags nethttpomithttp2 \
	-ldflags "$* -X imagelab/internal/early.Version=${VERSION:-v0.1.0} -X main.commit=${COMMIT:-unknown}" \
	-o "$out" .
