package audit

import (
	"bufio"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
)

// Facts are what was found without a verdict. A nil pointer, or an empty string,
// is what could not be read or does not exist.
type Facts struct {
	Image   ImageFacts   `json:"image"`
	Process ProcessFacts `json:"process"`
	Limits  LimitFacts   `json:"limits"`
	Host    HostFacts    `json:"host"`
	// WritableMounts are the mount points that are not read-only, the kernel's
	// own filesystems aside; "/" is among them where the root is writable.
	WritableMounts []string `json:"writable_mounts"`
	App            *App     `json:"app,omitempty"`
	// Sandbox is nil where the auditor is not the container's program.
	Sandbox *SandboxFacts `json:"sandbox,omitempty"`
}

// ImageFacts are about the root filesystem alone, without what is mounted on it:
// the image, and what was written over it since. Programs count by file name,
// also as symbolic links.
type ImageFacts struct {
	Distribution    string         `json:"distribution"` // PRETTY_NAME of os-release(5)
	Bytes           *int64         `json:"bytes"`        // of regular files
	Files           *int           `json:"files"`
	Directories     *int           `json:"directories"`
	Executables     *int           `json:"executables"`
	Shells          *Count         `json:"shells"`
	PackageManagers *Count         `json:"package_managers"`
	Interpreters    *Count         `json:"interpreters"`
	NetworkClients  *Count         `json:"network_clients"`
	SetuidFiles     *Count         `json:"setuid_files"`
	Packages        []PackageFacts `json:"packages"`
	CARoots         *int           `json:"ca_roots"`   // certificates in the first bundle found
	Unreadable      int            `json:"unreadable"` // files and directories
}

// Count is a number of paths and the first few of them.
type Count struct {
	Count int      `json:"count"`
	Paths []string `json:"paths"`
}

// PackageFacts is one package database. An rpm database is a binary file whose
// packages are not counted.
type PackageFacts struct {
	Database string `json:"database"` // apk, dpkg or rpm
	Packages *int   `json:"packages"`
}

// ProcessFacts are about the judged process: PID 1, or the auditor in the host's
// pid namespace.
type ProcessFacts struct {
	UID             *int     `json:"uid"`
	GID             *int     `json:"gid"`
	Groups          []int    `json:"groups"`
	Capabilities    []string `json:"capabilities"` // effective
	Bounding        []string `json:"bounding"`
	NoNewPrivileges *bool    `json:"no_new_privileges"`
	Seccomp         string   `json:"seccomp"` // off, strict or filter
	LSM             string   `json:"lsm"`     // label of AppArmor or SELinux
	PID1            string   `json:"pid1"`    // its argv[0]
	AuditorPID      int      `json:"auditor_pid"`
	AuditorUID      int      `json:"auditor_uid"`
}

// LimitFacts are the limits in effect. Nil is no limit, or not known; the
// checks tell which.
type LimitFacts struct {
	MemoryBytes     *int64   `json:"memory_bytes"`
	MemoryUsedBytes *int64   `json:"memory_used_bytes"`
	CPUs            *float64 `json:"cpus"`
	PIDs            *int64   `json:"pids"`
	OpenFilesSoft   *int64   `json:"open_files_soft"`
	OpenFilesHard   *int64   `json:"open_files_hard"`
}

// HostFacts are about the kernel and what runs the container.
type HostFacts struct {
	Kernel        string `json:"kernel"`
	CgroupVersion int    `json:"cgroup_version"` // 1 or 2 by the memory controller, 0 unknown
	LandlockABI   *int   `json:"landlock_abi"`   // 0 where the kernel has none
	Kubernetes    bool   `json:"kubernetes"`
	Runtime       string `json:"runtime"` // docker, podman, containerd, cri-o, lxc, systemd-nspawn; empty where it does not show
	MemoryBytes   *int64 `json:"memory_bytes"`
}

func (c *container) facts() Facts {
	f := Facts{
		Image:          c.imageFacts(),
		Process:        c.processFacts(),
		Limits:         c.limitFacts(),
		Host:           HostFacts{Kubernetes: c.kubernetes, Runtime: c.runtime()},
		WritableMounts: []string{},
		App:            c.sys.App,
		Sandbox:        c.sandboxFacts(),
	}
	f.Host.Kernel, _ = c.line("/proc/sys/kernel/osrelease")
	f.Host.Kernel = printable(f.Host.Kernel)
	if c.memory.err == nil {
		f.Host.CgroupVersion = 1
		if c.memory.value.v2 {
			f.Host.CgroupVersion = 2
		}
	}
	if c.sys.LandlockABI != nil {
		if abi, err := c.sys.LandlockABI(); err == nil {
			f.Host.LandlockABI = &abi
		}
	}
	if total := c.hostMemory(); total > 0 {
		f.Host.MemoryBytes = &total
	}
	for _, m := range c.mounts {
		if !m.readOnly() && !m.isPseudo() && !m.isMask() && m.point != "/dev" && m.point != "/sys/fs/cgroup" {
			f.WritableMounts = append(f.WritableMounts, printable(m.point))
		}
	}
	return f
}

