#!/bin/sh
# Prints the layers of both images with their sizes, side by side, in the order
# in which they were built.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

# layers IMAGE prints a line per instruction: size and text.
layers() {
	docker history --no-trunc --format '{{.Size}}\t{{.CreatedBy}} {{.Comment}}' "$1" |
		sed 's/ *# buildkit//; s/ *buildkit\.dockerfile.*//; s/RUN [^/]*\/bin\/sh -c/RUN/; s/HEALTHCHECK &/HEALTHCHECK /; s/  */ /g' |
		awk -F '\t' '{ line[NR] = sprintf("%8s  %s", $1, $2) } END { for (i = NR; i; i--) print line[i] }'
}

size() { docker image inspect -f '{{.Size}}' "$1" | awk '{ printf "%.2f MB", $1 / 1e6 }'; }
base() { docker image inspect -f '{{or (index .Config.Labels "org.opencontainers.image.base.name") "nothing"}}' "$1"; }

need_docker
scratch_dir
for variant in scratch alpine; do
	image=imagelab:$variant
	docker image inspect "$image" >/dev/null 2>&1 || die "$image is not here: make images"
	{
		printf '%s: %s, on %s\n\n' "$image" "$(size "$image")" "$(base "$image")"
		layers "$image"
	} >"$work/$variant"
done
pr -m -t -e -w "${COLUMNS:-150}" "$work/scratch" "$work/alpine" | expand | sed 's/ *$//'
