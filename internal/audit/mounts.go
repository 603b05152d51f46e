package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"imagelab/internal/sizes"
)

// isRuntimeFile says whether the mount is one of the files that engines make for
// every container: it lies at one of these places and comes from where an engine or
// the kubelet keeps such files.
func isRuntimeFile(m mount) bool {
	switch m.point {
	case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log", "/run/.containerenv", "/etc/mtab":
		return containerIn(m.root) != "" || strings.Contains(m.root, "/pods/") || strings.Contains(m.root, "/overlay-containers/") ||
			strings.Contains(m.root, "/sandboxes/")
	}
	return false
}

// isForeignTmpfs says whether the tmpfs was there before the container, such as the
// host's /run or /dev/shm. Engines give their own the source tmpfs or shm; one that
// receives mounts ("master:1"), or of which a part is mounted, is another's. In
// Kubernetes those are emptyDirs and secrets.
func (c *container) isForeignTmpfs(m mount) bool {
	if m.fstype != "tmpfs" || m.isMask() || c.kubernetes || m.point == "/dev" || isRuntimeFile(m) {
		return false
	}
	if host, err := c.inHostNamespace("ipc"); m.point == "/dev/shm" && err == nil && host {
		return false // it came with the namespace, which ipc-namespace is about
	}
	received := slices.ContainsFunc(m.optional, func(o string) bool { return strings.HasPrefix(o, "master:") })
	dev, _ := c.mountAt("/dev")
	switch {
	case under(m.point, "/sys/fs/cgroup"):
		return false
	case m.device == dev.device || m.root != "/" && c.isPartOfOwnTmpfs(m):
		return false
	case m.point == "/dev/shm" && c.exists("/.dockerenv"):
		return received || m.source != "shm"
	}
	return received || m.root != "/" || m.source != "tmpfs" && m.source != "shm" && m.source != "none" && m.source != "udev"
}

// isPartOfOwnTmpfs says whether what is mounted is a part of another tmpfs of the container, as systemd-nspawn
// has its /run in several places.
func (c *container) isPartOfOwnTmpfs(m mount) bool {
	return slices.ContainsFunc(c.mounts, func(whole mount) bool {
		return whole.device == m.device && whole.root == "/" && !c.isForeignTmpfs(whole)
	})
}

// isSocket says whether the mount is a single socket: runtime-socket's business.
func (c *container) isSocket(m mount) bool {
	info, err := c.stat(m.point)
	return err == nil && info.Mode()&fs.ModeSocket != 0
}

func writableMounts(c *container) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	var points []string
	for _, m := range c.mounts {
		if m.readOnly() || m.isPseudo() || m.inMemory() && !c.isForeignTmpfs(m) || m.point == "/" || isRuntimeFile(m) || c.isSocket(m) {
			continue
		}
		points = append(points, m.point)
	}
	if len(points) > 0 {
		return warn("rw in /proc/self/mountinfo: %s", strings.Join(firstFew(points), ", ")).at(points...)
	}
	return pass("none among %s in /proc/self/mountinfo", plural(len(c.mounts), "mount"))
}

// tmpfsOptions: engines make /dev a tmpfs without noexec and have no option for it.
// Where all else is read-only and the program is root, that is where a file can be
// put and run.
func tmpfsOptions(c *container) verdict {
	v := c.eachTmpfs(func(m mount) string {
		var missing []string
		for _, option := range []string{"noexec", "nosuid", "nodev"} {
			if !slices.Contains(m.options, option) {
				missing = append(missing, option)
			}
		}
		if len(missing) == 0 {
			return ""
		}
		return m.point + " without " + strings.Join(missing, ", ")
	}, fail)
	root, _ := c.mountAt("/")
	dev, mounted := c.mountAt("/dev")
	if v.status != Pass && v.status != NotApplicable || !mounted || !root.readOnly() || dev.fstype != "tmpfs" || dev.readOnly() ||
		slices.Contains(dev.options, "noexec") {
		return v
	}
	if _, s := c.program(); s.err == nil {
		if uid, err := s.value.effective("Uid"); err == nil && uid == 0 {
			return warn("/dev is a tmpfs without noexec that uid 0 can write, in /proc/self/mountinfo; run as another user")
		}
	}
	return v
}

