package audit

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		stat, want string // want is "" for an error
	}{
		{"7 (sh) S 1 7 7 0\n", "{7 1 sh 83 0}"},
		{"7 (sh) S 1", "{7 1 sh 83 0}"},
		{"7 (a) b) (c) Z 1 1 1\n", "{7 1 a) b) (c 90 0}"},
		{"7 () S 1 7\n", "{7 1  83 0}"},
		{"", ""},
		{"7 sh S 1\n", ""},
		{"7 ) sh ( S 1\n", ""},
		{"(sh) S 1\n", ""},
		{"7 (sh) S\n", ""},
		{"7 (sh) S init\n", ""},
	} {
		got, err := parseStat([]byte(tc.stat))
		if (err == nil) != (tc.want != "") || err == nil && fmt.Sprint(got) != tc.want {
			t.Errorf("parseStat(%q) = %v, %v, want %q", tc.stat, got, err, tc.want)
		}
	}
}

func TestParseLimits(t *testing.T) {
	t.Parallel()
	const head = "Limit                     Soft Limit           Hard Limit           Units     \n"
	for _, tc := range []struct {
		limits, want string // want is "" for an error
	}{
		{head + "Max open files            1024                 unlimited            files     \n", "map[Max open files:{1024 -1}]"},
		// One without a unit.
		{head + "Max nice priority         0                    1                    \n", "map[Max nice priority:{0 1}]"},
		{head + "Max nice priority         0\n" + "Max file locks            1                    2\n", "map[Max file locks:{1 2}]"},
		{head + "Max file locks            18446744073709551615 9223372036854775807  locks\n", "map[Max file locks:{9223372036854775807 9223372036854775807}]"},
		{head, ""},
		{"Max open files\n", ""},
		{"Max open files            many                 1024                 files     \n", ""},
		{"Max open files            1024                 many                 files     \n", ""},
	} {
		got, err := parseLimits([]byte(tc.limits))
		if (err == nil) != (tc.want != "") || err == nil && fmt.Sprint(got) != tc.want {
			t.Errorf("parseLimits(%q) = %v, %v, want %q", tc.limits, got, err, tc.want)
		}
	}
}

func TestParseCgroups(t *testing.T) {
	t.Parallel()
	got, err := parseCgroups([]byte("3:cpu,cpuacct:/a:b\n0::/\n"))
	if want := "map[:/ cpu:/a:b cpuacct:/a:b]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("parseCgroups = %v, %v, want %s", got, err, want)
	}
	if _, err := parseCgroups([]byte("3:cpu\n")); err == nil {
		t.Error("parseCgroups(3:cpu) gives no error")
	}
}

// TestRulesThatOpenDisks, as devices.list and --device-cgroup-rule have them.
func TestRulesThatOpenDisks(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]bool{
		"a *:* rwm": true, "b 8:0 r": true, "b 8:0 w": true, "b *:* m": false, "c *:* rw": true, "c 1:* rw": true, "c 5:* rw": false,
		"c 1:1 rwm": true, "c 1:3 rwm": false, "c 5:1 rwm": false, "c 5:1 m": false, "c 4:1 rw": false, "c 1:1": false, "": false,
	} {
		if got := opensDisk(rule); got != want {
			t.Errorf("opensDisk(%q) = %t, want %t", rule, got, want)
		}
	}
}

// TestMountThatShows: what was mounted later on the same, or above it, hides what was there.
func TestMountThatShows(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		lines []mount
		want  int
	}{
		{"none", nil, -1},
		{"another", []mount{{id: "1", parent: "0", point: "/b"}}, -1},
		{"one above", []mount{{id: "1", parent: "0", point: "/a"}, {id: "2", parent: "0", point: "/a/b"}}, 0},
		{"one above, later", []mount{{id: "1", parent: "0", point: "/a/b"}, {id: "2", parent: "0", point: "/a"}}, 1},
		{"two on the same", []mount{{id: "1", parent: "0", point: "/a"}, {id: "2", parent: "0", point: "/a"}}, 1},
		{"one on the other", []mount{{id: "2", parent: "1", point: "/a/b"}, {id: "1", parent: "0", point: "/a"}}, 0},
	} {
		if got := newMountTree(tc.lines).over("/a/b/c"); got != tc.want {
			t.Errorf("%s: mount %d shows, want %d", tc.name, got, tc.want)
		}
	}
}

// TestStatOfAnOldKernel: the start is the 22nd field, and is not known where there are fewer.
func TestStatOfAnOldKernel(t *testing.T) {
	t.Parallel()
	fields := strings.Fields("S 1 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 4711")
	for n, want := range map[int]uint64{19: 0, 20: 4711} {
		p, err := parseStat([]byte("7 (a) b) " + strings.Join(fields[:n], " ")))
		if err != nil || p.pid != 7 || p.comm != "a) b" || p.ppid != 1 || p.started != want {
			t.Errorf("with %d fields: %+v, %v, want it started at %d", n, p, err, want)
		}
	}
}
