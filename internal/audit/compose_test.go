package audit

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestComposeLinesHaveEachKeyOnce(t *testing.T) {
	t.Parallel()
	results := []Result{
		{Fix: Fix{Compose: `tmpfs: ["/tmp:size=16m,mode=1777", "/run:size=1m"]`}},
		{Fix: Fix{Compose: "read_only: true\ntmpfs: [\"/data:size=16m\", \"/run:size=1m\"]"}},
		{Fix: Fix{Compose: `read_only: true  # why`}},
		{Fix: Fix{Compose: `volumes: [{type: bind, source: A, bind: {propagation: rprivate}}]`}},
		{Fix: Fix{Compose: `volumes: ["B:/b:ro"]`}},
		{Fix: Fix{Compose: `# delete the line "pid: host"`}},
		{Fix: Fix{Compose: `cap_add: []`}},
		{Fix: Fix{Compose: `ulimits: {core: 0, nofile: {soft: 1, hard: 2}}`}},
		{Fix: Fix{Compose: `ulimits: {nproc: 64}`}},
		{Fix: Fix{Compose: `user: "65532:65532"`}},
		{Fix: Fix{Compose: `user: "1000:1000"`}},
		{Fix: Fix{}},
	}
	want := []string{
		`tmpfs: ["/tmp:size=16m,mode=1777", "/run:size=1m", "/data:size=16m"]`,
		`read_only: true  # why`,
		`volumes: [{type: bind, source: A, bind: {propagation: rprivate}}, "B:/b:ro"]`,
		`cap_add: []`,
		`ulimits: {core: 0, nofile: {soft: 1, hard: 2}, nproc: 64}`,
		`user: "65532:65532"`,
		`# delete the line "pid: host"`,
	}
	if got := composeLines(results); !slices.Equal(got, want) {
		t.Errorf("composeLines =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestComposeFixesAgree: what two checks say of one scalar key is the same, so
// that all fixes can be followed at once.
func TestComposeFixesAgree(t *testing.T) {
	t.Parallel()
	values := map[string]string{}
	for _, c := range Checks() {
		for line := range strings.SplitSeq(c.Fix.Compose, "\n") {
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			line, _, _ := strings.Cut(line, "  # ")
			key, value, ok := strings.Cut(line, ": ")
			if !ok || strings.ContainsAny(key, " {[") {
				t.Errorf("%s: %q is no line of a service", c.ID, line)
			}
			if strings.ContainsAny(value[:1], "[{") {
				continue
			}
			if other, ok := values[key]; ok && other != value {
				t.Errorf("%s: %s is %s, elsewhere %s", c.ID, key, value, other)
			}
			values[key] = value
		}
	}
}

// TestFixesQuoteNames: what is pasted means the name and nothing else, whatever is in it.
func TestFixesQuoteNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"/plain", "/ü", "/a b", "/it's", `/a"b`, "/$(touch x)", "/`x`", "/${HOME}", "/a  # b", "/a, b", "/a: b", "/a]b}",
		"/a\nb", `/a\b`, "/a;b", "/*",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "hardened-scratch")
			f.mount("/volumes/v/_data " + escape(name) + " rw - ext4 /dev/vda rw")
			fix := f.run().result(t, "writable-mounts").Fix
			want := printable(name)

			out, err := exec.Command("sh", "-c", "printf '%s\n' "+fix.Docker).Output()
			if got := string(out); err != nil || got != "-v\nNAME:"+want+":ro\n" {
				t.Errorf("a shell makes %q of %s, %v", got, fix.Docker, err)
			}
			compose, err := strconv.Unquote(between(composeLines([]Result{{Fix: fix}})[0], "[", "]"))
			if got := strings.ReplaceAll(compose, "$$", "$"); err != nil || got != "NAME:"+want+":ro" {
				t.Errorf("Compose reads %q in %s, %v", got, fix.Compose, err)
			}
			patch := strings.Join(kubernetesLines([]Result{{Fix: fix}}), "\n")
			path := between(patch, "mountPath: ", ", readOnly")
			if strings.HasPrefix(path, `"`) {
				path, err = strconv.Unquote(path)
			}
			if err != nil || path != want {
				t.Errorf("Kubernetes reads %q in\n%s, %v", path, patch, err)
			}
		})
	}
}

// between is the text between the first begin and the last end.
func between(text, begin, end string) string {
	_, text, _ = strings.Cut(text, begin)
	if i := strings.LastIndex(text, end); i >= 0 {
		return text[:i]
	}
	return text
}

// A patch has the containers only where there is something for them, and a list or a map of more
// than one item a line for each.
func TestLinesOfAPatch(t *testing.T) {
	t.Parallel()
	const pod, app = "spec:\n  template:\n    spec:\n", "      containers:\n      - name: APP\n"
	for fix, want := range map[string]string{
		"hostPID: false  # field of the pod":             pod + "      hostPID: false\n",
		"volumeMounts: [{name: a, mountPath: /a}]":       pod + app + "        volumeMounts: [{name: a, mountPath: /a}]\n",
		"volumeMounts: [{name: a}, {name: b}]  # writes": pod + app + "        volumeMounts:  # writes\n          - {name: a}\n          - {name: b}\n",
		"resources: {limits: {cpu: 1, memory: 64Mi}}":    pod + app + "        resources: {limits: {cpu: 1, memory: 64Mi}}\n",
		"securityContext: {runAsNonRoot: true}":          pod + app + "        securityContext:\n          runAsNonRoot: true\n          seccompProfile: {type: RuntimeDefault}\n",
		"volumes: [{name: a}, {name: b}]\nstdin: false":  pod + "      volumes:\n        - {name: a}\n        - {name: b}\n" + app + "        stdin: false\n",
		"podPidsLimit: 64  # in the kubelet":             "",
		"# no field for it":                              "",
		"# only a comment":                               "",
	} {
		lines := kubernetesLines([]Result{{Status: Fail, Fix: Fix{Kubernetes: fix}}})
		got := ""
		for _, line := range lines {
			got += line + "\n"
		}
		if got != want {
			t.Errorf("%s:\n%swant\n%s", fix, got, want)
		}
	}
}