// tmpfsSize: a size of 0 means no limit; without any it is half of the memory
// of the host. One above the memory limit limits nothing: it is charged to the
// container, which dies before the tmpfs is full.
func tmpfsSize(c *container) verdict {
	most := int64(math.MaxInt64)
	if total := c.hostMemory(); total > 0 {
		most = total
	}
	if c.memory.err == nil {
		most = min(most, c.memory.value.bytes)
	}
	hostIPC, _ := c.inHostNamespace("ipc")
	return c.eachTmpfs(func(m mount) string {
		most := most
		if hostIPC && m.point == "/dev/shm" {
			most = math.MaxInt64 // the host's, which ipc-namespace is about
		}
		for _, option := range m.super {
			size, ok := strings.CutPrefix(option, "size=")
			if !ok || strings.TrimRight(size, "kmg%") == "0" {
				continue
			}
			if kib, err := strconv.ParseInt(strings.TrimSuffix(size, "k"), 10, 64); err == nil && strings.HasSuffix(size, "k") && kib > most>>10 {
				return fmt.Sprintf("%s of %s, above the %s that memory may be", m.point, sizes.Memory(float64(kib<<10)), sizes.Memory(float64(most)))
			}
			return ""
		}
		return m.point + " without a size"
	}, warn)
}

// eachTmpfs gives the verdict found where problem finds one; Kubernetes has no
// fields for the options of an emptyDir, which makes it a warning there.
func (c *container) eachTmpfs(problem func(mount) string, found func(string, ...any) verdict) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	if c.kubernetes {
		found = warn
	}
	var points, problems, fine []string
	for _, m := range c.mounts {
		if !m.isTmpfs() {
			continue
		}
		if p := problem(m); p != "" {
			points = append(points, m.point)
			problems = append(problems, p)
		} else {
			fine = append(fine, m.point)
		}
	}
	switch {
	case len(problems) > 0:
		return found("%s in /proc/self/mountinfo", strings.Join(firstFew(problems), "; ")).at(points...)
	case len(fine) == 0:
		return notApplicable("no writable tmpfs in /proc/self/mountinfo")
	}
	return pass("as it should be: %s in /proc/self/mountinfo", strings.Join(firstFew(fine), ", "))
}

// runtimeSockets are the sockets of container runtimes, relative to the root of
// a host; /var/run is a link to /run on most.
var runtimeSockets = []string{
	"run/docker.sock", "var/run/docker.sock", "docker.sock",
	"run/containerd/containerd.sock", "var/run/containerd/containerd.sock", "containerd/containerd.sock", "containerd.sock",
	"run/k3s/containerd/containerd.sock", "k3s/containerd/containerd.sock",
	"run/crio/crio.sock", "var/run/crio/crio.sock", "crio/crio.sock", "crio.sock",
	"run/podman/podman.sock", "var/run/podman/podman.sock", "podman/podman.sock", "podman.sock",
	"run/cri-dockerd.sock", "var/run/cri-dockerd.sock", "cri-dockerd.sock",
	"run/buildkit/buildkitd.sock", "buildkit/buildkitd.sock", "buildkitd.sock",
	"var/lib/lxd/unix.socket", "var/snap/lxd/common/lxd/unix.socket", "var/lib/incus/unix.socket",
	"lxd/unix.socket", "incus/unix.socket",
}

