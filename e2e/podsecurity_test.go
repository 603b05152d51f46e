package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// TestPodSecurityIsWhatTheEvaluatorSays runs containers and judges pods with the same
// settings by Kubernetes' own evaluator: the level that the report claims is the
// evaluator's. Then it patches each pod with the lines that the report gives.
func TestPodSecurityIsWhatTheEvaluatorSays(t *testing.T) {
	t.Parallel()
	needEngine(t)
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := func(t *testing.T, pod []byte) (highest string, why []string) {
		t.Helper()
		var template struct {
			Spec struct{ Template corev1.PodTemplateSpec }
		}
		if err := json.Unmarshal(pod, &template); err != nil {
			t.Fatal(err)
		}
		highest = "privileged"
		for _, l := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
			results := evaluator.EvaluatePod(api.LevelVersion{Level: l, Version: api.LatestVersion()},
				&template.Spec.Template.ObjectMeta, &template.Spec.Template.Spec)
			for _, r := range results {
				if !r.Allowed {
					why = append(why, r.ForbiddenReason+" ("+r.ForbiddenDetail+")")
				}
			}
			if len(why) > 0 {
				return highest, why
			}
			highest = string(l)
		}
		return highest, nil
	}
	hardened := []string{"--user", "65532:65532", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}
	without := func(option, value string) []string {
		i := slices.Index(hardened, value)
		if i < 1 || hardened[i-1] != option {
			t.Fatalf("%s %s is none of the options", option, value)
		}
		return slices.Concat(hardened[:i-1], hardened[i+1:])
	}
	const restricted = `runAsNonRoot: true, runAsUser: 65532, allowPrivilegeEscalation: false, ` +
		`capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}`
	for _, tc := range []struct {
		name      string
		options   []string
		container string // the fields of its securityContext
		pod       string // more lines of the pod
		byHand    bool   // the report says in a comment what to delete
	}{
		{"hardened", hardened, restricted, "", false},
		{"the defaults", nil, "", "", false},
		{"root", without("--user", "65532:65532"), strings.Replace(restricted, "runAsNonRoot: true, runAsUser: 65532, ", "", 1), "", false},
		{"default capabilities", without("--cap-drop", "ALL"), strings.Replace(restricted, "capabilities: {drop: [ALL]}, ", "", 1), "", false},
		{"new privileges", without("--security-opt", "no-new-privileges"), strings.Replace(restricted, "allowPrivilegeEscalation: false, ", "", 1), "", false},
		{"NET_BIND_SERVICE", slices.Concat(hardened, []string{"--cap-add", "NET_BIND_SERVICE"}), strings.Replace(restricted, "[ALL]", "[ALL], add: [NET_BIND_SERVICE]", 1), "", false},
		{"CHOWN", slices.Concat(hardened, []string{"--cap-add", "CHOWN"}), strings.Replace(restricted, "[ALL]", "[ALL], add: [CHOWN]", 1), "", false},
		{"SYS_ADMIN", []string{"--cap-add", "SYS_ADMIN"}, "capabilities: {add: [SYS_ADMIN]}", "", false},
		{"no seccomp", slices.Concat(hardened, []string{"--security-opt", "seccomp=unconfined"}), strings.Replace(restricted, "RuntimeDefault", "Unconfined", 1), "", false},
		{"host's pids", slices.Concat(hardened, []string{"--pid", "host"}), restricted, "hostPID: true", false},
		{"host's network", slices.Concat(hardened, []string{"--network", "host"}), restricted, "hostNetwork: true", false},
		{"host's IPC", slices.Concat(hardened, []string{"--ipc", "host"}), restricted, "hostIPC: true", false},
		{"no masks", slices.Concat(hardened, []string{"--security-opt", "systempaths=unconfined"}), restricted + ", procMount: Unmasked", "", false},
		{"host's files", slices.Concat(hardened, []string{"-v", "/etc:/host:ro"}), restricted, "volumes: [{name: etc, hostPath: {path: /etc}}]", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			name := newName()
			args := slices.Concat([]string{"run", "-d", "--name", name, "--label", label(), "--no-healthcheck"}, tc.options, []string{"imagelab:alpine", "sleep", "600"})
			if tc.options == nil || !slices.Contains(tc.options, "--user") {
				args = slices.Insert(args, 1, "--user", "0:0") // the image has a user of its own
			}
			args = slices.Insert(args, len(args)-3, "--entrypoint", "")
			t.Cleanup(func() { docker(t, "rm", "-f", "-v", name) })
			docker(t, args...)
			stdout, stderr, _ := try(t, "exec", name, "/imagelab", "--audit", "--format", "json")
			var report struct {
				PodSecurity struct {
					Level string
					Why   []string
				} `json:"pod_security"`
			}
			if err := json.Unmarshal([]byte(stdout), &report); err != nil {
				t.Fatalf("%v: %s", err, stderr)
			}
			pod := "spec: {template: {spec: {\n" + tc.pod
			if tc.pod != "" {
				pod += ", "
			}
			pod += "containers: [{name: APP, image: app, securityContext: {" + tc.container + "}}]}}}\n"
			deployment, err := yaml.YAMLToJSONStrict([]byte(pod))
			if err != nil {
				t.Fatal(err)
			}
			if want, why := level(t, deployment); report.PodSecurity.Level != want {
				t.Errorf("level = %q for %v, want the evaluator's %q: %v", report.PodSecurity.Level, report.PodSecurity.Why, want, why)
			}

			text, _, _ := try(t, "exec", name, "/imagelab", "--audit")
			_, block, found := strings.Cut(text, "for Kubernetes, a patch of the Deployment (capitals are yours to fill in)\n\n")
			if !found {
				t.Fatalf("no patch in\n%s", text)
			}
			block, _, _ = strings.Cut(block, "\n\n")
			patch, err := yaml.YAMLToJSONStrict([]byte(block)) // refuses a key that is there twice
			if err != nil {
				t.Fatalf("%v\n%s", err, block)
			}
			patched, err := strategicpatch.StrategicMergePatch(deployment, patch, deploymentOf{})
			if err != nil {
				t.Fatalf("%v\n%s", err, block)
			}
			if got, why := level(t, patched); !tc.byHand && got != "restricted" {
				t.Errorf("with the patch the pod is %s: %v\n%s", got, why, block)
			}
		})
	}
}

// deploymentOf is what a strategic merge needs to know of a Deployment.
type deploymentOf struct {
	Spec struct {
		Template corev1.PodTemplateSpec `json:"template"`
	} `json:"spec"`
}
