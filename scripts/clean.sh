#!/bin/sh
# Removes all that make has made: the stack, the images, the tools, the binary.
# BuildKit's cache stays, as it belongs to the engine: docker builder prune.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

if reason=$( (need_docker) 2>&1); then
	"$root/scripts/compose.sh" down --volumes --remove-orphans
	docker image ls --format '{{.Repository}}:{{.Tag}}' --filter reference=imagelab --filter reference='imagelab-base/*' |
		xargs -r docker image rm
	# Earlier builds, which have lost their names to later ones.
	for label in org.opencontainers.image.title=imagelab imagelab.base.inputs; do
		docker image prune -f --filter "label=$label"
	done
else
	say "images are not looked for: ${reason#error: }"
fi
"$root/scripts/k8s.sh" down
rm -rf "$tools" "$root/imagelab" "$root/dist"