// runtimeSocket looks under the root and under every mount, as the socket may
// have come with a directory and under another name. A mount option ro keeps
// nobody from connecting.
func runtimeSocket(c *container) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	var found, others []string
	looked, unread := 0, 0
	for _, m := range c.mounts {
		if m.isPseudo() || m.isMask() || m.point == "/dev" || m.point == "/sys/fs/cgroup" {
			continue
		}
		if info, err := c.stat(m.point); err == nil && info.Mode().IsRegular() {
			continue
		}
		if c.isSocket(m) {
			known := slices.ContainsFunc(runtimeSockets, func(s string) bool {
				return strings.HasSuffix(m.root, "/"+s) || strings.HasSuffix(m.point, "/"+s)
			})
			if known {
				found = append(found, m.point)
			} else {
				others = append(others, m.point)
			}
			continue
		}
		looked++
		for _, s := range runtimeSockets {
			name := path.Join(m.point, s)
			info, err := c.stat(name)
			switch {
			case errors.Is(err, fs.ErrPermission):
				unread++
			case err == nil && info.Mode()&fs.ModeSocket != 0:
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	switch {
	case len(found) > 0:
		return fail("socket %s", strings.Join(firstFew(found), ", ")).at(found...)
	case len(others) > 0:
		return warn("a socket of the host, whose is not known: %s", strings.Join(firstFew(others), ", ")).at(others...)
	}
	return c.walked(pass("none at the known paths in %s", plural(looked, "mount")), unread)
}

// hostDirectories are the directories of a host that no container should have any
// part of. What mountinfo calls the root of a mount is relative to its own
// filesystem: on a host with a separate /var, /var/lib/docker reads /lib/docker.
var hostDirectories = []string{
	"/boot", "/dev", "/etc", "/proc", "/sys", "/root", "/home", "/run", "/var/run", "/var/spool/cron",
	"/usr/lib/systemd", "/lib/systemd", "/var/backups",
	"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/etcd",
	"/var/lib/lxc", "/var/lib/lxd", "/var/lib/incus", "/var/lib/libvirt", "/var/lib/machines", "/var/lib/cloud",
	"/lib/docker", "/lib/containerd", "/lib/containers", "/lib/kubelet", "/docker", "/containerd",
}

// hostTops are directories of a host that hold so much else that only they
// themselves are sensitive, and not all below.
var hostTops = []string{
	"/", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/local", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin",
	"/var", "/var/lib", "/var/log", "/var/spool", "/opt",
}

// harmless are parts of a host's /etc that say nothing of it and are mounted often, for the
// time zone and the certificates that programs trust.
var harmless = []string{"/etc/localtime", "/etc/timezone", "/etc/ssl/certs", "/etc/pki/ca-trust", "/etc/ca-certificates"}

// hostPath is the root of the mount as a path of the host: btrfs puts the subvolume
// in front.
func (m mount) hostPath() string {
	for _, option := range m.super {
		volume, ok := strings.CutPrefix(option, "subvol=")
		if !ok || volume == "/" || !under(m.root, volume) {
			continue
		}
		rest := path.Clean("/" + strings.TrimPrefix(m.root, volume))
		if base := strings.TrimPrefix(path.Base(volume), "@"); base == "home" {
			return path.Join("/home", rest)
		}
		return rest
	}
	return m.root
}

// sensitiveHostMounts: what an engine mounts for itself and its volumes is told
// from a directory of the host by where it lies on its filesystem.
func sensitiveHostMounts(c *container) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	var sensitive, others []string
	var points []string
	for _, m := range c.mounts {
		kind, found := c.hostMount(m)
		text := fmt.Sprintf("%s (%s)", m.point, kind)
		switch found {
		case Fail:
			sensitive = append(sensitive, text)
			points = slices.Insert(points, 0, m.point)
		case Warn:
			others = append(others, text)
			points = append(points, m.point)
		}
	}
	switch {
	case len(sensitive) > 0:
		return fail("%s in /proc/self/mountinfo", strings.Join(firstFew(append(sensitive, others...)), ", ")).at(points...)
	case len(others) > 0:
		return warn("%s in /proc/self/mountinfo", strings.Join(firstFew(others), ", ")).at(points...)
	}
	return pass("none among %s in /proc/self/mountinfo", plural(len(c.mounts), "mount"))
}

// hostMount says what of the host a mount is: Fail for a system directory, Warn
// for another one, Pass for what belongs to the container.
func (c *container) hostMount(m mount) (kind string, found Status) {
	proc, _ := c.mountAt("/proc")
	sys, _ := c.mountAt("/sys")
	root := m.hostPath()
	switch {
	case m.point == "/" || isRuntimeFile(m) || c.isManaged(m) || m.isMask() || c.isSocket(m):
		return "", Pass
	case m.fstype == "devtmpfs":
		if m.root == "/" {
			return "the host's /dev", Fail
		}
		return "", Pass // one node, which device-nodes judges
	case m.fstype == "proc" && !under(m.point, "/proc"), m.fstype == "sysfs" && !under(m.point, "/sys"):
		return "a second " + m.fstype, Fail
	case m.fstype == "sysfs" && (sys.fstype == "tmpfs" && m.readOnly() || m.point == "/sys/fs/fuse/connections"):
		return "", Pass // systemd-nspawn makes /sys of parts, LXC mounts this one always
	case m.fstype == "proc" && m.device != proc.device, m.fstype == "sysfs" && m.device != sys.device:
		return "the host's " + path.Join("/"+strings.TrimSuffix(m.fstype, "fs"), m.root), Fail
	case strings.HasPrefix(m.fstype, "cgroup") && (!under(m.point, "/sys/fs/cgroup") || strings.HasPrefix(m.root, "/..")):
		return "the host's cgroups", Fail
	case m.fstype == "devpts" && m.root == "/" && (m.point != "/dev/pts" || !slices.Contains(m.super, "ptmxmode=666")):
		return "the terminals of the host", Fail // the engines' own have a ptmx for everybody, and systemd's has not
	case m.fstype == "mqueue" && m.point != "/dev/mqueue":
		return "message queues", Warn
	case m.fstype == "overlay" && m.root == "/", m.fstype == "fuse.fuse-overlayfs" && m.root == "/":
		return "the filesystem of a container", Fail
	case m.isPseudo():
		return "", Pass
	case m.fstype == "tmpfs":
		return c.hostTmpfs(m)
	case slices.Contains(networkFilesystems, m.fstype):
		return "", Pass // a volume that lies elsewhere
	case m.root == "/" || root == "/":
		return c.wholeFilesystem(m)
	}
	if data := c.engineData(); data != "" && (under(data, m.root) || under(m.root, data)) {
		return "the engine's " + m.root, Fail
	}
	// In Kubernetes a part of another filesystem than the kubelet's is a part of a
	// persistent volume.
	hosts, mounted := c.mountAt("/etc/hosts")
	if c.kubernetes && mounted && hosts.device != m.device {
		return "", Pass
	}
	if m.readOnly() && slices.ContainsFunc(harmless, func(dir string) bool { return under(root, dir) }) {
		return "the host's " + root, Warn
	}
	if slices.Contains(hostTops, root) || slices.ContainsFunc(hostDirectories, func(dir string) bool { return under(root, dir) }) {
		return "the host's " + root, Fail
	}
	return "the host's " + root, Warn
}

var networkFilesystems = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs"}

// hostTmpfs judges a tmpfs that came from outside: the host's /run has the
// directories that systemd and the engines make there.
func (c *container) hostTmpfs(m mount) (kind string, found Status) {
	if !c.isForeignTmpfs(m) {
		return "", Pass
	}
	n := 0
	for _, name := range []string{"systemd", "udev", "docker.sock", "containerd", "docker", "dbus", "lock", "initctl"} {
		if c.exists(path.Join(m.point, name)) {
			n++
		}
	}
	top, _, _ := strings.Cut(strings.TrimPrefix(m.root, "/"), "/")
	switch {
	case n >= 2:
		return "the host's /run", Fail
	case slices.Contains(runDirectories, top):
		return "the host's " + path.Join("/run", m.root), Fail
	case m.root != "/":
		return "the host's " + m.root + ", in memory", Warn
	}
	return "a tmpfs from outside", Warn
}

// runDirectories are in the /run of a host. Of a part of that tmpfs only the path within it shows.
var runDirectories = []string{
	"systemd", "dbus", "udev", "containerd", "docker", "crio", "podman", "containers", "libpod", "libvirt", "credentials",
	"netns", "runc", "crun",
}

// wholeFilesystem judges a mount of the top of a filesystem: the host's root, or
// a volume.
func (c *container) wholeFilesystem(m mount) (kind string, found Status) {
	switch m.fstype {
	case "ramfs":
		return "", Pass
	}
	n := 0
	for _, dir := range []string{"etc", "usr", "proc", "var", "boot", "lib"} {
		if c.exists(path.Join(m.point, dir)) {
			n++
		}
	}
	switch {
	case n >= 4:
		return "the host's /", Fail
	case c.kubernetes: // a persistent volume
		return "", Pass
	}
	return "a whole " + m.fstype + " filesystem", Warn
}

// isManaged says whether the mount lies where engines and kubelets keep
// volumes and the files they make for a container: .../volumes/NAME/_data,
// .../containers/ID/FILE, .../pods/UID/volumes/... Compose and Swarm put secrets
// under /run/secrets: a single file, from no directory of the host's system.
func (c *container) isManaged(m mount) bool {
	system := func(dir string) bool { return dir != "/home" && dir != "/root" && under(m.hostPath(), dir) }
	if m.point == "/sbin/docker-init" || m.point == "/dev/init" || m.point == "/run/podman-init" {
		return m.readOnly() && !slices.ContainsFunc(hostDirectories, system)
	}
	if strings.HasPrefix(m.point, "/run/secrets/") && !slices.ContainsFunc(hostDirectories, system) {
		info, err := c.stat(m.point)
		return err != nil || !info.IsDir()
	}
	if under(m.point, "/run/host") && m.readOnly() { // of systemd-nspawn
		return strings.Contains(m.root, "/nspawn/propagate/") || path.Base(m.root) == "os-release"
	}
	parts := strings.Split(m.root, "/")
	for i, part := range parts {
		rest := parts[i+1:]
		switch {
		case part == "volumes" && len(rest) >= 2 && rest[1] == "_data",
			part == "containers" && len(rest) >= 2 && isContainerID(rest[0]) && slices.Contains(engineFiles, rest[1]),
			strings.HasSuffix(part, "-containers") && len(rest) >= 3 && isContainerID(rest[0]) &&
				slices.Contains(engineFiles, rest[2]),
			part == "pods" && len(rest) >= 2 && slices.Contains([]string{"volumes", "volume-subpaths", "etc-hosts", "containers"}, rest[1]):
			return part != "pods" || c.isOwnPod(rest[0])
		}
	}
	return false
}

// engineFiles are what engines make for a container in a directory of its own, and mount. Beside
// them lie its configuration, with all variables, and its log.
var engineFiles = []string{
	"hosts", "hostname", "resolv.conf", "mounts", "secrets", "shm", "run", "passwd", "group", "localtime", ".containerenv",
}

// isOwnPod says whether the kubelet's directory with this name is of the pod that the container
// is in, as far as /etc/hosts shows that.
func (c *container) isOwnPod(uid string) bool {
	hosts, _ := c.mountAt("/etc/hosts")
	_, after, known := strings.Cut(hosts.root, "/pods/")
	own, _, _ := strings.Cut(after, "/")
	return !known || own == uid
}

// isContainerID says whether s is 64 hexadecimal digits.
func isContainerID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// engineData returns the engine's data directory on its filesystem, as the
// options of an overlay root name it, or "".
func (c *container) engineData() string {
	root, _ := c.mountAt("/")
	for _, option := range root.super {
		if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
			if i := strings.Index(upper, "/overlay2/"); i > 0 {
				return upper[:i]
			}
		}
	}
	return ""
}

