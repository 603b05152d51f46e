# Reads the output of go test -v and prints what go test prints without -v, which
# is the failures and a line per package, and in addition the skipped tests with
# their reasons and how many there were. Exits 1 if ci is "true" and a test
# skipped itself for a reason that does not name the kernel.

# From here on the lines are of that test; tests that run in parallel take turns.
/^=== [A-Z]+ / { test = $3; next }

/^ *--- (PASS|FAIL|SKIP): / {
	name = $3
	if ($2 == "FAIL:") {
		printf "%s", said[name]
		print
	} else if ($2 == "SKIP:") {
		reason = last[name]
		sub(/^ +/, "", reason)
		skips[++skipped] = name ": " reason
		if (reason !~ /kernel/) refused = ci == "true"
	}
	if ($0 !~ /^ /) count++
	delete said[name]
	test = ""
	next
}

$0 == "PASS" { next }
/^(ok|FAIL|\?)[ \t]/ { test = "" } # the package ends, and with it its tests

test != "" { said[test] = said[test] $0 "\n"; last[test] = $0; next }
{ print }

END {
	# Tests without an end were cut short, by a panic or by the time limit.
	for (name in said) printf "--- NO END: %s\n%s", name, said[name]
	for (i = 1; i <= skipped; i++) print "--- SKIP: " skips[i]
	printf "%d tests, %d skipped\n", count, skipped
	if (refused) print "FAIL: with CI=true a test may only be skipped for want of a kernel feature"
	exit refused
}
