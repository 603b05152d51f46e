#!/bin/sh
# Compares the audit with public tools that look at containers, and writes what each finds
# to docs/audit-peers.md. The containers, and the words by which a tool says what it has
# found, are in e2e/peers_test.go and e2e/leaks_test.go. The tools are built the first time,
# which takes minutes.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

kube_score=v1.20.0
gitleaks=v8.30.1

peers=$tools/peers

# peer NAME PACKAGE VERSION builds the program, if it is not here.
peer() {
	if [ ! -x "$peers/$1-$3" ]; then
		rm -rf "$work/module" # the versions of one must not decide those of the next
		patiently "compiling $1 $3" "peer-$1" go_build "$2" "$3" "$peers/$1-$3"
	fi
	ln -sf "$1-$3" "$peers/$1"
}

need_go
need_docker
scratch_dir
mkdir -p "$peers"
peer kube-score github.com/zegl/kube-score/cmd/kube-score "$kube_score"
peer gitleaks github.com/zricethezav/gitleaks/v8 "$gitleaks"

step "what each of them finds"
cd "$root/e2e"
go test -count=1 -timeout 30m -run 'TestAuditBesidePeers|TestSecretsInFilesOfEachForm' . -peers "$peers" "$@"
