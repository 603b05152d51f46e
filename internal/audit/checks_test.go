package audit

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// checkCase is one posture, changed in one thing, and what the check makes of it.
type checkCase struct {
	check   string
	name    string
	posture string // hardened-scratch unless set
	edit    func(*fixture)
	want    Status
	says    string // in evidence or reason
	// unread marks the case of what cannot be read, which each check has.
	unread bool
	skips  int // incomplete
}

var (
	noStatus = func(f *fixture) { f.deny("proc/1/status") }
	noMounts = func(f *fixture) { f.deny("proc/self/mountinfo") }
	noRoot   = func(f *fixture) { f.deny(".") }
)

// containerID is one as engines give them.
const containerID = "8f0a5bd1c2f34de6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0"

const testKey = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDm0vY3nQ7hXK2p5o1Jd8VxE3cT6uRzLw9aBfGhIkMnO\n-----END PRIVATE KEY-----\n"

var checkCases = []checkCase{
	{check: "run-as-non-root", name: "a user", want: Pass, says: "65532"},
	{check: "run-as-non-root", name: "root", posture: "root-alpine", want: Fail, says: "uid 0"},
	{check: "run-as-non-root", name: "a setuid program is its owner", edit: func(f *fixture) { f.status("Uid", "65532 0 0 0") }, want: Fail},
	{check: "run-as-non-root", name: "exec as root judges PID 1", edit: func(f *fixture) { f.statusOf("proc/self/status", "Uid", "0 0 0 0"); f.sys.EUID = 0 }, want: Pass},
	{check: "run-as-non-root", name: "a status with two ids", edit: func(f *fixture) { f.status("Uid", "1000 1001") }, want: Pass, says: "1001"},
	{check: "run-as-non-root", name: "a status with one id", edit: func(f *fixture) { f.status("Uid", "1000") }, want: Unknown},
	{check: "run-as-non-root", name: "unreadable", edit: noStatus, want: Unknown, says: "/proc/1/status: permission denied", unread: true},

	{check: "non-root-group", name: "a group", want: Pass},
	{check: "non-root-group", name: "a user without a group has group 0", edit: func(f *fixture) { f.status("Gid", "0 0 0 0") }, want: Fail, says: "primary"},
	{check: "non-root-group", name: "supplementary group 0", edit: func(f *fixture) { f.status("Groups", "0 65532") }, want: Fail, says: "supplementary"},
	{check: "non-root-group", name: "groups that are nonsense", edit: func(f *fixture) { f.status("Groups", "wheel") }, want: Unknown},
	{check: "non-root-group", name: "a group that is nonsense", edit: func(f *fixture) { f.status("Gid", "wheel") }, want: Unknown},
	{check: "non-root-group", name: "unreadable", edit: noStatus, want: Unknown, unread: true},

	{check: "capabilities-dropped", name: "none", want: Pass},
	{check: "capabilities-dropped", name: "NET_BIND_SERVICE alone", edit: func(f *fixture) { f.status("CapBnd", "0000000000000400") }, want: Pass, says: "NET_BIND_SERVICE"},
	{check: "capabilities-dropped", name: "a full bounding set of a user", edit: func(f *fixture) { f.status("CapBnd", "00000000a80425fb") }, want: Fail, says: "SETUID"},
	{check: "capabilities-dropped", name: "unreadable", edit: noStatus, want: Unknown, unread: true},
	{check: "capabilities-dropped", name: "a number that is none", edit: func(f *fixture) { f.status("CapBnd", "full") }, want: Unknown, says: "CapBnd"},

	{check: "capabilities-added", name: "the default 14", posture: "root-alpine", want: Pass},
	{check: "capabilities-added", name: "SYS_ADMIN", edit: func(f *fixture) { f.status("CapBnd", "00000000a82425fb") }, want: Fail, says: "SYS_ADMIN"},
	{check: "capabilities-added", name: "one newer than its name", edit: func(f *fixture) { f.status("CapBnd", "0000020000000000") }, want: Fail, says: ": 41"},
	{check: "capabilities-added", name: "the newest with a name", edit: func(f *fixture) { f.status("CapBnd", "0000010000000000") }, want: Fail, says: "CHECKPOINT_RESTORE"},
	{check: "capabilities-added", name: "unreadable", edit: noStatus, want: Unknown, unread: true},

	{check: "not-privileged", name: "hardened", want: Pass},
	{check: "not-privileged", name: "privileged", posture: "privileged", want: Fail, says: "devices.list"},
	{check: "not-privileged", name: "all capabilities are one sign", edit: func(f *fixture) { f.status("CapBnd", "000001ffffffffff") }, want: Warn, says: "SYS_MODULE"},
	{check: "not-privileged", name: "three disks", edit: func(f *fixture) { f.tree("dev/sda block 8:0\ndev/sdb block 8:1\ndev/sdc block 8:2") }, want: Pass},
	{check: "not-privileged", name: "more disks", edit: func(f *fixture) { f.tree("dev/sda block 8:0\ndev/sdb block 8:1\ndev/sdc block 8:2\ndev/sdd block 8:3") }, want: Warn, says: "block devices"},
	{check: "not-privileged", name: "/sys writable", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ /sys ro,", "/ /sys rw,")
	}, want: Pass},
	{check: "not-privileged", name: "/sys writable and /proc/sys as well", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ /sys ro,", "/ /sys rw,")
		f.sub("proc/self/mountinfo", " /proc/sys ro,", " /proc/none ro,")
	}, want: Warn, says: "one of three signs: /sys writable"},
	{check: "not-privileged", name: "no /sys, and /proc/sys writable", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ /sys ro,", "/ /none ro,")
		f.sub("proc/self/mountinfo", " /proc/sys ro,", " /proc/none ro,")
	}, want: Pass},
	{check: "not-privileged", name: "one sign and no /dev", edit: func(f *fixture) { f.status("CapBnd", "000001ffffffffff"); f.deny("dev") }, want: Warn},
	{check: "not-privileged", name: "no capabilities to read", edit: func(f *fixture) { f.status("CapBnd", "full") }, want: Unknown},
	{check: "not-privileged", name: "unreadable", edit: noMounts, want: Unknown, unread: true},
	{check: "not-privileged", name: "no device list and no /dev", edit: func(f *fixture) { f.deny("dev") }, want: Unknown, says: "/dev"},

	{check: "no-new-privileges", name: "set", want: Pass},
	{check: "no-new-privileges", name: "not set", posture: "root-alpine", want: Fail},
	{check: "no-new-privileges", name: "a kernel that does not show it", edit: func(f *fixture) { f.sub("proc/1/status", "NoNewPrivs", "Other") }, want: NotApplicable},
	{check: "no-new-privileges", name: "unreadable", edit: noStatus, want: Unknown, unread: true},
	{check: "no-new-privileges", name: "the program's own, as exec shows", edit: func(f *fixture) { startedAlike(f); f.statusOf("proc/self/status", "NoNewPrivs", "0") }, want: Warn, says: "has set itself"},
	{check: "no-new-privileges", name: "nsenter brings none", edit: func(f *fixture) { entered(f); f.statusOf("proc/self/status", "NoNewPrivs", "0") }, want: Unknown, says: "cannot tell"},
	{check: "no-new-privileges", name: "nsenter under it", edit: entered, want: Pass},
	{check: "no-new-privileges", name: "the auditor alone has it", edit: func(f *fixture) { startedAlike(f); f.statusOf("proc/1/status", "NoNewPrivs", "0") }, want: Fail},

	{check: "seccomp-filter", name: "a filter that refuses", want: Pass, says: "refused"},
	{check: "seccomp-filter", name: "Podman refuses with ENOSYS", edit: func(f *fixture) { f.sys.Syscall = func(string) error { return syscall.ENOSYS } }, want: Pass},
	{check: "seccomp-filter", name: "off", posture: "privileged", want: Fail, says: "Seccomp 0"},
	{check: "seccomp-filter", name: "a filter that allows everything", edit: func(f *fixture) { f.sys.Syscall = func(string) error { return syscall.EOPNOTSUPP } }, want: Warn, says: "keyctl"},
	{check: "seccomp-filter", name: "strict", edit: func(f *fixture) { f.status("Seccomp", "1") }, want: Pass},
	{check: "seccomp-filter", name: "a kernel that does not show it", edit: func(f *fixture) { f.sub("proc/1/status", "Seccomp:", "Other:") }, want: NotApplicable},
	{check: "seccomp-filter", name: "the auditor is outside of the filter", edit: func(f *fixture) { f.statusOf("proc/self/status", "Seccomp", "0") }, want: Unknown, says: "cannot try"},
	{check: "seccomp-filter", name: "unreadable", edit: noStatus, want: Unknown, unread: true},
	{check: "seccomp-filter", name: "the program's own, as exec shows", edit: func(f *fixture) { startedAlike(f); filters(f, 1, 0) }, want: Fail, says: "the program's own"},
	{check: "seccomp-filter", name: "nsenter brings none", edit: func(f *fixture) { entered(f); filters(f, 1, 0) }, want: Unknown, says: "cannot try"},
	{check: "seccomp-filter", name: "all are in the host's root of the cgroups", edit: func(f *fixture) {
		startedAlike(f)
		f.link("proc/self/ns/cgroup", "cgroup:["+initialNamespaces["cgroup"]+"]")
		filters(f, 1, 0)
	}, want: Unknown, says: "cannot try"},
	{check: "seccomp-filter", name: "exec in the host's cgroup namespace", edit: func(f *fixture) {
		entered(f)
		f.write("proc/self/cgroup", string(f.files["proc/1/cgroup"].Data))
		filters(f, 1, 0)
	}, want: Fail},
	{check: "seccomp-filter", name: "nsenter where cgroups do not tell", edit: func(f *fixture) {
		startedAlike(f)
		filters(f, 1, 0)
		f.statusOf("proc/self/status", "CapBnd", "000001ffffffffff")
	}, want: Unknown, says: "cannot try"},
	{check: "seccomp-filter", name: "the program's own on top of the container's", edit: func(f *fixture) { startedAlike(f); filters(f, 2, 1) }, want: Pass},
	{check: "seccomp-filter", name: "the program's own on top of one that allows everything", edit: func(f *fixture) {
		startedAlike(f)
		filters(f, 2, 1)
		allowing(callNames()...)(f)
	}, want: Warn, says: "0 are refused"},
	{check: "seccomp-filter", name: "two, and an auditor from elsewhere with one", edit: func(f *fixture) { entered(f); filters(f, 2, 1) }, want: Unknown},
	{check: "seccomp-filter", name: "an auditor with one more", edit: func(f *fixture) { startedAlike(f); filters(f, 1, 2) }, want: Unknown, says: "which one refuses"},
	{check: "seccomp-filter", name: "an auditor with one more, and neither refuses", edit: func(f *fixture) {
		startedAlike(f)
		filters(f, 1, 2)
		allowing(callNames()...)(f)
	}, want: Warn},
	{check: "seccomp-filter", name: "a kernel that does not count them", edit: func(f *fixture) {
		f.sub("proc/1/status", "Seccomp_filters", "Other")
		f.sub("proc/self/status", "Seccomp_filters", "Other")
	}, want: Pass},

	{check: "lsm-confined", name: "no LSM", want: NotApplicable},
	{check: "lsm-confined", name: "a kernel with another LSM gives EINVAL", edit: func(f *fixture) {
		f.write("proc/1/attr/current", "")
		f.denied["proc/1/attr/current"] = syscall.EINVAL
	}, want: NotApplicable},
	{check: "lsm-confined", name: "AppArmor", posture: "kubernetes", want: Pass, says: "enforce"},
	{check: "lsm-confined", name: "SELinux", edit: func(f *fixture) { f.write("proc/1/attr/current", "system_u:system_r:container_t:s0:c1,c2\x00") }, want: Pass},
	{check: "lsm-confined", name: "unconfined", edit: func(f *fixture) { f.write("proc/1/attr/current", "unconfined\n") }, want: Fail},
	{check: "lsm-confined", name: "SELinux spc_t", edit: func(f *fixture) { f.write("proc/1/attr/current", "system_u:system_r:spc_t:s0") }, want: Fail},
	{check: "lsm-confined", name: "complain mode", edit: func(f *fixture) { f.write("proc/1/attr/apparmor/current", "app (complain)\n") }, want: Warn},
	{check: "lsm-confined", name: "SELinux spc_t without a level", edit: func(f *fixture) { f.write("proc/1/attr/current", "system_u:system_r:spc_t") }, want: Fail},
	{check: "lsm-confined", name: "a label with a colon is no SELinux", edit: func(f *fixture) { f.write("proc/1/attr/current", "app:spc_t") }, want: Pass},
	{check: "lsm-confined", name: "a task of the kernel", edit: func(f *fixture) { f.write("proc/1/attr/current", "kernel") }, want: NotApplicable},
	{check: "lsm-confined", name: "unreadable", edit: func(f *fixture) { f.deny("proc/1/attr/apparmor/current") }, want: Unknown, unread: true},

	{check: "exec-not-elevated", name: "the same user", want: Pass},
	{check: "exec-not-elevated", name: "exec as root", edit: func(f *fixture) { f.sys.EUID = 0 }, want: Warn, says: "uid 0"},
	{check: "exec-not-elevated", name: "exec with more capabilities", edit: func(f *fixture) { f.statusOf("proc/self/status", "CapBnd", "0000000000200000") }, want: Warn, says: "SYS_ADMIN"},
	{check: "exec-not-elevated", name: "the auditor is PID 1", edit: func(f *fixture) { f.sys.PID = 1 }, want: NotApplicable},
	{check: "exec-not-elevated", name: "both are root", edit: func(f *fixture) { f.status("Uid", "0 0 0 0"); f.sys.EUID = 0 }, want: Pass},
	{check: "exec-not-elevated", name: "PID 1 alone is root", edit: func(f *fixture) { f.statusOf("proc/1/status", "Uid", "0 0 0 0") }, want: Pass},
	{check: "exec-not-elevated", name: "the host's init", edit: hostNamespace("pid"), want: NotApplicable},
	{check: "exec-not-elevated", name: "the auditor's own cannot be read", edit: func(f *fixture) { f.deny("proc/self/status") }, want: Unknown},
	{check: "exec-not-elevated", name: "the auditor's capabilities are nonsense", edit: func(f *fixture) { f.statusOf("proc/self/status", "CapBnd", "full") }, want: Unknown},
	{check: "exec-not-elevated", name: "PID 1's capabilities are nonsense", edit: func(f *fixture) { f.statusOf("proc/1/status", "CapBnd", "full") }, want: Unknown},
	{check: "exec-not-elevated", name: "PID 1's user is nonsense", edit: func(f *fixture) { f.statusOf("proc/1/status", "Uid", "root") }, want: Unknown},
	{check: "exec-not-elevated", name: "unreadable", edit: noStatus, want: Unknown, unread: true},

	{check: "user-namespace", name: "identity", want: Warn, says: "engine setting"},
	{check: "user-namespace", name: "remapped", edit: func(f *fixture) { f.write("proc/self/uid_map", " 0 231072 65536\n") }, want: Pass},
	{check: "user-namespace", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/uid_map") }, want: Unknown, unread: true},

	{check: "pid-namespace", name: "own", want: Pass},
	{check: "pid-namespace", name: "host", edit: hostNamespace("pid"), want: Fail},
	{check: "pid-namespace", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/ns/pid") }, want: Unknown, unread: true},
	{check: "network-namespace", name: "own", want: Pass},
	{check: "network-namespace", name: "host", edit: hostNamespace("net"), want: Fail},
	{check: "network-namespace", name: "an older kernel with the host's bridge", edit: func(f *fixture) { f.sub("proc/self/net/dev", "eth0", "docker0") }, want: Warn, says: "docker0"},
	{check: "network-namespace", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/ns/net") }, want: Unknown, unread: true},
	{check: "ipc-namespace", name: "own", want: Pass},
	{check: "ipc-namespace", name: "host", edit: hostNamespace("ipc"), want: Fail},
	{check: "ipc-namespace", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/ns/ipc") }, want: Unknown, unread: true},
	{check: "uts-namespace", name: "own", want: Pass},
	{check: "uts-namespace", name: "host", edit: hostNamespace("uts"), want: Fail},
	{check: "uts-namespace", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/ns/uts") }, want: Unknown, unread: true},
	{check: "cgroup-namespace", name: "own", want: Pass},
	{check: "cgroup-namespace", name: "host, as on cgroup v1", posture: "root-alpine", want: Warn},
	{check: "cgroup-namespace", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/ns/cgroup") }, want: Unknown, unread: true},

	{check: "rootfs-read-only", name: "ro, though the filesystem itself is rw", want: Pass},
	{check: "rootfs-read-only", name: "rw", posture: "root-alpine", want: Fail},
	{check: "rootfs-read-only", name: "ro that can be remounted", edit: func(f *fixture) { f.status("CapBnd", "0000000000200000") }, want: Warn, says: "SYS_ADMIN"},
	{check: "rootfs-read-only", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "world-writable-paths", name: "none but sticky", posture: "root-alpine", want: Pass},
	{check: "world-writable-paths", name: "a file", edit: func(f *fixture) { f.file("etc/app.conf", "0666", "x") }, want: Warn, says: "/etc/app.conf"},
	{check: "world-writable-paths", name: "a directory", edit: func(f *fixture) { f.tree("data dir 0777") }, want: Warn, says: "without the sticky bit"},
	{check: "world-writable-paths", name: "not what is mounted", edit: func(f *fixture) {
		f.mount("/var/lib/docker/volumes/v/_data /data ro - ext4 /dev/vda rw")
		f.file("data/x", "0666", "x")
	}, want: Pass},
	{check: "world-writable-paths", name: "the root", edit: func(f *fixture) { f.tree(". dir 0777") }, want: Warn, says: "/ (directory without the sticky bit)"},
	{check: "world-writable-paths", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "setuid-files", name: "none", posture: "root-alpine", want: Pass},
	{check: "setuid-files", name: "setuid", posture: "root-alpine", edit: func(f *fixture) { f.file("bin/su", "04755", "\x7fELF") }, want: Fail, says: "/bin/su"},
	{check: "setuid-files", name: "without effect under no_new_privs", edit: func(f *fixture) { f.file("bin/su", "02755", "\x7fELF") }, want: Warn, says: "no_new_privs"},
	{check: "setuid-files", name: "setgid without g+x is locking", edit: func(f *fixture) { f.file("bin/x", "02705", "\x7fELF") }, want: Pass},
	{check: "setuid-files", name: "a setgid directory", edit: func(f *fixture) { f.tree("srv dir 02755") }, want: Pass},
	{check: "setuid-files", name: "a directory that cannot be entered", edit: func(f *fixture) { f.tree("root dir 0700"); f.deny("root") }, want: Pass, skips: 1},
	{check: "setuid-files", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "file-capabilities", name: "none", want: Pass},
	{check: "file-capabilities", name: "one", edit: func(f *fixture) { f.file("bin/ping", "0755", "\x7fELF"); f.caps["bin/ping"] = true }, want: Warn, says: "/bin/ping"},
	{check: "file-capabilities", name: "an attribute that cannot be read", edit: func(f *fixture) { f.file("bin/ping", "0755", "\x7fELF"); f.deny("xattr bin/ping") }, want: Pass, skips: 1},
	{check: "file-capabilities", name: "no attributes at all", edit: func(f *fixture) { f.sys.FileCapability = nil }, want: Unknown},
	{check: "file-capabilities", name: "one, beside what cannot be read", edit: func(f *fixture) {
		f.file("bin/ping", "0755", "\x7fELF")
		f.caps["bin/ping"] = true
		f.file("bin/other", "0755", "\x7fELF")
		f.deny("xattr bin/other")
		f.tree("root dir 0700")
		f.deny("root")
	}, want: Warn, says: "/bin/ping", skips: 2},
	{check: "file-capabilities", name: "none, beside what cannot be read", edit: func(f *fixture) {
		f.file("bin/other", "0755", "\x7fELF")
		f.deny("xattr bin/other")
		f.tree("root dir 0700")
		f.deny("root")
	}, want: Pass, skips: 2},
	{check: "file-capabilities", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "app-binary-immutable", name: "on a read-only mount", want: Pass, says: "read-only"},
	{check: "app-binary-immutable", name: "root can write it", posture: "root-alpine", want: Fail, says: "DAC_OVERRIDE"},
	{check: "app-binary-immutable", name: "its owner can write it", edit: writableApp("0555", 65532, 0), want: Fail, says: "owner"},
	{check: "app-binary-immutable", name: "its group can write it", edit: writableApp("0775", 0, 65532), want: Fail, says: "group"},
	{check: "app-binary-immutable", name: "everyone can write it", edit: writableApp("0757", 0, 0), want: Fail, says: "everyone"},
	{check: "app-binary-immutable", name: "owned by root", edit: writableApp("0755", 0, 0), want: Pass, says: "neither"},
	{check: "app-binary-immutable", name: "found by argv[0] where the link may not be followed", edit: func(f *fixture) {
		writableApp("0555", 65532, 0)(f)
		f.deny("proc/1/exe")
		f.write("proc/1/cmdline", "/app\x00")
	}, want: Fail, says: "/app"},
	{check: "app-binary-immutable", name: "found in PATH", edit: func(f *fixture) {
		writableApp("0555", 65532, 0)(f)
		f.deny("proc/1/exe")
		f.owned("usr/bin/tool", "0755", 65532, 0)
		f.write("proc/1/cmdline", "tool\x00")
	}, want: Fail, says: "/usr/bin/tool"},
	{check: "app-binary-immutable", name: "the child of an init", edit: func(f *fixture) {
		writableApp("0555", 65532, 0)(f)
		f.write("proc/1/cmdline", "/sbin/docker-init\x00--\x00/app\x00")
		f.process(7, 1, "S", "app", "/app")
		f.link("proc/7/exe", "/app")
	}, want: Fail, says: "process 7"},
	{check: "app-binary-immutable", name: "the auditor in its place", edit: func(f *fixture) { f.sys.PID = 1 }, want: NotApplicable},
	{check: "app-binary-immutable", name: "in a directory for everyone", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/srv/app")
		f.owned("srv/app", "0755", 0, 0)
		f.tree("srv dir 0777")
	}, want: Fail, says: "/srv (everyone may)"},
	{check: "app-binary-immutable", name: "in a sticky directory for everyone", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/srv/app")
		f.owned("srv/app", "0755", 0, 0)
		f.tree("srv dir 01777")
	}, want: Pass},
	{check: "app-binary-immutable", name: "the sticky bit of a file means nothing", edit: writableApp("01757", 0, 0), want: Fail, says: "everyone"},
	{check: "app-binary-immutable", name: "a mount over another at the same place decides", edit: func(f *fixture) {
		writableApp("0777", 65532, 0)(f)
		f.link("proc/1/exe", "/srv/app")
		f.owned("srv/app", "0777", 65532, 0)
		f.mount("/a /srv rw - ext4 /dev/vda rw")
		f.mount("/b /srv ro - ext4 /dev/vda rw")
	}, want: Pass, says: "read-only mount (/srv)"},
	{check: "app-binary-immutable", name: "an init without a child but a zombie", edit: func(f *fixture) {
		writableApp("0555", 65532, 0)(f)
		f.write("proc/1/cmdline", "/sbin/docker-init\x00--\x00/app\x00")
		f.process(7, 1, "Z", "app", "/app")
	}, want: Fail, says: "process 1"},
	{check: "app-binary-immutable", name: "unreadable", edit: func(f *fixture) { f.deny("proc/1/exe", "proc/1/cmdline") }, want: Unknown, unread: true},

	{check: "writable-mounts", name: "none", want: Pass},
	{check: "writable-mounts", name: "runtime files are rw without read_only", posture: "root-alpine", want: Pass},
	{check: "writable-mounts", name: "a volume", edit: func(f *fixture) { f.mount("/var/lib/docker/volumes/v/_data /data rw - ext4 /dev/vda rw") }, want: Warn, says: "/data"},
	{check: "writable-mounts", name: "a read-only volume", edit: func(f *fixture) { f.mount("/var/lib/docker/volumes/v/_data /data ro - ext4 /dev/vda rw") }, want: Pass},
	{check: "writable-mounts", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "tmpfs-options", name: "all three", want: Pass, says: "/tmp"},
	{check: "tmpfs-options", name: "exec", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/tmp rw,nosuid,nodev,noexec", "/tmp rw,nosuid,nodev")
	}, want: Fail, says: "/tmp without noexec"},
	{check: "tmpfs-options", name: "Kubernetes has no field for it", posture: "kubernetes", want: Warn, says: "/tmp without noexec, nosuid, nodev"},
	{check: "tmpfs-options", name: "no tmpfs", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "- tmpfs tmpfs rw,size=16384k", "- ext4 x rw")
		f.sub("proc/self/mountinfo", "- tmpfs shm", "- ext4 x")
	}, want: NotApplicable},
	{check: "tmpfs-options", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "tmpfs-size", name: "a size", want: Pass},
	{check: "tmpfs-size", name: "none", edit: func(f *fixture) { f.sub("proc/self/mountinfo", "rw,size=16384k", "rw") }, want: Warn, says: "/tmp"},
	{check: "tmpfs-size", name: "size=0 is no limit", edit: func(f *fixture) { f.sub("proc/self/mountinfo", "size=16384k", "size=0k") }, want: Warn},
	{check: "tmpfs-size", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "runtime-socket", name: "none", want: Pass},
	{check: "runtime-socket", name: "at its own place", edit: func(f *fixture) {
		f.mount("/run/docker.sock /run/docker.sock rw - tmpfs tmpfs rw")
		f.socket("run/docker.sock")
	}, want: Fail, says: "/run/docker.sock"},
	{check: "runtime-socket", name: "under another name and read-only", edit: func(f *fixture) {
		f.mount("/run/docker.sock /tmp/x.sock ro - ext4 /dev/vda rw")
		f.socket("tmp/x.sock")
	}, want: Fail, says: "/tmp/x.sock"},
	{check: "runtime-socket", name: "with its directory", edit: func(f *fixture) {
		f.mount("/run /host/run ro - tmpfs tmpfs rw")
		f.socket("host/run/containerd/containerd.sock")
	}, want: Fail, says: "/host/run/containerd/containerd.sock"},
	{check: "runtime-socket", name: "through a link", edit: func(f *fixture) { f.link("var/run", "/run"); f.socket("run/docker.sock") }, want: Fail},
	{check: "runtime-socket", name: "another socket", edit: func(f *fixture) {
		f.mount("/run/mysqld.sock /run/mysqld.sock rw - ext4 /dev/vda rw")
		f.socket("run/mysqld.sock")
	}, want: Warn, says: "mysqld"},
	{check: "runtime-socket", name: "a plain file of that name", edit: func(f *fixture) { f.write("run/docker.sock", "") }, want: Pass},
	{check: "runtime-socket", name: "a directory that cannot be entered", edit: func(f *fixture) { f.tree("run dir 0700"); f.deny("run") }, want: Pass, skips: 7},
	{check: "runtime-socket", name: "none among what may hold one", want: Pass, says: "in 5 mounts"},
	{check: "runtime-socket", name: "under its own name, from elsewhere", edit: func(f *fixture) {
		f.mount("/srv/x.sock /tmp/docker.sock ro - ext4 /dev/vda rw")
		f.socket("tmp/docker.sock")
	}, want: Fail, says: "/tmp/docker.sock"},
	{check: "runtime-socket", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "sensitive-host-mounts", name: "none", want: Pass},
	{check: "sensitive-host-mounts", name: "kubelet's own", posture: "kubernetes", want: Pass},
	{check: "sensitive-host-mounts", name: "/etc, read-only too", edit: hostMount("/etc /host/etc ro - ext4 /dev/vda rw"), want: Fail, says: "the host's /etc"},
	{check: "sensitive-host-mounts", name: "the host's root", edit: func(f *fixture) {
		f.mount("/ /host ro - ext4 /dev/vda rw")
		f.tree("host/etc dir 0755\nhost/usr dir 0755\nhost/var dir 0755\nhost/boot dir 0755")
	}, want: Fail, says: "the host's /"},
	{check: "sensitive-host-mounts", name: "a second proc", edit: hostMount("/ /host/proc ro - proc proc rw"), want: Fail, says: "second proc"},
	{check: "sensitive-host-mounts", name: "the host's /dev", edit: hostMount("/ /host/dev ro - devtmpfs devtmpfs rw"), want: Fail, says: "/dev"},
	{check: "sensitive-host-mounts", name: "one device node of the host", edit: hostMount("/null /dev/null rw - devtmpfs devtmpfs rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "a container's filesystem", edit: hostMount("/ /x ro - overlay overlay rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "the engine's data", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "fuse.fuse-overlayfs fuse-overlayfs rw,", "overlay overlay rw,upperdir=/srv/docker/overlay2/1f/diff,")
		f.mount("/srv/docker /d ro - ext4 /dev/vda rw")
	}, want: Fail, says: "the engine's /srv/docker"},
	{check: "sensitive-host-mounts", name: "another directory of the host", edit: hostMount("/srv/app /d ro - ext4 /dev/vda rw"), want: Warn, says: "/srv/app"},
	{check: "sensitive-host-mounts", name: "a whole disk", edit: hostMount("/ /d ro - ext4 /dev/sdb rw"), want: Warn, says: "ext4"},
	{check: "sensitive-host-mounts", name: "a persistent volume", posture: "kubernetes", edit: hostMount("/ /d rw - ext4 /dev/sdb rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "a volume, on a host with its own /var", edit: hostMount("/lib/docker/volumes/v/_data /d rw - ext4 /dev/sdb rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "a network volume", edit: hostMount("/export /d rw - nfs4 server:/export rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "a compose secret", edit: hostMount("/srv/secret.txt /run/secrets/key ro - ext4 /dev/vda rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "a second sysfs", edit: hostMount("/ /host/sys ro - sysfs sysfs rw"), want: Fail, says: "second sysfs"},
	{check: "sensitive-host-mounts", name: "a directory of another container", edit: hostMount("/srv /d ro - overlay overlay rw"), want: Warn, says: "/srv"},
	{check: "sensitive-host-mounts", name: "Podman's own files", edit: hostMount("/containers/storage/overlay-containers/" + containerID + "/userdata/secrets/x /x ro - xfs /dev/vda rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "Docker's own files", edit: hostMount("/docker/containers/" + containerID + "/hosts /x ro - xfs /dev/vda rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "the kubelet's own files", edit: hostMount("/kubelet/pods/0b5c/etc-hosts /x ro - xfs /dev/vda rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "the variables of another container", edit: hostMount("/var/lib/docker/containers/" + containerID + "/config.v2.json /x ro - xfs /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "the variables of another container of Podman", edit: hostMount("/var/lib/containers/storage/overlay-containers/" + containerID + "/userdata/config.json /x ro - xfs /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "the token of another pod", posture: "kubernetes", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "1508 1501 259:1 ", "1 1501 259:1 /var/lib/kubelet/pods/7d1e/volumes/kubernetes.io~projected/t /d ro - ext4 /dev/root rw\n1508 1501 259:1 ")
	}, want: Fail, says: "/var/lib/kubelet"},
	{check: "sensitive-host-mounts", name: "what looks like Docker's init", edit: hostMount("/etc/shadow /sbin/docker-init ro - ext4 /dev/vda rw"), want: Fail, says: "/etc/shadow"},
	{check: "sensitive-host-mounts", name: "Docker's init", edit: hostMount("/usr/bin/docker-init /sbin/docker-init ro - ext4 /dev/vda rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "the host's time zone", edit: hostMount("/etc/localtime /etc/localtime ro - ext4 /dev/vda rw"), want: Warn, says: "/etc/localtime"},
	{check: "sensitive-host-mounts", name: "the host's time zone, writable", edit: hostMount("/etc/localtime /etc/localtime rw - ext4 /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "the host's certificates", edit: hostMount("/etc/ssl/certs /etc/ssl/certs ro - ext4 /dev/vda rw"), want: Warn},
	{check: "sensitive-host-mounts", name: "the host's private keys", edit: hostMount("/etc/ssl/private /x ro - ext4 /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "the host's units", edit: hostMount("/usr/lib/systemd/system /x rw - ext4 /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "the host's copies of /etc/shadow", edit: hostMount("/var/backups /x ro - ext4 /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "a part of the host's /run", edit: hostMount("/systemd/private /x rw master:9 - tmpfs tmpfs rw"), want: Fail, says: "/run/systemd/private"},
	{check: "sensitive-host-mounts", name: "a file for /etc/hosts from a tmpfs of the host", edit: hostMount("/me/hosts /etc/hosts ro - tmpfs tmpfs rw"), want: Warn, says: "/me/hosts"},
	{check: "sensitive-host-mounts", name: "Podman's /etc/hosts in memory", edit: hostMount("/containers/storage/overlay-containers/" + containerID + "/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "all cgroups of the host in their place", edit: hostMount("/../.. /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"), want: Fail, says: "cgroups"},
	{check: "sensitive-host-mounts", name: "FUSE's connections, as with LXC", edit: hostMount("/fs/fuse/connections /sys/fs/fuse/connections rw - sysfs sysfs rw"), want: Pass},
	{check: "sysfs-read-only", name: "FUSE's connections, as with LXC", edit: hostMount("/fs/fuse/connections /sys/fs/fuse/connections rw - sysfs sysfs rw"), want: Fail},
	{check: "sysfs-read-only", name: "the container's own interfaces, as with LXC", edit: hostMount("/devices/virtual/net /sys/devices/virtual/net rw - sysfs sysfs rw"), want: Pass},
	{check: "sysfs-read-only", name: "the host's interfaces", edit: func(f *fixture) {
		hostNamespace("net")(f)
		f.mount("/devices/virtual/net /sys/devices/virtual/net rw - sysfs sysfs rw")
	}, want: Fail, says: "virtual/net"},
	{check: "proc-paths-masked", name: "settings of the container's own network, as with LXC", edit: hostMount("/sys/net /proc/sys/net rw - proc proc rw"), want: Pass},
	{check: "proc-paths-masked", name: "settings of the host's network", edit: func(f *fixture) {
		hostNamespace("net")(f)
		f.mount("/sys/net /proc/sys/net rw - proc proc rw")
	}, want: Fail, says: "/proc/sys/net"},
	{check: "sensitive-host-mounts", name: "lxcfs", edit: hostMount("/proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "the directory that has brought the auditor", edit: func(f *fixture) {
		f.mount("/etc /host ro - ext4 /dev/vda rw")
		f.link("proc/self/exe", "/host/imagelab")
	}, want: Fail, says: "the host's /etc"},
	{check: "writable-mounts", name: "lxcfs", edit: hostMount("/proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw"), want: Pass},
	{check: "writable-mounts", name: "a ramfs", edit: hostMount("/ /r rw - ramfs ramfs rw"), want: Pass},
	{check: "tmpfs-size", name: "a ramfs has none", edit: hostMount("/ /r rw,noexec,nosuid,nodev - ramfs ramfs rw"), want: Warn, says: "/r without a size"},
	{check: "tmpfs-options", name: "a ramfs", edit: hostMount("/ /r rw - ramfs ramfs rw"), want: Fail, says: "/r without noexec"},
	{check: "runtime-socket", name: "LXD's", edit: func(f *fixture) {
		f.mount("/var/lib/incus/unix.socket /x rw - ext4 /dev/vda rw")
		f.socket("x")
	}, want: Fail, says: "/x"},
	{check: "device-nodes", name: "a disk mounted in /dev", edit: func(f *fixture) {
		f.mount("/vda /dev/disk ro - devtmpfs devtmpfs rw")
		f.tree("dev/disk block 254:0")
	}, want: Fail, says: "/dev/disk b 254:0"},
	{check: "device-nodes", name: "null mounted over another node", edit: func(f *fixture) {
		f.mount("/null /dev/zero rw - devtmpfs devtmpfs rw")
	}, want: Pass, says: "6 nodes"},
	{check: "device-nodes", name: "rules where uid 0 is another user", posture: "root-alpine", edit: func(f *fixture) {
		allowDevices("a *:* rwm")(f)
		f.write("proc/self/uid_map", "0 1000 1\n1 100000 65536\n")
	}, want: Pass},
	{check: "not-privileged", name: "rules where uid 0 is another user", posture: "root-alpine", edit: func(f *fixture) {
		allowDevices("a *:* rwm")(f)
		f.write("proc/self/uid_map", "0 1000 1\n1 100000 65536\n")
	}, want: Pass},
	{check: "cgroup-parent", name: "rootless Podman's", edit: inCgroup("/user/app/0/" + containerID), want: Pass},
	{check: "device-nodes", name: "SCSI generic", edit: func(f *fixture) { f.tree("dev/sg0 char 21:0") }, want: Fail, says: "sg0"},
	{check: "device-nodes", name: "disks that may be made", posture: "root-alpine", edit: allowDevices("b *:* rwm"), want: Fail, says: "b *:* rwm"},
	{check: "device-nodes", name: "one disk that may be made", posture: "root-alpine", edit: allowDevices("b 8:0 r"), want: Fail},
	{check: "device-nodes", name: "the kernel's memory, that may be made", posture: "root-alpine", edit: allowDevices("c 1:* rw"), want: Fail},
	{check: "device-nodes", name: "disks, without the right to make them", edit: allowDevices("b *:* rwm"), want: Warn},
	{check: "device-nodes", name: "terminals that may be made", posture: "root-alpine", edit: allowDevices("c 4:* rwm"), want: Warn},
	{check: "device-nodes", name: "a node that may be made and not opened", posture: "root-alpine", edit: allowDevices("b 8:0 m"), want: Warn},
	{check: "cpu-limit", name: "one of two processors", posture: "root-alpine", edit: func(f *fixture) {
		f.write(strings.Replace(cgroupOf(f, "cpu"), "/cpu", "/cpuset", 1)+"/cpuset.cpus", "1\n")
		f.write("proc/stat", "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n")
	}, want: Pass, says: "only 1 of the 2 CPUs"},
	{check: "cpu-limit", name: "all processors", posture: "root-alpine", edit: func(f *fixture) {
		f.write(strings.Replace(cgroupOf(f, "cpu"), "/cpu", "/cpuset", 1)+"/cpuset.cpus", "0-1\n")
		f.write("proc/stat", "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n")
	}, want: Fail},
	{check: "cpu-limit", name: "a list of processors that is nonsense", posture: "root-alpine", edit: func(f *fixture) {
		f.write(strings.Replace(cgroupOf(f, "cpu"), "/cpu", "/cpuset", 1)+"/cpuset.cpus", "1-0\n")
		f.write("proc/stat", "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n")
	}, want: Fail},
	{check: "zombie-reaping", name: "a /proc that hides PID 1", edit: hidepid, want: Unknown, says: "hidepid"},
	{check: "sshd-absent", name: "a /proc that hides PID 1", edit: hidepid, want: Unknown, says: "hidepid"},
	{check: "sshd-absent", name: "busybox's telnetd", edit: func(f *fixture) { f.process(20, 1, "S", "busybox", "busybox telnetd -F") }, want: Fail, says: "telnetd"},
	{check: "memory-limit", name: "of the program, where nsenter has brought the auditor", posture: "root-alpine", edit: func(f *fixture) {
		f.sub("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712", "hierarchical_memory_limit 67108864")
		startedAlike(f)
		f.write("proc/self/cgroup", "4:memory:/user.slice\n")
	}, want: Pass, says: "64 MiB"},
	{check: "writable-mounts", name: "below what covers it", edit: func(f *fixture) {
		f.mount("/a /srv rw - ext4 /dev/vda rw")
		f.mount("/b /srv/b rw - ext4 /dev/vda rw")
		f.mount("/c /srv ro - ext4 /dev/vda rw")
	}, want: Pass},
	{check: "writable-mounts", name: "later in the list, and covered all the same", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "124 106 254:0 ", "9901 106 254:0 /a /srv rw - ext4 x rw\n9902 9901 254:0 /b /srv/b ro - ext4 x rw\n"+
			"9903 106 254:0 /c /srv/b rw - ext4 x rw\n124 106 254:0 ")
	}, want: Warn, says: "mountinfo: /srv"},
	{check: "pid1-sigterm", name: "node's own handler", edit: func(f *fixture) { f.write("proc/1/cmdline", "node\x00/app.js\x00") }, want: Warn, says: "node's own"},
	{check: "pid1-sigterm", name: "node behind an init", edit: func(f *fixture) {
		behindInit(f)
		f.write("proc/7/cmdline", "node\x00/app.js\x00")
		f.statusOf("proc/7/status", "SigCgt", "0000000000004002")
	}, want: Pass},
	{check: "cgroup-parent", name: "LXC's", edit: inCgroup("/lxc.payload.web"), want: Pass},
	{check: "cgroup-parent", name: "nerdctl's", edit: inCgroup("/default/" + containerID), want: Pass},
	{check: "cgroup-parent", name: "systemd's, of Docker", edit: inCgroup("/system.slice/docker-" + containerID + ".scope"), want: Pass},
	{check: "cgroup-parent", name: "one that begins as Docker's", edit: inCgroup("/docker-mine"), want: Warn},
	{check: "default-bridge-network", name: "LXC", edit: func(f *fixture) { f.write("etc/resolv.conf", "nameserver 10.0.3.1\n"); withEnv("container=lxc")(f) }, want: NotApplicable, says: "lxc"},
	{check: "app-binary-immutable", name: "a directory that is the program", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/usr/bin/node")
		f.owned("usr/bin/node", "0755", 0, 0)
		f.write("proc/1/cmdline", "node\x00/srv/app\x00")
		f.tree("srv/app dir 0755")
		f.files["srv/app"].Sys = &FileStat{UID: 65532, Nlink: 1}
	}, want: Fail, says: "/srv/app (its owner)"},
	{check: "app-binary-immutable", name: "a file that a module is given", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/usr/bin/python3")
		f.owned("usr/bin/python3", "0755", 0, 0)
		f.write("proc/1/cmdline", "python3\x00-m\x00tool\x00/data/in.csv\x00")
		f.owned("data/in.csv", "0644", 65532, 0)
	}, want: Pass},
	{check: "app-binary-immutable", name: "a file that a script is given", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/usr/bin/python3")
		f.owned("usr/bin/python3", "0755", 0, 0)
		f.owned("srv/app.py", "0644", 0, 0)
		f.write("proc/1/cmdline", "python3\x00/srv/app.py\x00/data/in.csv\x00")
		f.owned("data/in.csv", "0644", 65532, 0)
	}, want: Pass},
	{check: "app-binary-immutable", name: "a script that a shell is given with -e", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/bin/sh")
		f.owned("bin/sh", "0755", 0, 0)
		f.write("proc/1/cmdline", "sh\x00-e\x00/srv/run\x00")
		f.owned("srv/run", "0755", 65532, 0)
	}, want: Fail, says: "/srv/run"},
	{check: "network-namespace", name: "another container's, of Podman", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/var/lib/docker/containers/cb52d92eaa68f9968ecad74ab4d983b3813e5d4c1d1d8e79036adc0b599c3927/hosts", "/containers/storage/overlay-containers/"+containerID+"/userdata/hosts")
		inCgroup("/machine.slice/libpod-1225bdcef11a43b1e3c9d0ba3e6aacb00db27d5c552f21e9d4f90251f9d72f7f.scope")(f)
	}, want: Warn, says: "8f0a5bd1c2f3"},
	{check: "sensitive-host-mounts", name: "a folder of the host called volumes", edit: hostMount("/srv/volumes/v /d ro - ext4 /dev/vda rw"), want: Warn},
	{check: "sensitive-host-mounts", name: "a folder of the host called containers", edit: hostMount("/srv/containers/" + containerID + " /d ro - ext4 /dev/vda rw"), want: Warn},
	{check: "sensitive-host-mounts", name: "a folder of the host called containers, with short names in it", edit: hostMount("/srv/containers/0a1b/x /d ro - ext4 /dev/vda rw"), want: Warn},
	{check: "sensitive-host-mounts", name: "a folder of the host called containers, with long names in it", edit: hostMount("/srv/containers/" + strings.Repeat("name", 16) + "/x /d ro - ext4 /dev/vda rw"), want: Warn},
	{check: "sensitive-host-mounts", name: "a folder of the host called overlay-containers", edit: hostMount("/srv/overlay-containers/" + containerID + " /d ro - ext4 /dev/vda rw"), want: Warn},
	{check: "sensitive-host-mounts", name: "a folder of the host called pods", edit: hostMount("/srv/pods/a /d ro - ext4 /dev/vda rw"), want: Warn},
	{check: "sensitive-host-mounts", name: "a disk with a few directories of a system", edit: func(f *fixture) {
		f.mount("/ /d ro - ext4 /dev/sdb rw")
		f.tree("d/etc dir 0755\nd/usr dir 0755\nd/var dir 0755")
	}, want: Warn, says: "a whole ext4"},
	{check: "sensitive-host-mounts", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "mount-propagation", name: "a slave is the default", want: Pass},
	{check: "mount-propagation", name: "shared", edit: hostMount("/srv /d ro shared:7 - ext4 /dev/vda rw"), want: Fail, says: "/d"},
	{check: "mount-propagation", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "proc-paths-masked", name: "in place", want: Pass, says: "/proc/interrupts"},
	{check: "proc-paths-masked", name: "privileged", posture: "privileged", want: Fail, says: "/proc/sys"},
	{check: "proc-paths-masked", name: "one is missing", edit: func(f *fixture) { f.sub("proc/self/mountinfo", " /null /proc/keys ", " /null /proc/nothing ") }, want: Fail, says: "/proc/keys"},
	{check: "proc-paths-masked", name: "one is writable", edit: func(f *fixture) { f.sub("proc/self/mountinfo", "/proc/bus ro", "/proc/bus rw") }, want: Fail, says: "/proc/bus"},
	{check: "proc-paths-masked", name: "masked by the host's /dev/null", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/null /proc/keys rw,nosuid - tmpfs tmpfs", "/null /proc/keys rw,nosuid - devtmpfs devtmpfs")
	}, want: Pass},
	{check: "proc-paths-masked", name: "masked by another file of the host", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/null /proc/keys rw,nosuid - tmpfs tmpfs", "/zero /proc/keys rw,nosuid - devtmpfs devtmpfs")
	}, want: Fail, says: "/proc/keys"},
	{check: "proc-paths-masked", name: "the newer ones too", edit: hostMount("/null /proc/interrupts rw - tmpfs tmpfs rw"), want: Pass, says: "for 9 paths"},
	{check: "proc-paths-masked", name: "a read-only mount is no mask", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "0:57 / /proc/acpi ro,relatime - tmpfs tmpfs ro", "0:57 /acpi /proc/acpi ro,relatime - proc proc rw")
	}, want: Fail, says: "/proc/acpi"},
	{check: "proc-paths-masked", name: "one that cannot be looked at", edit: func(f *fixture) { f.denied["lstat proc/keys"] = syscall.EIO }, want: Unknown, says: "/proc/keys"},
	{check: "proc-paths-masked", name: "none of them exists", edit: func(f *fixture) {
		for name := range f.files {
			if strings.HasPrefix(name, "sys/") || strings.HasPrefix(name, "proc/") && !strings.HasPrefix(name, "proc/1") && !strings.HasPrefix(name, "proc/self") {
				delete(f.files, name)
			}
		}
	}, want: Unknown, says: "is /proc mounted?"},
	{check: "proc-paths-masked", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "sysfs-read-only", name: "ro", want: Pass},
	{check: "sysfs-read-only", name: "privileged", posture: "privileged", want: Fail, says: "/sys"},
	{check: "sysfs-read-only", name: "a controller of the host", edit: hostMount("/ /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"), want: Fail, says: "memory"},
	{check: "sysfs-read-only", name: "no sysfs", edit: func(f *fixture) {
		f.write("proc/self/mountinfo", "1 0 0:1 / / ro - overlay overlay rw\n")
	}, want: NotApplicable},
	{check: "sysfs-read-only", name: "all that is mounted below", want: Pass, says: "10 mounts"},
	{check: "sysfs-read-only", name: "unreadable", edit: noMounts, want: Unknown, unread: true},

	{check: "device-nodes", name: "the usual ones", want: Pass},
	{check: "device-nodes", name: "a disk", edit: func(f *fixture) { f.tree("dev/sda block 8:0") }, want: Fail, says: "b 8:0"},
	{check: "device-nodes", name: "the kernel's log under another name", edit: func(f *fixture) { f.tree("dev/xnull char 1:11") }, want: Fail, says: "c 1:11"},
	{check: "device-nodes", name: "null under another name", edit: func(f *fixture) { f.tree("dev/xnull char 1:3") }, want: Pass},
	{check: "device-nodes", name: "another one", edit: func(f *fixture) { f.tree("dev/ttyUSB0 char 188:0") }, want: Warn},
	{check: "device-nodes", name: "a rule without a node", edit: func(f *fixture) {
		f.sub("sys/fs/cgroup/devices/devices.list", "c 136:* rwm", "c 136:* rwm\nc 1:11 r")
	}, want: Warn, says: "c 1:11 r"},
	{check: "device-nodes", name: "not what is mounted below", edit: func(f *fixture) { f.tree("dev/pts/0 char 4:0") }, want: Pass},
	{check: "device-nodes", name: "a terminal and its like", edit: func(f *fixture) { f.tree("dev/console char 5:1\ndev/ptmx char 5:2\ndev/pty char 136:0") }, want: Pass},
	{check: "device-nodes", name: "none of the terminals", edit: func(f *fixture) { f.tree("dev/x char 5:3") }, want: Warn, says: "c 5:3"},
	{check: "device-nodes", name: "fuse", edit: func(f *fixture) { f.tree("dev/fuse char 10:229") }, want: Fail, says: "c 10:229"},
	{check: "device-nodes", name: "a tunnel", edit: func(f *fixture) { f.tree("dev/net/tun char 10:200") }, want: Warn, says: "c 10:200"},
	{check: "device-nodes", name: "the processor's registers", edit: func(f *fixture) { f.tree("dev/msr char 202:0") }, want: Fail, says: "c 202:0"},
	{check: "device-nodes", name: "the processor's features", edit: func(f *fixture) { f.tree("dev/cpuid char 203:0") }, want: Fail, says: "c 203:0"},
	{check: "device-nodes", name: "the worst first", edit: func(f *fixture) { f.tree("dev/a char 188:0\ndev/sda block 8:0\ndev/x char 188:1") }, want: Fail, says: "/dev/sda b 8:0, /dev/a c 188:0, /dev/x c 188:1"},
	{check: "device-nodes", name: "a rule that does not end the list", edit: func(f *fixture) {
		f.sub("sys/fs/cgroup/devices/devices.list", "b *:* m\n", "b *:* m\n\n")
	}, want: Pass, says: "only the usual ones among 6 nodes"},
	{check: "device-nodes", name: "one that is mounted by itself", edit: func(f *fixture) {
		f.mount("/sda /dev/sda rw - devtmpfs devtmpfs rw")
		f.tree("dev/sda block 8:0")
	}, want: Fail, says: "/dev/sda"},
	{check: "device-nodes", name: "below a directory that is not mounted", edit: func(f *fixture) { f.tree("dev/mapper/root block 253:0") }, want: Fail, says: "/dev/mapper/root"},
	{check: "device-nodes", name: "a directory that cannot be entered", edit: func(f *fixture) { f.tree("dev/sub dir 0700"); f.deny("dev/sub") }, want: Pass},
	{check: "device-nodes", name: "a directory that cannot be read", edit: func(f *fixture) { f.tree("dev/sub dir 0700"); f.denied["dev/sub"] = syscall.EIO }, want: Unknown, says: "/dev/sub"},
	{check: "device-nodes", name: "numbers that cannot be read", edit: func(f *fixture) { f.sys.Stat = nil }, want: Unknown, says: "numbers"},
	{check: "device-nodes", name: "unreadable", edit: func(f *fixture) { f.deny("dev") }, want: Unknown, unread: true},

	{check: "memory-limit", name: "v1", want: Pass, says: "64 MiB"},
	{check: "memory-limit", name: "v1 without", posture: "root-alpine", want: Fail},
	{check: "memory-limit", name: "v2", posture: "kubernetes", want: Pass, says: "64 MiB in /sys/fs/cgroup/memory.max"},
	{check: "memory-limit", name: "v2 without", posture: "kubernetes", edit: func(f *fixture) { f.write("sys/fs/cgroup/memory.max", "max\n") }, want: Fail},
	{check: "memory-limit", name: "v2 by a parent that is seen", posture: "kubernetes", edit: func(f *fixture) {
		f.write("proc/self/cgroup", "0::/pod/app\n")
		f.write("sys/fs/cgroup/pod/app/memory.max", "max\n")
		f.write("sys/fs/cgroup/pod/memory.max", "1048576\n")
	}, want: Pass, says: "1 MiB"},
	{check: "memory-limit", name: "more than the machine has", edit: func(f *fixture) {
		f.sub("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 67108864", "hierarchical_memory_limit 107374182400")
	}, want: Warn, says: "100 GiB"},
	{check: "memory-limit", name: "hybrid: v2 mounted without controllers", edit: func(f *fixture) { f.mount("/ /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw") }, want: Pass},
	{check: "memory-limit", name: "no controller", edit: func(f *fixture) { f.sub("proc/self/cgroup", "memory", "other") }, want: NotApplicable},
	{check: "memory-limit", name: "the host's cgroups over the own", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ /sys/fs/cgroup/memory ", "/../.. /sys/fs/cgroup/memory ")
	}, want: Unknown, says: "/../.."},
	{check: "memory-limit", name: "the size of the machine, which is unknown", edit: func(f *fixture) { f.deny("proc/meminfo") }, want: Pass},
	{check: "memory-limit", name: "all that the machine has", edit: func(f *fixture) {
		f.write("proc/meminfo", "MemFree:  1024 kB\nMemTotal:  65536 kB\n")
	}, want: Warn, says: "not less than the machine has (64 MiB)"},
	{check: "memory-limit", name: "a page less than the machine has", edit: func(f *fixture) {
		f.write("proc/meminfo", "MemTotal:  65540 kB\n")
	}, want: Pass},
	{check: "memory-limit", name: "unreadable", edit: func(f *fixture) { f.deny("sys/fs/cgroup/memory/memory.stat") }, want: Unknown, unread: true},

	{check: "cpu-limit", name: "v1", want: Pass, says: "0.5 CPUs"},
	{check: "cpu-limit", name: "v1 without", posture: "root-alpine", want: Fail},
	{check: "cpu-limit", name: "v1 shares only", posture: "root-alpine", edit: func(f *fixture) {
		f.write(cgroupOf(f, "cpu")+"/cpu.shares", "512\n")
	}, want: Warn, says: "512"},
	{check: "cpu-limit", name: "v2", posture: "kubernetes", want: Pass, says: "0.5 CPUs in /sys/fs/cgroup/cpu.max"},
	{check: "cpu-limit", name: "v2 without, where Kubernetes sets a weight always", posture: "kubernetes", edit: func(f *fixture) { f.write("sys/fs/cgroup/cpu.max", "max 100000\n") }, want: Fail},
	{check: "cpu-limit", name: "nonsense", edit: func(f *fixture) { f.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "much\n") }, want: Unknown},
	{check: "cpu-limit", name: "a parent's quota without its period", edit: func(f *fixture) {
		f.sub("proc/self/cgroup", "cpu:/", "cpu:/app")
		f.write("sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "-1\n")
		f.write("sys/fs/cgroup/cpu/app/cpu.cfs_period_us", "100000\n")
		delete(f.files, "sys/fs/cgroup/cpu/cpu.cfs_period_us")
	}, want: Unknown, says: "is no quota"},
	{check: "cpu-limit", name: "v1 by a parent that is seen", edit: func(f *fixture) {
		f.sub("proc/self/cgroup", "cpu:/", "cpu:/app")
		f.write("sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "-1\n")
		f.write("sys/fs/cgroup/cpu/app/cpu.cfs_period_us", "100000\n")
	}, want: Pass, says: "0.5 CPUs"},
	{check: "cpu-limit", name: "v2 weight only", edit: func(f *fixture) { v2(f); f.write("sys/fs/cgroup/cpu.weight", "50\n") }, want: Warn, says: "50 in /sys/fs/cgroup/cpu.weight"},
	{check: "cpu-limit", name: "v2 with the weight that is the default", edit: v2, want: Fail},
	{check: "cpu-limit", name: "v1 with the shares that are the default", edit: func(f *fixture) {
		f.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
		f.write("sys/fs/cgroup/cpu/cpu.shares", "1024\n")
	}, want: Fail},
	{check: "cpu-limit", name: "a period of nothing", edit: func(f *fixture) { v2(f); f.write("sys/fs/cgroup/cpu.max", "50000 0\n") }, want: Unknown, says: "is no quota"},
	{check: "cpu-limit", name: "a quota of nothing", edit: func(f *fixture) { v2(f); f.write("sys/fs/cgroup/cpu.max", "0 100000\n") }, want: Unknown, says: "is no quota"},
	{check: "cpu-limit", name: "unreadable", edit: func(f *fixture) { f.deny("sys/fs/cgroup/cpu/cpu.cfs_quota_us") }, want: Unknown, unread: true},

	{check: "pids-limit", name: "v1", want: Pass, says: "64"},
	{check: "pids-limit", name: "v1 without", posture: "root-alpine", want: Fail},
	{check: "pids-limit", name: "Kubernetes sets it on the pod", posture: "kubernetes", want: Warn},
	{check: "pids-limit", name: "0 is a limit", edit: func(f *fixture) { f.write("sys/fs/cgroup/pids/pids.max", "0\n") }, want: Pass, says: "0 in"},
	{check: "pids-limit", name: "unreadable", edit: func(f *fixture) { f.deny("sys/fs/cgroup/pids/pids.max") }, want: Unknown, unread: true},

	{check: "ulimits", name: "bounded", want: Pass, says: "nofile 1024"},
	{check: "ulimits", name: "core dumps", posture: "root-alpine", want: Warn, says: "core unlimited"},
	{check: "ulimits", name: "the auditor's own do not count", edit: func(f *fixture) { f.write("proc/self/limits", "") }, want: Pass},
	{check: "ulimits", name: "as many open files as the kernel allows", edit: func(f *fixture) {
		f.sub("proc/1/limits", "1024                 1024 ", "1024                 1048576 ")
	}, want: Pass, says: "nofile 1048576"},
	{check: "ulimits", name: "more open files", edit: func(f *fixture) {
		f.sub("proc/1/limits", "1024                 1024 ", "1024                 1048577 ")
	}, want: Warn},
	{check: "ulimits", name: "open files without limit", edit: func(f *fixture) {
		f.sub("proc/1/limits", "1024                 1024 ", "1024                 unlimited ")
	}, want: Warn, says: "nofile unlimited"},
	{check: "ulimits", name: "no open files at all", edit: func(f *fixture) { f.sub("proc/1/limits", "1024                 1024 ", "0                 0 ") }, want: Pass, says: "nofile 0"},
	{check: "ulimits", name: "unreadable", edit: func(f *fixture) { f.deny("proc/1/limits") }, want: Unknown, unread: true},

	{check: "oom-killable", name: "default", want: Pass},
	{check: "oom-killable", name: "a guaranteed pod", posture: "kubernetes", want: Pass, says: "-997"},
	{check: "oom-killable", name: "never", edit: func(f *fixture) { f.write("proc/1/oom_score_adj", "-1000\n") }, want: Fail},
	{check: "oom-killable", name: "disabled for the cgroup", edit: func(f *fixture) {
		f.sub("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0", "oom_kill_disable 1")
	}, want: Fail},
	{check: "oom-killable", name: "unreadable", edit: func(f *fixture) { f.deny("proc/1/oom_score_adj") }, want: Unknown, unread: true},

	{check: "cgroup-parent", name: "Docker's", posture: "root-alpine", want: Pass},
	{check: "cgroup-parent", name: "systemd's", edit: func(f *fixture) { f.write("proc/self/cgroup", "0::/system.slice/docker-"+containerID+".scope\n") }, want: Pass},
	{check: "cgroup-parent", name: "another one", edit: func(f *fixture) { f.write("proc/self/cgroup", "0::/other/1f\n") }, want: Warn, says: "/other/1f"},
	{check: "cgroup-parent", name: "hidden by a namespace", want: NotApplicable},
	{check: "cgroup-parent", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/cgroup") }, want: Unknown, unread: true},

	{check: "pid1-sigterm", name: "handled", want: Pass, says: "SigCgt"},
	{check: "pid1-sigterm", name: "not handled", posture: "root-alpine", want: Fail, says: "neither"},
	{check: "pid1-sigterm", name: "ignored", edit: func(f *fixture) { f.statusOf("proc/1/status", "SigIgn", "0000000000004000") }, want: Fail, says: "ignored"},
	{check: "pid1-sigterm", name: "blocked for signalfd", edit: func(f *fixture) {
		f.statusOf("proc/1/status", "SigCgt", "0000000000000000")
		f.statusOf("proc/1/status", "SigBlk", "0000000000004000")
	}, want: Pass, says: "signalfd"},
	{check: "pid1-sigterm", name: "an init shows nothing and forwards", edit: func(f *fixture) {
		f.statusOf("proc/1/status", "SigCgt", "0000000000000000")
		f.write("proc/1/cmdline", "/sbin/docker-init\x00--\x00/app\x00")
	}, want: Pass, says: "docker-init"},
	{check: "pid1-sigterm", name: "the auditor in its place", edit: func(f *fixture) { f.sys.PID = 1 }, want: NotApplicable},
	{check: "pid1-sigterm", name: "the auditor is the program", edit: func(f *fixture) { f.sys.PID = 1; f.sys.App = &App{} }, want: Pass},
	{check: "pid1-sigterm", name: "the host's init", edit: hostNamespace("pid"), want: NotApplicable},
	{check: "pid1-sigterm", name: "masks that are nonsense", edit: func(f *fixture) { f.statusOf("proc/1/status", "SigIgn", "none") }, want: Unknown},
	{check: "pid1-sigterm", name: "unreadable", edit: noStatus, want: Unknown, unread: true},

	{check: "pid1-not-shell", name: "a program", want: Pass},
	{check: "pid1-not-shell", name: "sh -c", edit: shellPID1("/bin/sh -c app"), want: Fail, says: "process 1 is sh"},
	{check: "pid1-not-shell", name: "a login shell", edit: shellPID1("-bash"), want: Fail},
	{check: "pid1-not-shell", name: "busybox sh", edit: shellPID1("busybox sh -c app"), want: Fail},
	{check: "pid1-not-shell", name: "a shell that traps SIGTERM", edit: func(f *fixture) { f.write("proc/1/cmdline", "/bin/sh\x00/x.sh\x00") }, want: Warn, says: "trap"},
	{check: "pid1-not-shell", name: "an init in front of the shell", edit: func(f *fixture) {
		f.statusOf("proc/1/status", "SigCgt", "0000000000000000")
		f.write("proc/1/cmdline", "/sbin/tini\x00--\x00sh\x00")
		f.process(7, 1, "S", "sh", "sh -c app")
	}, want: Fail, says: "process 7 is sh"},
	{check: "pid1-not-shell", name: "the auditor in its place", edit: func(f *fixture) { f.sys.PID = 1 }, want: NotApplicable},
	{check: "pid1-not-shell", name: "busybox without an applet", edit: func(f *fixture) { f.write("proc/1/cmdline", "busybox\x00") }, want: Pass, says: "PID 1 is busybox"},
	{check: "pid1-not-shell", name: "no command line", edit: func(f *fixture) { f.write("proc/1/cmdline", "") }, want: Pass},
	{check: "pid1-not-shell", name: "an init without children", edit: func(f *fixture) { f.write("proc/1/cmdline", "tini\x00") }, want: Pass, says: "tini"},
	{check: "pid1-not-shell", name: "an init whose children cannot be seen", edit: func(f *fixture) { f.write("proc/1/cmdline", "tini\x00"); f.deny("proc") }, want: Unknown},
	{check: "pid1-not-shell", name: "a shell of another parent", edit: func(f *fixture) {
		f.write("proc/1/cmdline", "tini\x00")
		f.process(7, 1, "S", "app", "app")
		f.process(8, 7, "S", "sh", "sh")
	}, want: Pass},
	{check: "pid1-not-shell", name: "a shell whose traps cannot be read", edit: func(f *fixture) {
		f.write("proc/1/cmdline", "/bin/sh\x00/x.sh\x00")
		f.deny("proc/1/status")
	}, want: Fail},
	{check: "pid1-not-shell", name: "unreadable", edit: func(f *fixture) { f.deny("proc/1/cmdline") }, want: Unknown, unread: true},

	{check: "zombie-reaping", name: "none", want: Pass},
	{check: "zombie-reaping", name: "an orphan of PID 1", edit: func(f *fixture) { f.process(9, 1, "Z", "odd) name (", "") }, want: Warn, says: "9 (odd) name ()"},
	{check: "zombie-reaping", name: "another parent's fault", edit: func(f *fixture) {
		f.process(7, 1, "S", "worker", "worker")
		f.process(9, 7, "Z", "sleep", "")
	}, want: Pass, says: "9 (sleep) of its living parent 7 (worker)"},
	{check: "zombie-reaping", name: "how many were looked at", want: Pass, says: "no process of PID 1 stays a zombie (1 process in /proc)"},
	{check: "zombie-reaping", name: "an orphan and another parent's", edit: func(f *fixture) {
		f.process(7, 1, "S", "worker", "worker")
		f.process(8, 7, "Z", "sleep", "")
		f.process(9, 1, "Z", "cat", "")
	}, want: Warn, says: "1 zombie that PID 1 does not reap: 9 (cat); zombies that their own parent does not reap: 8 (sleep)"},
	{check: "zombie-reaping", name: "one on its way out", edit: func(f *fixture) {
		f.process(9, 1, "Z", "sleep", "")
		f.sys.Sleep = func(ctx context.Context, d time.Duration) error {
			for _, name := range []string{"stat", "cmdline", "status"} {
				delete(f.files, "proc/9/"+name)
			}
			return nil
		}
	}, want: Pass},
	{check: "zombie-reaping", name: "one, and no second look", edit: func(f *fixture) { f.process(9, 1, "Z", "sleep", ""); f.sys.Sleep = nil }, want: Pass},
	{check: "zombie-reaping", name: "a second look that fails", edit: func(f *fixture) {
		f.process(9, 1, "Z", "sleep", "")
		f.sys.Sleep = func(ctx context.Context, d time.Duration) error { f.deny("proc"); return nil }
	}, want: Unknown},
	{check: "zombie-reaping", name: "a process that ends meanwhile", edit: func(f *fixture) {
		f.process(9, 1, "S", "sleep", "")
		f.denied["proc/9/stat"] = syscall.ESRCH
	}, want: Pass, says: "1 process in /proc"},
	{check: "zombie-reaping", name: "a process that cannot be read", edit: func(f *fixture) {
		f.process(9, 1, "S", "sleep", "")
		f.deny("proc/9/stat")
	}, want: Unknown, says: "/proc/9/stat"},
	{check: "zombie-reaping", name: "the host's init", edit: hostNamespace("pid"), want: NotApplicable},
	{check: "zombie-reaping", name: "where PID 1 is not shown", edit: func(f *fixture) {
		f.denied["proc/1/stat"] = fs.ErrNotExist // as with the mount option hidepid
		f.process(7, 0, "S", "worker", "worker")
		f.process(9, 7, "Z", "sleep", "")
	}, want: Unknown, says: "hidepid"},
	{check: "zombie-reaping", name: "unreadable", edit: func(f *fixture) { f.deny("proc") }, want: Unknown, unread: true},

	{check: "sshd-absent", name: "absent", want: Pass},
	{check: "sshd-absent", name: "runs", edit: func(f *fixture) { f.process(7, 1, "S", "sshd", "/usr/sbin/sshd -D") }, want: Fail, says: "process 7 is sshd"},
	{check: "sshd-absent", name: "the host's own does not count", edit: func(f *fixture) { hostNamespace("pid")(f); f.process(7, 1, "S", "sshd", "sshd") }, want: NotApplicable},
	{check: "sshd-absent", name: "a process whose name is empty", edit: func(f *fixture) { f.process(7, 1, "S", "", "") }, want: Pass, says: "2 processes"},
	{check: "sshd-absent", name: "unreadable", edit: func(f *fixture) { f.deny("proc") }, want: Unknown, unread: true},

	{check: "listening-ports", name: "Docker's resolver listens on the loopback", want: Pass, says: "0 listeners"},
	{check: "listening-ports", name: "port 80", edit: func(f *fixture) { f.sub("proc/self/net/tcp", "0B00007F:AAAD", "00000000:0050") }, want: Warn, says: "[80]"},
	{check: "listening-ports", name: "port 80 on IPv6", edit: func(f *fixture) {
		f.write("proc/self/net/tcp6", "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0\n")
	}, want: Warn, says: "[80]"},
	{check: "listening-ports", name: "port 80 on the IPv6 loopback", edit: func(f *fixture) {
		f.write("proc/self/net/tcp6", "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0\n")
	}, want: Pass},
	{check: "listening-ports", name: "port 8000", edit: func(f *fixture) { f.sub("proc/self/net/tcp", "0B00007F:AAAD", "00000000:1F40") }, want: Pass, says: "1 listener"},
	{check: "listening-ports", name: "the host's", edit: hostNamespace("net"), want: NotApplicable},
	{check: "listening-ports", name: "the last privileged port", edit: func(f *fixture) { f.sub("proc/self/net/tcp", "0B00007F:AAAD", "00000000:03FF") }, want: Warn, says: "[1023]"},
	{check: "listening-ports", name: "the first port for everyone", edit: func(f *fixture) { f.sub("proc/self/net/tcp", "0B00007F:AAAD", "00000000:0400") }, want: Pass, says: "1 listener"},
	{check: "listening-ports", name: "a connection is no listener", edit: func(f *fixture) {
		f.sub("proc/self/net/tcp", "0B00007F:AAAD 00000000:0000 0A", "00000000:0050 00000000:0000 01")
	}, want: Pass, says: "0 listeners"},
	{check: "listening-ports", name: "a line cut short", edit: func(f *fixture) { f.write("proc/self/net/tcp", "0: 00000000:0050 00000000:0000 0A\n") }, want: Warn, says: "[80]"},
	{check: "listening-ports", name: "an address of odd length", edit: func(f *fixture) { f.write("proc/self/net/tcp", "0: 000000:0050 00000000:0000 0A\n") }, want: Pass, says: "0 listeners"},
	{check: "listening-ports", name: "an address that is none", edit: func(f *fixture) { f.write("proc/self/net/tcp", "0: 0000000G:0050 00000000:0000 0A\n") }, want: Pass, says: "0 listeners"},
	{check: "listening-ports", name: "an IPv4 address", edit: func(f *fixture) { f.write("proc/self/net/tcp", "0: 0101007E:0050 00000000:0000 0A\n") }, want: Warn, says: "[80]"},
	{check: "listening-ports", name: "a kernel without IPv6", edit: func(f *fixture) { delete(f.files, "proc/self/net/tcp6") }, want: Pass},
	{check: "listening-ports", name: "no list at all", edit: func(f *fixture) { delete(f.files, "proc/self/net/tcp") }, want: Unknown},
	{check: "listening-ports", name: "IPv6 unreadable", edit: func(f *fixture) { f.deny("proc/self/net/tcp6") }, want: Unknown},
	{check: "listening-ports", name: "unreadable", edit: func(f *fixture) { f.deny("proc/self/net/tcp") }, want: Unknown, unread: true},

	{check: "default-bridge-network", name: "a user-defined network", want: Pass},
	{check: "default-bridge-network", name: "docker0", posture: "root-alpine", want: Warn},
	{check: "default-bridge-network", name: "no network", edit: func(f *fixture) { f.sub("proc/self/net/dev", "eth0", "tunl0") }, want: NotApplicable},
	{check: "default-bridge-network", name: "Kubernetes", posture: "kubernetes", want: NotApplicable},
	{check: "default-bridge-network", name: "Podman", edit: func(f *fixture) { f.write("run/.containerenv", "") }, want: NotApplicable},
	{check: "default-bridge-network", name: "a resolver's address elsewhere", edit: func(f *fixture) {
		f.write("etc/resolv.conf", "nameserver\noptions 127.0.0.11\nnameserver 10.0.0.1\n")
	}, want: Warn},
	{check: "default-bridge-network", name: "the host's network", edit: hostNamespace("net"), want: NotApplicable},
	{check: "default-bridge-network", name: "unreadable", edit: func(f *fixture) { f.deny("etc/resolv.conf") }, want: Unknown, unread: true},

	{check: "secrets-in-files", name: "none", posture: "root-alpine", want: Pass},
	{check: "secrets-in-files", name: "a private key", edit: func(f *fixture) { f.write("app/server.pem", testKey) }, want: Fail, says: "/app/server.pem (private key)"},
	{check: "secrets-in-files", name: "a key without its content is documentation", edit: func(f *fixture) { f.write("doc", "-----BEGIN PRIVATE KEY-----\n…\n") }, want: Pass},
	{check: "secrets-in-files", name: "a key that the auditor cannot read", edit: func(f *fixture) { f.write("home/id_ed25519", testKey); f.deny("home/id_ed25519") }, want: Fail, says: "not readable", skips: 1},
	{check: "secrets-in-files", name: "another file that cannot be read", edit: func(f *fixture) { f.write("etc/shadow", "root:*:19000:0:99999:7:::\n"); f.deny("etc/shadow") }, want: Pass, skips: 1},
	{check: "secrets-in-files", name: "what is mounted is not the image", edit: func(f *fixture) {
		f.mount("/srv/key /run/secrets/key ro - ext4 /dev/vda rw")
		f.write("run/secrets/key", testKey)
	}, want: Pass},
	{check: "secrets-in-files", name: "a file as small as a secret may be", edit: func(f *fixture) { f.write("app/.env", "PASS=ab\n") }, want: Fail, says: "/app/.env"},
	{check: "secrets-in-files", name: "a smaller file", edit: func(f *fixture) { f.write("app/.env", "PASS=a\n") }, want: Pass},
	{check: "secrets-in-files", name: "a file as large as is searched", edit: func(f *fixture) { f.write("app/dump", testKey+strings.Repeat("x", maxRead-len(testKey))) }, want: Fail, says: "/app/dump"},
	{check: "secrets-in-files", name: "a larger file", edit: func(f *fixture) { f.write("app/dump", testKey+strings.Repeat("x", maxRead+1-len(testKey))) }, want: Pass},
	{check: "secrets-in-files", name: "a key at the end of a long file", edit: func(f *fixture) { f.write("app/dump", strings.Repeat("x\n", 5000)+testKey) }, want: Fail, says: "/app/dump"},
	{check: "secrets-in-files", name: "a key in a script that may be executed", edit: func(f *fixture) { f.file("app/run", "0755", "#!/bin/sh\n"+testKey) }, want: Fail, says: "/app/run"},
	{check: "secrets-in-files", name: "a program has keys of its own", edit: func(f *fixture) { f.file("app/run", "0755", "\x7fELF\n"+testKey) }, want: Pass},
	{check: "secrets-in-files", name: "an archive is not searched", edit: func(f *fixture) { f.write("app/x.gz", testKey) }, want: Pass},
	{check: "secrets-in-files", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "secrets-in-env", name: "none", want: Pass},
	{check: "secrets-in-env", name: "a password", edit: func(f *fixture) { f.sys.Environ = append(f.sys.Environ, "DB_PASSWORD=hunter2") }, want: Fail, says: "DB_PASSWORD"},
	{check: "secrets-in-env", name: "exported by the entrypoint", edit: func(f *fixture) { f.write("proc/1/environ", "A=b\x00API_KEY=sk-12ab\x00") }, want: Fail, says: "API_KEY"},
	{check: "secrets-in-env", name: "a password among the arguments", edit: func(f *fixture) { f.write("proc/1/cmdline", "/bin/server\x00--db-password\x00hunter2\x00") }, want: Fail, says: "server --db-password"},
	{check: "secrets-in-env", name: "the arguments of the auditor as PID 1", edit: func(f *fixture) {
		f.sys.PID = 1
		f.write("proc/1/cmdline", "/imagelab\x00--\x00redis-server\x00--requirepass=hunter2\x00")
	}, want: Fail, says: "imagelab --requirepass"},
	{check: "secrets-in-env", name: "public by contract", edit: func(f *fixture) {
		f.sys.Environ = append(f.sys.Environ, "LAB_TOKEN=abc")
		f.sys.PublicEnv = []string{"LAB_TOKEN"}
	}, want: Pass},
	{check: "secrets-in-env", name: "the auditor as PID 1 has one environment", edit: func(f *fixture) { f.sys.PID = 1; f.deny("proc/1/environ") }, want: Pass, says: "2 variables of the auditor"},
	{check: "secrets-in-env", name: "the host's init is none of the container's", edit: func(f *fixture) {
		hostNamespace("pid")(f)
		f.write("proc/1/environ", "API_TOKEN=abcdef\x00")
		f.write("proc/self/environ", "API_TOKEN=abcdef\x00")
	}, want: Pass},
	{check: "secrets-in-env", name: "unreadable", edit: func(f *fixture) { f.deny("proc/1/environ") }, want: Pass, says: "entrypoint", unread: true, skips: 1},

	{check: "service-account-token", name: "not in Kubernetes", want: NotApplicable},
	{check: "service-account-token", name: "mounted", posture: "kubernetes", want: Warn},
	{check: "service-account-token", name: "not mounted", edit: func(f *fixture) { f.sys.Environ = []string{"KUBERNETES_SERVICE_HOST=10.0.0.1"} }, want: Pass},
	{check: "service-account-token", name: "unreadable", posture: "kubernetes", edit: func(f *fixture) {
		f.sys.Environ = []string{"KUBERNETES_SERVICE_HOST=10.0.0.1"}
		f.deny("run/secrets")
	}, want: Unknown, unread: true},

	{check: "shell-absent", name: "none", want: Pass},
	{check: "shell-absent", name: "links of busybox", posture: "root-alpine", want: Fail, says: "/bin/sh"},
	{check: "shell-absent", name: "a link that leads nowhere", edit: func(f *fixture) { f.link("bin/sh", "/bin/busybox") }, want: Pass},
	{check: "shell-absent", name: "a file that cannot be executed", edit: func(f *fixture) { f.write("usr/share/bash", "x") }, want: Pass},
	{check: "shell-absent", name: "an empty file, as engines make for mounts", edit: func(f *fixture) { f.file("bin/sh", "0755", "") }, want: Pass},
	{check: "shell-absent", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "package-manager-absent", name: "a database is no manager", edit: func(f *fixture) { f.write("lib/apk/db/installed", "P:x\n") }, want: Pass},
	{check: "package-manager-absent", name: "apk", posture: "root-alpine", want: Fail, says: "/sbin/apk"},
	{check: "package-manager-absent", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "interpreter-absent", name: "none", posture: "root-alpine", want: Pass},
	{check: "interpreter-absent", name: "with a version", edit: func(f *fixture) { f.file("usr/bin/python3.11", "0755", "\x7fELF") }, want: Warn, says: "python3.11"},
	{check: "interpreter-absent", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "network-client-absent", name: "none", want: Pass},
	{check: "network-client-absent", name: "busybox brings wget and nc", posture: "root-alpine", want: Fail, says: "/usr/bin/nc, /usr/bin/wget"},
	{check: "network-client-absent", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "executable-count", name: "few; neither libraries nor empty files", posture: "root-alpine", want: Pass, says: "3 executables"},
	{check: "executable-count", name: "more", edit: manyFiles(20), want: Warn},
	{check: "executable-count", name: "many", edit: manyFiles(101), want: Fail},
	{check: "executable-count", name: "as many as are few", edit: manyFiles(fewExecutables), want: Pass},
	{check: "executable-count", name: "as many as are not yet too many", edit: manyFiles(manyExecutables), want: Warn},
	{check: "executable-count", name: "unreadable", edit: noRoot, want: Unknown, unread: true},

	{check: "image-size", name: "small", want: Pass},
	{check: "image-size", name: "larger", edit: bigFile(60 << 20), want: Warn, says: "62.91 MB"},
	{check: "image-size", name: "over the budget", edit: func(f *fixture) { bigFile(60 << 20)(f); f.sys.ImageBudget = 50 << 20 }, want: Fail},
	{check: "image-size", name: "as large as is small", edit: bigFile(smallImage), want: Pass},
	{check: "image-size", name: "as large as the budget", edit: func(f *fixture) { bigFile(60 << 20)(f); f.sys.ImageBudget = 60 << 20 }, want: Warn},
	{check: "image-size", name: "as large as a budget below what is small", edit: func(f *fixture) { bigFile(1 << 10)(f); f.sys.ImageBudget = 1 << 10 }, want: Pass},
	{check: "image-size", name: "over a budget below what is small", edit: func(f *fixture) { bigFile(1 << 10)(f); f.sys.ImageBudget = 1<<10 - 1 }, want: Fail},
	{check: "image-size", name: "unreadable", edit: noRoot, want: Unknown, unread: true},
	// PID 1 of another container, as with --pid container:X: none of its hardening counts.
	{check: "run-as-non-root", name: "PID 1 is another container's", edit: foreign, want: Fail, says: "/proc/7/status"},
	{check: "non-root-group", name: "PID 1 is another container's", edit: foreign, want: Fail, says: "/proc/7/status"},
	{check: "capabilities-dropped", name: "PID 1 is another container's", edit: foreign, want: Fail, says: "/proc/7/status"},
	{check: "capabilities-added", name: "PID 1 is another container's", edit: foreign, want: Fail, says: "SYS_ADMIN"},
	{check: "no-new-privileges", name: "PID 1 is another container's", edit: foreign, want: Fail},
	{check: "seccomp-filter", name: "PID 1 is another container's", edit: foreign, want: Fail},
	{check: "pid-namespace", name: "another container's", edit: foreign, want: Warn, says: "another container's"},
	{check: "zombie-reaping", name: "another container's PID 1", edit: foreign, want: NotApplicable},
	{check: "pid1-sigterm", name: "not PID 1 of its namespace", edit: foreign, want: Pass, says: "SIGTERM ends it"},
	{check: "sshd-absent", name: "another container's", edit: func(f *fixture) {
		foreign(f)
		f.process(20, 0, "S", "sshd", "sshd")
		f.write("proc/20/mountinfo", "89 47 0:39 / / ro - overlay overlay rw\n")
	}, want: Pass, says: "2 processes"},
	{check: "pid1-sigterm", name: "no process but the auditor in another's namespace", edit: func(f *fixture) {
		foreign(f)
		for _, dir := range []string{"proc/7/", "proc/9/"} {
			f.write(dir+"mountinfo", "89 47 0:39 / / ro - overlay overlay rw\n")
		}
	}, want: NotApplicable, says: "no process but the auditor"},
	{check: "network-namespace", name: "another container's", posture: "root-alpine", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/var/lib/docker/containers/1225bdcef11a43b1e3c9d0ba3e6aacb00db27d5c552f21e9d4f90251f9d72f7f/hosts", "/var/lib/docker/containers/"+containerID+"/hosts")
	}, want: Warn, says: "8f0a5bd1c2f3"},
	{check: "listening-ports", name: "in another container's namespace", posture: "root-alpine", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/var/lib/docker/containers/1225bdcef11a43b1e3c9d0ba3e6aacb00db27d5c552f21e9d4f90251f9d72f7f/hosts", "/var/lib/docker/containers/"+containerID+"/hosts")
	}, want: Pass},
	{check: "ipc-namespace", name: "with shared memory from outside", edit: func(f *fixture) {
		f.write(".dockerenv", "")
		f.sub("proc/self/mountinfo", "122 108 0:55 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k\n", "")
		f.mount("/ /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k")
	}, want: Warn, says: "another container's"},
	{check: "ipc-namespace", name: "with message queues from outside", edit: func(f *fixture) {
		f.write(".dockerenv", "")
		f.sub("proc/self/mountinfo", "121 108 0:49 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw\n", "")
		f.mount("/ /dev/mqueue rw,relatime - mqueue mqueue rw")
	}, want: Warn, says: "/dev/mqueue"},
	{check: "sensitive-host-mounts", name: "the host's terminals in their place", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "gid=5,mode=620,ptmxmode=666", "gid=5,mode=620,ptmxmode=000")
	}, want: Fail, says: "terminals"},
	{check: "sensitive-host-mounts", name: "the host's terminals elsewhere", edit: hostMount("/ /x rw - devpts devpts rw,gid=5,mode=620,ptmxmode=666"), want: Fail, says: "terminals"},
	{check: "sensitive-host-mounts", name: "a terminal of its own as the console", edit: hostMount("/0 /dev/console rw - devpts devpts rw,gid=5,mode=620,ptmxmode=666"), want: Pass},
	{check: "ipc-namespace", name: "Docker's own", edit: func(f *fixture) { f.write(".dockerenv", "") }, want: Pass},

	{check: "seccomp-filter", name: "a profile that refuses keyctl alone", edit: refusing("keyctl"), want: Warn, says: "1 are refused (keyctl)"},
	{check: "seccomp-filter", name: "Podman's default allows keyctl", edit: allowing("keyctl"), want: Pass, says: "allowed are keyctl"},
	{check: "seccomp-filter", name: "a profile that refuses two", edit: allowing("clock_settime", "kcmp", "move_pages", "perf_event_open", "quotactl", "set_mempolicy", "swapon"), want: Warn},

	{check: "run-as-non-root", name: "a saved uid 0 comes back", edit: func(f *fixture) { f.status("Uid", "1000 1000 0 1000") }, want: Fail, says: "saved"},
	{check: "run-as-non-root", name: "a real uid 0 comes back", edit: func(f *fixture) { f.status("Uid", "0 1000 1000 1000") }, want: Fail},
	{check: "run-as-non-root", name: "the child of an init", edit: func(f *fixture) { behindInit(f); f.statusOf("proc/1/status", "Uid", "0 0 0 0") }, want: Pass, says: "/proc/7/status"},
	{check: "non-root-group", name: "a saved gid 0 comes back", edit: func(f *fixture) { f.status("Gid", "1000 1000 0 1000") }, want: Fail},
	{check: "user-namespace", name: "an identity map of a part", edit: func(f *fixture) { f.write("proc/self/uid_map", " 0 0 65536\n") }, want: Warn},
	{check: "user-namespace", name: "0 is outside 0, the rest is elsewhere", edit: func(f *fixture) { f.write("proc/self/uid_map", " 0 0 1\n 1 100000 65536\n") }, want: Warn},
	{check: "user-namespace", name: "rootless", edit: func(f *fixture) { f.write("proc/self/uid_map", " 0 1000 1\n 1 100000 65536\n") }, want: Pass},
	{check: "exec-not-elevated", name: "PID 1 dropped its own user", edit: func(f *fixture) { f.status("CapBnd", "00000000a80425fb"); f.sys.EUID = 0 }, want: Pass, says: "by itself"},

	{check: "pid1-sigterm", name: "the child of an init ignores it", edit: func(f *fixture) { behindInit(f); f.statusOf("proc/7/status", "SigIgn", "0000000000004000") }, want: Fail, says: "/proc/7/status"},
	{check: "pid1-sigterm", name: "the child of an init ends by it", edit: behindInit, want: Pass, says: "forwards"},

	{check: "sensitive-host-mounts", name: "a file of /etc", edit: hostMount("/etc/shadow /x ro,relatime - ext4 /dev/vda rw,discard"), want: Fail, says: "/etc/shadow"},
	{check: "sensitive-host-mounts", name: "a folder of the host's root user", edit: hostMount("/root/.ssh /y ro,relatime - ext4 /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "cron's folder", edit: hostMount("/etc/cron.d /z rw,relatime - ext4 /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "the engine's containers", edit: hostMount("/var/lib/docker/containers /c ro,relatime master:1 - ext4 /dev/vda rw"), want: Fail},
	{check: "sensitive-host-mounts", name: "/etc below /run/secrets", edit: func(f *fixture) {
		f.mount("/etc /run/secrets/etc rw,relatime - ext4 /dev/vda rw")
		f.tree("run/secrets/etc dir 0755")
	}, want: Fail, says: "the host's /etc"},
	{check: "sensitive-host-mounts", name: "a part of the host's sysfs in its own place", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ /dev/mqueue", "/ /dev/mqueue")
		f.mount("/kernel /sys/kernel rw,relatime - sysfs sysfs rw")
	}, want: Fail, says: "/sys/kernel"},
	{check: "sensitive-host-mounts", name: "the host's /etc/hosts", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/var/lib/docker/containers/cb52d92eaa68f9968ecad74ab4d983b3813e5d4c1d1d8e79036adc0b599c3927/hosts", "/etc/hosts")
	}, want: Fail, says: "/etc/hosts"},
	{check: "sensitive-host-mounts", name: "a tmpfs of the host", edit: hostMount("/ /ht rw,relatime master:9 - tmpfs tmpfs rw"), want: Warn, says: "from outside"},
	{check: "sensitive-host-mounts", name: "the host's /run", edit: func(f *fixture) {
		f.mount("/ /hrun rw,relatime master:9 - tmpfs tmpfs rw")
		f.tree("hrun/systemd dir 0755\nhrun/udev dir 0755")
	}, want: Fail, says: "/run"},
	{check: "sensitive-host-mounts", name: "the host's shared memory", edit: func(f *fixture) {
		f.write(".dockerenv", "")
		f.sub("proc/self/mountinfo", "tmpfs shm", "tmpfs tmpfs")
	}, want: Warn, says: "/dev/shm"},
	{check: "sensitive-host-mounts", name: "the host's shared memory with its namespace", edit: func(f *fixture) {
		hostNamespace("ipc")(f)
		f.write(".dockerenv", "")
		f.sub("proc/self/mountinfo", "tmpfs shm", "tmpfs tmpfs")
	}, want: Pass},
	{check: "run-as-non-root", name: "the host's processes, of which one has ended", edit: func(f *fixture) {
		hostNamespace("pid")(f)
		foreign(f)
		f.process(3, 0, "Z", "zombie", "")
		f.write("proc/3/mountinfo", string(f.files["proc/self/mountinfo"].Data))
		f.statusOf("proc/3/status", "Uid", "0 0 0 0")
		f.statusOf("proc/7/status", "Uid", "1000 1000 1000 1000")
	}, want: Pass, says: "/proc/7/status"},
	{check: "run-as-non-root", name: "the host's processes, of which one is ending", edit: func(f *fixture) {
		hostNamespace("pid")(f)
		foreign(f)
		f.process(3, 0, "S", "ending", "")
		f.statusOf("proc/3/status", "Uid", "0 0 0 0")
		f.write("proc/3/cgroup", string(f.files["proc/self/cgroup"].Data))
		f.denied["proc/3/mountinfo"] = syscall.EINVAL
		f.statusOf("proc/7/status", "Uid", "1000 1000 1000 1000")
	}, want: Pass, says: "/proc/7/status"},
	{check: "run-as-non-root", name: "mounts that may not be read, and another cgroup", edit: func(f *fixture) {
		foreign(f)
		f.deny("proc/1/mountinfo")
		f.write("proc/1/cgroup", "9:name=systemd:/docker/x\n")
	}, want: Fail, says: "/proc/7/status"},
	{check: "sensitive-host-mounts", name: "a folder of a btrfs subvolume called root", edit: hostMount("/root/srv/app /d ro - btrfs /dev/vda rw,subvolid=256,subvol=/root"), want: Warn, says: "/srv/app"},
	{check: "sensitive-host-mounts", name: "/etc of a btrfs subvolume", edit: hostMount("/@/etc /d ro - btrfs /dev/vda rw,subvolid=256,subvol=/@"), want: Fail, says: "the host's /etc"},
	{check: "sensitive-host-mounts", name: "a part of a persistent volume", posture: "kubernetes", edit: hostMount("/etc/app /d rw - xfs /dev/sdb rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "a hostPath", posture: "kubernetes", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "1508 1501 259:1 ", "1 1501 259:1 /etc/cron.d /d rw - ext4 /dev/root rw\n1508 1501 259:1 ")
	}, want: Fail, says: "/etc/cron.d"},
	{check: "writable-mounts", name: "the host's /etc/hosts", posture: "root-alpine", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/var/lib/docker/containers/1225bdcef11a43b1e3c9d0ba3e6aacb00db27d5c552f21e9d4f90251f9d72f7f/hosts", "/etc/hosts")
	}, want: Warn, says: "/etc/hosts"},
	{check: "writable-mounts", name: "a tmpfs of the host", edit: hostMount("/ /ht rw,relatime - tmpfs x rw,size=104857600k"), want: Warn, says: "/ht"},
	{check: "proc-paths-masked", name: "a writable file below /proc/sys", edit: hostMount("/sys/kernel/core_pattern /proc/sys/kernel/core_pattern rw - proc proc rw"), want: Fail, says: "core_pattern"},

	{check: "device-nodes", name: "a disk outside of /dev, by a mount", edit: func(f *fixture) {
		f.mount("/vda /disk rw,relatime - devtmpfs devtmpfs rw")
		f.tree("disk block 254:0")
	}, want: Fail, says: "/disk b 254:0"},
	{check: "device-nodes", name: "a disk outside of /dev, in the root filesystem", edit: func(f *fixture) { f.tree("opt/disk block 7:0") }, want: Fail, says: "/opt/disk b 7:0"},
	{check: "device-nodes", name: "null in the root filesystem", edit: func(f *fixture) { f.tree("srv/chroot/dev/null char 1:3") }, want: Pass},
	{check: "device-nodes", name: "an empty /dev", edit: func(f *fixture) {
		for name, file := range f.files {
			if strings.HasPrefix(name, "dev/") && file.Mode&fs.ModeDevice != 0 {
				delete(f.files, name)
			}
		}
		f.tree("dev dir 0755")
	}, want: Unknown, says: "is it mounted?"},

	{check: "zombie-reaping", name: "an empty /proc", edit: emptyProc, want: Unknown, says: "is it mounted?"},
	{check: "sshd-absent", name: "an empty /proc", edit: emptyProc, want: Unknown, says: "is it mounted?"},
	{check: "memory-limit", name: "an empty directory over the cgroups", edit: noCgroupMount, want: Unknown, says: "no mount shows"},
	{check: "cpu-limit", name: "an empty directory over the cgroups", edit: noCgroupMount, want: Unknown, says: "no mount shows"},
	{check: "pids-limit", name: "an empty directory over the cgroups", edit: noCgroupMount, want: Unknown, says: "no mount shows"},
	{check: "memory-limit", name: "an empty directory over the cgroups of v2", posture: "kubernetes", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "- cgroup2 cgroup", "- tmpfs tmpfs")
	}, want: Unknown, says: "version 2"},

	{check: "cpu-limit", name: "more than the machine has", edit: func(f *fixture) {
		f.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "1000000\n")
		f.write("proc/stat", "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n")
	}, want: Warn, says: "more than the 2"},
	{check: "cpu-limit", name: "all that the machine has", edit: func(f *fixture) {
		f.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n")
		f.write("proc/stat", "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n")
	}, want: Pass},
	{check: "pids-limit", name: "more than the kernel has", edit: func(f *fixture) {
		f.write("sys/fs/cgroup/pids/pids.max", "4194304\n")
		f.write("proc/sys/kernel/pid_max", "4194304\n")
	}, want: Warn, says: "whole machine"},
	{check: "tmpfs-size", name: "more than memory may be", edit: func(f *fixture) { f.sub("proc/self/mountinfo", "size=16384k", "size=104857600k") }, want: Warn, says: "64 MiB that memory may be"},
	{check: "sensitive-host-mounts", name: "the filesystem of a container, as rootless engines have it", edit: hostMount("/ /c ro - fuse.fuse-overlayfs fuse-overlayfs rw"), want: Fail, says: "/c (the filesystem of a container)"},
	{check: "sensitive-host-mounts", name: "a hosts file that Podman makes", edit: hostMount("/var/lib/containers/storage/overlay-containers/" + containerID + "/hosts/hosts /etc/hosts2 rw - ext4 /dev/vda rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "what systemd-nspawn shows of the host", edit: hostMount("/usr/lib/os-release /run/host/os-release ro - ext4 /dev/vda rw"), want: Pass},
	{check: "sensitive-host-mounts", name: "another file there", edit: hostMount("/etc/shadow /run/host/shadow ro - ext4 /dev/vda rw"), want: Fail, says: "/run/host/shadow"},
	{check: "seccomp-filter", name: "half of the calls, clock_settime apart, are refused", edit: func(f *fixture) {
		f.statusOf("proc/self/status", "CapBnd", "0000000002000000")
		allowing("kcmp", "keyctl", "move_pages", "swapon")(f)
	}, want: Warn, says: "of 8 calls that default profiles refuse, 4 are refused"},
	{check: "seccomp-filter", name: "more than half of them are refused", edit: allowing("kcmp", "keyctl", "move_pages", "swapon"), want: Pass, says: "of 9 calls that default profiles refuse, 5 are refused"},
	{check: "secrets-in-env", name: "one in a variable and one in an argument", edit: func(f *fixture) {
		withEnv("DB_PASSWORD=hunter2hunter2")(f)
		f.write("proc/1/cmdline", "redis-server\x00--requirepass\x00hunter2hunter2\x00")
	}, want: Fail, says: "DB_PASSWORD"},
	{check: "tmpfs-size", name: "more than the machine has", edit: func(f *fixture) {
		f.write("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712\n")
		f.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
		f.write("proc/meminfo", "MemTotal:  8192 kB\n")
	}, want: Warn, says: "16 MiB, above the 8 MiB"},
	{check: "tmpfs-size", name: "a machine of no known size", edit: func(f *fixture) {
		f.write("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712\n")
		f.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
		f.deny("proc/meminfo")
	}, want: Pass},
	{check: "tmpfs-size", name: "a host's /dev/shm, which the ipc namespace brings", edit: func(f *fixture) {
		hostNamespace("ipc")(f)
		f.sub("proc/self/mountinfo", "tmpfs shm rw,size=65536k", "tmpfs shm rw,size=104857600k")
	}, want: Pass},
	{check: "tmpfs-size", name: "another in the host's ipc namespace", edit: func(f *fixture) {
		hostNamespace("ipc")(f)
		f.sub("proc/self/mountinfo", "size=16384k", "size=104857600k")
	}, want: Warn, says: "/tmp of"},
	{check: "tmpfs-options", name: "/dev of root under a read-only root", edit: func(f *fixture) { f.status("Uid", "0 0 0 0") }, want: Warn, says: "/dev"},
	{check: "memory-limit", name: "what lxcfs shows as the machine's is the limit", edit: func(f *fixture) {
		f.write("proc/meminfo", "MemTotal:  65536 kB\n")
		f.mount("/proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw")
	}, want: Pass},
	{check: "mount-propagation", name: "nspawn and LXC share among their own mounts", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ / ro,noatime master:3", "/ / ro,noatime shared:10 master:3")
		f.sub("proc/self/mountinfo", "/ /tmp rw,nosuid,nodev,noexec,relatime", "/ /tmp rw,nosuid,nodev,noexec,relatime shared:11")
	}, want: Pass},
	{check: "mount-propagation", name: "LXC with a folder of the host", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ / ro,noatime master:3", "/ / ro,noatime shared:10 master:3")
		f.mount("/srv /d rw shared:12 - ext4 /dev/vda rw")
	}, want: Fail, says: "/d"},
	{check: "mount-propagation", name: "nspawn with a folder of the host", edit: func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ / ro,noatime master:3", "/ / ro,noatime shared:10 master:3")
		f.mount("/srv /d rw shared:12 - ext4 /dev/vda rw")
		withEnv("container=systemd-nspawn")(f)
	}, want: Pass},
	{check: "pids-limit", name: "the root of the controller", edit: func(f *fixture) { delete(f.files, "sys/fs/cgroup/pids/pids.max") }, want: Fail, says: "its root"},
	{check: "setuid-files", name: "setuid that nobody may execute", posture: "root-alpine", edit: func(f *fixture) { f.file("bin/su", "04644", "\x7fELF") }, want: Pass},

	{check: "app-binary-immutable", name: "a script in a directory that its user owns", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/usr/bin/python3")
		f.owned("usr/bin/python3", "0755", 0, 0)
		f.write("proc/1/cmdline", "python3\x00/srv/app.py\x00")
		f.owned("srv/app.py", "0644", 0, 0)
		f.tree("srv dir 0755")
		f.files["srv"].Sys = &FileStat{UID: 65532, Nlink: 1}
	}, want: Fail, says: "/srv (its owner)"},
	{check: "app-binary-immutable", name: "a script by a relative name", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/usr/bin/python3")
		f.link("proc/1/cwd", "/srv")
		f.owned("usr/bin/python3", "0755", 0, 0)
		f.write("proc/1/cmdline", "python3\x00-u\x00app.py\x00")
		f.owned("srv/app.py", "0644", 65532, 0)
	}, want: Fail, says: "/srv/app.py"},
	{check: "app-binary-immutable", name: "a parent that the user may rename in", edit: func(f *fixture) {
		writableApp("0755", 0, 0)(f)
		f.link("proc/1/exe", "/home/app/bin/server")
		f.owned("home/app/bin/server", "0755", 0, 0)
		f.tree("home/app dir 0755\nhome/app/bin dir 0755")
		f.files["home/app"].Sys = &FileStat{UID: 65532, Nlink: 1}
	}, want: Fail, says: "/home/app (its owner)"},

	{check: "secrets-in-env", name: "exported by a shell under an init", edit: func(f *fixture) {
		f.write("proc/1/cmdline", "/sbin/docker-init\x00--\x00sh\x00/entry.sh\x00")
		f.process(7, 1, "S", "sh", "sh /entry.sh")
		f.process(8, 7, "S", "app", "/app")
		f.write("proc/7/environ", "A=b\x00")
		f.write("proc/8/environ", "A=b\x00DB_PASS=hunter2\x00")
	}, want: Fail, says: "DB_PASS"},
	{check: "secrets-in-env", name: "a token under any name", edit: withEnv("CONFIG_A=sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"), want: Fail, says: "CONFIG_A"},
}

