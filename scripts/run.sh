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
export IMAGELAB_DATA_DIR="${IMAGELAB_DATA_DIR:-$data}"

app=http://localhost:${PORT:-8000}
case $IMAGELAB_OPS_ADDR in
'') ops=$app/- ;;
:* | 0.0.0.0:* | '[::]:'*) ops=http://localhost:${IMAGELAB_OPS_ADDR##*:} ;;
*) ops=http://$IMAGELAB_OPS_ADDR ;;
esac
say "app         $app/"
say "dashboard   $ops/"
say "metrics     $ops/metrics"
say "Ctrl-C stops it, without losing a request."
# It takes the shell's place, so that it gets the signals.
exec "$root/imagelab"
