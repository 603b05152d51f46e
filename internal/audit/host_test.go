package audit

import "testing"

func TestOnHost(t *testing.T) {
	t.Parallel()
	// The machine itself: the host's pid namespace, and the mounts of its init.
	host := func(f *fixture) {
		hostNamespace("pid")(f)
		f.write("proc/1/mountinfo", string(f.files["proc/self/mountinfo"].Data))
	}
	for _, tc := range []struct {
		name string
		edit func(*fixture)
		want bool
	}{
		{"a container", func(f *fixture) {}, false},
		{"a container whose PID 1 has the same mounts", func(f *fixture) {
			f.write("proc/1/mountinfo", string(f.files["proc/self/mountinfo"].Data))
		}, false},
		{"the host", host, true},
		{"a container in the host's pid namespace", func(f *fixture) {
			host(f)
			f.write("proc/1/mountinfo", "1 0 0:1 / / rw - ext4 /dev/sda rw\n")
		}, false},
		{"no namespace to read", func(f *fixture) { host(f); f.deny("proc/self/ns/pid") }, false},
		{"no own mounts to read", func(f *fixture) { host(f); f.deny("proc/self/mountinfo") }, false},
		{"no mounts of init to read", func(f *fixture) { host(f); f.deny("proc/1/mountinfo") }, false},
		{"no mounts to read at all", func(f *fixture) { host(f); f.deny("proc/self/mountinfo", "proc/1/mountinfo") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "hardened-scratch")
			tc.edit(f)
			if got := f.sys.OnHost(); got != tc.want {
				t.Errorf("OnHost() = %t, want %t", got, tc.want)
			}
		})
	}
}
