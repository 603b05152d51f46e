#!/bin/sh
# Makes this machine's engine a Swarm of one node, deploys deploy/swarm.yaml, tries an update and
# a broken image under load (e2e/cluster), removes the stack and leaves the Swarm. Names are looked
# up for each connection (dnsrr), unless ENDPOINT_MODE=vip, which needs IPVS in the kernel.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

image=${IMAGE:-imagelab:scratch}
stack=imagelab-swarm
export ENDPOINT_MODE="${ENDPOINT_MODE:-dnsrr}"

down() {
	docker stack rm "$stack" >/dev/null 2>&1 || true
	for _ in $(seq 60); do
		[ -n "$(docker ps -aq --filter "label=com.docker.stack.namespace=$stack")" ] || break
		sleep 1
	done
	docker swarm leave --force >/dev/null 2>&1 || true
	[ -n "$gateway" ] || docker network rm docker_gwbridge >/dev/null 2>&1 || true
	for tag in 1 2 broken; do docker image rm --force "$stack/app:$tag" >/dev/null 2>&1 || true; done
	rm -rf "$work"
}

need_docker
need_go
docker image inspect "$image" >/dev/null 2>&1 || die "no image $image: make images builds it"
[ "$(docker info --format '{{.Swarm.LocalNodeState}}')" = inactive ] || die "this engine is part of a Swarm already, which this would leave at the end"
scratch_dir
trap down EXIT
step "a Swarm of one node"
gateway=$(docker network ls --quiet --filter name=docker_gwbridge) # Swarm makes it, and leaves it behind
docker swarm init --advertise-addr 127.0.0.1 >/dev/null
for tag in 1 2 broken; do
	variable=IMAGELAB_VARIANT
	[ "$tag" != broken ] || variable=PORT # no port: it ends at once
	printf 'FROM %s\nENV %s=release-%s\n' "$image" "$variable" "$tag" |
		DOCKER_BUILDKIT=0 docker build --quiet --tag "$stack/app:$tag" - >/dev/null 2>&1
done
export IMAGE="$stack/app:1"
docker stack deploy --resolve-image never -c "$root/deploy/swarm.yaml" "$stack" >/dev/null
step "an update and a broken image, under load"
(cd "$root/e2e" && CGO_ENABLED=0 go build -trimpath -o "$work/cluster" ./cluster)
chmod 755 "$work" # the clients run as another user
"$work/cluster" swarm