// startedAlike gives the auditor the cgroup of PID 1, as exec does.
func startedAlike(f *fixture) { f.write("proc/1/cgroup", string(f.files["proc/self/cgroup"].Data)) }

// entered puts the auditor into another cgroup, as nsenter does.
func entered(f *fixture) {
	startedAlike(f)
	f.link("proc/self/ns/cgroup", "cgroup:["+initialNamespaces["cgroup"]+"]")
	f.write("proc/1/cgroup", "4:memory:/docker/1f\n0::/docker/1f\n")
	f.write("proc/self/cgroup", "4:memory:/user.slice\n0::/user.slice\n")
}

// inCgroup puts all into one cgroup of version 2.
func inCgroup(name string) func(*fixture) {
	return func(f *fixture) { f.write("proc/self/cgroup", "0::"+name+"\n") }
}

// filters sets how many seccomp filters PID 1 and the auditor have.
func filters(f *fixture, program, auditor int) {
	for name, n := range map[string]int{"proc/1/status": program, "proc/self/status": auditor} {
		mode := "2"
		if n == 0 {
			mode = "0"
		}
		f.statusOf(name, "Seccomp", mode)
		f.statusOf(name, "Seccomp_filters", strconv.Itoa(n))
	}
}

func callNames() []string {
	var names []string
	for _, call := range triedCalls {
		names = append(names, call.name)
	}
	return names
}

