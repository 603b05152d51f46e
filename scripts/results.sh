#!/bin/sh
# Copies what docs/results.md shows at a glance into README.md, between the same
# markers. With --check it changes nothing, and fails if README.md is behind.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

begin='<!-- glance:begin -->'
end='<!-- glance:end -->'

# need_markers FILE sees to it that each marker is there once, in their order.
need_markers() {
	[ -f "$root/$1" ] || die "$1 is missing"
	found=$(grep -Fx -e "$begin" -e "$end" "$root/$1") || true
	[ "$found" = "$begin
$end" ] || die "$1 needs one line $begin and after it one line $end"
}

case $* in
'') check= ;;
--check) check=yes ;;
*) die "$* is not known: scripts/results.sh [--check]" ;;
esac
need_markers docs/results.md
need_markers README.md
scratch_dir

# The links of docs/results.md start from there.
awk -v begin="$begin" -v end="$end" '
	$0 == end { inside = 0 }
	inside
	$0 == begin { inside = 1 }
' "$root/docs/results.md" |
	sed 's/](#/](docs\/results.md#/g; s/](results\//](docs\/results\//g' >"$work/glance"
awk -v begin="$begin" -v end="$end" -v glance="$work/glance" '
	$0 == end { inside = 0 }
	!inside
	$0 == begin {
		inside = 1
		while ((getline line <glance) > 0) print line
	}
' "$root/README.md" >"$work/README.md"

if [ -z "$check" ]; then
	cat "$work/README.md" >"$root/README.md"
else
	diff -u "$root/README.md" "$work/README.md" >&2 ||
		die "README.md does not show what docs/results.md does: run scripts/results.sh"
fi
