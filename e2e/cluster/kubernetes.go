package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// The images are those that scripts/k8s.sh makes.
const (
	namespace = "imagelab"
	release   = "docker.io/imagelab-k8s/app:" // 1, 2 and broken
	program   = "example/app:v1"              // that of deploy/kubernetes/front
)

// kubectl runs it in the namespace.
func kubectl(ctx context.Context, args ...string) (string, error) {
	return command(ctx, os.Getenv("KUBECTL"), append([]string{"--namespace", namespace}, args...)...)
}

// pod is what is of interest here of a pod.
type pod struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
	}
	Spec struct {
		NodeName   string
		Containers []struct{ Image string }
	}
	Status struct {
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct{ RestartCount int }
	}
}

func (p pod) image() string { return p.Spec.Containers[0].Image }

func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

func (p pod) restarts() (n int) {
	for _, c := range p.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return n
}

func pods(ctx context.Context) ([]pod, error) {
	out, err := kubectl(ctx, "get", "pods", "--selector", "app.kubernetes.io/name=imagelab", "--output", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("kubectl get pods: %w", err)
	}
	return list.Items, nil
}

// settled waits until there are n pods, all of the image and ready, and no other.
func settled(ctx context.Context, n int, image string) error {
	return await(ctx, fmt.Sprintf("%d ready pods of %s", n, image), func() (bool, error) {
		all, err := pods(ctx)
		if err != nil {
			return false, err
		}
		if len(all) != n {
			return false, fmt.Errorf("%d pods", len(all))
		}
		for _, p := range all {
			if !p.ready() || p.image() != image || p.Metadata.DeletionTimestamp != "" {
				return false, fmt.Errorf("%s has %s, ready: %t", p.Metadata.Name, p.image(), p.ready())
			}
		}
		return true, nil
	})
}

// kubernetes tries deploy/kubernetes/plain, which has been applied with the first release.
func kubernetes(ctx context.Context) error {
	began := time.Now()
	if err := settled(ctx, 3, release+"1"); err != nil {
		return err
	}
	fmt.Printf("Three pods are ready, in a namespace that enforces restricted, %.0f s after the start of this.\n", time.Since(began).Seconds())
	// What is not restricted is not admitted.
	if out, err := kubectl(ctx, "run", "careless", "--image="+release+"1"); err == nil || !strings.Contains(out, "violates PodSecurity") {
		return fmt.Errorf("a pod without a security context: %q, %v, want it refused by PodSecurity", out, err)
	}
	address, err := kubectl(ctx, "get", "service", "imagelab", "--output", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}")
	if err != nil {
		return err
	}

	t := newTable()
	for _, trial := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"rolling update of three pods", update},
		{"update to a broken image, and back", broken},
		{"3 pods to 10, to 3", scale},
		{"`kubectl drain` of one node after the other", drain},
		{"`kubectl drain` of both at once, which the budget holds up", hold},
		{"rolling restart", func(ctx context.Context) error { return restart(ctx, release+"2") }},
		{"from the built-in app to a program behind the front", front},
		{"rolling restart of the program behind the front", func(ctx context.Context) error { return restart(ctx, program) }},
	} {
		l := start(address)
		began := time.Now()
		err := trial.do(ctx)
		took := time.Since(began)
		t.add(trial.name, finish(l), took)
		if err != nil {
			return fmt.Errorf("%s: %w", trial.name, err)
		}
	}
	if err := debug(ctx); err != nil {
		return fmt.Errorf("kubectl debug: %w", err)
	}
	if err := mend(ctx); err != nil {
		return fmt.Errorf("a patch of the audit: %w", err)
	}
	return t.err()
}

func setImage(ctx context.Context, tag string) error {
	_, err := kubectl(ctx, "set", "image", "deployment/imagelab", "app="+release+tag)
	return err
}

func update(ctx context.Context) error {
	if err := setImage(ctx, "2"); err != nil {
		return err
	}
	return settled(ctx, 3, release+"2")
}

