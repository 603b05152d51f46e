package audit

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestUsageIsWhatTheKernelSays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, posture string
		change        func(f *fixture)
		want          string
	}{
		{"v1 in a cgroup namespace", "hardened-scratch", func(f *fixture) {
			f.write("sys/fs/cgroup/memory/memory.stat", "cache 9\ninactive_file 1\nhierarchical_memory_limit 67108864\ntotal_inactive_file 465792\n")
			f.write("sys/fs/cgroup/cpu/cpu.stat", "nr_periods 40\nnr_throttled 3\nthrottled_time 1500000000\n")
		}, `used 2465792 working 2000000 limit 67108864 cpus 0.5 throttled 3 of 40, 1.5`},
		{"v1 with the path of the host", "hardened-scratch", func(f *fixture) {
			f.write("proc/self/cgroup", "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n")
			f.sub("proc/self/mountinfo", "0:31 / /sys/fs/cgroup/memory", "0:31 /docker/abc /sys/fs/cgroup/memory")
			f.sub("proc/self/mountinfo", "0:28 / /sys/fs/cgroup/cpu", "0:28 /docker/abc /sys/fs/cgroup/cpu")
		}, `used 2465792 working ? limit 67108864 cpus 0.5 throttled ?`},
		{"v1 without a limit", "hardened-scratch", func(f *fixture) {
			f.write("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file 0\n")
			f.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
			f.write("sys/fs/cgroup/cpu/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
		}, `used 2465792 working 2465792 limit ? cpus ? throttled 0 of 0, 0`},
		{"v2", "kubernetes", func(f *fixture) {
			f.write("sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 194304\n")
			f.write("sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_periods 12\nnr_throttled 6\nthrottled_usec 250000\n")
		}, `used 4194304 working 4000000 limit 67108864 cpus 0.5 throttled 6 of 12, 0.25`},
		{"v2 without limits", "kubernetes", func(f *fixture) {
			f.write("sys/fs/cgroup/memory.max", "max\n")
			f.write("sys/fs/cgroup/cpu.max", "max 100000\n")
			f.write("sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
		}, `used 4194304 working ? limit ? cpus ? throttled 0 of 0, 0`},
		{"v2 nested, the parent's limit is the lower one", "kubernetes", func(f *fixture) {
			f.write("proc/self/cgroup", "0::/pod/app\n")
			f.write("sys/fs/cgroup/pod/memory.max", "1000\n")
			f.write("sys/fs/cgroup/pod/app/memory.max", "max\n")
			f.write("sys/fs/cgroup/pod/app/memory.current", "700\n")
			f.write("sys/fs/cgroup/pod/app/memory.stat", "inactive_file 300\n")
		}, `used 700 working 400 limit 1000 cpus ? throttled ?`},
		{"v2 at the root, which counts nothing of the kind", "kubernetes", func(f *fixture) {
			for _, name := range []string{"memory.current", "memory.max", "cpu.max"} {
				delete(f.files, "sys/fs/cgroup/"+name)
			}
			f.write("sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 194304\n")
			f.write("sys/fs/cgroup/cpu.stat", "usage_usec 9\n")
		}, `used ? working ? limit ? cpus ? throttled ?`},
		{"v1 beside a v2 without controllers", "hardened-scratch", func(f *fixture) {
			f.mount("/ /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw")
			f.write("sys/fs/cgroup/unified/cpu.stat", "usage_usec 9\n")
			f.write("sys/fs/cgroup/cpu/cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 2000000000\n")
		}, `used 2465792 working ? limit 67108864 cpus 0.5 throttled 1 of 4, 2`},
		{"more cache than use, read at two moments", "kubernetes", func(f *fixture) {
			f.write("sys/fs/cgroup/memory.stat", "inactive_file 99999999\n")
		}, `used 4194304 working 0 limit 67108864 cpus 0.5 throttled ?`},
		{"nothing yet, and nobody held back", "kubernetes", func(f *fixture) {
			f.write("sys/fs/cgroup/memory.current", "0\n")
			f.write("sys/fs/cgroup/memory.stat", "inactive_file 0\n")
			f.write("sys/fs/cgroup/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
		}, `used 0 working 0 limit 67108864 cpus 0.5 throttled 0 of 0, 0`},
		{"a mount that shows another cgroup", "kubernetes", func(f *fixture) {
			f.write("proc/self/cgroup", "0::/a\n")
			f.sub("proc/self/mountinfo", "0:29 / /sys/fs/cgroup", "0:29 /b /sys/fs/cgroup")
		}, `used ? working ? limit ? cpus ? throttled ?`},
		{"a cgroup outside the namespace", "kubernetes", func(f *fixture) {
			f.write("proc/self/cgroup", "0::/../other\n")
		}, `used ? working ? limit ? cpus ? throttled ?`},
		{"no cgroup mount, or one of lxcfs", "kubernetes", func(f *fixture) {
			f.sub("proc/self/mountinfo", "cgroup2 cgroup", "fuse.lxcfs lxcfs")
		}, `used ? working ? limit ? cpus ? throttled ?`},
		{"no /proc", "kubernetes", func(f *fixture) {
			f.deny("proc/self/cgroup", "proc/self/mountinfo")
		}, `used ? working ? limit ? cpus ? throttled ?`},
		{"files that hold no numbers", "kubernetes", func(f *fixture) {
			f.write("sys/fs/cgroup/memory.current", "plenty\n")
			f.write("sys/fs/cgroup/memory.max", "\n")
			f.write("sys/fs/cgroup/cpu.max", "x y\n")
			f.write("sys/fs/cgroup/memory.stat", "\x00")
		}, `used ? working ? limit ? cpus ? throttled ?`},
		{"memory.stat without the line", "kubernetes", func(f *fixture) {
			f.write("sys/fs/cgroup/memory.stat", "anon 5\ninactive_file none\n")
			f.write("sys/fs/cgroup/cpu.stat", "nr_periods 1\nnr_throttled -1\nthrottled_usec 0\n")
		}, `used 4194304 working ? limit 67108864 cpus 0.5 throttled ?`},
		{"memory.stat whose line has no number", "kubernetes", func(f *fixture) {
			f.write("sys/fs/cgroup/memory.stat", "anon 5\ninactive_file\n")
			f.write("sys/fs/cgroup/cpu.stat", "throttled_usec\n")
		}, `used 4194304 working ? limit 67108864 cpus 0.5 throttled ?`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, tc.posture)
			tc.change(f)
			if got := usageText(f.sys.Usage()); got != tc.want {
				t.Errorf("Usage = %s, want %s", got, tc.want)
			}
			// The meter tells the same, or that it does not know.
			memory, throttled := -1.0, -1.0
			switch u := f.sys.Usage(); {
			case u.WorkingSetBytes != nil:
				memory = float64(*u.WorkingSetBytes)
			case u.MemoryBytes != nil:
				memory = float64(*u.MemoryBytes)
			}
			if u := f.sys.Usage(); u.Throttling != nil {
				throttled = u.Throttling.ThrottledSeconds
			}
			meter := f.sys.Meter()
			for range 2 {
				gotMemory, gotThrottled := meter.Read()
				if gotMemory != memory || throttled >= 0 && gotThrottled != throttled {
					t.Errorf("the meter says %v and %v, want %v and %v", gotMemory, gotThrottled, memory, throttled)
				}
			}
		})
	}
}

func TestMeterOfNothing(t *testing.T) {
	t.Parallel()
	f := load(t, "kubernetes")
	f.deny("proc/self/cgroup", "proc/self/mountinfo")
	if memory, throttled := f.sys.Meter().Read(); memory != -1 || throttled != -1 {
		t.Errorf("the meter says %v and %v of what it cannot read, want -1 and -1", memory, throttled)
	}
}

// usageText writes what is known, and ? for the rest.
func usageText(u Usage) string {
	var b strings.Builder
	say := func(word string, value any) {
		text, _ := json.Marshal(value)
		b.WriteString(word + " " + strings.ReplaceAll(string(text), "null", "?"))
	}
	say("used", u.MemoryBytes)
	say(" working", u.WorkingSetBytes)
	say(" limit", u.MemoryLimitBytes)
	say(" cpus", u.CPUs)
	if u.Throttling == nil {
		return b.String() + " throttled ?"
	}
	say(" throttled", u.Throttling.ThrottledPeriods)
	say(" of", u.Throttling.Periods)
	say(",", u.Throttling.ThrottledSeconds)
	return b.String()
}