func mountPropagation(c *container) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	// LXC and nspawn make the whole tree shared, among the container's own mounts.
	root, _ := c.mountAt("/")
	systemContainer := c.ownPeerGroup(root)
	var shared []string
	for _, m := range c.mounts {
		// A slave ("master:1") only receives, and is the default.
		shares := slices.ContainsFunc(m.optional, func(o string) bool { return strings.HasPrefix(o, "shared:") })
		if shares && !(systemContainer && c.ownPeerGroup(m)) {
			shared = append(shared, m.point)
		}
	}
	if len(shared) > 0 {
		return fail("shared in /proc/self/mountinfo: %s", strings.Join(firstFew(shared), ", ")).at(shared...)
	}
	return pass("none shared among %s in /proc/self/mountinfo", plural(len(c.mounts), "mount"))
}

// ownPeerGroup says whether the mount is shared and also a slave, or of a tree whose
// root is: what is mounted in it then goes to the container's own mount namespaces
// and not to the host, as with systemd inside of LXC and nspawn.
func (c *container) ownPeerGroup(m mount) bool {
	root, _ := c.mountAt("/")
	return slices.ContainsFunc(root.optional, func(o string) bool { return strings.HasPrefix(o, "shared:") }) &&
		(m.point == "/" || !c.isHostMount(m) || c.runtime() == "systemd-nspawn") // which shares nothing with the host
}

