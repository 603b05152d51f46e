package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// peersDir has the programs that the audit is compared with. With it the tests of this file write
// docs/audit-peers.md, without it they see that what needs no peer is still so.
var peersDir = flag.String("peers", "", "folder of the programs that scripts/audit-peers.sh has built")

// A tool is a column of docs/audit-peers.md.
type tool string

const (
	ours        tool = "imagelab --audit"
	podSecurity tool = "Pod Security"
	kubeScore   tool = "kube-score"
)

var toolColumns = []tool{ours, podSecurity, kubeScore}

// The cells of the table.
const (
	finds  = "found"
	misses = "not found"
	blind  = "–"
	always = "found, but in the hardened one as well"
)

// twin is the hardened container as a Deployment with its Service: what the tools read that read manifests.
const twin = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
spec:
  replicas: 2
  selector:
    matchLabels: {app: app}
  template:
    metadata:
      labels: {app: app}
    spec:
      automountServiceAccountToken: false
      hostPID: false
      hostNetwork: false
      containers:
        - name: app
          image: registry.example.com/app:v1.2.3
          imagePullPolicy: Always
          env: [{name: PORT, value: "8000"}]
          ports: [{containerPort: 8000}]
          readinessProbe: {httpGet: {path: /readyz, port: 9000}}
          securityContext:
            privileged: false
            runAsNonRoot: true
            runAsUser: 65532
            runAsGroup: 65532
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
            seccompProfile: {type: RuntimeDefault}
          resources:
            limits: {cpu: "1", memory: 64Mi, ephemeral-storage: 16Mi}
            requests: {cpu: 100m, memory: 64Mi, ephemeral-storage: 16Mi}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {sizeLimit: 16Mi}}]
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec:
  selector: {app: app}
  ports: [{port: 80, targetPort: 8000}]
