package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// stack is the name of what scripts/swarm.sh has deployed, and service its one service.
const (
	stack   = "imagelab-swarm"
	service = stack + "_app"
)

func docker(ctx context.Context, args ...string) (string, error) {
	return command(ctx, "docker", args...)
}

// inside is a load from a container in the stack's network, where the service has its name.
type inside struct{ container string }

func startInside(ctx context.Context) (*inside, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	id, err := docker(ctx, "run", "--detach", "--network", stack+"_app", "--volume", self+":/cluster:ro",
		"--entrypoint", "/cluster", os.Getenv("IMAGE"), "load", "app:8000")
	return &inside{id}, err
}

func (l *inside) finish(ctx context.Context) (c counts, err error) {
	defer func() {
		_, removed := docker(ctx, "rm", "--force", l.container)
		err = errors.Join(err, removed)
	}()
	if _, err := docker(ctx, "kill", "--signal", "TERM", l.container); err != nil {
		return c, err
	}
	if _, err := docker(ctx, "wait", l.container); err != nil {
		return c, err
	}
	out, err := docker(ctx, "logs", l.container)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(out), &c)
}

// swarm tries deploy/swarm.yaml, which has been deployed with the first release.
func swarm(ctx context.Context) error {
	if err := replicas(ctx, release1); err != nil {
		return err
	}
	t := newTable()
	for _, trial := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"rolling update of three replicas", func(ctx context.Context) error { return updateService(ctx, release2, "completed") }},
		{"update to a broken image, which is rolled back by itself", func(ctx context.Context) error {
			return updateService(ctx, releaseBroken, "rollback_completed")
		}},
	} {
		l, err := startInside(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		failed := trial.do(ctx)
		took := time.Since(began)
		c, err := l.finish(ctx)
		if err != nil {
			return fmt.Errorf("the load of %s: %w", trial.name, err)
		}
		t.add(trial.name, c, took)
		if failed != nil {
			return fmt.Errorf("%s: %w", trial.name, failed)
		}
	}
	if err := auditReplica(ctx); err != nil {
		return err
	}
	return t.err()
}

// auditReplica has one replica say whether it got what the file asks for. A stack cannot ask for
// no-new-privileges, which is the engine's to set.
func auditReplica(ctx context.Context) error {
	ids, err := docker(ctx, "ps", "--quiet", "--filter", "label=com.docker.swarm.service.name="+service)
	if err != nil {
		return err
	}
	id, _, _ := strings.Cut(ids, "\n")
	out, err := docker(ctx, "exec", id, "/imagelab", "--audit", "--format", "json")
	var report struct{ Checks []struct{ ID, Status string } }
	if json.Unmarshal([]byte(out), &report) != nil || len(report.Checks) == 0 {
		return fmt.Errorf("no audit: %w", err)
	}
	verdicts := map[string][]string{}
	for _, check := range report.Checks {
		verdicts[check.Status] = append(verdicts[check.Status], check.ID)
	}
	fmt.Printf("\nThe audit of a replica: %d checks pass, fail: %q, warn: %q\n", len(verdicts["pass"]), verdicts["fail"], verdicts["warn"])
	if len(verdicts["pass"]) == 0 || len(verdicts["fail"]) > 1 || len(verdicts["fail"]) == 1 && verdicts["fail"][0] != "no-new-privileges" {
		return fmt.Errorf("the audit of a replica fails: %q", verdicts["fail"])
	}
	return nil
}

const (
	release1      = "imagelab-swarm/app:1"
	release2      = "imagelab-swarm/app:2"
	releaseBroken = "imagelab-swarm/app:broken"
)

// updateService waits for the state that the update should end in, and then for the second release.
func updateService(ctx context.Context, image, state string) error {
	if _, err := docker(ctx, "service", "update", "--detach", "--no-resolve-image", "--image", image, service); err != nil {
		return err
	}
	err := await(ctx, "end of the update", func() (bool, error) {
		out, err := docker(ctx, "service", "inspect", "--format", "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}", service)
		switch {
		case err != nil:
			return false, err
		case out == state:
			return true, nil
		case out == "paused" || out == "rollback_paused" || out == "completed" || out == "rollback_completed":
			return false, fmt.Errorf("%w: the update is %s", errUnexpected, out)
		}
		return false, fmt.Errorf("the update is %s", out)
	})
	if err != nil {
		return err
	}
	return replicas(ctx, release2)
}

// replicas waits until the three running tasks, and no others, have the image, and are healthy.
func replicas(ctx context.Context, image string) error {
	return await(ctx, "three replicas of "+image, func() (bool, error) {
		out, err := docker(ctx, "ps", "--filter", "label=com.docker.swarm.service.name="+service, "--format", "{{.Image}} {{.Status}}")
		if err != nil {
			return false, err
		}
		lines := strings.Split(out, "\n")
		for _, line := range lines {
			if !strings.HasPrefix(line, image+" ") || !strings.Contains(line, "(healthy)") {
				return false, fmt.Errorf("containers: %q", lines)
			}
		}
		return len(lines) == 3, fmt.Errorf("%d containers", len(lines))
	})
}
