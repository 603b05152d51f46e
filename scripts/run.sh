#!/bin/sh
# Serves with ./imagelab on this machine, with the demo secret and an empty data
# folder. Everything can be set in the environment.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

data=$tools/data
rm -rf "$data"
mkdir -p "$data"
[ -n "${SECRET:-}" ] || export SECRET_FILE="${SECRET_FILE:-$root/deploy/secrets/demo.txt}"
export IMAGELAB_OPS_ADDR="${IMAGELAB_OPS_ADDR-127.0.0.1:9000}"
export IMAGELAB_LOG_FORMAT="${IMAGELAB_LOG_FORMAT:-text}"
export IMAGELAB_DATA_DIR="${IMAGELAB_DATA_DIR:-$data}"
say "http://localhost:${PORT:-8000}/${IMAGELAB_OPS_ADDR:+, metrics http://$IMAGELAB_OPS_ADDR/metrics}; stop with Ctrl-C"
# It takes the shell's place, so that it gets the signals.
exec "$root/imagelab"
