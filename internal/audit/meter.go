package audit

import (
	"bytes"
	"io"
	"path"
	"strconv"
	"strings"
)

// Meter reads, again and again, two of the figures of Usage. It looks for the files once, and reads them without garbage
// worth the name, so that it can be asked each second for as long as a process lives.
type Meter struct {
	sys                *System
	memory, cache, cpu string // files; empty for what is not known
	inactive, waited   []byte // the lines' names
	unit               float64
	buffer             [8 << 10]byte
}

// Meter finds the files of the process's own cgroup.
func (s *System) Meter() *Meter {
	c := &container{sys: s}
	c.cgroups = parse(c, "/proc/self/cgroup", parseCgroups)
	c.mountLines = parse(c, "/proc/self/mountinfo", parseMountinfo)
	c.mounts = topMounts(c.mountLines.value, "")
	m := &Meter{sys: s, inactive: []byte("total_inactive_file"), waited: []byte("throttled_time"), unit: 1e9}
	if _, file, err := c.cgroupValues("memory", "memory.usage_in_bytes", "memory.current"); err == nil {
		m.memory, m.cache = file.name, path.Join(path.Dir(file.name), "memory.stat")
		if file.v2 {
			m.inactive = []byte("inactive_file")
		}
	}
	if _, file, err := c.cgroupValues("cpu", "cpu.cfs_quota_us", "cpu.max"); err == nil {
		m.cpu = path.Join(path.Dir(file.name), "cpu.stat")
		if file.v2 {
			m.waited, m.unit = []byte("throttled_usec"), 1e6
		}
	}
	return m
}

// Read returns what Usage calls WorkingSetBytes, or MemoryBytes where that is all that is known, and ThrottledSeconds.
// What is not known is -1.
func (m *Meter) Read() (memory, throttledSeconds float64) {
	memory, throttledSeconds = -1, -1
	if all := wholeNumber(bytes.TrimSpace(m.read(m.memory))); all >= 0 {
		memory = max(0, all-max(0, lineOf(m.read(m.cache), m.inactive)))
	}
	if waited := lineOf(m.read(m.cpu), m.waited); waited >= 0 {
		throttledSeconds = waited / m.unit
	}
	return memory, throttledSeconds
}

// read returns what is in a file, up to the next read.
func (m *Meter) read(name string) []byte {
	if name == "" {
		return nil
	}
	f, err := m.sys.FS.Open(strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil
	}
	defer f.Close()
	n, _ := io.ReadFull(f, m.buffer[:])
	return m.buffer[:n]
}

// lineOf is the number in the line "name number", or -1.
func lineOf(content, name []byte) float64 {
	for len(content) > 0 {
		var one []byte
		one, content, _ = bytes.Cut(content, []byte{'\n'})
		if value, found := bytes.CutPrefix(one, name); found && len(value) > 0 && value[0] == ' ' {
			return wholeNumber(value[1:])
		}
	}
	return -1
}

// wholeNumber reads a whole number, or returns -1.
func wholeNumber(text []byte) float64 {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return float64(n)
}
