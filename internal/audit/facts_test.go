package audit

import (
	"encoding/json"
	"testing"
)

// asJSON is how facts are compared: nil pointers and empty lists differ there, and
// pointers to the same value do not.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func ptr[T any](v T) *T { return &v }

func TestProcessFacts(t *testing.T) {
	t.Parallel()
	hardened := ProcessFacts{
		UID: ptr(65532), GID: ptr(65532), Groups: []int{65532}, Capabilities: []string{}, Bounding: []string{},
		NoNewPrivileges: ptr(true), Seccomp: "filter", PID1: "/imagelab", AuditorPID: 12, AuditorUID: 65532,
	}
	bare := hardened
	bare.UID, bare.GID, bare.Groups, bare.Capabilities, bare.Bounding, bare.NoNewPrivileges, bare.Seccomp = nil, nil, nil, nil, nil, nil, ""
	open := hardened
	open.Groups, open.Capabilities, open.NoNewPrivileges, open.Seccomp = []int{}, []string{"CHOWN"}, ptr(false), "off"
	strict := hardened
	strict.Seccomp, strict.PID1 = "strict", ""
	for _, tc := range []struct {
		name string
		edit func(*fixture)
		want ProcessFacts
	}{
		{"hardened", func(f *fixture) {}, hardened},
		{"not hardened, and in no group", func(f *fixture) {
			f.status("Groups", "")
			f.status("CapEff", "0000000000000001")
			f.status("NoNewPrivs", "0")
			f.status("Seccomp", "0")
		}, open},
		{"strict seccomp, and a command line of nothing", func(f *fixture) {
			f.status("Seccomp", "1")
			f.write("proc/1/cmdline", "")
		}, strict},
		{"no status", noStatus, bare},
		{"a status without any of it", func(f *fixture) { f.write("proc/1/status", "Name:\tapp\n") }, bare},
		{"a status of nonsense", func(f *fixture) {
			for _, field := range []string{"Uid", "Gid", "Groups", "CapEff", "CapBnd"} {
				f.status(field, "none")
			}
			f.sub("proc/1/status", "NoNewPrivs", "Other")
			f.status("Seccomp", "9")
		}, bare},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "hardened-scratch")
			f.write("proc/1/cmdline", "/imagelab\x00")
			tc.edit(f)
			if got, want := asJSON(t, f.run().Facts.Process), asJSON(t, tc.want); got != want {
				t.Errorf("process facts\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestLimitFacts(t *testing.T) {
	t.Parallel()
	const files = "1024                 1024 "
	all := LimitFacts{
		MemoryBytes: ptr[int64](64 << 20), MemoryUsedBytes: ptr[int64](2465792), CPUs: ptr(0.5), PIDs: ptr[int64](64),
		OpenFilesSoft: ptr[int64](1024), OpenFilesHard: ptr[int64](1024),
	}
	none := LimitFacts{MemoryUsedBytes: all.MemoryUsedBytes}
	zero := all
	zero.PIDs, zero.OpenFilesSoft, zero.OpenFilesHard = ptr[int64](0), ptr[int64](0), ptr[int64](0)
	soft := all
	soft.OpenFilesHard = nil
	for _, tc := range []struct {
		name string
		edit func(*fixture)
		want LimitFacts
	}{
		{"all", func(f *fixture) {}, all},
		{"none", func(f *fixture) {
			f.sub("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 67108864", "hierarchical_memory_limit 9223372036854771712")
			f.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
			f.write("sys/fs/cgroup/pids/pids.max", "max\n")
			f.sub("proc/1/limits", files, "unlimited            unlimited ")
		}, none},
		{"0 is a limit", func(f *fixture) {
			f.write("sys/fs/cgroup/pids/pids.max", "0\n")
			f.sub("proc/1/limits", files, "0                    0 ")
		}, zero},
		{"a soft limit alone", func(f *fixture) { f.sub("proc/1/limits", files, "1024                 unlimited ") }, soft},
		{"nothing readable", func(f *fixture) { f.deny("proc/1/limits", "proc/self/cgroup") }, LimitFacts{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "hardened-scratch")
			tc.edit(f)
			if got, want := asJSON(t, f.run().Facts.Limits), asJSON(t, tc.want); got != want {
				t.Errorf("limit facts\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestHostFacts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, posture string
		edit          func(*fixture)
		want          HostFacts
	}{
		{"cgroup v1", "hardened-scratch", func(f *fixture) {},
			HostFacts{Kernel: "6.18.44", CgroupVersion: 1, LandlockABI: ptr(7), MemoryBytes: ptr[int64](24683620 << 10)}},
		{"cgroup v2, Kubernetes", "kubernetes", func(f *fixture) { f.write("proc/meminfo", "MemFree: 1 kB\nMemTotal: 3 kB\n") },
			HostFacts{Kernel: "6.18.44", CgroupVersion: 2, LandlockABI: ptr(7), Runtime: "containerd", Kubernetes: true, MemoryBytes: ptr[int64](3 << 10)}},
		{"nothing readable", "hardened-scratch", func(f *fixture) {
			f.deny("proc/meminfo", "proc/self/cgroup", "proc/sys/kernel/osrelease")
			f.sys.LandlockABI = nil
		}, HostFacts{}},
		{"a kernel without Landlock", "hardened-scratch", func(f *fixture) {
			f.write("proc/meminfo", "MemTotal: much\n")
			f.sys.LandlockABI = func() (int, error) { return 0, nil }
		}, HostFacts{Kernel: "6.18.44", CgroupVersion: 1, LandlockABI: ptr(0)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, tc.posture)
			tc.edit(f)
			if got, want := asJSON(t, f.run().Facts.Host), asJSON(t, tc.want); got != want {
				t.Errorf("host facts\n got %s\nwant %s", got, want)
			}
		})
	}
}

// TestWritableMountFacts: the kernel's own, masks and what engines make for every
// container are no mounts that can be written to.
func TestWritableMountFacts(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.mount("/ /data rw - ext4 /dev/sdb rw")
	f.mount("/ /read ro - ext4 /dev/sdb rw")
	f.mount("/ /debug rw - debugfs debugfs rw")
	if got, want := asJSON(t, f.run().Facts.WritableMounts), `["/dev/shm","/tmp","/data"]`; got != want {
		t.Errorf("writable mounts = %s, want %s", got, want)
	}
}

func TestPackageFacts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		edit func(*fixture)
		want string
	}{
		{"none", func(f *fixture) {}, `[]`},
		{"Debian", func(f *fixture) { f.write("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\n") },
			`[{"database":"dpkg","packages":1}]`},
		{"distroless", func(f *fixture) {
			f.write("var/lib/dpkg/status.d/base", "Package: base\n")
			f.write("var/lib/dpkg/status.d/base.md5sums", "")
		}, `[{"database":"dpkg","packages":1}]`},
		{"a directory of packages that cannot be read", func(f *fixture) {
			f.write("var/lib/dpkg/status.d/base", "Package: base\n")
			f.deny("var/lib/dpkg/status.d")
		}, `[]`},
		{"a line longer than a buffer", func(f *fixture) {
			long := make([]byte, 10_000)
			for i := range long {
				long[i] = 'x'
			}
			f.write("lib/apk/db/installed", "P:a\nD:"+string(long)+"\nP:b\n")
		}, `[{"database":"apk","packages":2}]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "hardened-scratch")
			tc.edit(f)
			if got := asJSON(t, f.run().Facts.Image.Packages); got != tc.want {
				t.Errorf("packages = %s, want %s", got, tc.want)
			}
		})
	}
}

// TestImageFactsCountWhatWasNotRead: directories and files alike.
func TestImageFactsCountWhatWasNotRead(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.tree("root dir 0700")
	f.write("etc/shadow", "root:*:19000:0:99999:7:::\n")
	f.write("etc/gshadow", "root:*:19000:0:99999:7:::\n")
	f.deny("root", "etc/shadow", "etc/gshadow")
	if got := f.run().Facts.Image.Unreadable; got != 3 {
		t.Errorf("unreadable = %d, want 3", got)
	}
}