// allowDevices adds a line to devices.list.
func allowDevices(rule string) func(*fixture) {
	return func(f *fixture) {
		name := strings.Replace(cgroupOf(f, "cpu"), "/cpu", "/devices", 1) + "/devices.list"
		f.write(name, string(f.files[name].Data)+rule+"\n")
	}
}

// hidepid shows the auditor's own processes alone.
func hidepid(f *fixture) {
	for name := range f.files {
		if strings.HasPrefix(name, "proc/1/") {
			delete(f.files, name)
		}
	}
	f.write("proc/12/stat", "12 (imagelab) R 0 12 12 0\n")
}

func emptyProc(f *fixture) {
	for name := range f.files {
		if strings.HasPrefix(name, "proc/") {
			delete(f.files, name)
		}
	}
	f.tree("proc dir 0555")
}

// noCgroupMount puts an empty directory over the cgroup mounts.
func noCgroupMount(f *fixture) {
	var lines []string
	for line := range strings.Lines(string(f.files["proc/self/mountinfo"].Data)) {
		if !strings.Contains(line, "- cgroup ") {
			lines = append(lines, line)
		}
	}
	f.write("proc/self/mountinfo", strings.Join(lines, ""))
}

// foreign makes PID 1 a process of another container, as with --pid container:X, and
// process 7 the own one, which is as a root without any hardening is.
func foreign(f *fixture) {
	f.write("proc/self/mountinfo", "131 70 0:71 / / rw,nodev,noatime - overlay overlay rw\n"+string(f.files["proc/self/mountinfo"].Data))
	f.write("proc/1/mountinfo", "89 47 0:39 / / ro,noatime - overlay overlay rw\n")
	f.process(7, 0, "S", "sleep", "sleep 301")
	f.process(9, 0, "S", "sh", "sh")
	f.write("proc/7/stat", "7 (sleep) S 0 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 539662 1658880\n")
	f.write("proc/9/stat", "9 (sh) S 0 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 539683 1658880\n")
	for _, dir := range []string{"proc/7", "proc/9"} {
		f.write(dir+"/mountinfo", string(f.files["proc/self/mountinfo"].Data))
		f.write(dir+"/limits", string(f.files["proc/1/limits"].Data))
		f.write(dir+"/environ", "PATH=/bin\x00")
	}
	for field, value := range map[string]string{"Uid": "0 0 0 0", "Gid": "0 0 0 0", "CapBnd": "00000000a82425fb", "NoNewPrivs": "0", "Seccomp": "0", "SigCgt": "0"} {
		f.statusOf("proc/7/status", field, value)
	}
}

