#!/bin/sh
# Looks into the stack that make up has started:
#
#     scripts/look.sh audit [SERVICE] [FLAG...]    the audit of scratch, or alpine
#     scripts/look.sh compare [FLAG...]            both side by side
#
# The flags are those of imagelab --audit and --compare. It needs no Compose.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

# running SERVICE prints the service's container, and dies where there is none.
running() {
	id=$(docker ps -q --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-imagelab}" \
		--filter "label=com.docker.compose.service=$1" --filter label=com.docker.compose.oneoff=False | head -n 1)
	[ -n "$id" ] || die "the service $1 does not run: make up starts it"
	echo "$id"
}

# inside CONTAINER ARG... runs imagelab beside the one that serves, in colour where that
# can be shown.
inside() {
	container=$1
	shift
	if [ -t 0 ] && [ -t 1 ]; then set -- -it "$container" /imagelab "$@"; else set -- "$container" /imagelab "$@"; fi
	exec docker exec "$@"
}

what=${1:-}
[ $# = 0 ] || shift
case $what in
audit)
	service=scratch
	case ${1:-} in
	'' | -*) ;;
	scratch | alpine) service=$1 && shift ;;
	*) die "no service $1: want scratch or alpine" ;;
	esac
	need_docker
	container=$(running "$service")
	inside "$container" --audit "$@"
	;;
compare)
	need_docker
	container=$(running scratch)
	running alpine >/dev/null
	# It has the token of both, if there is one, in its environment.
	inside "$container" --compare "$@" scratch=http://scratch:9000 alpine=http://alpine:9000
	;;
*) die "want audit or compare: scripts/look.sh audit [scratch|alpine] [FLAG...]" ;;
esac
