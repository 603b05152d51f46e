#!/bin/sh
# Records containers of other runtimes than Docker for the tests of internal/audit: all of them, or
# those whose names are given. It needs root, and Debian's podman, crun, runc, lxc and systemd-container; with
# ROOTLESS=USER also one of Podman started by that user, and with user-mode-linux those on cgroup v2, in a kernel
# of their own.
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
	rmdir /sys/fs/cgroup/*/machine-record 2>/dev/null
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

# podman without the second version of cgroups, as crun refuses both at once.
podman() {
	unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec podman --cgroup-manager=cgroupfs "$@"' podman "$@"
}

# in_podman POSTURE FLAG... runs the image with these flags and records it.
in_podman() {
	posture=$1
	wants "$posture" || return 0
	shift
	podman --runtime "$runtime" "$@" >/dev/null
	await podman exec imagelab-record /imagelab --healthcheck
	podman exec imagelab-record /record -record | keep "$posture"
	podman rm -f -t 0 imagelab-record >/dev/null
}

# rootless POSTURE FLAG... does the same for the user of ROOTLESS, who has to be in /etc/subuid.
rootless() {
	posture=$1
	wants "$posture" || return 0
	shift
	install -d -o "$ROOTLESS" "$top/run"
	tar -C "$top/root" -c . >"$top/root.tar"
	{
		printf 'cd; ulimit -n 8192; export XDG_RUNTIME_DIR=%s\n' "$top/run"
		printf 'p() { command podman --cgroup-manager=cgroupfs --runtime runc "$@"; }\n'
		printf 'p import -c '\''ENTRYPOINT ["/imagelab"]'\'' %s localhost/imagelab:record >/dev/null\n' "$top/root.tar"
		printf 'p run -d --name imagelab-record %s localhost/imagelab:record >/dev/null; sleep 1\n' "$*"
		printf 'p exec imagelab-record /record -record\n'
		printf 'p rm -f -t 0 imagelab-record >/dev/null; p rmi -f localhost/imagelab:record >/dev/null\n'
	} >"$top/rootless.sh"
	su "$ROOTLESS" -c "sh $top/rootless.sh" | keep "$posture"
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
	sleep 1 # its loopback is down, so that no probe tells when it serves
	# shellcheck disable=SC2086 # as is several words, or none
	lxc-attach -P "$top/lxc" -n web --clear-env $as -- /record -record | keep "$posture"
	lxc-stop -k -P "$top/lxc" -n web
}

# in_nspawn POSTURE FLAG... has PID 1 start the recorder, as nothing else enters such a container with
# the container's own filter.
in_nspawn() {
	posture=$1
	wants "$posture" || return 0
	shift
	$limited systemd-nspawn --quiet --register=no --keep-unit --pipe -M web -D "$top/root" "$@" \
		/imagelab -- /record -record | keep "$posture"
}

tar -C "$top/root" -c . | podman import -c 'ENTRYPOINT ["/imagelab"]' - localhost/imagelab:record >/dev/null
image=localhost/imagelab:record
options='--read-only --read-only-tmpfs=false --tmpfs /tmp:size=16m,mode=1777,noexec,nosuid,nodev --cap-drop ALL
	--security-opt no-new-privileges --cgroupns private --memory 64m --cpus 1 --pids-limit 64
	--ulimit core=0:0 --ulimit nofile=8192:8192 --ulimit nproc=4096:4096'

runtime=runc
# Not every machine may raise these bounds to the defaults of Podman.
bounds='--ulimit nofile=4096:4096 --ulimit nproc=1024:1024'
# shellcheck disable=SC2086 # they are several words
in_podman podman-default run -d --name imagelab-record $bounds $image
# shellcheck disable=SC2086
in_podman podman-hardened run -d --name imagelab-record --user 65532:65532 $options $image
# shellcheck disable=SC2086
in_podman podman-privileged run -d --name imagelab-record $bounds --privileged --user 65532:65532 $image
runtime=crun
# shellcheck disable=SC2086
in_podman podman-crun run -d --name imagelab-record --user 65532:65532 $options $image

[ -z "${ROOTLESS:-}" ] || rootless podman-rootless "$bounds"

as=
in_lxc lxc-default "lxc.net.0.type = empty"
as="--uid=65532 --gid=65532"
in_lxc lxc-hardened "lxc.net.0.type = empty" "lxc.init.uid = 65532" "lxc.init.gid = 65532" \
	"lxc.cap.drop =" "lxc.cap.keep = none" "lxc.no_new_privs = 1" "lxc.rootfs.options = ro" \
	"lxc.mount.auto =" "lxc.mount.auto = cgroup:ro:force proc:mixed sys:ro" \
	"lxc.mount.entry = tmpfs tmp tmpfs size=16m,mode=1777,noexec,nosuid,nodev 0 0" \
	"lxc.cgroup.memory.limit_in_bytes = 64M" \
	"lxc.cgroup.cpu.cfs_period_us = 100000" "lxc.cgroup.cpu.cfs_quota_us = 100000" \
	"lxc.cgroup.pids.max = 64" "lxc.prlimit.core = 0" "lxc.prlimit.nofile = 8192"

# A kernel that sees the files of this machine, and has its own processes and cgroups.
second_version() {
	tar -C "$top/root" -c . >"$top/root.tar"
	# shellcheck disable=SC2086,SC2116 # on one line
	cat >"$top/init" <<EOF
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for dir in /run /tmp /var/tmp /var/lib/containers /dev/shm; do
	mkdir -p \$dir
	mount -t tmpfs tmpfs \$dir
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+memory +cpu +pids' >/sys/fs/cgroup/cgroup.subtree_control
ulimit -n 8192
p() { podman --cgroup-manager=cgroupfs --storage-driver vfs --events-backend none --runtime crun "\$@"; }
p import -c 'ENTRYPOINT ["/imagelab"]' $top/root.tar $image
while read -r posture flags; do
	p run -d --name imagelab-record --network none \$flags $image && sleep 3
	p exec imagelab-record /record -record </dev/null >$top/\$posture.tar
	p rm -f -t 0 imagelab-record
done <<FLAGS
podman-v2-default $bounds
podman-v2-hardened --user 65532:65532 $(echo $options)
podman-v2-privileged --privileged --user 65532:65532 $bounds
FLAGS
sync
echo o >/proc/sysrq-trigger
sleep 60
EOF
	chmod +x "$top/init"
	TMPDIR=/dev/shm timeout 600 linux.uml rootfstype=hostfs rootflags=/ rw mem=1024M init="$top/init" con=null \
		</dev/null >/dev/null 2>&1 ||
		say "the kernel of its own has not ended well"
	for posture in default hardened privileged; do
		keep podman-v2-$posture <"$top/podman-v2-$posture.tar"
	done
}
if have linux.uml && wants podman-v2; then second_version; fi

limited=
in_nspawn nspawn-default
# As systemd does for the scope of a machine, where it is there.
for controller in memory cpu pids; do
	mkdir -p "/sys/fs/cgroup/$controller/machine-record"
done
echo 64M >/sys/fs/cgroup/memory/machine-record/memory.limit_in_bytes
echo 100000 >/sys/fs/cgroup/cpu/machine-record/cpu.cfs_quota_us
echo 64 >/sys/fs/cgroup/pids/machine-record/pids.max
limited=in_machine
in_machine() {
	# shellcheck disable=SC2016
	sh -c 'for c in memory cpu pids; do echo $$ >/sys/fs/cgroup/$c/machine-record/cgroup.procs; done; exec "$@"' sh "$@"
}
in_nspawn nspawn-hardened --read-only --tmpfs=/tmp:size=16m,mode=1777,noexec,nosuid,nodev --drop-capability=all \
	--no-new-privileges=yes --private-network --rlimit=RLIMIT_CORE=0:0 --rlimit=RLIMIT_NOFILE=8192:8192