func restart(ctx context.Context, image string) error {
	before, err := pods(ctx)
	if err != nil {
		return err
	}
	if _, err := kubectl(ctx, "rollout", "restart", "deployment/imagelab"); err != nil {
		return err
	}
	err = await(ctx, "end of the old pods", func() (bool, error) {
		now, err := pods(ctx)
		if err != nil {
			return false, err
		}
		for _, p := range now {
			for _, old := range before {
				if p.Metadata.Name == old.Metadata.Name {
					return false, nil
				}
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return settled(ctx, 3, image)
}

// broken waits until the broken pod has been started again twice, and was never ready meanwhile.
func broken(ctx context.Context) error {
	if err := setImage(ctx, "broken"); err != nil {
		return err
	}
	err := await(ctx, "broken pod that has ended twice", func() (bool, error) {
		all, err := pods(ctx)
		if err != nil {
			return false, err
		}
		ready, restarts := 0, 0
		for _, p := range all {
			switch {
			case p.image() != release+"broken":
				if p.ready() && p.Metadata.DeletionTimestamp == "" {
					ready++
				}
			case p.ready():
				return false, fmt.Errorf("%w: the broken pod %s is ready", errUnexpected, p.Metadata.Name)
			default:
				restarts = max(restarts, p.restarts())
			}
		}
		if ready != 3 {
			return false, fmt.Errorf("%w: %d pods of the old release are ready, want 3", errUnexpected, ready)
		}
		return restarts >= 2, nil
	})
	if err != nil {
		return err
	}
	if _, err := kubectl(ctx, "rollout", "undo", "deployment/imagelab"); err != nil {
		return err
	}
	return settled(ctx, 3, release+"2")
}

func scale(ctx context.Context) error {
	for _, n := range []int{10, 3} {
		if _, err := kubectl(ctx, "scale", "deployment/imagelab", fmt.Sprintf("--replicas=%d", n)); err != nil {
			return err
		}
		if err := settled(ctx, n, release+"2"); err != nil {
			return err
		}
	}
	return nil
}

// drain empties one node after the other: the budget lets one pod go at a time, and the next only
// when its successor on the other node is ready.
func drain(ctx context.Context) error {
	for _, node := range []string{"node-0", "node-1"} {
		if _, err := kubectl(ctx, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=3m"); err != nil {
			return err
		}
		if err := settled(ctx, 3, release+"2"); err != nil {
			return err
		}
		all, err := pods(ctx)
		if err != nil {
			return err
		}
		for _, p := range all {
			if p.Spec.NodeName == node {
				return fmt.Errorf("%s is on %s, which was drained", p.Metadata.Name, node)
			}
		}
		if _, err := kubectl(ctx, "uncordon", node); err != nil {
			return err
		}
	}
	return nil
}

// hold asks to empty both nodes at once, so that what is evicted finds no place: the budget lets one
// pod go, and keeps the others where they are.
func hold(ctx context.Context) error {
	out, err := kubectl(ctx, "drain", "node-0", "node-1", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=20s")
	if err == nil || !strings.Contains(out, "disruption budget") {
		return fmt.Errorf("kubectl drain: %q, %v, want it held by the budget", out, err)
	}
	all, err := pods(ctx)
	if err != nil {
		return err
	}
	ready := 0
	for _, p := range all {
		if p.ready() && p.Metadata.DeletionTimestamp == "" {
			ready++
		}
	}
	if ready != 2 {
		return fmt.Errorf("%d pods are ready, want 2, as the budget is one", ready)
	}
	if _, err := kubectl(ctx, "uncordon", "node-0", "node-1"); err != nil {
		return err
	}
	return settled(ctx, 3, release+"2")
}

// front applies the overlay for a program of one's own to what runs.
func front(ctx context.Context) error {
	if _, err := kubectl(ctx, "apply", "--kustomize", "../deploy/kubernetes/front"); err != nil {
		return err
	}
	return settled(ctx, 3, program)
}

// debug audits a running pod from a container that kubectl debug adds to it: the files of the
// app's container by way of its PID 1, which the same user may look at. What the container
// itself says, by kubectl exec, is the whole; it exits 1 when a check fails.
func debug(ctx context.Context) error {
	all, err := pods(ctx)
	if err != nil {
		return err
	}
	name := all[0].Metadata.Name
	if _, err := kubectl(ctx, "debug", name, "--image="+release+"2", "--container=audit", "--target=app", "--profile=restricted",
		"--", "/imagelab", "--audit", "--root", "/proc/1/root"); err != nil {
		return err
	}
	err = await(ctx, "end of the audit", func() (bool, error) {
		out, err := kubectl(ctx, "get", "pod", name, "--output", "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.reason}")
		return out != "", err
	})
	if err != nil {
		return err
	}
	report, err := kubectl(ctx, "logs", name, "--container=audit")
	if err != nil {
		return err
	}
	fmt.Printf("\nThe audit of the files, by kubectl debug --target=app:\n\n%s\n", indent(report))
	exec := exec.CommandContext(ctx, os.Getenv("KUBECTL"), "--namespace", namespace, "exec", name, "--container=app", "--", "/imagelab", "--audit")
	within, err := exec.CombinedOutput()
	fmt.Printf("\nThe audit of the container, by kubectl exec:\n\n%s\n", indent(string(within)))
	return err
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