// isHostMount says whether the mount shows something of the host.
func (c *container) isHostMount(m mount) bool {
	_, found := c.hostMount(m)
	return found != Pass
}

// procPathsMasked looks at mounts only: reading the files would not tell a mask
// from a file that the kernel keeps to root. About half of them exist on a
// given kernel.
func procPathsMasked(c *container) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	masked := []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
		"/proc/sched_debug", "/proc/scsi", "/sys/firmware"}
	readOnly := []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	// Newer engines mask these as well; older ones cannot be told to.
	newer := []string{"/proc/interrupts", "/sys/devices/virtual/powercap"}

	var bare, open []string
	seen := 0
	ownNetwork := c.hasOwnNetwork() // whose settings these are
	for _, m := range c.mounts {
		// What is mounted writable over a part of /proc opens it again.
		if m.point == "/proc/sys/net" && ownNetwork {
			continue
		}
		if m.fstype == "proc" && m.point != "/proc" && under(m.point, "/proc") && !m.readOnly() && !slices.Contains(readOnly, m.point) {
			bare = append(bare, m.point)
		}
	}
	for _, name := range slices.Concat(masked, readOnly, newer) {
		if _, err := fs.Lstat(c.sys.FS, name[1:]); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return unknown(readError(name, err))
		}
		seen++
		m, mounted := c.mountAt(name)
		switch {
		case mounted && (m.root == "/null" || m.fstype == "tmpfs"):
		case slices.Contains(newer, name):
			open = append(open, name)
		case mounted && m.readOnly() && slices.Contains(readOnly, name):
		default:
			bare = append(bare, name)
		}
	}
	switch {
	case len(bare) > 0:
		return fail("neither masked nor read-only: %s", strings.Join(bare, ", "))
	case seen == 0:
		return unknown(errors.New("none of the paths exists: is /proc mounted?"))
	case len(open) > 0:
		return pass("all in place; newer engines also mask %s", strings.Join(open, ", "))
	}
	return pass("all in place, for %s that this kernel has", plural(seen, "path"))
}

