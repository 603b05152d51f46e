package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"imagelab/internal/sizes"
)

// memoryMax is the limit in bytes, math.MaxInt64 for none, and where it is from.
type memoryMax struct {
	bytes int64
	cgroupFile
}

// readMemoryMax: v1 writes about 2^63 for no limit, and shows the limits of
// parents in hierarchical_memory_limit alone.
func (c *container) readMemoryMax() (memoryMax, error) {
	values, file, err := c.cgroupValues("memory", "memory.stat", "memory.max")
	if err != nil {
		return memoryMax{}, err
	}
	if file.v2 {
		return memoryMax{smallest(values), file}, nil
	}
	for line := range strings.Lines(values[0]) {
		if text, ok := strings.CutPrefix(line, "hierarchical_memory_limit "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			switch {
			case err != nil:
				return memoryMax{}, fmt.Errorf("%s: hierarchical_memory_limit is not a number", file.name)
			case n >= 1<<62:
				return memoryMax{math.MaxInt64, file}, nil
			}
			return memoryMax{int64(n), file}, nil
		}
	}
	return memoryMax{}, fmt.Errorf("%s: no hierarchical_memory_limit", file.name)
}

// hostMemory returns MemTotal of /proc/meminfo in bytes, 0 where unknown.
func (c *container) hostMemory() int64 {
	if m, mounted := c.mountAt("/proc/meminfo"); mounted && m.fstype == "fuse.lxcfs" {
		return 0 // it shows the container's own limit
	}
	data, _ := c.read("/proc/meminfo")
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// room returns twice the use, at least the limit of the fixes, and a power of two.
func room(least, used int64) int64 {
	limit := least
	for limit < 2*used && limit < math.MaxInt64/4 {
		limit *= 2
	}
	return limit
}

func memoryLimit(c *container) verdict {
	v := c.memoryVerdict()
	if used, _ := c.memoryUsed(); used != nil {
		mib := strconv.FormatInt(room(64<<20, *used)>>20, 10)
		v.limits = []string{"64Mi", mib + "Mi", "64m", mib + "m"}
	}
	return v
}

func (c *container) memoryVerdict() verdict {
	limit, total := c.memory.value, c.hostMemory()
	switch {
	case c.memory.err != nil:
		return noCgroupValue(c.memory.err)
	case limit.bytes == math.MaxInt64:
		return fail("no limit in %s", limit.name)
	case total > 0 && limit.bytes >= total:
		return warn("%s in %s, not less than the machine has (%s)", sizes.Memory(float64(limit.bytes)), limit.name, sizes.Memory(float64(total)))
	}
	return pass("%s in %s", sizes.Memory(float64(limit.bytes)), limit.name)
}

// noCgroupValue: without the file the controller is not there, and nothing can
// be said.
func noCgroupValue(err error) verdict {
	if errors.Is(err, fs.ErrNotExist) {
		return notApplicable("%v", err)
	}
	return unknown(err)
}

// cpuMax returns the quota in CPUs, +Inf for none, and the file it is from.
func (c *container) cpuMax() (float64, string, error) {
	values, file, err := c.cgroupValues("cpu", "cpu.cfs_quota_us", "cpu.max")
	if err != nil {
		return 0, "", err
	}
	var periods []string
	if !file.v2 {
		if periods, _, err = c.cgroupValues("cpu", "cpu.cfs_period_us", ""); err != nil {
			return 0, "", err
		}
	}
	least := math.Inf(1)
	for i, quota := range values {
		period := ""
		if file.v2 { // "QUOTA PERIOD"
			quota, period, _ = strings.Cut(quota, " ")
		} else if i < len(periods) {
			period = periods[i]
		}
		if quota == "max" || quota == "-1" {
			continue
		}
		q, err1 := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
			return 0, "", fmt.Errorf("%s: %q of %q is no quota", file.name, quota, period)
		}
		least = min(least, q/p)
	}
	return least, file.name, nil
}

// cpuLimit: shares, or a weight, divide only what is contended. Kubernetes
// writes them always, so they show no intent there.
func cpuLimit(c *container) verdict {
	limit, name, err := c.cpuMax()
	switch {
	case err != nil:
		return noCgroupValue(err)
	case !math.IsInf(limit, 1):
		if n := c.processors(); n > 0 && limit > float64(n) {
			return warn("%.3g CPUs in %s, more than the %d of the machine", limit, name, n)
		}
		return pass("%.3g CPUs in %s", limit, name)
	}
	if held, n := c.cpuSet(), c.processors(); held > 0 && held < n {
		return pass("no quota in %s, but only %d of the %d CPUs of the machine (cpuset)", name, held, n)
	}
	if c.kubernetes {
		return fail("no quota in %s", name)
	}
	shares, file, err := c.cgroupValues("cpu", "cpu.shares", "cpu.weight")
	if err == nil && (file.v2 && shares[0] != "100" || !file.v2 && shares[0] != "1024") {
		return warn("no quota in %s, only a share of %s in %s", name, shares[0], file.name)
	}
	return fail("no quota in %s", name)
}

