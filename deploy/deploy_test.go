// Package deploy has the tests of the manifests beside it that need no cluster and no engine.
package deploy

import (
	"bytes"
	"flag"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/zegl/kube-score/config"
	"github.com/zegl/kube-score/domain"
	"github.com/zegl/kube-score/parser"
	"github.com/zegl/kube-score/score"
	"github.com/zegl/kube-score/score/checks"
	"github.com/zegl/kube-score/scorecard"
	apps "k8s.io/api/apps/v1"
	scaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	network "k8s.io/api/networking/v1"
	disruption "k8s.io/api/policy/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what is made of other files anew")

var overlays = []string{"plain", "operator", "front"}

// objects are those of an overlay, by kind and name.
type objects map[string]any

func get[T any](t *testing.T, all objects, key string) T {
	t.Helper()
	object, ok := all[key].(T)
	if !ok {
		t.Fatalf("%s = %T, want a %T", key, all[key], object)
	}
	return object
}

// build is what kubectl apply -k sends. Each object is decoded strictly: a field that its API
// does not have is an error.
func build(t *testing.T, overlay string) (found objects, manifests []byte) {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "kubernetes/"+overlay)
	if err != nil {
		t.Fatal(err)
	}
	if manifests, err = resources.AsYaml(); err != nil {
		t.Fatal(err)
	}
	found = objects{}
	for _, r := range resources.Resources() {
		var object any
		switch r.GetKind() {
		case "Namespace":
			object = new(core.Namespace)
		case "ServiceAccount":
			object = new(core.ServiceAccount)
		case "Service":
			object = new(core.Service)
		case "Deployment":
			object = new(apps.Deployment)
		case "PodDisruptionBudget":
			object = new(disruption.PodDisruptionBudget)
		case "HorizontalPodAutoscaler":
			object = new(scaling.HorizontalPodAutoscaler)
		case "NetworkPolicy":
			object = new(network.NetworkPolicy)
		case "ServiceMonitor":
			object = new(monitoring.ServiceMonitor)
		case "PrometheusRule":
			object = new(monitoring.PrometheusRule)
		default:
			t.Fatalf("%s: a kind that the test does not know, %s", overlay, r.GetKind())
		}
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, object); err != nil {
			t.Errorf("%s: %s %s: %v", overlay, r.GetKind(), r.GetName(), err)
		}
		if r.GetKind() != "Namespace" && r.GetNamespace() != "imagelab" {
			t.Errorf("%s: %s %s is in the namespace %q, want imagelab", overlay, r.GetKind(), r.GetName(), r.GetNamespace())
		}
		found[r.GetKind()+"/"+r.GetName()] = object
	}
	return found, manifests
}

func TestOverlays(t *testing.T) {
	t.Parallel()
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			all, manifests := build(t, overlay)
			namespace := get[*core.Namespace](t, all, "Namespace/imagelab")
			deployment := get[*apps.Deployment](t, all, "Deployment/imagelab")
			checkAdmission(t, namespace, deployment)
			checkSelectors(t, all, deployment)
			checkStop(t, deployment)
			checkScore(t, manifests)
		})
	}
}

