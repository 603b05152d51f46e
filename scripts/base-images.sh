#!/bin/sh
# Sees to it that there are base images to build on, and writes their names to
# .tools/images.env for scripts/compose.sh; with the argument debian, that of the
# examples too. For each one the first of these:
#
#   1. what GO_IMAGE, ALPINE_IMAGE, PROMETHEUS_IMAGE or DEBIAN_IMAGE names, if set
#   2. the official image, if it is here
#   3. the local one, if it was made from what is here now (make clean forgets it)
#   4. the official image, if it can be pulled
#   5. a local one, made now: imagelab-base/…, never under the official name
#
# Local ones need Linux, Go (for go and prometheus), a static busybox, and for
# Alpine the root filesystem archive that ALPINE_ROOTFS names, without which
# busybox stands in for it. Debian's needs debootstrap and root.
# shellcheck source=lib.sh
. "$(dirname -- "$0")/lib.sh"

# The default names stand in the files that use them, and only there.
default_arg() { sed -n "s/^ARG $1=//p" "$root/Dockerfile.alpine"; }
go_official=$(default_arg GO_IMAGE)
alpine_official=$(default_arg ALPINE_IMAGE)
# shellcheck disable=SC2016 # the text of compose.yaml, not a variable
prometheus_official=$(sed -n 's/.*\${PROMETHEUS_IMAGE:-\(.*\)}.*/\1/p' "$root/compose.yaml")

# inputs_label holds a digest of what a local image was made from.
inputs_label=imagelab.base.inputs

is_here() { docker image inspect "$1" >/dev/null 2>&1; }

# pull IMAGE says in one line why it failed. It gives up in time, where it can, if the
# network swallows what it asks; and for good when there is no registry.
pull() {
	[ -z "${no_registry:-}" ] || return 1
	# shellcheck disable=SC2046 # no timeout, no words
	attempt "pulling $1" pull $(! have timeout || echo timeout "${PULL_TIMEOUT:-300}") docker pull "$1"
	[ "$status" != 0 ] || return 0
	reason=$(one_line "$(grep -v '^$' "$log" | tail -n 1)")
	[ "$status" != 124 ] || reason="no answer within ${PULL_TIMEOUT:-300} seconds"
	case $reason in
	*"no answer"* | *"dial tcp"* | *lookup* | *"no such host"* | *timeout* | *"deadline exceeded"* | *refused* | *unreachable* | *proxyconnect* | *EOF* | *reset* | *canceled*)
		no_registry=yes
		say "no registry answers, so what is missing is made here: $reason"
		;;
	*) say "$1 cannot be pulled: $reason" ;;
	esac
	return 1
}

