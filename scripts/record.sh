#!/bin/sh
# Records containers of other runtimes than Docker for the tests of internal/audit: all of them, or
# those whose names are given. It needs root, and Debian's podman, crun, runc, lxc and systemd-container.
#
# Each is a root with two programs: imagelab, which serves as its PID 1, and the recorder, which is
# started beside it as an audit would be. What they are started with is said here and nowhere else;
# which findings follow from that is said in checks_test.go.
. "$(dirname -- "$0")/lib.sh"
need_go
[ "$(id -u)" = 0 ] || die "only root can start these"

top=/srv/imagelab/record
wanted=" $* "

finish() {
	lxc-stop -k -P "$top/lxc" -n web >/dev/null 2>&1
	podman rm -f -t 0 imagelab-record >/dev/null 2>&1
	podman image rm -f localhost/imagelab:record >/dev/null 2>&1
	rm -rf "$top"
}
trap 'status=$?; set +e; finish; exit $status' EXIT
rm -rf "$top"
mkdir -p "$top/lxc" "$top/root/proc" "$top/root/sys" "$top/root/dev" "$top/root/run" "$top/root/etc" "$top/root/usr/lib"
mkdir -m 1777 "$top/root/tmp"
sh "$root/scripts/build.sh" "$top/root/imagelab"
(cd "$root" && CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o "$top/root/record" ./internal/audit)
printf 'root:x:0:0::/:/none\napp:x:65532:65532::/:/none\n' >"$top/root/etc/passwd"
printf 'root:x:0:\napp:x:65532:\n' >"$top/root/etc/group"
printf 'ID=record\nPRETTY_NAME="A root for recordings"\n' >"$top/root/usr/lib/os-release"

# wants POSTURE
wants() {
	case $wanted in
	"  " | *" $1 "*) step "$1" ;;
	*) return 1 ;;
	esac
}

# await COMMAND... waits until it succeeds.
await() {
	for _ in $(seq 50); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.2
	done
	die "not within ten seconds: $*"
}

# keep POSTURE takes the tar that a recorder writes.
keep() {
	into=$root/internal/audit/testdata/$1
	rm -rf "$into"
	mkdir -p "$into"
	tar -x -C "$into" || die "no recording of $1"
	say "$(find "$into" -type f | wc -l) files"
}

# in_podman POSTURE FLAG... runs the image with these flags and records it.
in_podman() {
	posture=$1
	wants "$posture" || return 0
	shift
	podman --cgroup-manager=cgroupfs "$@" >/dev/null
	await podman exec imagelab-record /imagelab --healthcheck
	podman exec imagelab-record /record -record | keep "$posture"
	podman rm -f -t 0 imagelab-record >/dev/null
}

# in_lxc POSTURE LINE... runs the root with Debian's common configuration and these lines more.
in_lxc() {
	posture=$1
	wants "$posture" || return 0
	shift
	mkdir -p "$top/lxc/web"
	{
		printf '%s\n' "lxc.include = /usr/share/lxc/config/common.conf" "lxc.uts.name = web" \
			"lxc.rootfs.path = dir:$top/root" "lxc.init.cmd = /imagelab" "lxc.environment = IMAGELAB_DATA_DIR=/tmp" "$@"
	} >"$top/lxc/web/config"
	lxc-start -P "$top/lxc" -n web
	await lxc-attach -P "$top/lxc" -n web --clear-env -- /imagelab --healthcheck
	lxc-attach -P "$top/lxc" -n web --clear-env -- /record -record | keep "$posture"
	lxc-stop -k -P "$top/lxc" -n web
}

# in_nspawn POSTURE FLAG... has PID 1 start the recorder, as nothing else enters such a container with
# the container's own filter.
in_nspawn() {
	posture=$1
	wants "$posture" || return 0
	shift
	systemd-nspawn --quiet --register=no --keep-unit --pipe -M web -D "$top/root" "$@" /imagelab -- /record -record | keep "$posture"
}

tar -C "$top/root" -c . | podman import -c 'ENTRYPOINT ["/imagelab"]' - localhost/imagelab:record >/dev/null
image=localhost/imagelab:record
options='--read-only --read-only-tmpfs=false --tmpfs /tmp:size=16m,mode=1777,noexec,nosuid,nodev --cap-drop ALL
	--security-opt no-new-privileges --cgroupns private --memory 64m --cpus 1 --pids-limit 64 --ulimit core=0:0 --ulimit nofile=8192:8192'

in_podman podman-default run -d --name imagelab-record $image
in_podman podman-hardened run -d --name imagelab-record --user 65532:65532 $options $image
in_podman podman-privileged run -d --name imagelab-record --privileged --user 65532:65532 $image
in_podman podman-crun --runtime crun run -d --name imagelab-record --user 65532:65532 $options $image