func (c *container) imageFacts() ImageFacts {
	if c.sys.kept != nil && c.tree.err == nil {
		return c.sys.kept.image
	}
	f := ImageFacts{Distribution: c.distribution(), Packages: c.packages(), CARoots: c.caRoots()}
	if c.tree.err != nil {
		return f
	}
	t := c.tree.value
	f.Bytes, f.Files, f.Directories, f.Executables = &t.bytes, &t.files, &t.directories, &t.executables
	f.Shells = t.tools[shells].fact()
	f.PackageManagers = t.tools[packageManagers].fact()
	f.Interpreters = t.tools[interpreters].fact()
	f.NetworkClients = t.tools[networkClients].fact()
	f.SetuidFiles = t.setuid.fact()
	f.Unreadable = t.unreadDirs + t.unreadFiles
	return f
}

func (f *finding) fact() *Count {
	paths := []string{}
	for _, s := range f.some[:min(len(f.some), maxPaths)] {
		paths = append(paths, printable(s.path))
	}
	return &Count{Count: f.count, Paths: paths}
}

// distribution returns the name of the base image, as os-release(5) has it.
func (c *container) distribution() string {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		var found string
		c.scan(name, func(line string) {
			if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				found = printable(strings.Trim(value, `"'`))
			}
		})
		if found != "" {
			return found
		}
	}
	return ""
}

// scan calls do with each line of a file of any size, and says whether there is
// such a file. Links are followed inside the root.
func (c *container) scan(name string, do func(line string)) bool {
	target, info, err := resolve(c.sys.FS, name)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := c.sys.FS.Open(target[1:])
	if err != nil {
		return false
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadSlice('\n')
		do(strings.TrimRight(string(line), "\r\n"))
		if err != nil && err != bufio.ErrBufferFull {
			return err == io.EOF
		}
	}
}

// packages counts the installed packages of each database.
func (c *container) packages() []PackageFacts {
	found := []PackageFacts{}
	apk := 0
	if c.scan("/lib/apk/db/installed", func(line string) {
		if strings.HasPrefix(line, "P:") {
			apk++
		}
	}) {
		found = append(found, PackageFacts{"apk", &apk})
	}

	dpkg := 0
	any := c.scan("/var/lib/dpkg/status", func(line string) {
		// The other states, such as deinstall ok config-files, are not installed.
		if strings.HasPrefix(line, "Status:") && strings.HasSuffix(line, " ok installed") {
			dpkg++
		}
	})
	// Distroless images have a file for each package instead.
	if dir, _, err := resolve(c.sys.FS, "/var/lib/dpkg/status.d"); err == nil {
		entries, err := fs.ReadDir(c.sys.FS, dir[1:])
		any = any || err == nil
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".md5sums") {
				dpkg++
			}
		}
	}
	if any {
		found = append(found, PackageFacts{"dpkg", &dpkg})
	}

	for _, dir := range []string{"/var/lib/rpm", "/usr/lib/sysimage/rpm"} {
		if slices.ContainsFunc([]string{"rpmdb.sqlite", "Packages", "Packages.db"}, func(name string) bool { return c.exists(path.Join(dir, name)) }) {
			found = append(found, PackageFacts{"rpm", nil})
			break
		}
	}
	return found
}

// caRoots counts the certificates in the first bundle that Go would use too.
func (c *container) caRoots() *int {
	for _, name := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		n := 0
		if c.scan(name, func(line string) {
			if strings.HasPrefix(line, "-----BEGIN CERTIFICATE-----") {
				n++
			}
		}) {
			return &n
		}
	}
	return nil
}

func (c *container) processFacts() ProcessFacts {
	f := ProcessFacts{AuditorPID: c.sys.PID, AuditorUID: c.sys.EUID}
	f.LSM, _, _ = c.lsmLabel()
	f.LSM = printable(f.LSM)
	if argv := c.commandLine(c.first); len(argv) > 0 {
		f.PID1 = printable(argv[0])
	}
	s := c.subject.value
	if c.subject.err != nil {
		return f
	}
	if uid, err := s.effective("Uid"); err == nil {
		f.UID = &uid
	}
	if gid, err := s.effective("Gid"); err == nil {
		f.GID = &gid
	}
	if groups, err := s.ids("Groups"); err == nil {
		f.Groups = append([]int{}, groups...)
	}
	if mask, err := s.mask("CapEff"); err == nil {
		f.Capabilities = capabilityList(mask)
	}
	if mask, err := s.mask("CapBnd"); err == nil {
		f.Bounding = capabilityList(mask)
	}
	if value, ok := s["NoNewPrivs"]; ok {
		set := value == "1"
		f.NoNewPrivileges = &set
	}
	switch s["Seccomp"] {
	case "0":
		f.Seccomp = "off"
	case "1":
		f.Seccomp = "strict"
	case "2":
		f.Seccomp = "filter"
	}
	return f
}

func (c *container) limitFacts() LimitFacts {
	var f LimitFacts
	if limit := c.memory.value.bytes; c.memory.err == nil && limit < math.MaxInt64 {
		f.MemoryBytes = &limit
	}
	f.MemoryUsedBytes, _ = c.memoryUsed()
	if cpus, _, err := c.cpuMax(); err == nil && !math.IsInf(cpus, 1) {
		f.CPUs = &cpus
	}
	if values, _, err := c.cgroupValues("pids", "pids.max", "pids.max"); err == nil {
		if n := smallest(values); n < math.MaxInt64 {
			f.PIDs = &n
		}
	}
	if files, ok := c.limits.value["Max open files"]; ok {
		if files.soft >= 0 {
			f.OpenFilesSoft = &files.soft
		}
		if files.hard >= 0 {
			f.OpenFilesHard = &files.hard
		}
	}
	return f
}