// behindInit makes PID 1 an init and process 7 its child, without a handler for
// SIGTERM.
func behindInit(f *fixture) {
	f.write("proc/1/cmdline", "/sbin/docker-init\x00--\x00/app\x00")
	f.process(7, 1, "S", "app", "/app")
	f.statusOf("proc/7/status", "SigCgt", "0")
	f.statusOf("proc/1/status", "SigCgt", "0")
}

// allowing allows the calls that are given, and no others.
func allowing(calls ...string) func(*fixture) {
	return func(f *fixture) {
		f.sys.Syscall = func(name string) error {
			if slices.Contains(calls, name) {
				return syscall.EINVAL
			}
			return syscall.EPERM
		}
	}
}

// refusing refuses one call.
func refusing(call string) func(*fixture) {
	return func(f *fixture) {
		f.sys.Syscall = func(name string) error {
			if name == call {
				return syscall.EPERM
			}
			return syscall.EINVAL
		}
	}
}

func withEnv(variable string) func(*fixture) {
	return func(f *fixture) { f.sys.Environ = append(f.sys.Environ, variable) }
}

func hostNamespace(kind string) func(*fixture) {
	return func(f *fixture) {
		f.link("proc/self/ns/"+kind, kind+":["+initialNamespaces[kind]+"]")
		if kind == "pid" {
			f.write("proc/self/limits", string(f.files["proc/1/limits"].Data))
			f.write("proc/self/oom_score_adj", "0\n")
		}
	}
}

