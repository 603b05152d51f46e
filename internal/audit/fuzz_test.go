package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// seed adds a file of every posture.
func seed(f *testing.F, name string) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*", name))
	if err != nil || len(files) == 0 {
		f.Fatalf("no %s recorded: %v", name, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	seed(f, "proc/self/mountinfo")
	f.Add([]byte("1 0 0:1 / /a\\040b rw - tmpfs  rw\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		mounts, err := parseMountinfo(data)
		if (err == nil) == (len(mounts) == 0) {
			t.Fatalf("%d mounts and error %v", len(mounts), err)
		}
		for _, m := range mounts {
			if !strings.HasPrefix(m.point, "/") {
				t.Fatalf("mount point %q is not absolute", m.point)
			}
		}
		topMounts(mounts, "/imagelab")
	})
}

func FuzzParseStatus(f *testing.F) {
	seed(f, "proc/1/status")
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStatus(data)
		if err != nil {
			return
		}
		s.capabilities()
		s.effective("Uid")
		s.ids("Groups")
	})
}

func FuzzParseStat(f *testing.F) {
	seed(f, "proc/1/stat")
	f.Add([]byte("7 (a) b) (c) Z 1 1 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) { parseStat(data) })
}

func FuzzSecrets(f *testing.F) {
	for _, text := range []string{
		testKey, "PrivateKey = x", `"d": "x" "kty"`, "LS0tLS1CRUdJTi", "a://b:c@d", "#!/bin/sh\nexport A_TOKEN=b",
		"define( 'DB_PASSWORD', 'x' );", "<password>x", "requirepass x", "8Q~", ":AA",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"x", ".env", "wp-config.php", "settings.xml", "settings.py", "redis.conf", ".npmrc"} {
			secretIn(name, data)
		}
	})
}

func TestParseMountinfo(t *testing.T) {
	t.Parallel()
	mounts, err := parseMountinfo([]byte("36 35 98:0 /mnt\\0401 /a\\134b\\011c rw,noatime master:1 shared:2 - tmpfs  rw,size=4k\n"))
	if err != nil {
		t.Fatal(err)
	}
	m := mounts[0]
	if m.root != "/mnt 1" || m.point != "/a\\b\tc" || strings.Join(m.optional, " ") != "master:1 shared:2" || m.fstype != "tmpfs" || m.super[1] != "size=4k" {
		t.Errorf("parseMountinfo = %+v", m)
	}
	if mounts, err := parseMountinfo([]byte("36 35 98:0 / / rw - tmpfs tmpfs ro\n")); err != nil || mounts[0].super[0] != "ro" || len(mounts[0].optional) != 0 {
		t.Errorf("parseMountinfo without optional fields = %+v, %v", mounts, err)
	}
	if _, err := parseMountinfo([]byte("36 35 98:0 / / rw - tmpfs tmpfs ro\nx\n")); err == nil || !strings.Contains(err.Error(), "line 2 ") {
		t.Errorf("parseMountinfo(a second line of nonsense) = %v, want its number", err)
	}
	for _, bad := range []string{"", "x\n", "36 35 98:0 / / rw master:1 tmpfs tmpfs rw\n", "36 35 98:0 / / rw - tmpfs\n",
		"36 35 98:0 / / rw - tmpfs tmpfs\n", "36 35 98:0 / - rw tmpfs tmpfs rw x\n"} {
		if _, err := parseMountinfo([]byte(bad)); err == nil {
			t.Errorf("parseMountinfo(%q) gives no error", bad)
		}
	}
}
