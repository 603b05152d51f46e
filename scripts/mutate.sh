#!/bin/bash
# Changes a package in one place after another, such as < to <=, and runs its tests
# each time. A changed copy, a mutant, that they pass shows what they do not look
# at. It does so for each package below drain/ and internal/, or for one:
#
#     scripts/mutate.sh [PACKAGE]
#
# With SINCE=COMMIT it changes only the lines that have changed since then.
# It prints a table and fails where less than 95 % of the mutants are killed, or
# where one lives that docs/mutants.md does not explain. It takes a test run for
# each mutant: minutes for a small package, hours for all.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"
set -o pipefail

gremlins=v0.6.0
least=95 # per cent
explained=$root/docs/mutants.md

case $# in
0) set -- ./drain/... ./internal/... ;;
1) ;;
*) die "usage: scripts/mutate.sh [PACKAGE]" ;;
esac
need_go
scratch_dir
program=$tools/gremlins-$gremlins
[ -x "$program" ] || go_build github.com/go-gremlins/gremlins/cmd/gremlins "$gremlins" "$program"

# From a copy, as gremlins makes its own of all that it finds, the tools included.
mkdir "$work/copy" "$work/bin" "$work/tmp"
tar -C "$root" --exclude=./.git --exclude=./.tools -cf - . | tar -C "$work/copy" -xf -
[ -z "${SINCE:-}" ] || cp -R "$(git -C "$root" rev-parse --path-format=absolute --git-common-dir)" "$work/copy/.git"
cd "$work/copy"
# Gremlins takes the files of git's diff for those of the package, and what is around a
# change for a part of it.
export GIT_DIFF_OPTS=-u0 GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=diff.relative GIT_CONFIG_VALUE_0=true

# packages lists the folders. What imports testing is itself a part of the tests.
packages() {
	go list -f '{{.Dir}}{{range .Imports}}{{if eq . "testing"}} testing{{end}}{{end}}' "$@" | sed '/ testing/d; s|.*/copy/||'
}

# Gremlins tries no mutant outside of what a coverage profile calls covered, and Go's
# profiles leave out the conditions in a switch and the variables of a package. So
# this stands before go and calls every line covered. A mutant may kill its process group,
# hence the session, and gremlins takes only the codes 1 and 2 for failures.
cat >"$work/bin/go" <<END
#!/bin/sh
setsid --wait "$(command -v go)" "\$@"
code=\$?
[ \$code -le 2 ] || code=1
[ \$code -eq 0 ] || exit \$code
case "\$*" in
"test -cover -coverprofile "*) sed '1!s/:[^:]*$/:1.1,1000000.1 1 1/' "\$4" | uniq >"\$4.all" && mv "\$4.all" "\$4" ;;
esac
END
chmod 755 "$work/bin/go"

# A mutant of what ends processes ends others, and leaves some: a namespace of their own
# holds them, where that may be made.
alone="unshare --pid --fork --kill-child --mount-proc"
$alone true 2>/dev/null || alone=

# unleash FOLDER writes $work/mutants, a line for each: status, kind, file, line and
# column. The flag for processors is broken in this version, and -vet finds nothing
# that the tests do not. A mutant may ask for memory without end, hence the limit.
unleash() {
	n=0
	(
		ulimit -v 16777216
		cd "$1"
		# shellcheck disable=SC2086 # words
		PATH=$work/bin:$PATH TMPDIR=$work/tmp GOFLAGS='-count=1 -vet=off -parallel=32' \
			nice -n 19 $alone "$program" unleash --workers 1 --timeout-coefficient 5 --exclude-files / ${SINCE:+--diff "$SINCE"} "$PWD" 2>&1
	) | while IFS= read -r line; do
		printf '%s\n' "$line"
		case $line in
		*[0-9]:[0-9]*) ;;
		*) continue ;;
		esac
		n=$((n + 1))
		[ $((n % 50)) -ne 0 ] || say "$1: $n mutants so far"
	done >"$work/log" || {
		cat "$work/log" >&2
		die "gremlins failed in $1, see above"
	}
	tab=$(printf '\t')
	sed -nE "s/^ *([A-Z]+( [A-Z]+)?) ([A-Z_]+) at ([^ ]+):([0-9]+):([0-9]+)\$/\1$tab\3$tab\4$tab\5$tab\6/p" "$work/log" >"$work/mutants"
}

# survivors FOLDER prints, as docs/mutants.md has them, those that no test killed:
# the file, the kind, and the line with the changed operator in «».
survivors() {
	awk -F '\t' '$1 == "LIVED" || $1 == "NOT COVERED"' "$work/mutants" |
		while IFS=$tab read -r _ kind file line column; do
			LC_ALL=C awk -v at="$column" -v name="$1/$file" -v kind="$kind" -v want="$line" 'NR == want {
				match(substr($0, at), /^[-+*\/%<>=!&|]+/)
				text = substr($0, 1, at - 1) "«" substr($0, at, RLENGTH) "»" substr($0, at + RLENGTH)
				sub(/^[ \t]+/, "", text)
				print name ": " kind "  " text
			}' "$1/$file"
		done
}

# The entries of docs/mutants.md in the same form: the file is in the heading, the
# rest in a block of code.
awk '/^### / { name = $2; next } /^```/ { inside = !inside; next } inside { print name ": " $0 }' "$explained" >"$work/explained"

folders=$(packages "$@") || die "no package $1: want a folder such as ./internal/compare"
[ -n "$folders" ] || die "no package to change in $*"

failed=
header='%-20s %8s %8s %8s %8s %9s %9s\n'
# shellcheck disable=SC2059 # one format for all rows
row() { printf "$header" "$@"; }
row package mutants killed lived 'not run' 'timed out' efficacy
for package in $folders; do
	unleash "$package"
	count() { awk -F '\t' -v status="$1" '$1 == status { n++ } END { print n + 0 }' "$work/mutants"; }
	killed=$(count KILLED) lived=$(count LIVED) left=$(count 'NOT COVERED') late=$(count 'TIMED OUT')
	made=$((killed + lived + left + late))
	dead=$((killed + late))
	row "$package" "$made" "$killed" "$lived" "$left" "$late" "$(awk -v a="$dead" -v b="$made" 'BEGIN { printf "%.1f %%", b ? 100 * a / b : 100 }')"
	[ $((100 * dead)) -ge $((least * made)) ] || failed="$failed $package: less than $least % killed;"
	survivors "$package" | sort | uniq >"$work/alive"
	if grep -Fxv -f "$work/explained" "$work/alive" >"$work/new"; then
		sed 's/^/  lives, and is not in docs\/mutants.md: /' "$work/new"
		failed="$failed $package: mutants that are not explained;"
	fi
	[ -n "${SINCE:-}" ] || grep -F "$package/" "$work/explained" | grep -Fxv -f "$work/alive" | sed 's/^/  is in docs\/mutants.md, and does not live: /' || true
done
failed=${failed# }
[ -z "$failed" ] || die "${failed%;}"
