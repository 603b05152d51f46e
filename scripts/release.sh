#!/bin/sh
# Makes a release in dist/, needing neither Docker nor a registry, see publish/:
#
#     scripts/release.sh              archives, bills of materials, the image, checksums
#     scripts/release.sh push         the same, and pushes the image as IMAGE=name:tag
#     scripts/release.sh reproduce    makes it again in a clone elsewhere, with a build cache of
#                                     its own, and fails where it differs from dist/SHA256SUMS
#
# VERSION and COMMIT are the Makefile's. SOURCE and DOCUMENTATION are URLs for the image's
# labels. SOURCE_DATE_EPOCH is the time of all that has one; default, that of the commit.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

dist=$root/dist
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

# publish COMMAND... runs the program of publish/ of the project in $from.
publish() { (cd "$from/publish" && GOFLAGS='' go run . "$@"); }

need_go
from=$root
case $* in
'') publish release "$dist" ;;
push)
	[ -n "${IMAGE:-}" ] || die "IMAGE is not set: want name:tag, as in make push IMAGE=registry.example.com/imagelab:v0.1.0"
	publish release "$dist" >&2 # what lies there may be of another commit
	publish push "$dist" "$IMAGE"
	;;
reproduce)
	need git "it clones the project"
	[ -s "$dist/SHA256SUMS" ] || die "dist/SHA256SUMS is missing: make release makes it, or take it from a published release"
	[ -z "$(git -C "$root" status --porcelain)" ] || die "there are changes that are in no commit: what is built from a clone cannot have them"
	scratch_dir
	from=$work/a/clone
	git clone -q --no-hardlinks "$root" "$from"
	GOCACHE=$work/cache publish release "$work/again" >/dev/null
	diff -u "$dist/SHA256SUMS" "$work/again/SHA256SUMS" >&2 || die "the clone makes another release: see above. Is it this commit, version and Go ($(go env GOVERSION))?"
	say "the same, bit for bit: $(wc -l <"$dist/SHA256SUMS" | tr -d ' ') files, and the image $(cat "$dist"/imagelab-*.digest)"
	;;
*) die "$* is not known: scripts/release.sh [push|reproduce]" ;;
esac