// sysfsReadOnly leaves out the tmpfs that holds the cgroup v1 mounts; it is rw
// by design. Elsewhere a mount of these filesystems is the host's.
func sysfsReadOnly(c *container) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	var writable []string
	n := 0
	for _, m := range c.mounts {
		kernel := m.fstype == "sysfs" || m.fstype == "cgroup" || m.fstype == "cgroup2"
		ofNetwork := m.point == "/sys/devices/virtual/net" && c.hasOwnNetwork()
		if m.fstype == "tmpfs" || !kernel && !under(m.point, "/sys") || ofNetwork {
			continue
		}
		n++
		if !m.readOnly() {
			writable = append(writable, m.point)
		}
	}
	switch {
	case len(writable) > 0:
		return fail("rw in /proc/self/mountinfo: %s", strings.Join(firstFew(writable), ", ")).at(writable...)
	case n == 0:
		return notApplicable("no sysfs and no cgroup filesystem is mounted")
	}
	return pass("ro in /proc/self/mountinfo: /sys and what is mounted below, %s", plural(n, "mount"))
}

// device is a node in /dev, known by its numbers: names prove nothing.
type device struct {
	name         string
	block        bool
	major, minor uint32
}

func (d device) String() string {
	kind := "c"
	if d.block {
		kind = "b"
	}
	return fmt.Sprintf("%s %s %d:%d", d.name, kind, d.major, d.minor)
}

// status is Pass for the nodes that every container gets, Fail for what opens
// the host's disks or memory, or makes a kernel object of its own (fuse, kvm,
// device mapper, loop control, SCSI generic, msr, cpuid).
func (d device) status() Status {
	switch {
	case d.block:
		return Fail
	case d.major == 1: // null, zero, full, random, urandom; else mem, port, kmsg
		if slices.Contains([]uint32{3, 5, 7, 8, 9}, d.minor) {
			return Pass
		}
		return Fail
	case d.major == 5 && d.minor <= 2, d.major == 136: // tty, console, ptmx; pts
		return Pass
	case d.major == 10 && slices.Contains([]uint32{229, 232, 236, 237}, d.minor), d.major == 21, d.major == 202, d.major == 203:
		return Fail
	}
	return Warn
}