// v2 gives the container the one hierarchy of cgroup v2, without a CPU quota.
func v2(f *fixture) {
	f.write("proc/self/cgroup", "0::/\n")
	f.mount("/ /sys/fs/cgroup ro - cgroup2 cgroup2 rw")
	f.write("sys/fs/cgroup/cpu.max", "max 100000\n")
	f.write("sys/fs/cgroup/cpu.weight", "100\n")
}

func hostMount(line string) func(*fixture) { return func(f *fixture) { f.mount(line) } }

func shellPID1(cmdline string) func(*fixture) {
	return func(f *fixture) {
		f.statusOf("proc/1/status", "SigCgt", "0000000000000000")
		f.write("proc/1/cmdline", strings.ReplaceAll(cmdline, " ", "\x00")+"\x00")
	}
}

// writableApp makes PID 1's program /app, on a writable root.
func writableApp(octal string, uid, gid int) func(*fixture) {
	return func(f *fixture) {
		f.sub("proc/self/mountinfo", "/ / ro,", "/ / rw,")
		f.link("proc/1/exe", "/app")
		f.owned("app", octal, uid, gid)
	}
}

func manyFiles(n int) func(*fixture) {
	return func(f *fixture) {
		for i := range n {
			f.file(fmt.Sprintf("bin/tool-%d", i), "0755", "#!/x\n")
		}
	}
}

