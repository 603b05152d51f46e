#!/bin/sh
# Starts a Kubernetes of two nodes on this machine, deploys deploy/kubernetes/plain into it, tries
# updates, a broken image, scaling, a drained node and the audit under load (e2e/cluster), and
# removes it all. Both nodes share the machine's network, so that one kube-proxy serves both. For Linux, as root. It takes what Debian has as etcd-server, containerd, runc,
# containernetworking-plugins, iptables and conntrack, and from KUBERNETES_BIN (.tools/kubernetes/bin)
# the programs that scripts/kubernetes.sh builds. Where a release can be downloaded, name its folder.
#
#     scripts/k8s.sh        # start, try, remove
#     scripts/k8s.sh up     # start, and say how to reach it
#     scripts/k8s.sh down   # remove
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

bin=${KUBERNETES_BIN:-$tools/kubernetes/bin}
state=${KUBERNETES_STATE:-$tools/kubernetes/node}
plugins=${CNI_BIN:-/usr/lib/cni}
image=${IMAGE:-imagelab:scratch}
nodes="0 1" # node-0 and node-1
bridge=imagelab-k8s # and the number of the node, as for each of its names
pods=10.244.0.0/16 services=10.96.0.0/16
export KUBECONFIG="$state/kubeconfig" KUBECTL="$bin/kubectl"

kubectl() { "$KUBECTL" "$@"; }
# ctr NODE ARGUMENT... talks to the node's containerd.
ctr() {
	socket=$state/node-$1/socket
	shift
	command ctr --address "$socket" --namespace k8s.io "$@"
}

# start NAME COMMAND... runs it in the background, until the end of this node.
start() {
	name=$1
	shift
	setsid "$@" >"$state/log/$name" 2>&1 </dev/null &
	echo $! >"$state/pid/$name"
}

# stop NAME ends what start has started, and waits for that.
stop() {
	pid=$(cat "$state/pid/$1" 2>/dev/null) || return 0
	kill "$pid" 2>/dev/null || true
	for _ in $(seq 100); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -9 "$pid" 2>/dev/null || true
	rm -f "$state/pid/$1"
}

# await WHAT SECONDS COMMAND... repeats a command until it succeeds.
await() {
	awaited=$1 left=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || die "no $awaited in time; the logs are in $state/log"
		sleep 1
	done
}

node_is_ready() { kubectl get node "node-$1" | grep -q ' Ready'; }

# cgroups prints where the machine's hierarchies are, of version 1 or 2.
cgroups() {
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d; fi
}