// devices lists the nodes in /dev, without entering what is mounted there, and those that are mounted anywhere
// by themselves.
func (c *container) devices() ([]device, error) {
	if c.sys.kept != nil {
		return c.sys.kept.devices, nil
	}
	found := c.mountedDevices()
	err := fs.WalkDir(c.sys.FS, "dev", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			if name == "dev" || !errors.Is(err, fs.ErrPermission) {
				return readError("/"+name, err)
			}
			return fs.SkipDir
		}
		if _, mounted := c.mountAt("/" + name); mounted && name != "dev" {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil // what lies below the mount, by its type; a single node is found already
		}
		if entry.Type()&fs.ModeDevice == 0 {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return readError("/"+name, err)
		}
		st, known := c.fileStat(info)
		if !known {
			return fmt.Errorf("/%s: its numbers cannot be read here", name)
		}
		found = append(found, device{"/" + name, entry.Type()&fs.ModeCharDevice == 0, st.Major, st.Minor})
		return nil
	})
	return found, err
}

// mountedDevices lists the nodes that are mounted by themselves: as a list of a directory shows them, they have
// the type of what they are mounted on.
func (c *container) mountedDevices() []device {
	var found []device
	for _, m := range c.mounts {
		if under(m.point, "/proc") || under(m.point, "/sys") {
			continue
		}
		info, err := c.stat(m.point)
		if err != nil || info.Mode()&fs.ModeDevice == 0 {
			continue
		}
		if st, known := c.fileStat(info); known {
			found = append(found, device{m.point, info.Mode()&fs.ModeCharDevice == 0, st.Major, st.Minor})
		}
	}
	return found
}

// defaultDeviceRules are the lines of devices.list that every container has.
var defaultDeviceRules = []string{
	"b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
	"c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 10:200 rwm", "c 136:* rwm",
}

// deviceRules returns what the device cgroup allows. Only v1 has a file for it;
// v2 has a BPF program that cannot be read.
func (c *container) deviceRules() ([]string, error) {
	values, _, err := c.cgroupValues("devices", "devices.list", "")
	if err != nil {
		return nil, err
	}
	return strings.Split(values[0], "\n"), nil
}

// remapped says whether uid 0 is another user outside: whoever is root here can neither make nodes nor
// open those that are not everybody's, and rootless engines set no rules for them.
func (c *container) remapped() bool { return userNamespace(c).status == Pass }

// opensDisk says whether the rule lets a node be read or written that is a disk or the kernel's memory:
// with MKNOD whoever is root makes one.
func opensDisk(rule string) bool {
	fields := strings.Fields(rule)
	if len(fields) != 3 || !strings.ContainsAny(fields[2], "rw") {
		return false
	}
	major, minor, _ := strings.Cut(fields[1], ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	switch {
	case fields[0] != "c":
		return true
	case err1 == nil && err2 == nil:
		return a == 1 && device{major: 1, minor: uint32(b)}.status() == Fail
	}
	return err1 != nil || a == 1
}

func deviceNodes(c *container) verdict {
	devices, err := c.devices()
	if err != nil {
		return unknown(err)
	}
	if c.tree.err == nil {
		devices = append(devices, c.tree.value.devices...)
	}
	if len(devices) == 0 {
		return unknown(errors.New("/dev: no device in it, is it mounted?"))
	}
	var failed bool
	var names []string
	var nodes []string
	for _, d := range devices {
		switch d.status() {
		case Fail:
			failed = true
			names = slices.Insert(names, 0, d.name)
			nodes = slices.Insert(nodes, 0, d.String())
		case Warn:
			names = append(names, d.name)
			nodes = append(nodes, d.String())
		}
	}
	var extra []string
	caps, _ := c.subject.value.mask("CapBnd")
	rules, err := c.deviceRules()
	if err == nil && !c.remapped() {
		for _, rule := range rules {
			if rule = strings.TrimSpace(rule); rule != "" && !slices.Contains(defaultDeviceRules, rule) {
				extra = append(extra, rule)
				failed = failed || caps&capMknod != 0 && opensDisk(rule)
			}
		}
	}
	var evidence []string
	if len(nodes) > 0 {
		evidence = append(evidence, strings.Join(firstFew(nodes), ", "))
	}
	if len(extra) > 0 {
		evidence = append(evidence, "allowed in devices.list: "+strings.Join(firstFew(extra), ", "))
	}
	text := strings.Join(evidence, "; ")
	if len(names) == 0 {
		names = []string{"DEVICE"}
	}
	switch {
	case failed:
		return fail("%s", text).at(names...)
	case len(evidence) > 0:
		return warn("%s", text).at(names...)
	}
	return pass("only the usual ones among %s", plural(len(devices), "node"))
}