// zeros are what large files are made of; nobody reads them.
var zeros = sync.OnceValue(func() []byte { return make([]byte, 60<<20) })

func bigFile(size int) func(*fixture) {
	return func(f *fixture) { f.files["data"] = &fstest.MapFile{Data: zeros()[:size], Mode: 0o444} }
}

// cgroupOf returns the own cgroup's directory of a v1 controller.
func cgroupOf(f *fixture, controller string) string {
	for name := range f.files {
		if dir, ok := strings.CutSuffix(name, "/cpu.shares"); ok && strings.Contains(name, "/"+controller) {
			return dir
		}
	}
	f.t.Fatal("no cgroup recorded")
	return ""
}

func TestChecks(t *testing.T) {
	t.Parallel()
	for _, tc := range checkCases {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			t.Parallel()
			posture := tc.posture
			if posture == "" {
				posture = "hardened-scratch"
			}
			f := load(t, posture)
			if tc.edit != nil {
				tc.edit(f)
			}
			r, err := Run(t.Context(), f.sys, Options{Only: []string{tc.check}})
			if err != nil {
				t.Fatal(err)
			}
			got := r.result(t, tc.check)
			text := got.Evidence + " | " + got.Reason
			if got.Status != tc.want || !strings.Contains(text, tc.says) || got.Incomplete != tc.skips {
				t.Errorf("%s = %s, incomplete %d, %q; want %s, incomplete %d, %q", tc.check, got.Status, got.Incomplete, text, tc.want, tc.skips, tc.says)
			}
			switch got.Status {
			case Pass, Fail, Warn:
				if got.Evidence == "" {
					t.Error("a verdict without evidence")
				}
			default:
				if got.Reason == "" {
					t.Error("an undecided check without a reason")
				}
			}
		})
	}
}