# node NUMBER starts a containerd and a kubelet, with folders, ports, a bridge and cgroups of their own.
node() {
	at=$state/node-$1
	mkdir -p "$at/cni" "$at/logs"
	cgroups | while read -r hierarchy; do mkdir -p "$hierarchy/imagelab-k8s-$1"; done
	cat >"$at/cni/10-bridge.conflist" <<-END
		{"cniVersion": "0.4.0", "name": "imagelab-k8s-$1", "plugins": [
		  {"type": "bridge", "bridge": "$bridge$1", "isGateway": true, "ipMasq": true, "hairpinMode": true,
		   "ipam": {"type": "host-local", "dataDir": "$at/addresses", "ranges": [[{"subnet": "${pods%.0.0/16}.$1.0/24"}]],
		            "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	END
	# restrict_oom_score_adj: root in a virtual machine may lack CAP_SYS_RESOURCE.
	cat >"$at/containerd.toml" <<-END
		version = 2
		root = "$at/root"
		state = "$at/state"
		[grpc]
		  address = "$at/socket"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$at/opt"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "docker.io/imagelab-k8s/pause:1"
		  restrict_oom_score_adj = true
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "$plugins"
		    conf_dir = "$at/cni"
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
	END
	cat >"$at/kubelet.yaml" <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		cgroupDriver: cgroupfs
		cgroupRoot: /imagelab-k8s-$1
		failSwapOn: false
		failCgroupV1: false
		authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
		authorization: { mode: AlwaysAllow }
		address: $address
		port: $((10250 + 10 * $1))
		healthzPort: $((10248 + 10 * $1))
		containerRuntimeEndpoint: unix://$at/socket
		podLogsDir: $at/logs
		resolvConf: /etc/resolv.conf
		evictionHard: {}
	END
	start "containerd-$1" containerd --config "$at/containerd.toml"
	await containerd 60 ctr "$1" version
	start "kubelet-$1" "$bin/kubelet" --kubeconfig="$KUBECONFIG" --config="$at/kubelet.yaml" \
		--root-dir="$at/kubelet" --hostname-override="node-$1" --node-ip="$address"
}

up() {
	mkdir -p "$state/log" "$state/pid"
	openssl genrsa -out "$state/key" 2048 2>/dev/null
	openssl rsa -in "$state/key" -pubout -out "$state/key.pub" 2>/dev/null
	token=$(openssl rand -hex 16)
	echo "$token,admin,admin,\"system:masters\"" >"$state/tokens"
	chmod 600 "$state/tokens" "$state/key"
	cat >"$KUBECONFIG" <<-END
		apiVersion: v1
		kind: Config
		clusters: [{ name: one, cluster: { server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true } }]
		users: [{ name: admin, user: { token: $token } }]
		contexts: [{ name: one, context: { cluster: one, user: admin } }]
		current-context: one
	END
	chmod 600 "$KUBECONFIG"
	address=$(ip -4 -oneline address show scope global | awk '{ sub("/.*", "", $4); print $4; exit }')
	[ -n "$address" ] || die "this machine has no address but 127.0.0.1, and the API server has to reach the kubelet"
	start etcd etcd --data-dir "$state/etcd" --listen-client-urls http://127.0.0.1:2379 \
		--advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
	start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --cert-dir="$state/certificates" \
		--token-auth-file="$state/tokens" --authorization-mode=AlwaysAllow --allow-privileged \
		--service-account-key-file="$state/key.pub" --service-account-signing-key-file="$state/key" \
		--service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range="$services" \
		--bind-address=127.0.0.1 --advertise-address=127.0.0.1 --endpoint-reconciler-type=none \
		--kubelet-preferred-address-types=InternalIP
	await "API server" 120 kubectl get --raw /readyz
	start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$KUBECONFIG" --leader-elect=false \
		--service-account-private-key-file="$state/key"
	start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false
	for n in $nodes; do node "$n"; done
	start kube-proxy "$bin/kube-proxy" --kubeconfig="$KUBECONFIG" --hostname-override=node-0 --proxy-mode=iptables \
		--cluster-cidr="$pods"
	for n in $nodes; do await "ready node" 120 node_is_ready "$n"; done
}

# images makes two releases of the app and a broken one, a program behind the front, and what pauses
# to hold a pod's namespaces, and hands them to the nodes.
images() {
	docker image inspect "$image" >/dev/null 2>&1 || die "no image $image: make images builds it"
	for tag in 1 2 broken; do
		variable=IMAGELAB_VARIANT
		[ "$tag" != broken ] || variable=PORT # no port: it ends at once
		printf 'FROM %s\nENV %s=release-%s\n' "$image" "$variable" "$tag" |
			DOCKER_BUILDKIT=0 docker build --quiet --tag "imagelab-k8s/app:$tag" - >/dev/null 2>&1
	done
	# shellcheck disable=SC2016 # for the shell in the image
	printf 'FROM imagelab:alpine\nENTRYPOINT ["sh", "-c", "trap exit TERM; while :; do sleep 3600 & wait; done"]\nHEALTHCHECK NONE\n' |
		DOCKER_BUILDKIT=0 docker build --quiet --tag imagelab-k8s/pause:1 - >/dev/null 2>&1
	mkdir "$state/program"
	(cd "$root/e2e" && CGO_ENABLED=0 go build -trimpath -o "$state/program/cluster" ./cluster)
	printf 'FROM %s\nCOPY cluster /program\nENTRYPOINT ["/imagelab", "--", "/program", "serve"]\n' "$image" >"$state/program/Dockerfile"
	DOCKER_BUILDKIT=0 docker build --quiet --tag example/app:v1 "$state/program" >/dev/null 2>&1
	set -- imagelab-k8s/app:1 imagelab-k8s/app:2 imagelab-k8s/app:broken imagelab-k8s/pause:1 example/app:v1
	for n in $nodes; do docker save "$@" | ctr "$n" images import - >/dev/null; done
	docker image rm "$@" >/dev/null
}

# without_kubernetes COMMAND writes the rules of COMMAND, iptables or ip6tables, without those of Kubernetes and its pods.
without_kubernetes() {
	"$1-save" 2>/dev/null | grep -v -e KUBE- -e CNI- -e "$bridge" | "$1-restore"
}

down() {
	[ -d "$state" ] || return 0
	for n in $nodes; do stop "kubelet-$n"; done
	stop kube-proxy
	for n in $nodes; do
		[ -e "$state/pid/containerd-$n" ] || continue
		for task in $(ctr "$n" tasks list --quiet 2>/dev/null); do
			ctr "$n" tasks kill --signal SIGKILL "$task" >/dev/null 2>&1 || true
		done
		for _ in $(seq 50); do
			ctr "$n" tasks list 2>/dev/null | grep -q RUNNING || break
			sleep 0.2
		done
		for task in $(ctr "$n" tasks list --quiet 2>/dev/null); do ctr "$n" tasks delete "$task" >/dev/null 2>&1 || true; done
		for container in $(ctr "$n" containers list --quiet 2>/dev/null); do
			ctr "$n" containers delete "$container" >/dev/null 2>&1 || true
			rm -f "/var/lib/cni/results/"*"-$container-"* # CNI's cache
		done
		stop "containerd-$n"
	done
	for name in kube-scheduler kube-controller-manager kube-apiserver etcd; do stop "$name"; done
	awk -v below="$state/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r |
		while read -r mount; do umount "$mount" 2>/dev/null || true; done
	for namespace in $(ip netns list 2>/dev/null | awk '/^cni-/ { print $1 }'); do ip netns delete "$namespace" || true; done
	for n in $nodes; do ip link delete "$bridge$n" 2>/dev/null || true; done
	for command in iptables ip6tables; do without_kubernetes "$command"; done
	cgroups | while read -r hierarchy; do
		for n in $nodes; do find "$hierarchy/imagelab-k8s-$n" -depth -type d -exec rmdir {} \; 2>/dev/null || true; done
	done
	find /var/log/containers -lname "$state/*" -delete 2>/dev/null || true # the kubelets' links
	rm -rf "$state"
}

case ${1:-} in
down)
	down
	exit
	;;
up | '') ;;
*) die "$1: not known; nothing, up or down" ;;
esac

[ "$(uname -s):$(id -u)" = Linux:0 ] || die "this has to be run by root, on Linux"
need_docker
need_go
need etcd "apt-get install etcd-server"
need containerd "apt-get install containerd"
need conntrack "apt-get install conntrack"
need iptables "apt-get install iptables"
[ -x "$plugins/bridge" ] || die "no CNI plug-ins in $plugins: apt-get install containernetworking-plugins, or name their folder with CNI_BIN"
[ ! -e "$state" ] || die "$state is there already: scripts/k8s.sh down removes it"
"$root/scripts/kubernetes.sh"

[ "${1:-}" = up ] || trap down EXIT
trap 'exit 130' INT TERM
step "a Kubernetes of two nodes, in $state"
up
step "images"
images
if [ "${1:-}" = up ]; then
	say "KUBECONFIG=$KUBECONFIG $KUBECTL get nodes"
	exit
fi
kubectl kustomize "$root/deploy/kubernetes/plain" | sed "s|image: imagelab:scratch|image: docker.io/imagelab-k8s/app:1|" | kubectl apply -f - >/dev/null
step "updates, scaling and a drained node, under load"
cd "$root/e2e"
"$state/program/cluster" kubernetes
