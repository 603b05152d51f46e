#!/bin/sh
# Builds what scripts/k8s.sh needs of Kubernetes, into KUBERNETES_BIN (.tools/kubernetes/bin):
# kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy and kubectl.
# From their module, in ten minutes and more, where no release can be downloaded; what is there
# is left alone.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

# 1.32 is the last release whose kubelet runs with cgroup v1 and containerd 1.6, which Debian 12 has.
release=${KUBERNETES_VERSION:-1.32.0}
bin=${KUBERNETES_BIN:-$tools/kubernetes/bin}
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl"

# build makes the programs in a throw-away module. Those that Kubernetes has in its staging folder
# are replaced by the same ones as they are published.
build() {
	mkdir -p "$bin" "$work/module"
	cd "$work/module"
	go mod init build
	go mod edit -require "k8s.io/kubernetes@v$release"
	file=$(go mod download -json "k8s.io/kubernetes@v$release" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
	[ -n "$file" ] || die "k8s.io/kubernetes@v$release cannot be downloaded: is there a network, and is go env GOPROXY right?"
	sed -n 's/^\t\(k8s.io\/[a-z-]*\) => .\/staging\/.*/\1/p' "$file" | while read -r module; do
		go mod edit -replace "$module=$module@v0.${release#*.}"
	done
	echo 'package build' >build.go
	for program in $programs; do
		echo "import _ \"k8s.io/kubernetes/cmd/$program\"" >>build.go
	done
	GOFLAGS=-mod=mod go mod tidy
	minor=${release#*.}
	at=k8s.io/component-base/version
	for program in $programs; do
		CGO_ENABLED=0 go build -trimpath -o "$bin/$program.new" -ldflags "-s -w -X $at.gitVersion=v$release \
			-X $at.gitMajor=${release%%.*} -X $at.gitMinor=${minor%%.*}" "k8s.io/kubernetes/cmd/$program"
		mv "$bin/$program.new" "$bin/$program"
	done
}

missing=
for program in $programs; do
	[ -x "$bin/$program" ] || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
need_go
scratch_dir
step "building Kubernetes $release into $bin: ten minutes and more, once"
patiently "building Kubernetes $release" kubernetes build