// TestEachCheckHasItsCases: a pass, a failure and what cannot be read.
func TestEachCheckHasItsCases(t *testing.T) {
	t.Parallel()
	for _, c := range Checks() {
		var passes, failures, unread bool
		for _, tc := range checkCases {
			if tc.check == c.ID {
				passes = passes || tc.want == Pass && !tc.unread
				failures = failures || tc.want == Fail || tc.want == Warn
				unread = unread || tc.unread
			}
		}
		if !passes || !failures || !unread {
			t.Errorf("%s: pass case %t, fail or warn case %t, unreadable case %t", c.ID, passes, failures, unread)
		}
	}
}

// TestPostures holds the recorded containers against what they were started
// with: no other check may flip. Neither LXC nor systemd-nspawn masks all that Docker masks; LXC's own seccomp profile
// refuses next to nothing, it mounts no cgroups unless told to, and FUSE's connections writable; nspawn leaves
// its own cgroup writable, and its tmpfs executable.
func TestPostures(t *testing.T) {
	t.Parallel()
	for posture, want := range map[string]string{
		"hardened-scratch": "user-namespace=warn",
		"root-alpine": "app-binary-immutable=fail capabilities-dropped=fail cgroup-namespace=warn cpu-limit=fail default-bridge-network=warn " +
			"memory-limit=fail network-client-absent=fail no-new-privileges=fail non-root-group=fail package-manager-absent=fail " +
			"pid1-sigterm=fail pids-limit=fail rootfs-read-only=fail run-as-non-root=fail shell-absent=fail ulimits=warn user-namespace=warn",
		"privileged": "capabilities-added=fail capabilities-dropped=fail cgroup-namespace=warn cpu-limit=fail default-bridge-network=warn " +
			"device-nodes=fail memory-limit=fail no-new-privileges=fail not-privileged=fail pids-limit=fail proc-paths-masked=fail " +
			"rootfs-read-only=fail seccomp-filter=fail sysfs-read-only=fail ulimits=warn user-namespace=warn",
		"kubernetes": "pids-limit=warn service-account-token=warn tmpfs-options=warn user-namespace=warn",
		// Of other runtimes, as scripts/record.sh starts them. imagelab has set no_new_privs itself where they have not.
		"podman-default": "app-binary-immutable=fail capabilities-dropped=fail cgroup-namespace=warn cpu-limit=fail " +
			"memory-limit=fail no-new-privileges=warn non-root-group=fail rootfs-read-only=fail " +
			"run-as-non-root=fail ulimits=warn user-namespace=warn",
		"podman-hardened": "user-namespace=warn",
		"podman-privileged": "capabilities-added=fail capabilities-dropped=fail cgroup-namespace=warn cpu-limit=fail " +
			"device-nodes=fail memory-limit=fail no-new-privileges=warn not-privileged=fail proc-paths-masked=fail " +
			"rootfs-read-only=fail seccomp-filter=fail sysfs-read-only=fail ulimits=warn user-namespace=warn",
		"podman-crun": "user-namespace=warn",
		"podman-v2-default": "app-binary-immutable=fail capabilities-dropped=fail cpu-limit=fail memory-limit=fail no-new-privileges=warn " +
			"non-root-group=fail rootfs-read-only=fail run-as-non-root=fail ulimits=warn user-namespace=warn",
		"podman-v2-hardened": "user-namespace=warn",
		"podman-v2-privileged": "capabilities-added=fail capabilities-dropped=fail cpu-limit=fail device-nodes=fail memory-limit=fail " +
			"no-new-privileges=warn not-privileged=fail proc-paths-masked=fail rootfs-read-only=fail seccomp-filter=fail " +
			"sysfs-read-only=fail ulimits=warn user-namespace=warn",
		"podman-rootless": "app-binary-immutable=fail capabilities-dropped=fail cgroup-namespace=warn cpu-limit=fail memory-limit=fail " +
			"no-new-privileges=warn non-root-group=fail pids-limit=fail rootfs-read-only=fail run-as-non-root=fail ulimits=warn",
		"lxc-default": "app-binary-immutable=fail capabilities-added=fail capabilities-dropped=fail cpu-limit=unknown " +
			"memory-limit=unknown no-new-privileges=warn non-root-group=fail pids-limit=unknown " +
			"proc-paths-masked=fail rootfs-read-only=fail run-as-non-root=fail seccomp-filter=warn " +
			"sysfs-read-only=fail ulimits=warn user-namespace=warn",
		"lxc-hardened": "device-nodes=warn proc-paths-masked=fail seccomp-filter=warn sysfs-read-only=fail " +
			"user-namespace=warn",
		"nspawn-default": "app-binary-immutable=fail capabilities-added=fail capabilities-dropped=fail cpu-limit=fail " +
			"device-nodes=fail memory-limit=fail network-namespace=fail no-new-privileges=fail " +
			"non-root-group=fail not-privileged=warn pids-limit=fail proc-paths-masked=fail rootfs-read-only=fail " +
			"run-as-non-root=fail sensitive-host-mounts=warn sysfs-read-only=fail tmpfs-options=fail ulimits=warn " +
			"user-namespace=warn",
		"nspawn-hardened": "device-nodes=warn non-root-group=fail not-privileged=warn proc-paths-masked=fail " +
			"run-as-non-root=fail sensitive-host-mounts=warn sysfs-read-only=fail tmpfs-options=fail " +
			"tmpfs-size=warn user-namespace=warn",
	} {
		t.Run(posture, func(t *testing.T) {
			t.Parallel()
			var found []string
			for _, r := range load(t, posture).run().Checks {
				if r.Status != Pass && r.Status != NotApplicable {
					found = append(found, r.ID+"="+string(r.Status))
				}
			}
			slices.Sort(found)
			if got := strings.Join(found, " "); got != want {
				t.Errorf("findings\n got %s\nwant %s", got, want)
			}
		})
	}
}

// TestNothingReadable: with an empty file system nothing passes but what the
// auditor knows of itself.
func TestNothingReadable(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	clear(f.files)
	for _, r := range f.run().Checks {
		// Its own environment needs no file.
		if r.Status == Pass && r.ID != "secrets-in-env" || r.Status == Fail || r.Status == Warn {
			t.Errorf("%s = %s with nothing to read: %s", r.ID, r.Status, r.Evidence)
		}
	}
}

// TestOwnFootprint: the auditor's executable counts only where it is the
// container's program.
func TestOwnFootprint(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		edit func(*fixture)
		want int
	}{
		{"brought in beside another program", func(f *fixture) { f.link("proc/1/exe", "/app") }, 0},
		{"the program's own image", func(f *fixture) {}, 1},
		{"as PID 1", func(f *fixture) { f.sys.PID = 1 }, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "hardened-scratch")
			f.sub("proc/self/mountinfo", " /imagelab ro", " /elsewhere ro")
			f.file("imagelab", "0755", "\x7fELF")
			tc.edit(f)
			if got := *f.run().Facts.Image.Files; got != tc.want {
				t.Errorf("files = %d, want %d", got, tc.want)
			}
		})
	}
}

// TestHardLinksCountOnce also across names that are tools.
func TestHardLinksCountOnce(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	for _, name := range []string{"bin/busybox", "bin/sh", "bin/wget"} {
		f.owned(name, "0755", 0, 0)
		*f.files[name].Sys.(*FileStat) = FileStat{Dev: 1, Ino: 7, Nlink: 3}
	}
	image := f.run().Facts.Image
	if *image.Files != 1 || *image.Executables != 1 || image.Shells.Count != 2 || image.NetworkClients.Count != 1 {
		t.Errorf("files %d, executables %d, shells %d, clients %d; want 1, 1, 2, 1", *image.Files, *image.Executables, image.Shells.Count, image.NetworkClients.Count)
	}
}

func TestFacts(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	f.write("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\n\nPackage: b\nStatus: deinstall ok config-files\n")
	f.write("var/lib/dpkg/status.d/c", "Package: c\n")
	f.write("var/lib/dpkg/status.d/c.md5sums", "")
	f.write("var/lib/rpm/rpmdb.sqlite", "SQLite")
	f.write("etc/ssl/certs/ca-certificates.crt", strings.Repeat("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n", 3))
	facts := f.run().Facts
	if facts.Image.Distribution != "Alpine Linux v3.20" {
		t.Errorf("distribution = %q", facts.Image.Distribution)
	}
	var packages []string
	for _, p := range facts.Image.Packages {
		n := "?"
		if p.Packages != nil {
			n = fmt.Sprint(*p.Packages)
		}
		packages = append(packages, p.Database+" "+n)
	}
	if got := strings.Join(packages, ", "); got != "apk 2, dpkg 2, rpm ?" {
		t.Errorf("packages = %s", got)
	}
	if facts.Image.CARoots == nil || *facts.Image.CARoots != 3 {
		t.Errorf("ca roots = %v, want 3", facts.Image.CARoots)
	}
	if facts.Process.PID1 != "sleep" || *facts.Process.UID != 0 || len(facts.Process.Bounding) != 14 || facts.Process.Seccomp != "filter" {
		t.Errorf("process = %+v", facts.Process)
	}
	if facts.Limits.MemoryBytes != nil || facts.Limits.CPUs != nil || facts.Limits.PIDs != nil || facts.Limits.MemoryUsedBytes == nil {
		t.Errorf("limits = %+v", facts.Limits)
	}
	if facts.Host.CgroupVersion != 1 || facts.Host.Kernel != "6.18.44" || *facts.Host.LandlockABI != 7 {
		t.Errorf("host = %+v", facts.Host)
	}
	if !slices.Contains(facts.WritableMounts, "/") {
		t.Errorf("writable mounts = %v, want / among them", facts.WritableMounts)
	}
}

func TestIsSecret(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		variable string
		want     bool
	}{
		{"DB_PASSWORD=hunter2", true},
		{"secret=hunter2", true},
		{"GITHUB_TOKEN=abc", true},
		{"STRIPE_APIKEY=abc", true},
		{"AWS_SECRET_ACCESS_KEY=abc", true},
		{"DATABASE_URL=postgres://user:hunter2@db/x", true},
		{"DATABASE_URL=postgres://user@db/x", false},
		{"DATABASE_URL=postgres://user:@db/x", false},
		{"DB_PASSWORD_FILE=/run/secrets/db", false},
		{"DB_PASSWORD_FILE=secret.txt", false},
		{"DB_PASS=hunter2", true},
		{"MYSQL_PWD=hunter2", true},
		{"RAILS_MASTER_KEY=0123456789abcdef", true},
		{"ENCRYPTION_KEY=abc", true},
		{"STRIPE_KEY=sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", true},
		{"APP_KEY=base64:abc", true},
		{"JWT_SECRET=abc", true},
		{"POSTGRES_PASSWORD=12345678", true},
		{"API_KEY=/q7s8/x+yz", true},
		{"CONN=Server=db;User Id=sa;Password=hunter2", true},
		{"PG=host=db user=a password=hunter2", true},
		{"PGPASSWORD=hunter2", true},
		{"redis.password=hunter2", true},
		{"ANY=ghp_" + strings.Repeat("a1", 18), true},
		{"TOKENIZER=bpe", false},
		{"TOKEN_URL=https://id.example/token", false},
		{"TOKEN_TTL=3600", false},
		{"SECRET_NAME=db", false},
		{"PASSWORD_POLICY=strict", false},
		{"SECRETS_BACKEND=vault", false},
		{"AWS_CREDENTIALS_PROVIDER=env", false},
		{"PASSWORD_HASHER=argon2", false},
		{"JWT_ISSUER=https://id.example", false},
		{"COMPASS=north", false},
		{"BYPASS_CACHE=yes", false},
		{"KEYBOARD=us", false},
		{"SSH_KEY_TYPE=ed25519", false},
		{"PWD=/srv", false},
		{"PRIMARY_KEY=id", false},
		{"SECRET=/run/secrets/x", false},
		{"SECRET=", false},
		{"TOKENIZERS_PARALLELISM=false", false},
		{"MAX_TOKENS=4096", false},
		{"HOME=/root", false},
	} {
		name, value, _ := strings.Cut(tc.variable, "=")
		if got := isSecret(name, value); got != tc.want {
			t.Errorf("isSecret(%s) = %t, want %t", tc.variable, got, tc.want)
		}
	}
}

