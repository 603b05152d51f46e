#!/bin/sh
# Builds what is missing, starts all services, waits until each is healthy and
# prints where they are. If one does not get healthy, says why and exits 1.
#
# Ports: SCRATCH_PORT, SCRATCH_OPS_PORT, ALPINE_PORT, ALPINE_OPS_PORT and
# PROMETHEUS_PORT, see compose.yaml.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

compose() { "$root/scripts/compose.sh" "$@"; }

began=$(date +%s) number=0
# next WHAT begins a step of six, with the time since the first.
next() {
	number=$((number + 1))
	say "$number/6 $* ($(elapsed "$began"))"
}

# listening says whether something listens on the TCP port, where Linux tells.
listening() {
	[ -r /proc/net/tcp ] || return 1
	cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
		awk -v port="$(printf ':%04X' "$1")" '$4 == "0A" && $2 ~ port "$" { found = 1 } END { exit !found }'
}

# check_ports finds a taken port before minutes of building and not after.
check_ports() {
	ours=$(compose ps -q)
	for port in $(compose config | sed -n 's/.*published: "\([0-9]*\)"/\1/p'); do
		listening "$port" || continue
		holder=$(docker ps -q --no-trunc --filter "publish=$port")
		case $ours in
		*"${holder:-none}"*) continue ;; # started before
		esac
		[ -z "$holder" ] || holder=" by the container $(docker inspect -f '{{.Name}}' "$holder" | tr -d /)"
		die "port $port is in use${holder:-; ss -ltnp shows by what}
Stop what uses it, or take another: $(variable_of "$port")=$((port > 50000 ? port - 10000 : port + 10000)) make up"
	done
}

# variable_of prints the variable of compose.yaml that sets the port.
variable_of() {
	sed -n 's/.*\${\([A-Z_]*_PORT\):-\([0-9]*\)}.*/\1 \2/p' "$root/compose.yaml" |
		while read -r name default; do
			eval "[ \"\${$name:-$default}\" != $1 ] || echo $name"
		done
}

# explain shows the state, the last probe and the log of each unhealthy service.
explain() {
	say
	compose ps -a >&2
	for container in $(compose ps -aq); do
		state=$(docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$container")
		[ "$state" != healthy ] || continue
		say
		step "$(docker inspect -f '{{.Name}}' "$container" | tr -d /) is $state; its last probe and the end of its log:"
		docker inspect -f '{{with .State.Health}}{{range .Log}}{{println .ExitCode .Output}}{{end}}{{end}}' "$container" | sed '/^ *$/d' | tail -n 1 >&2
		docker logs --tail 10 "$container" >&2
	done
	say
	die "not every service got healthy, see above; make down removes them"
}

# taken says which port somebody took since check_ports has looked, if that was it.
taken() {
	grep -q -e 'port is already allocated' -e 'address already in use' "$log" || return 0
	die "a port is in use: $(one_line "$(grep -m 1 -e 'port is already allocated' -e 'address already in use' "$log")")"
}

next "looking for Docker"
need_docker
cd "$root"
next "looking for Docker Compose"
compose version >/dev/null
next "looking whether the ports are free"
check_ports
next "base images"
scripts/base-images.sh
next "building imagelab:scratch and imagelab:alpine"
patiently "building both images" images compose build scratch alpine
next "starting, and waiting until all are healthy"
attempt "starting" up compose up -d --no-build --remove-orphans --wait --wait-timeout 120
if [ "$status" != 0 ]; then
	taken
	explain
fi
say "done ($(elapsed "$began"))"

address() { compose port "$1" "$2" | sed 's/.*:/http:\/\/localhost:/'; }
prometheus=$(address prometheus 9090)
echo
echo "dashboard   $(address scratch 9000)/"
echo "scratch     $(address scratch 8000)/  metrics $(address scratch 9000)/metrics"
echo "alpine      $(address alpine 8000)/  metrics $(address alpine 9000)/metrics"
if grep -q '^PROMETHEUS_IMAGE=imagelab-base/' "$tools/images.env"; then
	echo "prometheus  $prometheus/api/v1/targets  JSON: this build of it has no web interface"
else
	echo "prometheus  $prometheus/"
fi
echo
echo "make logs follows them, make audit and make compare look into them, make down removes them."
