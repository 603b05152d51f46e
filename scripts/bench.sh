#!/bin/sh
# Measures imagelab beside its rivals, see bench/, and writes docs/results.md.
# Takes bench's flags; WITH="name=image:tag@port/path" adds a server.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

podinfo=v1.8.1-0.20250910200901-e86405a8674e
httpbin=v2.26.0
caddy=v2.11.0

need_go
need_docker
for pair in wrk:wrk curl:curl busybox:busybox-static taskset:util-linux tini:tini dumb-init:dumb-init haproxy:haproxy nginx:nginx-light python3:python3-flask gunicorn:gunicorn; do
	need "${pair%%:*}" "apt-get install ${pair#*:}"
done
/usr/bin/python3 -c 'import flask' 2>/dev/null || die "Flask is missing: apt-get install python3-flask"
case ${WITH:-} in
'' | ?*=?*@?*) ;;
*) die "WITH=$WITH: want name=image:tag@port/path, or name=/program@port/path" ;;
esac
make -s -C "$root" images
debian=
if "$root/scripts/base-images.sh" debian; then
	debian=$(sed -n 's/^DEBIAN_IMAGE=//p' "$tools/images.env")
else
	say "no Debian, so the audit of its files is left out"
fi

scratch_dir
rivals=$tools/bench
mkdir -p "$rivals"
[ -x "$rivals/podinfo-$podinfo" ] || go_build github.com/stefanprodan/podinfo/cmd/podinfo "$podinfo" "$rivals/podinfo-$podinfo"
rm -rf "$work/module"
[ -x "$rivals/go-httpbin-$httpbin" ] || go_build github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin "$httpbin" "$rivals/go-httpbin-$httpbin"
rm -rf "$work/module"
[ -x "$rivals/caddy-$caddy" ] || go_build github.com/caddyserver/caddy/v2/cmd/caddy "$caddy" "$rivals/caddy-$caddy"
ln -sf "caddy-$caddy" "$rivals/caddy"
ln -sf "podinfo-$podinfo" "$rivals/podinfo"
ln -sf "go-httpbin-$httpbin" "$rivals/go-httpbin"

cd "$root/bench"
CGO_ENABLED=0 go build -o "$work/bench" .
PATH=$rivals:$PATH "$work/bench" -debian "$debian" -with "${WITH:-}" "$@"
"$root/scripts/results.sh"
