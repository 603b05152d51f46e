#!/bin/sh
# Prints what the binary is made of, package by package, and compares it and both
# images with docs/size.md. Fails if one of them grew by more than 2 %, or if the
# linker has to keep every exported method. With --record it writes docs/size.md
# anew instead.
#
# Images that are not here are left out; with CI=true nothing may be.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

record=
case $* in
"") ;;
--record) record=-record ;;
*) die "usage: scripts/size.sh [--record]" ;;
esac

# The one machine that the figures are for; Go can build for it anywhere.
os=linux arch=amd64

build() { GOOS=$os GOARCH=$arch "$root/scripts/build.sh" "$@"; }

# image_bytes IMAGE prints what an image holds, as files. Not .Size, in which
# engines with containerd's store count the compressed layers too.
image_bytes() {
	docker history --human=false --format '{{.Size}}' "$1" | awk '{ sum += $1 } END { printf "%d\n", sum }'
}

layers() { docker image inspect -f '{{json .RootFS.Layers}}' "$1"; }

# above_base IMAGE prints the same less what the image's base holds.
above_base() {
	found=$(docker image inspect -f '{{.Os}}/{{.Architecture}}' "$1" 2>/dev/null) || die "$1 is not here: make images"
	[ "$found" = "$os/$arch" ] || die "$1 is for $found, and the figures are for $os/$arch"
	base=$(docker image inspect -f '{{index .Config.Labels "org.opencontainers.image.base.name"}}' "$1")
	below=0
	if [ -n "$base" ]; then
		bottom=$(layers "$base" 2>/dev/null) || die "$base, the base of $1, is not here: make images"
		case $(layers "$1") in
		"${bottom%]}"*) ;;
		*) die "$1 was built on another $base than is here: make images" ;;
		esac
		below=$(image_bytes "$base")
	fi
	echo $(($(image_bytes "$1") - below))
}

need_go
scratch_dir

head=$(git -C "$root" rev-parse -q --verify HEAD 2>/dev/null) || head=unknown
set --
for variant in scratch alpine; do
	if bytes=$( (need_docker && above_base "imagelab:$variant") 2>"$work/reason"); then
		set -- "$@" -image "$variant=$bytes"
		revision=$(docker image inspect -f '{{index .Config.Labels "org.opencontainers.image.revision"}}' "imagelab:$variant")
		[ "$revision" = "$head" ] ||
			say "imagelab:$variant was built from revision $revision, and this is $head: make images builds it anew"
	else
		reason=$(sed 's/^error: //' "$work/reason")
		[ "${CI:-}" != true ] || die "$reason, and with CI=true nothing may be left out"
		say "left out: image $variant: $reason"
	fi
done

step "building the binary, and once more with its symbols"
build "$work/imagelab"
# The linker tells on its output why it keeps each symbol.
build "$work/symbols" -dumpdep >"$work/deps" 2>&1 || {
	grep -v ' -> ' "$work/deps" >&2
	die "the binary cannot be built with its symbols, see above"
}

(cd "$root/size" && go build -o "$work/size" .)
"$work/size" -binary "$work/imagelab" -symbols "$work/symbols" -deps "$work/deps" \
	-against "$root/docs/size.md" ${record:+"$record"} "$@"