// cpuSet returns on how many CPUs the container may run, 0 where unknown.
func (c *container) cpuSet() int {
	values, _, err := c.cgroupValues("cpuset", "cpuset.cpus", "cpuset.cpus.effective")
	if err != nil {
		return 0
	}
	n := 0
	for word := range strings.SplitSeq(values[0], ",") { // such as 0-2,7
		first, last, isRange := strings.Cut(word, "-")
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if !isRange {
			b, err2 = a, nil
		}
		if err1 != nil || err2 != nil || b < a {
			return 0
		}
		n += b - a + 1
	}
	return n
}

// processors returns how many the machine has, as /proc/stat lists them; 0 where
// unknown.
func (c *container) processors() int {
	n := 0
	c.scan("/proc/stat", func(line string) {
		if rest, ok := strings.CutPrefix(line, "cpu"); ok && rest != "" && rest[0] != ' ' {
			n++
		}
	})
	return n
}

// mostProcesses returns the least of the kernel's own bounds on processes of the
// whole machine, math.MaxInt64 where unknown.
func (c *container) mostProcesses() int64 {
	var found []string
	for _, name := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		if value, err := c.line(name); err == nil {
			found = append(found, value)
		}
	}
	return smallest(found)
}

func pidsLimit(c *container) verdict {
	v := c.pidsVerdict()
	if values, _, err := c.cgroupValues("pids", "pids.current", "pids.current"); err == nil {
		if used := smallest(values[:1]); used < math.MaxInt64 {
			v.limits = []string{"64", strconv.FormatInt(room(64, used), 10)}
		}
	}
	return v
}

func (c *container) pidsVerdict() verdict {
	values, file, err := c.cgroupValues("pids", "pids.max", "pids.max")
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.shows("pids"):
		return fail("no pids.max in the pids controller of /sys/fs/cgroup: this is its root, which has no limit")
	case err != nil:
		return noCgroupValue(err)
	case smallest(values) < math.MaxInt64:
		limit := smallest(values)
		if most := c.mostProcesses(); limit >= most {
			return warn("%d in %s, not less than the kernel has for the whole machine (%d)", limit, file.name, most)
		}
		return pass("%d in %s", limit, file.name)
	case c.kubernetes:
		// The limit sits on the pod's cgroup, which is not seen from here.
		return warn("no limit in %s; the pod's own is not seen from inside", file.name)
	}
	return fail("no limit in %s", file.name)
}

// maxOpenFiles is the hard limit of kernels on descriptors of one process
// (fs.nr_open), and more than any service needs.
const maxOpenFiles = 1 << 20

// ulimits reads the hard limits of PID 1 from /proc. getrlimit(2) and
// /proc/self/limits would show what the Go runtime has made of them.
func ulimits(c *container) verdict {
	if c.limits.err != nil {
		return unknown(c.limits.err)
	}
	core, ok1 := c.limits.value["Max core file size"]
	files, ok2 := c.limits.value["Max open files"]
	if !ok1 || !ok2 {
		return unknown(fmt.Errorf("%s/limits: no core file size or no open files", c.subjectDir))
	}
	evidence := fmt.Sprintf("hard limits in %s/limits: core %s, nofile %s", c.subjectDir, limitText(core.hard), limitText(files.hard))
	if core.hard != 0 || files.hard < 0 || files.hard > maxOpenFiles {
		return warn("%s", evidence)
	}
	return pass("%s", evidence)
}

func limitText(n int64) string {
	if n < 0 {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

func oomKillable(c *container) verdict {
	name := c.subjectDir + "/oom_score_adj"
	score, err := c.line(name)
	if err != nil {
		return unknown(err)
	}
	if score == "-1000" { // pods of the class Guaranteed have -997
		return fail("-1000 in %s", name)
	}
	control, file, err := c.cgroupValues("memory", "memory.oom_control", "")
	if err == nil && slices.Contains(strings.Split(control[0], "\n"), "oom_kill_disable 1") {
		return fail("oom_kill_disable 1 in %s", file.name)
	}
	return pass("%s in %s", score, name)
}

func cgroupParent(c *container) verdict {
	if c.cgroups.err != nil {
		return unknown(c.cgroups.err)
	}
	var seen, strange []string
	for _, p := range c.cgroups.value {
		if p == "/" || strings.HasPrefix(p, "/..") {
			continue
		}
		seen = append(seen, p)
		usual := strings.HasPrefix(p, "/docker/") || strings.Contains(p, "/docker-") && containerIn(p) != "" ||
			strings.Contains(p, "kubepods") || strings.Contains(p, "libpod") || strings.Contains(p, "machine.slice") ||
			strings.HasPrefix(p, "/lxc/") || strings.HasPrefix(p, "/lxc.payload") || strings.HasPrefix(p, "/default/") ||
			strings.HasPrefix(p, "/user") && containerIn(p) != ""
		if !usual {
			strange = append(strange, p)
		}
	}
	slices.Sort(strange)
	strange = slices.Compact(strange)
	switch {
	case len(seen) == 0:
		return notApplicable("a cgroup namespace hides the parent: / in %s", c.cgroupName)
	case len(strange) > 0:
		return warn("%s in %s", strings.Join(firstFew(strange), ", "), c.cgroupName)
	}
	return pass("%s in %s", slices.Min(seen), c.cgroupName)
}
