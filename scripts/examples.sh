#!/bin/sh
# Builds each of examples/ that has a Dockerfile, and tries it: stops, reloads and
# crashes under load, before and after, and redis's writes.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

need_go
need_docker
"$root/scripts/base-images.sh" debian
cd "$root/e2e"
go test -count=1 -timeout 30m -run 'Examples|Redis' -v . "$@"