// checkAdmission asks what the API server asks before it lets a pod in.
func checkAdmission(t *testing.T, namespace *core.Namespace, deployment *apps.Deployment) {
	t.Helper()
	level, errs := api.PolicyToEvaluate(namespace.Labels, api.Policy{})
	if len(errs) > 0 || level.Enforce.Level != api.LevelRestricted {
		t.Errorf("the namespace enforces %q, %v, want restricted", level.Enforce.Level, errs)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	template := deployment.Spec.Template
	for _, result := range evaluator.EvaluatePod(level.Enforce, &template.ObjectMeta, &template.Spec) {
		if !result.Allowed {
			t.Errorf("not admitted: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	// That it can say no.
	template.Spec.HostNetwork = true
	if policy.AggregateCheckResults(evaluator.EvaluatePod(level.Enforce, &template.ObjectMeta, &template.Spec)).Allowed {
		t.Error("a pod in the host's network is admitted")
	}
}

// checkSelectors checks that everything that selects pods selects these, and ports that they have.
func checkSelectors(t *testing.T, all objects, deployment *apps.Deployment) {
	t.Helper()
	labels := deployment.Spec.Template.Labels
	ports := map[string]bool{}
	for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
		ports[port.Name] = true
	}
	selects := func(what string, selector map[string]string) {
		t.Helper()
		if len(selector) == 0 {
			t.Errorf("%s selects everything", what)
		}
		for name, value := range selector {
			if labels[name] != value {
				t.Errorf("%s selects %s=%s, the pods have %q", what, name, value, labels[name])
			}
		}
	}
	selects("the Deployment", deployment.Spec.Selector.MatchLabels)
	for _, spread := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
		selects("the spread by "+spread.TopologyKey, spread.LabelSelector.MatchLabels)
	}
	selects("the PodDisruptionBudget", get[*disruption.PodDisruptionBudget](t, all, "PodDisruptionBudget/imagelab").Spec.Selector.MatchLabels)
	policies := get[*network.NetworkPolicy](t, all, "NetworkPolicy/imagelab")
	selects("the NetworkPolicy", policies.Spec.PodSelector.MatchLabels)
	for _, name := range []string{"imagelab", "imagelab-ops"} {
		service := get[*core.Service](t, all, "Service/"+name)
		selects("the Service "+name, service.Spec.Selector)
		if port := service.Spec.Ports[0].TargetPort.StrVal; !ports[port] {
			t.Errorf("the Service %s is for the port %q, the pods have %v", name, port, ports)
		}
	}
	for _, rule := range policies.Spec.Ingress {
		if port := rule.Ports[0].Port.StrVal; !ports[port] {
			t.Errorf("the NetworkPolicy is for the port %q, the pods have %v", port, ports)
		}
	}
	container := deployment.Spec.Template.Spec.Containers[0]
	for what, probe := range map[string]*core.Probe{
		"startup": container.StartupProbe, "readiness": container.ReadinessProbe, "liveness": container.LivenessProbe,
	} {
		if probe.HTTPGet.Port.StrVal != "ops" {
			t.Errorf("the %s probe asks the port %q, want ops", what, probe.HTTPGet.Port.StrVal)
		}
	}
	target := get[*scaling.HorizontalPodAutoscaler](t, all, "HorizontalPodAutoscaler/imagelab").Spec.ScaleTargetRef
	if target.Kind != "Deployment" || target.Name != deployment.Name || deployment.Spec.Replicas != nil {
		t.Errorf("the HorizontalPodAutoscaler scales %+v, and the Deployment sets %v replicas, want it and nil", target, deployment.Spec.Replicas)
	}
}

// checkStop checks that the kubelet waits for as long as imagelab may take to stop.
func checkStop(t *testing.T, deployment *apps.Deployment) {
	t.Helper()
	// Those of config.go, and the second that the ops listener gets.
	times := map[string]time.Duration{"IMAGELAB_DRAIN_DELAY": 250 * time.Millisecond, "IMAGELAB_SHUTDOWN_TIMEOUT": 8 * time.Second, "IMAGELAB_LAST_SCRAPE": 0}
	sum := time.Second
	for _, v := range deployment.Spec.Template.Spec.Containers[0].Env {
		if _, ok := times[v.Name]; ok {
			value, err := time.ParseDuration(v.Value)
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			times[v.Name] = value
		}
	}
	for _, d := range times {
		sum += d
	}
	if grace := time.Duration(*deployment.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second; grace <= sum {
		t.Errorf("terminationGracePeriodSeconds is %v, a stop may take %v", grace, sum)
	}
	if deployment.Spec.Template.Spec.Containers[0].Lifecycle != nil {
		t.Error("the pods have a lifecycle hook, which needs a program in the image")
	}
}

type file struct{ io.Reader }

func (file) Name() string { return "manifests.yaml" }

// accepted are what kube-score asks for, and why it is not done.
var accepted = map[string]string{
	"container-image-tag":                      "whoever applies it names the image",
	"container-image-pull-policy":              "a tag that changes is nobody's release; Always would keep a node from starting what it has",
	"deployment-has-host-podantiaffinity":      "topologySpreadConstraints spread the pods",
	"container-security-context-user-group-id": "the images' own user is 65532, and it is above 10000",
}

// checkScore asks kube-score, whose complaints are all errors here.
func checkScore(t *testing.T, manifests []byte) {
	t.Helper()
	p, err := parser.New(&parser.Config{})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := p.ParseFiles([]domain.NamedReader{file{bytes.NewReader(manifests)}})
	if err != nil {
		t.Fatal(err)
	}
	run := &config.RunConfiguration{KubernetesVersion: config.Semver{Major: 1, Minor: 32}, MinReplicasDeployment: 2, MinReplicasHPA: 2}
	card, err := score.Score(parsed, score.RegisterAllChecks(parsed, &checks.Config{}, run), run)
	if err != nil {
		t.Fatal(err)
	}
	if len(*card) == 0 {
		t.Fatal("kube-score has seen no object")
	}
	for _, object := range *card {
		for _, check := range object.Checks {
			if check.Skipped || check.Grade > scorecard.GradeWarning {
				continue
			}
			if _, ok := accepted[check.Check.ID]; ok {
				continue
			}
			for _, comment := range check.Comments {
				t.Errorf("kube-score: %s: %s: %s %s %s", object.HumanFriendlyRef(), check.Check.ID, comment.Path, comment.Summary, comment.Description)
			}
		}
	}
}

// The rules of Prometheus Operator are those of Compose's Prometheus.
func TestOperatorHasTheSameRules(t *testing.T) {
	t.Parallel()
	const path = "kubernetes/operator/prometheusrule.yaml"
	rules, err := os.ReadFile("prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, groups, _ := strings.Cut(string(rules), "\ngroups:\n")
	var made strings.Builder
	made.WriteString(`# Made of deploy/prometheus/rules.yml by go test -run Operator -update, in deploy/.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: imagelab
  labels: { app.kubernetes.io/name: imagelab }
spec:
  groups:
`)
	for line := range strings.Lines(groups) {
		if line != "\n" {
			made.WriteString("  ")
		}
		made.WriteString(line)
	}
	if *update {
		if err := os.WriteFile(path, []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	is, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(is) != made.String() {
		t.Errorf("%s is not what is made of prometheus/rules.yml: go test -run Operator -update renews it", path)
	}
	var ours, theirs struct {
		Groups []monitoring.RuleGroup
		Spec   struct{ Groups []monitoring.RuleGroup }
	}
	if err := yaml.Unmarshal(rules, &ours); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(is, &theirs); err != nil {
		t.Fatal(err)
	}
	if len(ours.Groups) == 0 || !reflect.DeepEqual(ours.Groups, theirs.Spec.Groups) {
		t.Errorf("%d groups in rules.yml, %d in %s, want the same", len(ours.Groups), len(theirs.Spec.Groups), path)
	}
}
