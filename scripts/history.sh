#!/bin/sh
# Says which image is the smaller one, then prints the layers of both as the
# instructions that made them, with their sizes, within 100 columns.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

# layers IMAGE prints a line per instruction, the first one first. What the engine writes
# as Go values becomes what a Dockerfile has.
layers() {
	docker history --no-trunc --human=false --format '{{.Size}}\t{{.CreatedBy}}' "$1" |
		sed -E 's/ *# buildkit//; s/RUN \|[0-9]+ .*\/bin\/sh -c/RUN/; s/RUN \/bin\/sh -c/RUN/
			s/\/bin\/sh -c #\(nop\) *//
			s/EXPOSE map\[(.*)\]/EXPOSE \1/; s/:\{\}//g
			s/HEALTHCHECK &\{(\[.*\]) "([^"]*)" "([^"]*)" "([^"]*)".*\}/HEALTHCHECK --interval=\2 --timeout=\3 --start-period=\4 \1/
			s/\["CMD-SHELL" "(.*)"\]$/CMD \1/
			/HEALTHCHECK --interval/s/\\"/"/g; /HEALTHCHECK --interval/s/" "/", "/g; s/\["CMD", /CMD [/' |
		tr -s ' ' |
		awk -F '\t' '
			function size(n) { return n >= 1e6 ? sprintf("%.2f MB", n / 1e6) : n >= 1e3 ? sprintf("%.1f kB", n / 1e3) : n + 0 ? n " B" : "-" }
			{
				out = sprintf("%10s ", size($1))
				used = length(out)
				words = split($2 == "" ? "(an imported archive)" : $2, word, " ")
				for (i = 1; i <= words; i++) {
					if (length(word[i]) > 84) word[i] = substr(word[i], 1, 81) "..."
					if (used + 1 + length(word[i]) > 100) {
						out = out "\n" sprintf("%15s", "")
						used = 15
					}
					out = out " " word[i]
					used += 1 + length(word[i])
				}
				line[NR] = out
			}
			END { for (i = NR; i; i--) print line[i] }'
}

bytes() { docker image inspect -f '{{.Size}}' "$1"; }
base() { docker image inspect -f '{{or (index .Config.Labels "org.opencontainers.image.base.name") "nothing"}}' "$1"; }

need_docker
for variant in scratch alpine; do
	docker image inspect "imagelab:$variant" >/dev/null 2>&1 || die "imagelab:$variant is not here: make images builds it"
done
awk -v s="$(bytes imagelab:scratch)" -v a="$(bytes imagelab:alpine)" 'BEGIN {
	if (s == a) { printf "Both images have %.2f MB.\n", s / 1e6; exit }
	small = s < a ? "scratch" : "alpine"; large = s < a ? "alpine" : "scratch"
	x = s < a ? s : a; y = s < a ? a : s
	printf "imagelab:%s is the smaller one: %.2f MB, %.2f MB (%.0f %%) below imagelab:%s.\n", small, x / 1e6, (y - x) / 1e6, 100 * (1 - x / y), large
}'
for variant in scratch alpine; do
	image=imagelab:$variant
	printf '\n%s: %s on %s\n' "$image" "$(bytes "$image" | awk '{ printf "%.2f MB", $1 / 1e6 }')" "$(base "$image")"
	layers "$image"
done
