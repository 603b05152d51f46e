package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// freeAddress is one of this machine that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// startNginx starts an nginx with its defaults, options aside, that passes requests on to
// each of the servers, and returns the addresses by the same names.
func startNginx(t *testing.T, servers map[string]string, options string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() == 0 { // for nginx's workers
		_ = os.Chmod(dir, 0o777)
		_ = os.Chmod(filepath.Dir(dir), 0o777)
	}
	front, blocks := map[string]string{}, ""
	for name, addr := range servers {
		front[name] = freeAddress(t)
		blocks += fmt.Sprintf("server { listen %s; location / { proxy_pass http://%s; %s } }\n", front[name], addr, options)
	}
	config := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log %[1]s/error.log; events {}
http { access_log off; client_max_body_size 0;
client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%[2]s}`, dir, blocks)
	startProxy(t, dir, config, "nginx", "-c", filepath.Join(dir, "config"))
	awaitListening(t, front)
	return front
}

// startHaproxy is startNginx with haproxy.
func startHaproxy(t *testing.T, servers map[string]string) map[string]string {
	t.Helper()
	front, blocks := map[string]string{}, ""
	for name, addr := range servers {
		front[name] = freeAddress(t)
		blocks += fmt.Sprintf("listen %s\n\tbind %s\n\tserver s %s\n", name, front[name], addr)
	}
	dir := t.TempDir()
	config := "defaults\n\tmode http\n\ttimeout connect 5s\n\ttimeout client 60s\n\ttimeout server 60s\n" + blocks
	startProxy(t, dir, config, "haproxy", "-db", "-f", filepath.Join(dir, "config"))
	awaitListening(t, front)
	return front
}

func startProxy(t *testing.T, dir, config string, argv ...string) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("no %s: apt-get install it", argv[0])
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		overdue := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		overdue.Stop()
		if t.Failed() {
			errors, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("%s said:\n%s%s", argv[0], log, errors)
		}
	})
}

func awaitListening(t *testing.T, addresses map[string]string) {
	t.Helper()
	for _, addr := range addresses {
		eventually(t, "listener at "+addr, func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
}
