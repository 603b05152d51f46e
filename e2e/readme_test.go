package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The lines of Dockerfile that README.md gives, in a Dockerfile with a program and a CMD
// of its own, make an image that serves, and stops without a loss.
func TestReadmesLinesOfDockerfile(t *testing.T) {
	t.Parallel()
	needEngine(t)
	readme, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, lines, _ := strings.Cut(string(readme), "```dockerfile\n")
	lines, _, found := strings.Cut(lines, "```\n")
	if n := strings.Count(lines, "\n"); !found || n != 3 {
		t.Fatalf("README.md gives %d lines of Dockerfile, want 3:\n%s", n, lines)
	}

	// A shell answers, so that no program has to be had.
	const program = `CMD ["sh", "-c", "exec nc -lk -p $PORT -e sh -c ` +
		`'while read -r line && [ ${#line} -gt 1 ]; do :; done; printf \"HTTP/1.0 200 OK\\r\\n\\r\\nmine\"'"]` + "\n"
	image := newName()
	build := exec.Command("docker", "build", "-q", "--label", label(), "-t", image, "-")
	build.Stdin = strings.NewReader("FROM imagelab:alpine\n" + program + lines)
	t.Cleanup(func() { docker(t, "image", "rm", "-f", image) })
	if _, stderr, err := execute(t, build); err != nil {
		t.Fatalf("docker build: %v\n%s", err, stderr)
	}

	app, ops := freePort(t), freePort(t)
	c := &container{name: newName(), app: "http://127.0.0.1:" + app, ops: "http://127.0.0.1:" + ops}
	t.Cleanup(func() { c.remove(t) })
	docker(t, "run", "-d", "--name", c.name, "--label", label(), "--network", "host", "-e", "PORT="+app,
		"-e", "IMAGELAB_OPS_ADDR=127.0.0.1:"+ops, image)
	c.await(t)
	if resp, body := fetch(t, http.MethodGet, c.app+"/", ""); resp.StatusCode != http.StatusOK || body != "mine" {
		t.Errorf("GET / = %d %q, want the program's answer", resp.StatusCode, body)
	}
	docker(t, "stop", c.name)
	if _, log, _ := try(t, "logs", c.name); !strings.Contains(log, "no request was lost") {
		t.Errorf("after docker stop the log does not say that no request was lost:\n%s", log)
	}
}