`

// A peerRow is one thing that is wrong with a container which is hardened otherwise, and how each
// tool that looks at such a thing says so.
type peerRow struct {
	name    string
	posture posture
	image   imageChange
	checks  []string // of imagelab; one that does not pass is enough. None is what cannot be seen from inside
	// twin are pairs, old and new: what the row changes in the Deployment. Without any there is none.
	twin []string
	// says is what a tool prints of it, a regular expression for one of its findings. A tool that is not here does not
	// look at such a thing.
	says map[tool]string
}

// An imageChange is what a row's image has beyond that of the hardened container, imagelab:alpine.
type imageChange struct {
	stock       bool    // Alpine itself, with the binary mounted
	files       []added // on top
	instruction string  // as of a Dockerfile
}

// hostPath is a twin that has the directory or socket of the host in place of its volume.
func hostPath(path string) []string {
	return []string{"emptyDir: {sizeLimit: 16Mi}", "hostPath: {path: " + path + "}"}
}

// aFreePort in a row's options stands for a port that nothing listens on.
const aFreePort = "FREE_PORT"

var peerRows = []peerRow{
	{name: "runs as root, in stock Alpine", checks: []string{"run-as-non-root"}, image: imageChange{stock: true},
		posture: posture{replace: map[string][]string{"user": nil}, command: []string{"sleep", "600"}},
		twin:    []string{"runAsNonRoot: true", "runAsNonRoot: false", "runAsUser: 65532", "runAsUser: 0"},
		says:    map[tool]string{podSecurity: `runAsNonRoot`, kubeScore: `(?i)low user ID|root user`}},
	{name: "privileged, as a user", checks: []string{"not-privileged"},
		posture: posture{replace: map[string][]string{"caps": nil}, options: []string{"--privileged"}},
		twin:    []string{"privileged: false", "privileged: true", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"},
		says:    map[tool]string{podSecurity: `^privileged`, kubeScore: `(?i)privileged`}},
	{name: "SYS_ADMIN added", checks: []string{"capabilities-added"},
		posture: posture{options: []string{"--cap-add", "SYS_ADMIN"}},
		twin:    []string{"drop: [ALL]", "drop: [ALL], add: [SYS_ADMIN]"},
		says:    map[tool]string{podSecurity: `capabilities`}},
	{name: "seccomp unconfined", checks: []string{"seccomp-filter"},
		posture: posture{options: []string{"--security-opt", "seccomp=unconfined", "-e", "IMAGELAB_SANDBOX=off"}},
		twin:    []string{"type: RuntimeDefault", "type: Unconfined"},
		says:    map[tool]string{podSecurity: `seccompProfile`, kubeScore: `(?i)seccomp`}},
	{name: "new privileges allowed", checks: []string{"no-new-privileges"},
		posture: posture{replace: map[string][]string{"nnp": nil}, options: []string{"-e", "IMAGELAB_SANDBOX=off"}},
		twin:    []string{"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"},
		says:    map[tool]string{podSecurity: `allowPrivilegeEscalation`}},
	{name: "the host's pid namespace", checks: []string{"pid-namespace"},
		posture: posture{options: []string{"--pid", "host"}},
		twin:    []string{"hostPID: false", "hostPID: true"},
		says:    map[tool]string{podSecurity: `host namespaces`}},
	{name: "the host's network", checks: []string{"network-namespace"},
		posture: posture{replace: map[string][]string{"network": {"--network", "host"}},
			options: []string{"-e", "PORT=" + aFreePort, "-e", "IMAGELAB_OPS_ADDR=127.0.0.1:0"}},
		twin: []string{"hostNetwork: false", "hostNetwork: true"},
		says: map[tool]string{podSecurity: `host namespaces`}},
	{name: "the engine's socket mounted", checks: []string{"runtime-socket"},
		posture: posture{options: []string{"-v", "/var/run/docker.sock:/var/run/docker.sock"}},
		twin:    hostPath("/var/run/docker.sock"),
		says:    map[tool]string{podSecurity: `hostPath`}},
	{name: "the host's /etc mounted, read-only", checks: []string{"sensitive-host-mounts"},
		posture: posture{options: []string{"-v", "/etc:/host/etc:ro"}},
		twin:    hostPath("/etc"),
		says:    map[tool]string{podSecurity: `hostPath`}},
	{name: "a writable root", checks: []string{"rootfs-read-only"},
		posture: posture{replace: map[string][]string{"root": nil}},
		twin:    []string{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"},
		says:    map[tool]string{kubeScore: `(?i)writable root|readOnlyRootFilesystem`}},
	{name: "no limits", checks: []string{"memory-limit", "cpu-limit", "pids-limit"},
		posture: posture{replace: map[string][]string{"memory": nil, "cpu": nil, "pids": {"--pids-limit", "-1"}}},
		twin:    []string{`limits: {cpu: "1", memory: 64Mi, ephemeral-storage: 16Mi}`, "limits: {}"},
		says:    map[tool]string{kubeScore: `(?i)(CPU|memory) limit is not set`}},
	{name: "a secret in the environment", checks: []string{"secrets-in-env"},
		posture: posture{options: []string{"-e", "DB_PASSWORD=correct horse"}},
		twin:    []string{`{name: PORT, value: "8000"}`, `{name: DB_PASSWORD, value: correct horse}`}},
	{name: "a private key in the image", checks: []string{"secrets-in-files"},
		image: imageChange{files: []added{{"etc/tls.key", 0o644, pemKey("RSA PRIVATE KEY", 24)}}}},
	{name: "a setuid file in the image", checks: []string{"setuid-files"},
		image: imageChange{files: []added{{"usr/bin/other", 0o4755, "#!/none\n"}}}},
	{name: "a shell as PID 1, which drops SIGTERM", checks: []string{"pid1-sigterm", "pid1-not-shell"},
		posture: posture{options: []string{"--entrypoint", "/bin/sh"}, command: []string{"-c", "trap '' TERM; while :; do sleep 1; done"}}},
	// What an audit from inside cannot see.
	{name: "no HEALTHCHECK, or no probe", image: imageChange{instruction: "HEALTHCHECK NONE"},
		twin: []string{"          readinessProbe: {httpGet: {path: /readyz, port: 9000}}\n", ""},
		says: map[tool]string{kubeScore: `(?i)readiness ?probe`}},
	{name: "a port published on all addresses", posture: posture{options: []string{"-p", "0.0.0.0:" + aFreePort + ":8000"}},
		twin: []string{"containerPort: 8000", "containerPort: 8000, hostPort: 8000"},
		says: map[tool]string{podSecurity: `hostPort`}},
	{name: "an image by the tag latest", twin: []string{"app:v1.2.3", "app:latest"},
		says: map[tool]string{kubeScore: `(?i)latest`}},
}

// manifest is the row's Deployment.
func (r peerRow) manifest(t *testing.T) string {
	t.Helper()
	text := twin
	for i := 0; i+1 < len(r.twin); i += 2 {
		if strings.Count(text, r.twin[i]) != 1 {
			t.Fatalf("%s: the Deployment has %q %d times, want it once", r.name, r.twin[i], strings.Count(text, r.twin[i]))
		}
		text = strings.Replace(text, r.twin[i], r.twin[i+1], 1)
	}
	return text
}

// build makes the image of the row, where that is another one than the hardened container's.
func (c imageChange) build(t *testing.T) string {
	t.Helper()
	switch {
	case c.stock:
		return stockImage(t, "ALPINE_IMAGE")
	case c.files != nil:
		return layeredOn(t, imageOf("alpine"), c.files...)
	case c.instruction != "":
		name := newName()
		cmd := exec.Command("docker", "build", "-q", "--label", label(), "-t", name, "-")
		cmd.Stdin = strings.NewReader("FROM " + imageOf("alpine") + "\n" + c.instruction + "\n")
		t.Cleanup(func() { docker(t, "image", "rm", "-f", name) })
		if _, stderr, err := execute(t, cmd); err != nil {
			t.Fatalf("docker build: %v\n%s", err, stderr)
		}
		return name
	}
	return imageOf("alpine")
}

// stockImage is a base image that scripts/base-images.sh has chosen.
func stockImage(t *testing.T, variable string) string {
	t.Helper()
	if name := os.Getenv(variable); name != "" {
		return name
	}
	chosen, _ := os.ReadFile(filepath.Join(root(t), ".tools/images.env"))
	for line := range strings.Lines(string(chosen)) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), variable+"="); found {
			return name
		}
	}
	leaveOut(t, "no "+variable+": scripts/base-images.sh debian chooses or makes them")
	return ""
}

// manifestFindings are what a tool says of a Deployment, a line for each finding.
func manifestFindings(t *testing.T, which tool, manifest string) (lines []string) {
	t.Helper()
	if which == podSecurity {
		return podSecurityFindings(t, manifest)
	}
	name := filepath.Join(t.TempDir(), "app.yaml")
	write(t, name, manifest)
	// The one optional test that is about a row.
	out := peer(t, "kube-score", "score", "--kubernetes-version", "v1.32", "--enable-optional-test", "container-seccomp-profile", "--output-format", "ci", name)
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "[CRITICAL]") || strings.HasPrefix(line, "[WARNING]") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// podSecurityFindings are what keeps the pod from the level restricted, by Kubernetes' own evaluator.
func podSecurityFindings(t *testing.T, manifest string) (lines []string) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var deployment struct {
		Spec struct{ Template corev1.PodTemplateSpec }
	}
	manifest, _, _ = strings.Cut(manifest, "\n---\n")
	if err := yaml.Unmarshal([]byte(manifest), &deployment); err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template
	for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
		for _, r := range evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
			if !r.Allowed {
				lines = append(lines, r.ForbiddenReason+" ("+r.ForbiddenDetail+")")
			}
		}
	}
	return lines
}

// peer runs one of the programs that scripts/audit-peers.sh has built. Its exit code says that it has found something.
func peer(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(*peersDir, name), args...)
	stdout, stderr, err := execute(t, cmd)
	if stdout == "" {
		t.Fatalf("%s: %v, %s", cmd, err, stderr)
	}
	return stdout
}

// hasPeer says whether the column can be filled.
func hasPeer(which tool) bool {
	return which == ours || which == podSecurity || *peersDir != ""
}

// cell compares what a tool says of a row with what it says of the hardened container.
func cell(pattern string, hardened, row []string) string {
	matches := func(line string) bool { return regexp.MustCompile(pattern).MatchString(line) }
	switch {
	case pattern == "":
		return blind
	case slices.ContainsFunc(hardened, matches):
		return always
	case slices.ContainsFunc(row, matches):
		return finds
	}
	return misses
}

// verdictOf is what imagelab makes of a row: the checks that do not pass, beside those of the hardened one.
func verdictOf(checks []string, hardened, row map[string]string) string {
	open := func(verdicts map[string]string) func(string) bool {
		return func(id string) bool { return verdicts[id] == fails || verdicts[id] == warns }
	}
	switch {
	case len(checks) == 0:
		return blind
	case slices.ContainsFunc(checks, open(hardened)):
		return always
	case slices.ContainsFunc(checks, open(row)):
		return finds
	}
	return misses
}

// TestAuditBesidePeers fills the first table of docs/audit-peers.md, and sees that the columns of what needs no peer
// are as they stand there.
func TestAuditBesidePeers(t *testing.T) {
	t.Parallel()
	needEngine(t)
	network := auditNetwork(t)
	binary := imagelabOf(t)
	hardened := posture{image: imageOf("alpine")}.audit(t, network).verdicts()
	hardenedBy := map[tool][]string{}
	for _, which := range toolColumns {
		if which != ours && hasPeer(which) {
			hardenedBy[which] = manifestFindings(t, which, twin)
		}
	}
	table := peerTable{cells: map[string]map[tool]string{}}
	t.Run("rows", func(t *testing.T) {
		for _, r := range peerRows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				p := r.posture
				p.image = r.image.build(t)
				p.options = slices.Clone(p.options)
				for i, option := range p.options {
					if strings.Contains(option, aFreePort) {
						p.options[i] = strings.Replace(option, aFreePort, freePort(t), 1)
					}
				}
				if r.image.stock {
					p.options = append(p.options, "-v", binary+":/imagelab:ro")
				}
				table.set(r.name, ours, verdictOf(r.checks, hardened, p.audit(t, network).verdicts()))
				for _, which := range toolColumns[1:] {
					switch {
					case !hasPeer(which):
						continue
					case r.says[which] == "":
						table.set(r.name, which, blind)
					default:
						found := manifestFindings(t, which, r.manifest(t))
						table.set(r.name, which, cell(r.says[which], hardenedBy[which], found))
						if *peersDir != "" {
							t.Logf("%s:\n%s", which, strings.Join(found, "\n"))
						}
					}
				}
			})
		}
	})
	if *peersDir != "" {
		for which, lines := range hardenedBy {
			t.Logf("%s of the hardened one: %d\n%s", which, len(lines), strings.Join(lines, "\n"))
		}
		replaceBetween(t, peersPage, "peers", table.markdown())
		return
	}
	page := readTable(t, peersPage, "peers")
	for _, r := range peerRows {
		for _, which := range []tool{ours, podSecurity} {
			if got, want := table.cells[r.name][which], page[r.name][which]; got != want {
				t.Errorf("%s: %s says %q, docs/audit-peers.md %q: scripts/audit-peers.sh renews it", r.name, which, got, want)
			}
		}
	}
}

// TestPeersPageHasTheRows needs no engine: the rows of the page are those that are tried.
func TestPeersPageHasTheRows(t *testing.T) {
	t.Parallel()
	page := readTable(t, peersPage, "peers")
	if len(page) != len(peerRows) {
		t.Errorf("docs/audit-peers.md has %d rows, want %d", len(page), len(peerRows))
	}
	for _, r := range peerRows {
		r.manifest(t)
		row, there := page[r.name]
		if !there {
			t.Errorf("docs/audit-peers.md has no row %q", r.name)
		}
		for _, which := range toolColumns {
			looks := r.says[which] != "" || which == ours && len(r.checks) > 0
			if there && row[which] != "" && looks == (row[which] == blind) {
				t.Errorf("docs/audit-peers.md: %s on %q is %q, want that it looks: %t", which, r.name, row[which], looks)
			}
			if r.says[which] != "" && r.twin == nil {
				t.Errorf("%s: %s has no Deployment to read", r.name, which)
			}
		}
	}
}

const peersPage = "docs/audit-peers.md"

// peerTable collects the cells of tests that run side by side.
type peerTable struct {
	mu    sync.Mutex
	cells map[string]map[tool]string
}

func (p *peerTable) set(row string, which tool, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cells[row] == nil {
		p.cells[row] = map[tool]string{}
	}
	p.cells[row][which] = text
}

func (p *peerTable) markdown() string {
	var b strings.Builder
	b.WriteString("| what is wrong |")
	for _, which := range toolColumns {
		fmt.Fprintf(&b, " %s |", which)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(toolColumns)) + "\n")
	for _, r := range peerRows {
		fmt.Fprintf(&b, "| %s |", r.name)
		for _, which := range toolColumns {
			fmt.Fprintf(&b, " %s |", p.cells[r.name][which])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// marks are the lines of a page between which a test writes.
func marks(name string) (begin, end string) {
	return "<!-- " + name + ":begin -->\n", "<!-- " + name + ":end -->\n"
}

// between returns what the page has between the marks, and what is around it.
func between(t *testing.T, page, name string) (before, inside, after string) {
	t.Helper()
	begin, end := marks(name)
	before, rest, found := strings.Cut(read(t, page), begin)
	inside, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s: want one line %s and after it one line %s", page, begin, end)
	}
	return before, inside, after
}

// writing is held by who changes a page.
var writing sync.Mutex

func replaceBetween(t *testing.T, page, name, text string) {
	t.Helper()
	writing.Lock()
	defer writing.Unlock()
	begin, end := marks(name)
	before, _, after := between(t, page, name)
	if err := os.WriteFile(filepath.Join(root(t), page), []byte(before+begin+"\n"+text+"\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readTable reads a table between marks: row, column, cell.
func readTable(t *testing.T, page, name string) map[string]map[tool]string {
	t.Helper()
	_, inside, _ := between(t, page, name)
	return parseTable(t, inside)
}

func parseTable(t *testing.T, text string) map[string]map[tool]string {
	t.Helper()
	rows := map[string]map[tool]string{}
	var columns []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if columns == nil {
			columns = cells
			continue
		}
		if len(cells) != len(columns) {
			t.Fatalf("a row of %d cells, want %d: %s", len(cells), len(columns), line)
		}
		rows[cells[0]] = map[tool]string{}
		for i, c := range cells[1:] {
			rows[cells[0]][tool(columns[i+1])] = c
		}
	}
	return rows
}
