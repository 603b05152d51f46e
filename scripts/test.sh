#!/bin/bash
# Runs the tests of every module with what this machine allows, and says at the
# end what was left out and why. With CI=true nothing may be left out, and a test
# that skips itself is a failure, unless its reason names the kernel, which no
# machine can change for a test ("kernel: no Landlock").
#
# The tests of e2e/ find both images built, and in COMPOSE the command that runs
# Docker Compose here.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"
set -o pipefail

left_out=()
leave_out() {
	[ "${CI:-}" != true ] || die "$1, and with CI=true nothing may be left out"
	left_out+=("$1")
}

need_go
race=-race
if [ "$(go env CGO_ENABLED)" != 1 ] || ! have "$(go env CC)"; then
	race=
	leave_out "the race detector: it needs a C compiler (apt-get install gcc libc6-dev)"
fi

# Servers are confined in all tests, and have to be, where the kernel has all of it.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/scripts/build.sh" "$work/imagelab"
confined=
if IMAGELAB_SANDBOX=require IMAGELAB_SANDBOX_COMMAND=on IMAGELAB_OPS_ADDR=127.0.0.1:0 "$work/imagelab" -- true 2>/dev/null; then
	confined=yes
	export IMAGELAB_SANDBOX=require
else
	left_out+=("IMAGELAB_SANDBOX=require, and the tests of commands that are confined: the kernel has not all of it")
fi

export COMPOSE=$root/scripts/compose.sh
failed=
for module in "$root" "$root"/*/ "$root"/examples/*/; do
	module=${module%/}
	[ -f "$module/go.mod" ] || continue
	name=${module#"$root"}
	name=${name#/}
	if [ "$name" = e2e ]; then
		if ! reason=$( (need_docker) 2>&1); then
			leave_out "e2e, the tests of the images: ${reason#error: }"
			continue
		fi
		# The examples need a Debian, which not every machine can make.
		"$root/scripts/base-images.sh" debian || "$root/scripts/base-images.sh"
		"$COMPOSE" build scratch alpine
	fi
	step "go test ${race:+$race }./...${name:+ in $name/}"
	# Not from the cache: that knows nothing of this engine and kernel.
	(cd "$module" && go test -v -count=1 -timeout 40m ${race:+"$race"} ./... 2>&1) |
		awk -v ci="${CI:-}" -f "$root/scripts/test.awk" || failed="$failed ${name:-.}"
done

# Commands are not, unless that is asked for: all that has to do with them works as without it.
if [ -n "$confined" ]; then
	export IMAGELAB_SANDBOX_COMMAND=on,/tmp
	step "go test -run COMMANDS . with commands that are confined"
	(cd "$root" && go test -v -count=1 -timeout 20m -run 'Command|Front|Program|Reload|Stop|Signal|Terminal|Job|Orphan|Sandbox' . 2>&1) |
		awk -v ci="${CI:-}" -f "$root/scripts/test.awk" || failed="$failed .,confined"
fi

for what in ${left_out[@]+"${left_out[@]}"}; do
	say "left out: $what"
done
[ -z "$failed" ] || die "tests failed in:$failed"