# choose VARIABLE OFFICIAL LOCAL writes the name of the base image for VARIABLE.
# local_LOCAL makes the local one, inputs_LOCAL prints what that depends on.
choose() {
	variable=$1 official=$2 local=$3
	eval "named=\${$variable:-}"
	if [ -n "$named" ]; then
		is_here "$named" || pull "$named" || die "$variable=$named is not here and cannot be pulled"
		chosen=$named
	elif is_here "$official"; then
		chosen=$official
	else
		inputs=$("inputs_$local" | cksum)
		image=$("name_$local")
		if [ "$(docker image inspect -f "{{index .Config.Labels \"$inputs_label\"}}" "$image" 2>/dev/null)" = "$inputs" ]; then
			chosen=$image
		elif pull "$official"; then
			chosen=$official
		else
			[ "$(uname -s)" = Linux ] || die "$official cannot be pulled, and a local one can only be made on Linux"
			say "making $image in place of $official$("note_$local")"
			patiently "making $image" "base-$local" "local_$local"
			chosen=$image
		fi
	fi
	say "$variable=$chosen"
	printf '%s=%s\n' "$variable" "$chosen" >>"$work/images.env"
}

# import DIR [CHANGE...] makes $image from a folder, owned by root.
import() {
	tree=$1
	shift
	tar -C "$tree" --owner=0 --group=0 --numeric-owner -cf - . | import_archive - "$@"
}

# import_archive FILE|- [CHANGE...] makes $image from a tar archive.
import_archive() {
	archive=$1
	shift
	old=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null) || old=
	docker import -c "LABEL $inputs_label=\"$inputs\"" "$@" "$archive" "$image" >/dev/null
	# What was built on the old one keeps it; otherwise it is waste.
	[ -z "$old" ] || docker image rm "$old" >/dev/null 2>&1 || true
}

# busybox_into DIR installs a static busybox and a link for each of its applets.
busybox_into() {
	find_busybox
	mkdir -p "$1/bin"
	cp "$busybox" "$1/bin/busybox"
	chmod 755 "$1/bin/busybox"
	for applet in $("$busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
	done
}

# find_busybox sets $busybox, from BUSYBOX, from this machine, or from Debian's
# package, which is unpacked in $tools and not installed.
find_busybox() {
	for busybox in "${BUSYBOX:-$(command -v busybox || true)}" "$tools/busybox"; do
		if is_static "$busybox"; then return; fi
		[ -z "${BUSYBOX:-}" ] || die "BUSYBOX=$BUSYBOX is not a static program"
	done
	if have apt-get && have dpkg-deb; then
		say "no static busybox here, fetching Debian's package"
		mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
		(
			cd "$work/apt"
			set -- -qq -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=
			apt-get "$@" update && apt-get "$@" download busybox-static && dpkg-deb -x busybox-static_*.deb .
		) >&2 && find "$work/apt" -path '*/bin/busybox' -type f -exec cp {} "$tools/busybox" \;
		if is_static "$busybox"; then return; fi
	fi
	die "a static busybox is missing: apt-get install busybox-static (Debian, Ubuntu), apk add busybox-static (Alpine), or name one with BUSYBOX=PATH"
}

is_static() { [ -x "$1" ] && ! ldd "$1" >/dev/null 2>&1; }

ca_bundle() {
	for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
		[ ! -s "$file" ] || { echo "$file" && return; }
	done
	die "no CA certificates here: apt-get install ca-certificates"
}

ca_bundle_into() {
	mkdir -p "$1/etc/ssl/certs"
	cp "$(ca_bundle)" "$1/etc/ssl/certs/ca-certificates.crt"
}

root_user_into() {
	mkdir -p "$1/etc" "$1/tmp" "$1/root"
	chmod 1777 "$1/tmp"
	echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
	echo 'root:x:0:' >"$1/etc/group"
}

# The Go base: this machine's toolchain, less what a build does not read; the
# modules that go.mod needs, as a proxy of files; a shell; CA certificates.

name_go() { echo imagelab-base/go; }

note_go() { echo ", from this machine's Go"; }

inputs_go() {
	(cd "$root" && go env GOVERSION GOARCH) 2>/dev/null
	cat "$root/go.mod" "$root/go.sum" "$0"
}

local_go() {
	need_go
	tree=$work/go
	busybox_into "$tree"
	root_user_into "$tree"
	ca_bundle_into "$tree"

	mkdir -p "$tree/usr/local/go"
	# By name, as an installation may hold anything; -h, as distributions make
	# some of these links.
	(
		cd "$(cd "$root" && go env GOROOT)"
		tar -chf - --exclude='*_test.go' --exclude=testdata --exclude=src/cmd \
			VERSION go.env bin/go pkg src
	) | tar -C "$tree/usr/local/go" -xf -

	# Into an empty module cache, so that only what go.mod needs gets into the
	# image, but taken from this machine's own where that has it.
	(
		cd "$root"
		here=$(go env GOMODCACHE)/cache/download
		upstream=$(go env GOPROXY)
		GOFLAGS=-modcacherw GOMODCACHE=$work/modcache GOPROXY=file://$here,$upstream go mod download
	) || die "the modules of go.mod cannot be downloaded: is there a network, and is go env GOPROXY right?"
	mkdir -p "$tree/usr/local/goproxy"
	cp -R "$work/modcache/cache/download/." "$tree/usr/local/goproxy"

	import "$tree" \
		-c 'ENV PATH=/usr/local/go/bin:/usr/bin:/bin GOPATH=/go GOTOOLCHAIN=local' \
		-c 'ENV GOPROXY=file:///usr/local/goproxy GOSUMDB=off'
}

# The Alpine base: the archive that ALPINE_ROOTFS names, or busybox.

name_alpine() {
	if [ -n "${ALPINE_ROOTFS:-}" ]; then
		release=$(tar -xOf "$ALPINE_ROOTFS" ./etc/alpine-release) ||
			die "ALPINE_ROOTFS=$ALPINE_ROOTFS is not an Alpine root filesystem archive: get alpine-minirootfs-….tar.gz from https://alpinelinux.org/downloads"
		echo "imagelab-base/alpine:$release"
	else
		echo imagelab-base/busybox-instead-of-alpine
	fi
}

note_alpine() {
	if [ -n "${ALPINE_ROOTFS:-}" ]; then
		echo ", from $ALPINE_ROOTFS"
	else
		echo ": busybox alone, with Alpine's shell and tools, without its libraries and packages (ALPINE_ROOTFS names no archive)"
	fi
}

inputs_alpine() { cat ${ALPINE_ROOTFS:+"$ALPINE_ROOTFS"} "$0"; }

local_alpine() {
	if [ -n "${ALPINE_ROOTFS:-}" ]; then
		import_archive "$ALPINE_ROOTFS" -c 'CMD ["/bin/sh"]'
		return
	fi
	tree=$work/alpine
	busybox_into "$tree"
	root_user_into "$tree"
	ca_bundle_into "$tree"
	adduser_into "$tree"
	import "$tree" -c 'CMD ["/bin/sh"]'
}

# adduser_into DIR makes the two commands that Debian leaves out of its busybox,
# for the options that Dockerfile.alpine uses.
adduser_into() {
	cat >"$1/bin/addgroup" <<-'END'
		#!/bin/sh
		while getopts Sg: option; do [ "$option" != g ] || gid=$OPTARG; done
		shift $((OPTIND - 1))
		echo "$1:x:$gid:" >>/etc/group
	END
	cat >"$1/bin/adduser" <<-'END'
		#!/bin/sh
		while getopts SDHh:s:u:G: option; do eval "$option=\$OPTARG"; done
		shift $((OPTIND - 1))
		echo "$1:x:$u:$(grep "^$G:" /etc/group | cut -d: -f3):$1:$h:$s" >>/etc/passwd
	END
	chmod 755 "$1/bin/addgroup" "$1/bin/adduser"
}

# Prometheus and promtool: built from their module, with busybox for the health check, in
# the places of the official image. The module has no built web interface.

name_prometheus() { echo "imagelab-base/prometheus:${prometheus_official##*:}"; }

note_prometheus() { echo ", compiled without its web interface and service discovery: about four minutes, once"; }

inputs_prometheus() { echo "$prometheus_official" && cat "$0"; }

local_prometheus() {
	need_go
	# Release v3.16.0 is the module's v0.316.0.
	release=${prometheus_official##*:v}
	version=$(echo "$release" | awk -F. '{ printf "v0.%d%02d.%d", $1, $2, $3 }')
	tree=$work/prometheus
	busybox_into "$tree"
	root_user_into "$tree"
	mkdir -p "$tree/prometheus"
	for program in prometheus promtool; do
		go_build "github.com/prometheus/prometheus/cmd/$program" "$version" "$tree/bin/$program" \
			-tags remove_all_sd -ldflags "-s -w -X github.com/prometheus/common/version.Version=$release"
	done
	import "$tree" -c 'WORKDIR /prometheus' -c 'ENTRYPOINT ["/bin/prometheus"]'
}

# The Debian base of the examples: what debootstrap makes.

debian_official() { sed -n 's/^ARG DEBIAN_IMAGE=//p' "$root/examples/gunicorn/Dockerfile"; }

name_debian() { echo "imagelab-base/debian:bookworm"; }

note_debian() { echo ", by debootstrap: about a minute, once"; }

inputs_debian() { debian_official && cat "$0"; }

local_debian() {
	need debootstrap "apt-get install debootstrap"
	[ "$(id -u)" = 0 ] || die "debootstrap has to be run by root"
	tree=$work/debian
	debootstrap --variant=minbase bookworm "$tree" >/dev/null
	rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
	import "$tree" -c 'CMD ["bash"]'
}

need_docker
scratch_dir
choose GO_IMAGE "$go_official" go
choose ALPINE_IMAGE "$alpine_official" alpine
choose PROMETHEUS_IMAGE "$prometheus_official" prometheus
if [ "${1:-}" = debian ]; then
	choose DEBIAN_IMAGE "$(debian_official)" debian
else
	grep '^DEBIAN_IMAGE=' "$tools/images.env" 2>/dev/null >>"$work/images.env" || true # that of an earlier call
fi
mv "$work/images.env" "$tools/images.env"