func TestSecretIn(t *testing.T) {
	t.Parallel()
	a36 := strings.Repeat("a1", 18)
	for _, tc := range []struct{ name, content, want string }{
		{"k", testKey, "private key"},
		{"k", strings.ReplaceAll(testKey, "\n", "\r\n"), "private key"},
		{"k.json", `{"private_key": "` + strings.ReplaceAll(testKey, "\n", `\n`) + `"}`, "private key"},
		{"k", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + strings.Repeat("QUJD", 16) + "\n", "private key"},
		{"k", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + strings.Repeat("QUJD", 16) + "\n", "private key"},
		{"k", "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("QUJD", 8) + "\n", "private key"},
		{"k", "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("QUJD", 7) + "QUJ\n", ""},
		{"k", "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("QUJ-", 16) + "\n", ""},
		{"k", "PRIVATE KEY of the server:\n" + testKey, "private key"},
		{"k", "-----BEGIN PUBLIC KEY-----\n" + strings.Repeat("QUJD", 16) + "\n", ""},
		{"c.go", `const header = "-----BEGIN PRIVATE KEY-----"`, ""},
		{"c", "key=AKIAABCDEFGHIJKLMNOP", "AWS access key"},
		{"c", "key=AKIAIOSFODNN7EXAMPLE", ""},
		{"c", "XAKIAABCDEFGHIJKLMNOP", ""},
		{"c", "AAKIAABCDEFGHIJKLMNOP", ""},
		{"c", "AKIAshort AKIAABCDEFGHIJKLMNOP", "AWS access key"},
		{"c", "ghp_" + a36, "GitHub token"},
		{"c", "ghp_short", ""},
		{"c", "glrt-" + strings.Repeat("0a1b", 16), "GitLab token"},
		{"c", "xapp-" + strings.Repeat("0a1b", 16), "Slack token"},
		{"c", "rk_test_" + strings.Repeat("0a1b", 16), "Stripe key"},
		{"c", "whsec_" + strings.Repeat("0a1b", 16), "Stripe webhook secret"},
		{"c", "glsa_" + strings.Repeat("0a1b", 16), "Grafana token"},
		{"c", "dapi" + strings.Repeat("0a1b", 16), "Databricks token"},
		{"c", "shpss_" + strings.Repeat("0a1b", 16), "Shopify token"},
		{"c", "tskey-" + strings.Repeat("0a1b", 16), "Tailscale key"},
		{"c", "rubygems_" + strings.Repeat("0a1b", 16), "RubyGems key"},
		{"c", "sk-svcacct-" + strings.Repeat("0a1b", 16), "OpenAI key"},
		{"c", "gsk_" + strings.Repeat("0a1b", 16), "Groq key"},
		{"c", "sntrys_" + strings.Repeat("0a1b", 16), "Sentry token"},
		{"c", "dapi is Databricks' name for its interface", ""},
		{"c", "tskey-auth", ""},
		{"c", "glpat-abcdefghij_-0123456789", "GitLab token"},
		{"c", "glptt-" + strings.Repeat("0a1b", 10), "GitLab token"},
		{"c", "glptt-" + strings.Repeat("0a1b", 9) + "0a1", ""},
		{"c", "https://discord.com/api/webhooks/123456789012345678/" + strings.Repeat("a1_-", 17), "Discord webhook"},
		{"c", "SK" + strings.Repeat("0a1b", 8), "Twilio key"},
		{"c", "SK" + strings.Repeat("0a1B", 8), ""},
		{"c", "TASK" + strings.Repeat("0a1b", 8), ""},
		{"c", "ghp_" + strings.Repeat("x", 36), ""},
		{"c", "(ghp_" + strings.Repeat("x", 36) + ") ghp_" + a36, "GitHub token"},
		{"c", "é" + "ghp_" + a36, "GitHub token"},
		{"c", "sk-" + strings.Repeat("a1", 10) + "T3BlbkFJ" + strings.Repeat("a1", 10), "OpenAI key"},
		{"c", "T3BlbkFJ" + strings.Repeat("a1", 10), ""},
		{"c", "T3BlbkFJ is in sk-" + strings.Repeat("a1", 10) + "T3BlbkFJ" + strings.Repeat("a1", 10), "OpenAI key"},
		{"c", strings.Repeat("a1", 10) + "T3BlbkFJ", ""},
		{"c", strings.Repeat("a1", 7) + ".atlasv1." + strings.Repeat("a1", 30), "Terraform token"},
		{"c", "x.atlasv1.y " + strings.Repeat("a1", 7) + ".atlasv1." + strings.Repeat("a1", 30), "Terraform token"},
		{"c", "12345678:AA" + strings.Repeat("a_-", 11), "Telegram token"},
		{"c", "1234567:AA" + strings.Repeat("a_-", 11), ""},
		{"c", "00:1A:AA:BB", ""},
		{"c", "abc8Q~" + strings.Repeat("a1", 16), "Azure client secret"},
		{"k.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\r\nPublic-Lines: 1\r\nAA\r\nPrivate-Lines: 1\r\nAA\r\n", "PuTTY key"},
		{"k.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\r\nPublic-Lines: 1\r\nAA\r\n", ""},
		{"s.yaml", "tls.key: " + base64.StdEncoding.EncodeToString([]byte(testKey)), "private key in base64"},
		{"s.yaml", "tls.crt: " + base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----\n")) + "\ntls.key: " +
			base64.StdEncoding.EncodeToString([]byte(testKey)), "private key in base64"},
		{"s.yaml", "tls.crt: " + base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n")), ""},
		{"wg0.conf", "[Interface]\nPrivateKey = " + strings.Repeat("aB1", 14) + "c=\n", "WireGuard key"},
		{"wg0.conf", "[Interface]\nPrivateKey = " + strings.Repeat("aB1", 14) + "cd=\n", ""},
		{"wg0.conf", "[Peer]\nPublicKey = " + strings.Repeat("aB1", 14) + "c=\n", ""},
		{"k.conf", "PrivateKey is described below. PrivateKey=" + strings.Repeat("aB1", 14) + "c=", "WireGuard key"},
		{"jwk", `{"kty":"EC","d" : "` + strings.Repeat("a_-B", 10) + `"}`, "JSON Web Key"},
		{"jwk", `{"kty":"EC","x":"` + strings.Repeat("a_-B", 10) + `"}`, ""},
		{"app/x.p12", "\x30\x82", "key store by name"},
		{"home/.pgpass", "db:5432:a:a:hunter2", "credentials by name"},
		{"home/.vault-token", "s.abc", "credentials by name"},
		{"home/.dockercfg", `{"r":{"auth":"eDp5"}}`, "registry credentials"},
		{"home/.npmrc", "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n", ""},
		{"home/.kube/config", "users:\n- name: me\n  user:\n    token: abc\n", "setting token"},
		{"app/config", "token: abc\n", ""},
		{"app/compose.yaml", "    environment:\n      - POSTGRES_PASSWORD=hunter2\n", "setting POSTGRES_PASSWORD"},
		{"app/compose.yaml", "    secrets: [db]\nsecrets:\n  db: {file: ./db}\n", ""},
		{"app/wp-config.php", "define( 'DB_PASSWORD', 'hunter2' );", "setting DB_PASSWORD"},
		{"app/wp-config.php", "define('DB_NAME', 'x');\n$password = 'hunter2';", "setting password"},
		{"app/settings.py", "SECRET_KEY = 'hunter2'\n", "setting SECRET_KEY"},
		{"app/settings.py", "SECRET_KEY = os.environ['SECRET_KEY']\n", ""},
		{"etc/redis.conf", "# requirepass foobared\nport 6379\n", ""},
		{"etc/redis.conf", "requirepass hunter2\n", "setting requirepass"},
		{"m2/settings.xml", "<server><password>hunter2</password></server>", "setting password"},
		{"m2/settings.xml", "<server><password>${env.P}</password></server>", ""},
		{"m2/settings.xml", "<name>TOKEN=hunter2</name>", ""},
		{"run.sh", "#!/bin/sh\nexport API_KEY=0a1b2c3d\n", "variable API_KEY"},
		{"run.sh", "#!/bin/sh\nAPI_KEY=0a1b2c3d\nexport TOKEN=$API_KEY SECRET=abcdefgh\n", ""},
		{"run.sh", "export API_KEY=0a1b2c3d\n", ""},
		{"c.conf", "x = http://a.example/b and postgres://app:s3cretive@db/x\n", "password in an address"},
		{"c.conf", "postgres://app:secretive@db/x http://user:password1@host/ redis://:$PW12345678@c/ http://a:8080/b:c1234567@d\n", ""},
		{"c.conf", "ftp://me:s3cretiv\n", ""},
		{"app/.env", "A=b\nB=amqp://app:s3cretive@mq/\n", "setting B"},
		{"c", "xoxb-1234567890-abcdefghij", "Slack token"},
		{"root/.ssh/id_rsa", "x", "ssh key by name"},
		{"root/.ssh/id_rsa.pub", "x", ""},
		{"app/.env", "PORT=8000\nPASSWORD_FILE=/run/secrets/x\nDB_PASSWORD=${PASSWORD}\n", ""},
		{"app/.env", "# a comment\nexport DB_PASS='hunter2'\n", "setting DB_PASS"},
		{"app/.env.defaults", "DB_PASS=hunter2", ""},
		{"app/config/database.yml", "production:\n  password: \"hunter2\"\n", "setting password"},
		{"app/appsettings.json", "{\n  \"Db\": \"Server=db;User Id=sa;Password=hunter2\"\n}", "setting Db"},
		{"app/.env", "A=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U", "JSON Web Token"},
		{"usr/share/i18n/locales/id_ID", "x", ""},
		{"app/.env.example", "A=b", ""},
		{"app/.env.sample", "A=b", ""},
		{"app/.env.production", "API_KEY=b1946ac9", "setting API_KEY"},
		{"root/.pypirc", "[distutils]", ""},
		{"root/.pypirc", "[pypi]\npassword = x", "credentials by name"},
		{"root/.netrc", "machine x", "credentials by name"},
		{"app/credentials", "[default]", ""},
		{"app/config.json", `{"auth":"x"}`, ""},
		{"root/.npmrc", "//registry.npmjs.org/:_password=x", "credentials by name"},
		{"root/.npmrc", "fund=false", ""},
		{"root/.npmrc", "//registry.npmjs.org/:_authToken=x", "credentials by name"},
		{"root/.docker/config.json", `{"auths":{"r":{"auth":"eDp5"}}}`, "registry credentials"},
		{"root/.docker/config.json", `{}`, ""},
		{"root/.aws/credentials", "[default]", "credentials by name"},
	} {
		if got := secretIn(tc.name, []byte(tc.content)); got != tc.want {
			t.Errorf("secretIn(%s, %.40q) = %q, want %q", tc.name, tc.content, got, tc.want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	r, err := Run(t.Context(), f.sys, Options{Only: []string{"memory-limit", "cpu-limit"}, Skip: []string{"cpu-limit"}})
	if err != nil || len(r.Checks) != 1 || r.Checks[0].ID != "memory-limit" {
		t.Errorf("Run(only two, skip one) = %+v, %v", r, err)
	}
	err = Options{Only: []string{"memory-limits"}, Skip: []string{"shell"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), `did you mean memory-limit?`) || !strings.Contains(err.Error(), `no check "shell"`) {
		t.Fatalf("Validate() = %v, want both ids and the nearest", err)
	}
	for line := range strings.Lines(err.Error()) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("a line of Validate() has %d columns, want at most 80: %s", len(line)-1, line)
		}
	}
	if got := strings.Count(err.Error(), "zombie-reaping"); got != 1 {
		t.Errorf("Validate() names each check %d times, want once", got)
	}
}

func TestResolveStaysInside(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.link("bin", "usr/bin")
	f.link("usr/bin/sh", "../../../../bin/busybox")
	f.write("usr/bin/busybox", "x")
	f.link("loop", "/loop")
	f.write("end", "x")
	f.link("1", "/end")
	for i := range 40 { // from 41 on, one link more than the kernel follows
		f.link(strconv.Itoa(i+2), strconv.Itoa(i+1))
	}
	if got, _, err := resolve(f.sys.FS, "/40"); got != "/end" || err != nil {
		t.Errorf("resolve(/40) = %s, %v, want /end over 40 links", got, err)
	}
	if _, _, err := resolve(f.sys.FS, "/41"); err == nil {
		t.Error("resolve(/41) follows 41 links, and the kernel follows 40")
	}
	if got, _, err := resolve(f.sys.FS, "/bin/sh"); got != "/usr/bin/busybox" || err != nil {
		t.Errorf("resolve(/bin/sh) = %s, %v", got, err)
	}
	if _, _, err := resolve(f.sys.FS, "/loop"); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("resolve(/loop) = %v, want too many links", err)
	}
	if _, _, err := resolve(f.sys.FS, "/none"); !isAbsent(err) {
		t.Errorf("resolve(/none) = %v, want %v", err, fs.ErrNotExist)
	}
}

func TestSecretArguments(t *testing.T) {
	t.Parallel()
	token := "ghp_" + strings.Repeat("a1B2", 9)
	for line, want := range map[string]string{
		"":                                       "[]",
		"--port 8000 --workers 2":                "[]",
		"--password hunter2":                     "[--password]",
		"--password=hunter2 --password=again":    "[--password]",
		"-password hunter2 x":                    "[-password]",
		"--db-pass=hunter2 --api_key abc":        "[--db-pass --api_key]",
		"--password-file /run/secrets/password":  "[]",
		"--password=/run/secrets/password":       "[]",
		"--token-ttl 5m --require-password true": "[]",
		"--password --verbose":                   "[]",
		"--password":                             "[]",
		"run https://me:hunter2@example.com/":    "[argument 2]",
		"--url https://me:hunter2@example.com/":  "[--url]",
		"--url https://me@example.com/":          "[]",
		token:                                    "[argument 1]",
		"--use " + token + " " + token:           "[--use argument 3]",
		"-c password_encryption=scram-sha-256 --password-authentication no --pass-through all": "[]",
		"--password hunter2 --password again --api-key abc":                                    "[--password --api-key]",
		"DB_PASSWORD=hunter2 ./server":                                                         "[argument 1]",
		"-c exec":                                                                              "[]",
	} {
		if got := fmt.Sprint(secretArguments(strings.Fields(line))); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// TestTokensBeginWords: what stands within a word is none.
func TestTokensBeginWords(t *testing.T) {
	t.Parallel()
	const token = "ghp_" + "Zk3v9Qw2Rt7Yb4Nm8Xc1Vp6Ld5Sf0Hj2Gw9K"
	if got := keyMaterial([]byte(token)); got == "" {
		t.Fatal("the token alone is none")
	}
	for before := range 256 {
		word := before >= '0' && before <= '9' || before >= 'A' && before <= 'Z' || before >= 'a' && before <= 'z'
		if got := keyMaterial([]byte(string([]byte{byte(before)}) + token)); (got == "") != word {
			t.Errorf("behind 0x%02x it is %q", before, got)
		}
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]int{"": {0, 0}, "A": {1, 1}, "AxB": {1, 1}, "ABx": {2, 0}, "xBA": {0, 2}, "BAB": {3, 3}} {
		if got := [2]int{span([]byte(text), "AB"), spanBack([]byte(text), "AB")}; got != want {
			t.Errorf("%q begins and ends with %v of A and B, want %v", text, got, want)
		}
	}
}

// TestKeyFilesAreCut: a file may begin with a key, and end anywhere.
func TestKeyFilesAreCut(t *testing.T) {
	t.Parallel()
	encoded := base64.StdEncoding.EncodeToString([]byte("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA"))
	for text, want := range map[string]string{
		encoded: "private key in base64", "tls.key: " + encoded: "private key in base64", "PrivateKey": "", "PrivateKey ": "", `"d"`: "",
	} {
		if got := keyFile([]byte(text)); got != want {
			t.Errorf("%.40q = %q, want %q", text, got, want)
		}
	}
}

func TestNamesThatBeginWithKey(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"KEY": false, "KEY_NAME": false, "API_KEY": true, "SIGNING_KEY_2": true} {
		if got := isSecretName(name); got != want {
			t.Errorf("isSecretName(%s) = %t, want %t", name, got, want)
		}
	}
}

func TestConnectionStrings(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"Server=db;Password=hunter2x9": true, "host=db password=hunter2x9": true, "password=hunter2x9": false, "Server=db;User Id=sa": false,
	} {
		if got := hasConnectionPassword(value); got != want {
			t.Errorf("hasConnectionPassword(%q) = %t, want %t", value, got, want)
		}
	}
}
