package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// careless is a Deployment as nobody should write it: it runs as root with a capability more, in
// namespaces of the node, with two of its directories below names that YAML reads as something else.
const careless = `
apiVersion: v1
kind: Namespace
metadata: {name: careless}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: careless, namespace: careless}
spec:
  selector: {matchLabels: {app: careless}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: careless}}
    spec:
      hostIPC: true
      shareProcessNamespace: true
      terminationGracePeriodSeconds: 20
      containers:
      - name: app
        image: ` + release + `1
        env:
        - {name: DB_PASSWORD, value: "# [correct] {horse}"}
        - {name: IMAGELAB_SANDBOX, value: "off"}
        securityContext: {runAsUser: 0, runAsNonRoot: false, capabilities: {add: [SYS_ADMIN]}}
        volumeMounts:
        - {name: one, mountPath: "/srv/{a}, [b] # c"}
        - {name: two, mountPath: "/srv/it's \"two\""}
      volumes:
      - {name: one, hostPath: {path: /var/tmp/imagelab-k8s-one, type: DirectoryOrCreate}}
      - {name: two, hostPath: {path: /var/tmp/imagelab-k8s-two, type: DirectoryOrCreate}}
`

// finding is what is of interest here of a check.
type finding struct {
	ID, Status, Evidence string
	Fix                  struct{ Kubernetes string }
}

// mend audits a careless pod, applies the patch that the report offers, and audits the pod that
// comes of it: what the patch is for must be gone.
func mend(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "careless")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, path := range []string{"/var/tmp/imagelab-k8s-one", "/var/tmp/imagelab-k8s-two"} {
		defer os.RemoveAll(path) // the kubelet makes them
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		return path
	}
	kubectl := func(args ...string) (string, error) {
		return command(ctx, os.Getenv("KUBECTL"), append([]string{"--namespace", "careless"}, args...)...)
	}
	// A report with findings exits 1, and kubectl says so behind it.
	audit := func(format string) (string, error) {
		if out, err := kubectl("rollout", "status", "deployment/careless", "--timeout=60s"); err != nil {
			return out, err
		}
		out, err := kubectl("exec", "deployment/careless", "--container=app", "--", "/imagelab", "--audit", "--format", format)
		if out, _, cut := strings.Cut(out, "\ncommand terminated with exit code 1"); cut {
			return out, nil
		}
		return out, err
	}
	findings := func() ([]finding, error) {
		out, err := audit("json")
		if err != nil {
			return nil, err
		}
		var report struct{ Checks []finding }
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			return nil, fmt.Errorf("%w in %.200q", err, out)
		}
		return slices.DeleteFunc(report.Checks, func(f finding) bool { return f.Status != "fail" }), nil
	}

	manifest := file("careless.yaml", careless)
	if err != nil {
		return err
	}
	if _, err := kubectl("apply", "--filename", manifest); err != nil {
		return err
	}
	before, err := findings()
	if err != nil {
		return err
	}
	text, err := audit("text")
	if err != nil {
		return err
	}
	_, patch, found := strings.Cut(text, "TOGETHER for Kubernetes, a patch of the Deployment (capitals are yours to fill in)\n\n")
	patch, _, _ = strings.Cut(patch, "\n\n")
	if !found {
		return fmt.Errorf("the report offers no patch:\n%s", indent(text))
	}
	fmt.Printf("\nA careless pod has %d failures, for which the audit offers this patch:\n\n%s\n", len(before), indent(patch))
	patched := file("patch.yaml", strings.ReplaceAll(patch, "APP", "app"))
	if err != nil {
		return err
	}
	if _, err := kubectl("create", "secret", "generic", "app", "--from-literal=DB_PASSWORD=correct horse"); err != nil {
		return err
	}
	if _, err := kubectl("patch", "deployment", "careless", "--patch-file", patched); err != nil {
		return err
	}
	after, err := findings()
	if err != nil {
		return err
	}
	var left []string
	fmt.Printf("\nWith it there are %d:\n\n", len(after))
	for _, f := range after {
		fmt.Printf("    %s: %s\n", f.ID, f.Evidence)
		if !strings.HasPrefix(f.Fix.Kubernetes, "#") && !strings.Contains(f.Fix.Kubernetes, "# in the kubelet") {
			left = append(left, f.ID)
		}
	}
	if _, err := kubectl("delete", "namespace", "careless", "--wait=true"); err != nil {
		return err
	}
	if len(before) == 0 || len(left) > 0 {
		return fmt.Errorf("%d failures before the patch, and these after it, for which it has lines: %s", len(before), strings.Join(left, ", "))
	}
	return nil
}
