#!/bin/sh
# Makes default.pgo, by which the compiler knows what is worth its while: profiles
# of ./imagelab under the loads below, merged. They are the process's own, as
# IMAGELAB_PPROF serves them. Everything stays on the loopback interface.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

need_go
need curl "apt-get install curl"
need wrk "apt-get install wrk"
scratch_dir

mkdir "$work/data"
SECRET=pgo PORT=0 IMAGELAB_BIND_ADDRESS=127.0.0.1 IMAGELAB_OPS_ADDR=127.0.0.1:0 \
	IMAGELAB_PPROF=true IMAGELAB_LOG_FORMAT=text IMAGELAB_DATA_DIR=$work/data \
	"$root/imagelab" 2>"$work/log" &
server=$!
trap 'kill "$server" 2>/dev/null || :; rm -rf "$work"' EXIT

# addr SERVER prints the address that the log says.
addr() { sed -n "s/.*msg=listening.* server=$1 addr=\([^ ]*\).*/\1/p" "$work/log"; }
for _ in 1 2 3 4 5 6 7 8 9 10; do
	[ -z "$(addr ops)" ] || break
	sleep 0.1
done
app=http://$(addr app) ops=http://$(addr ops)
curl -fsS "$ops/readyz" >/dev/null || die "./imagelab does not serve: $(cat "$work/log")"

# profile NAME SECONDS COMMAND... profiles the server for so long, which is the
# weight of what it does then, while the command runs, which may take longer. What
# is hot enough gets larger, so what is rare, as a scrape, has to weigh little.
profile() {
	name=$1 seconds=$2
	shift 2
	step "$name"
	curl -fsS -o "$work/$name.pprof" "$ops/debug/pprof/profile?seconds=$seconds" &
	profiling=$!
	"$@" >/dev/null
	wait "$profiling"
}
load() { wrk --threads 1 --duration "$((seconds + 1))s" "$@"; }
probes() {
	end=$(($(date +%s) + seconds + 1))
	while [ "$(date +%s)" -lt "$end" ]; do
		"$root/imagelab" --healthcheck "$app/health"
	done
}

cat >"$work/upload.lua" <<'LUA'
wrk.method = "POST"
wrk.body = string.rep("x", 16384)
LUA
profile hello 8 load --connections 32 "$app/"
profile health 8 load --connections 32 "$app/health"
profile proof 3 load --connections 8 "$app/proof"
profile new-connections 6 load --connections 16 --header "Connection: close" "$app/health"
profile upload 2 load --connections 8 --script "$work/upload.lua" "$app/store"
blob=$(curl -fsS --data-binary hello -o /dev/null -w '%header{location}' "$app/store")
profile download 2 load --connections 8 "$app$blob"
profile metrics 1 load --connections 2 "$ops/metrics"
profile probes 3 probes

go tool pprof -proto -output "$work/default.pgo" "$work"/*.pprof
mv "$work/default.pgo" "$root/default.pgo"
say "default.pgo: $(wc -c <"$root/default.pgo") bytes; commit it, and see what the binary weighs now"
