package audit

import (
	"errors"
	"math"
	"path"
	"strconv"
	"strings"
)

// Usage is what the kernel counts for the process's own cgroup at one moment.
// Nil is what is not known: there is no cgroup mount, the mount shows another
// cgroup, or the controller is not there.
type Usage struct {
	// MemoryBytes is all that is charged to the cgroup: the memory of its
	// processes, what its tmpfs mounts hold, buffers of sockets, page cache.
	MemoryBytes *int64
	// WorkingSetBytes is that without the page cache that the kernel would give
	// up first. It is what the kubelet and docker stats show, and what has to
	// stay below the limit: a cgroup may stand at its limit for the cache alone.
	WorkingSetBytes *int64
	// MemoryLimitBytes is the least limit of the cgroup and of those of its
	// parents that can be seen; nil is also no limit.
	MemoryLimitBytes *int64
	// CPUs is the quota in processors; nil is also no quota.
	CPUs       *float64
	Throttling *Throttling
}

// Throttling counts from the making of the cgroup, and is of the own one alone.
type Throttling struct {
	Periods          int64   // in which the cgroup had something to run
	ThrottledPeriods int64   // of these, in which the quota was used up
	ThrottledSeconds float64 // that its threads have waited for the next period
}

// Usage reads a few files of /proc and of the cgroup.
func (s *System) Usage() Usage {
	c := &container{sys: s}
	c.cgroups = parse(c, "/proc/self/cgroup", parseCgroups)
	c.mountLines = parse(c, "/proc/self/mountinfo", parseMountinfo)
	c.mounts = topMounts(c.mountLines.value, "")
	var u Usage
	u.MemoryBytes, u.WorkingSetBytes = c.memoryUsed()
	if limit, err := c.readMemoryMax(); err == nil && limit.bytes < math.MaxInt64 {
		u.MemoryLimitBytes = &limit.bytes
	}
	cpus, name, err := c.cpuMax()
	if err != nil {
		return u
	}
	if !math.IsInf(cpus, 1) {
		u.CPUs = &cpus
	}
	// Beside the file of the quota: hybrid hosts have a cpu.stat of v2 as well,
	// without periods.
	u.Throttling = c.throttling(path.Join(path.Dir(name), "cpu.stat"))
	return u
}

// memoryUsed returns usage and working set in bytes, nil where unknown.
func (c *container) memoryUsed() (used, workingSet *int64) {
	values, file, err := c.cgroupValues("memory", "memory.usage_in_bytes", "memory.current")
	if err != nil {
		return nil, nil
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 {
		return nil, nil
	}
	key := "total_inactive_file" // v1 has one without total_, of this cgroup without its children
	if file.v2 {
		key = "inactive_file"
	}
	stat, err := c.counters(path.Join(path.Dir(file.name), "memory.stat"))
	cache, known := stat[key]
	if err != nil || !known {
		return &n, nil
	}
	rest := max(0, n-cache) // the two files are not read at the same moment
	return &n, &rest
}

// throttling reads cpu.stat; nil where there is none, or none with periods, as
// the root cgroup's.
func (c *container) throttling(name string) *Throttling {
	stat, err := c.counters(name)
	if err != nil {
		return nil
	}
	periods, ok1 := stat["nr_periods"]
	throttled, ok2 := stat["nr_throttled"]
	unit := 1e6
	spent, ok3 := stat["throttled_usec"]
	if !ok3 { // v1 has nanoseconds
		unit = 1e9
		spent, ok3 = stat["throttled_time"]
	}
	if !ok1 || !ok2 || !ok3 {
		return nil
	}
	return &Throttling{Periods: periods, ThrottledPeriods: throttled, ThrottledSeconds: float64(spent) / unit}
}

// counters reads a file of lines "name number".
func (c *container) counters(name string) (map[string]int64, error) {
	data, err := c.read(name)
	if err != nil {
		return nil, err
	}
	found := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
			found[key] = n
		}
	}
	if len(found) == 0 {
		return nil, errors.New(name + ": no line with a name and a number")
	}
	return found, nil
}
