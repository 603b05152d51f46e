#!/bin/sh
# Runs Docker Compose with the base images that scripts/base-images.sh chose:
#
#     scripts/compose.sh up -d
#
# It takes `docker compose`, or a `docker-compose` of version 2 or later; where
# there is neither it builds one, once, in .tools/ (needs Go).
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

compose_version=v2.40.3

# is_compose COMMAND... says whether that is Compose 2 or later; 1 was another
# program, and knows half of compose.yaml.
is_compose() {
	major=$("$@" version --short 2>/dev/null | sed 's/^v//; s/\..*//')
	[ "${major:-0}" -ge 2 ] 2>/dev/null
}

build_compose() {
	need_go
	step "no Docker Compose 2 here: building $compose_version in .tools/ (about three minutes, once)"
	scratch_dir
	package=github.com/docker/compose/v2
	patiently "compiling Docker Compose" compose go_build "$package/cmd" "$compose_version" "$work/docker-compose" \
		-ldflags "-s -w -X $package/internal.Version=$compose_version"
	mv "$work/docker-compose" "$tools/docker-compose"
	rm -rf "$work"
}

need_docker
# Engine 20.10 does not say that it has BuildKit, and Compose would not ask it.
export DOCKER_BUILDKIT=1

# From any folder.
case " $* " in
*" -f "* | *" --file "* | *" --project-directory "*) ;;
*) cd "$root" ;;
esac
for file in "$root/.env" "$tools/images.env"; do
	[ ! -f "$file" ] || set -- --env-file "$file" "$@"
done

if is_compose docker compose; then
	exec docker compose "$@"
elif is_compose docker-compose; then
	exec docker-compose "$@"
fi
if ! is_compose "$tools/docker-compose"; then
	case " $* " in
	*" down "*) exit 0 ;; # without Compose nothing was started either
	esac
	build_compose
fi
exec "$tools/docker-compose" "$@"
