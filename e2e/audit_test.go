package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// report is what the tests need of imagelab --audit --format json.
type report struct {
	Checks []struct {
		ID, Status, Evidence, Reason string
	}
	Summary map[string]int
	Facts   struct {
		Image struct{ Bytes, Files int64 }
	}
}

// verdicts are the statuses by check.
func (r report) verdicts() map[string]string {
	v := map[string]string{}
	for _, c := range r.Checks {
		v[c.ID] = c.Status
	}
	return v
}

func (r report) why(id string) string {
	for _, c := range r.Checks {
		if c.ID == id {
			return c.Evidence + c.Reason
		}
	}
	return ""
}

// The options of a hardened container, by what they are for. A configuration of
// the matrix differs from it in one of them.
var hardenedAudit = map[string][]string{
	"user":     {"--user", "65532:65532"},
	"root":     {"--read-only"},
	"tmpfs":    {"--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev"},
	"caps":     {"--cap-drop", "ALL"},
	"nnp":      {"--security-opt", "no-new-privileges:true"},
	"cgroupns": {"--cgroupns", "private"},
	"memory":   {"--memory", "64m"},
	"cpu":      {"--cpus", "1"},
	"pids":     {"--pids-limit", "64"},
	"ulimits":  {"--ulimit", "core=0:0", "--ulimit", "nofile=8192:8192"},
}

// auditNetwork makes the network that the containers of the matrix are in, as
// Compose makes one for its services.
func auditNetwork(t *testing.T) string {
	t.Helper()
	name := newName()
	docker(t, "network", "create", "--label", label(), name)
	t.Cleanup(func() { docker(t, "network", "rm", name) })
	return name
}

// posture is one configuration: what differs from the hardened one, and which
// verdicts have to differ for it, and no others.
type posture struct {
	name    string
	image   string              // default imagelab:scratch
	replace map[string][]string // of hardenedAudit; an empty list leaves the option out
	options []string            // added
	command []string            // after the image
	exec    []string            // options of docker exec
	want    map[string]string   // verdicts that differ from the hardened container's
	open    []string            // checks of which the machine decides, and not the flags
}

// audit runs a container as the posture says, audits it by docker exec, as the
// container's own user unless exec says otherwise, and removes it.
func (p posture) audit(t *testing.T, network string) report {
	t.Helper()
	name := newName()
	given := maps.Clone(hardenedAudit)
	given["network"] = []string{"--network", network}
	maps.Copy(given, p.replace)
	args := []string{"run", "-d", "--name", name, "--label", label(), "--no-healthcheck"}
	for _, what := range slices.Sorted(maps.Keys(given)) {
		args = append(args, given[what]...)
	}
	args = append(append(args, p.options...), orScratch(p.image))
	t.Cleanup(func() { docker(t, "rm", "-f", "-v", name) })
	docker(t, append(args, p.command...)...)

	exec := append(append([]string{"exec"}, p.exec...), name, "/imagelab")
	if len(p.command) == 0 {
		eventually(t, "listening server", func() bool {
			_, _, code := try(t, append(exec, "--healthcheck")...) // follows PORT
			return code == 0
		})
	}
	stdout, stderr, code := try(t, append(exec, "--audit", "--format", "json")...)
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code > 1 {
		t.Fatalf("--audit = %d, %v\nstdout: %s\nstderr: %s", code, err, stdout, stderr)
	}
	if want := min(r.Summary["fail"], 1); code != want {
		t.Errorf("--audit = %d with %d failures, want %d", code, r.Summary["fail"], want)
	}
	return r
}

func orScratch(image string) string {
	if image == "" {
		return "imagelab:scratch"
	}
	return image
}

const (
	passes     = "pass"
	fails      = "fail"
	warns      = "warn"
	noQuestion = "not-applicable"
)

func TestHardenedContainerHasACleanReport(t *testing.T) {
	t.Parallel()
	needEngine(t)
	r := posture{}.audit(t, auditNetwork(t))
	for id, status := range r.verdicts() {
		want := passes
		switch {
		case id == "user-namespace": // the engine's setting
			want = warns
		case status == noQuestion:
			continue
		}
		if status != want {
			t.Errorf("%s = %s (%s), want %s", id, status, r.why(id), want)
		}
	}
}

func TestEachFlagFlipsItsChecks(t *testing.T) {
	t.Parallel()
	needEngine(t)
	network := auditNetwork(t)
	hardened := posture{}.audit(t, network).verdicts()
	allowAll := filepath.Join(t.TempDir(), "seccomp.json")
	if err := os.WriteFile(allowAll, []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	shared := t.TempDir()
	key := "-----BEGIN " + "PRIVATE KEY-----\n" + strings.Repeat("MC4CAQAwBQYDK2VwBCIEIJ", 4) + "\n"

	other := newName()
	t.Cleanup(func() {
		docker(t, "rm", "-f", "-v", other)
		_, _, _ = try(t, "volume", "rm", "-f", other)
	})
	docker(t, "run", "-d", "--name", other, "--label", label(), "--no-healthcheck", "--ipc", "shareable", "imagelab:scratch")
	config := filepath.Join(filepath.Dir(inspect[string](t, other, ".HostsPath")), "config.v2.json")
	secret := filepath.Join(shared, "key")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o644); err != nil {
		t.Fatal(err)
	}

	unconfined := []string{"--security-opt", "seccomp=unconfined"}
	withoutSandbox := []string{"-e", "IMAGELAB_SANDBOX=off"}
	postures := []posture{
		{name: "writable root", replace: map[string][]string{"root": nil}, want: map[string]string{"rootfs-read-only": fails}},
		{name: "root", replace: map[string][]string{"user": {"--user", "0:0"}}, want: map[string]string{"run-as-non-root": fails, "non-root-group": fails, "tmpfs-options": warns}},
		{name: "root's group", replace: map[string][]string{"user": {"--user", "65532:0"}}, want: map[string]string{"non-root-group": fails}},
		{name: "another user", replace: map[string][]string{"user": {"--user", "12345:12345"}}},
		{name: "NET_BIND_SERVICE", options: []string{"--cap-add", "NET_BIND_SERVICE"}},
		{name: "a default capability", options: []string{"--cap-add", "NET_RAW"}, want: map[string]string{"capabilities-dropped": fails}},
		{name: "the default capabilities", replace: map[string][]string{"caps": nil}, want: map[string]string{"capabilities-dropped": fails}},
		{name: "SYS_PTRACE", options: []string{"--cap-add", "SYS_PTRACE"}, want: map[string]string{"capabilities-dropped": fails, "capabilities-added": fails}},
		{name: "SYS_ADMIN", options: []string{"--cap-add", "SYS_ADMIN"}, want: map[string]string{
			"capabilities-dropped": fails, "capabilities-added": fails, "rootfs-read-only": warns}},
		// The server has a filter and no_new_privs of its own, which the auditor has not.
		{name: "privileged", replace: map[string][]string{"caps": nil}, options: []string{"--privileged"}, want: map[string]string{
			"capabilities-dropped": fails, "capabilities-added": fails, "not-privileged": fails, "seccomp-filter": fails,
			"rootfs-read-only": warns, "proc-paths-masked": fails, "sysfs-read-only": fails, "device-nodes": fails}},
		{name: "no seccomp", options: unconfined, want: map[string]string{"seccomp-filter": fails}},
		{name: "no seccomp, and a program without a filter", options: slices.Concat(unconfined, withoutSandbox), want: map[string]string{"seccomp-filter": fails}},
		{name: "no seccomp, behind an init", options: append([]string{"--init"}, unconfined...), want: map[string]string{"seccomp-filter": fails}},
		{name: "no seccomp, in another container's pid namespace", options: append([]string{"--pid", "container:" + other}, unconfined...),
			want: map[string]string{"seccomp-filter": fails, "pid-namespace": warns, "zombie-reaping": noQuestion}},
		{name: "a seccomp profile that allows everything", options: []string{"--security-opt", "seccomp=" + allowAll}, want: map[string]string{"seccomp-filter": warns}},
		{name: "new privileges, but not for the server", replace: map[string][]string{"nnp": nil}, want: map[string]string{"no-new-privileges": warns}},
		{name: "new privileges", replace: map[string][]string{"nnp": nil}, options: withoutSandbox, want: map[string]string{"no-new-privileges": fails}},
		{name: "pid namespace of the host", options: []string{"--pid", "host"}, want: map[string]string{
			"pid-namespace": fails, "pid1-sigterm": noQuestion, "pid1-not-shell": noQuestion, "zombie-reaping": noQuestion,
			"sshd-absent": noQuestion, "exec-not-elevated": noQuestion, "app-binary-immutable": noQuestion}},
		{name: "network namespace of the host", replace: map[string][]string{"network": {"--network", "host"}},
			options: []string{"-e", "PORT=" + freePort(t), "-e", "IMAGELAB_OPS_ADDR=127.0.0.1:0"},
			want:    map[string]string{"network-namespace": fails, "listening-ports": noQuestion, "default-bridge-network": noQuestion}},
		{name: "ipc namespace of the host", options: []string{"--ipc", "host"}, want: map[string]string{"ipc-namespace": fails, "tmpfs-options": fails}},
		{name: "uts namespace of the host", options: []string{"--uts", "host"}, want: map[string]string{"uts-namespace": fails}},
		{name: "cgroup namespace of the host", replace: map[string][]string{"cgroupns": {"--cgroupns", "host"}}, want: map[string]string{
			"cgroup-namespace": warns, "cgroup-parent": passes}},
		{name: "a cgroup parent", replace: map[string][]string{"cgroupns": {"--cgroupns", "host", "--cgroup-parent", "/e2e"}}, want: map[string]string{
			"cgroup-namespace": warns, "cgroup-parent": warns}},
		{name: "docker.sock, read-only", options: []string{"-v", "/var/run/docker.sock:/var/run/docker.sock:ro"}, want: map[string]string{"runtime-socket": fails}},
		{name: "docker.sock under another name", options: []string{"-v", "/var/run/docker.sock:/some/where:ro"}, want: map[string]string{"runtime-socket": fails}},
		{name: "a host directory, read-only", options: []string{"-v", "/etc:/host/etc:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "a host directory", options: []string{"-v", "/etc:/host/etc"}, want: map[string]string{"sensitive-host-mounts": fails, "writable-mounts": warns}},
		{name: "a directory of a user, read-only", options: []string{"-v", shared + ":/data:ro"}, want: map[string]string{"sensitive-host-mounts": warns}},
		{name: "a volume", options: []string{"-v", "/data"}, want: map[string]string{"writable-mounts": warns}},
		{name: "no memory limit", replace: map[string][]string{"memory": nil}, want: map[string]string{"memory-limit": fails}},
		{name: "a memory reservation alone", replace: map[string][]string{"memory": {"--memory-reservation", "64m"}}, want: map[string]string{"memory-limit": fails}},
		{name: "no cpu limit", replace: map[string][]string{"cpu": nil}, want: map[string]string{"cpu-limit": fails}},
		{name: "cpu shares alone", replace: map[string][]string{"cpu": {"--cpu-shares", "512"}}, want: map[string]string{"cpu-limit": warns}},
		{name: "no pids limit", replace: map[string][]string{"pids": {"--pids-limit", "-1"}}, want: map[string]string{"pids-limit": fails}},
		{name: "tmpfs with exec", replace: map[string][]string{"tmpfs": {"--tmpfs", "/tmp:size=16m,mode=1777,exec,nosuid,nodev"}}, want: map[string]string{"tmpfs-options": fails}},
		{name: "tmpfs without a size", replace: map[string][]string{"tmpfs": {"--tmpfs", "/tmp:mode=1777,noexec,nosuid,nodev"}}, want: map[string]string{"tmpfs-size": warns}},
		{name: "tmpfs of size 0, which is no limit", replace: map[string][]string{"tmpfs": {"--tmpfs", "/tmp:size=0,mode=1777,noexec,nosuid,nodev"}}, want: map[string]string{"tmpfs-size": warns}},
		{name: "core dumps", replace: map[string][]string{"ulimits": {"--ulimit", "core=-1:-1", "--ulimit", "nofile=8192:8192"}}, want: map[string]string{"ulimits": warns}},
		{name: "unmasked paths", options: []string{"--security-opt", "systempaths=unconfined"}, want: map[string]string{"proc-paths-masked": fails}},
		{name: "a device", options: []string{"--device", "/dev/kmsg:/dev/kmsg:r"}, want: map[string]string{"device-nodes": fails}},
		{name: "a secret in the environment", options: []string{"-e", "DB_PASSWORD=correct horse"}, want: map[string]string{"secrets-in-env": fails}},
		{name: "names that look like secrets", options: []string{"-e", "DB_PASSWORD_FILE=/run/x", "-e", "TOKENIZERS_PARALLELISM=false", "-e", "LAB_TOKEN=t-1"}},
		{name: "a port below 1024", options: []string{"-e", "PORT=80"}, want: map[string]string{"listening-ports": warns}},
		{name: "the default bridge", replace: map[string][]string{"network": nil}, want: map[string]string{"default-bridge-network": warns}},
		{name: "an init in front", options: []string{"--init"}, want: map[string]string{"app-binary-immutable": passes}},
		{name: "exec as root", exec: []string{"-u", "0"}, want: map[string]string{"exec-not-elevated": warns, "app-binary-immutable": passes}},
		{name: "a private key in the image", image: layered(t, added{"etc/tls.key", 0o644, key}), want: map[string]string{"secrets-in-files": fails}},
		{name: "a certificate in the image", image: layered(t, added{"etc/tls.pem", 0o644, "-----BEGIN CERTIFICATE-----\nMIIB\n"})},
		{name: "a setuid file", image: layered(t, added{"su", 0o4755, "#!/none\n"}), want: map[string]string{"setuid-files": warns}}, // no_new_privs blunts it
		{name: "a file that everybody may write", image: layered(t, added{"etc/motd", 0o666, "hello\n"}), want: map[string]string{"world-writable-paths": warns}},
		{name: "a shell", image: layered(t, added{"bin/sh", 0o755, "#!/none\n"}), want: map[string]string{"shell-absent": fails}},
		{name: "a package manager, an interpreter and a client", image: layered(t, added{"bin/apk", 0o755, "#!/none\n"}, added{"bin/python3.12", 0o755, "#!/none\n"}, added{"bin/curl", 0o755, "#!/none\n"}),
			want: map[string]string{"package-manager-absent": fails, "interpreter-absent": warns, "network-client-absent": fails}},
		{name: "a shell that ignores SIGTERM", image: "imagelab:alpine", options: []string{"--entrypoint", "/bin/sh"},
			command: []string{"-c", "trap '' TERM; while :; do sleep 1; done"}, want: map[string]string{"pid1-sigterm": fails, "pid1-not-shell": fails}},
		// Namespaces of another container.
		{name: "pid namespace of another container", options: []string{"--pid", "container:" + other}, want: map[string]string{
			"pid-namespace": warns, "zombie-reaping": noQuestion}},
		{name: "ipc namespace of another container", options: []string{"--ipc", "container:" + other}, want: map[string]string{"ipc-namespace": warns}},
		{name: "ipc namespace that others may join", options: []string{"--ipc", "shareable"}, want: map[string]string{"ipc-namespace": warns}},
		{name: "ipc namespace of its own, asked for", options: []string{"--ipc", "private"}},
		{name: "user namespace of the host, asked for", options: []string{"--userns", "host"}},
		{name: "no network", replace: map[string][]string{"network": {"--network", "none"}}, want: map[string]string{"default-bridge-network": noQuestion}},

		// Seccomp profiles.
		{name: "a profile that refuses keyctl alone", options: []string{"--security-opt", "seccomp=" + profile(t, "keyctl")}, want: map[string]string{"seccomp-filter": warns}},
		{name: "a profile that refuses two calls", options: []string{"--security-opt", "seccomp=" + profile(t, "keyctl", "swapon")}, want: map[string]string{"seccomp-filter": warns}},
		{name: "a profile that refuses what is dangerous but keyctl", options: []string{"--security-opt", "seccomp=" + profile(t, dangerous...)}},

		// Users and capabilities.
		{name: "root with another group", replace: map[string][]string{"user": {"--user", "0:65532"}}, want: map[string]string{"run-as-non-root": fails, "tmpfs-options": warns}},
		{name: "a user without a group", replace: map[string][]string{"user": {"--user", "65532"}}, open: []string{"non-root-group"}},
		{name: "group 0 as a supplementary one", options: []string{"--group-add", "0"}, want: map[string]string{"non-root-group": fails}},
		{name: "NET_ADMIN", options: []string{"--cap-add", "NET_ADMIN"}, want: map[string]string{"capabilities-dropped": fails, "capabilities-added": fails}},
		{name: "DAC_READ_SEARCH", options: []string{"--cap-add", "DAC_READ_SEARCH"}, want: map[string]string{"capabilities-dropped": fails, "capabilities-added": fails}},
		{name: "SYS_MODULE", options: []string{"--cap-add", "SYS_MODULE"}, want: map[string]string{"capabilities-dropped": fails, "capabilities-added": fails}},
		{name: "SYS_TIME, with which the profile allows the clock", options: []string{"--cap-add", "SYS_TIME"}, want: map[string]string{"capabilities-dropped": fails, "capabilities-added": fails}},
		{name: "SETUID", options: []string{"--cap-add", "SETUID"}, want: map[string]string{"capabilities-dropped": fails}},
		{name: "exec as root beside what may have dropped its user", replace: map[string][]string{"caps": nil}, exec: []string{"-u", "0"},
			want: map[string]string{"capabilities-dropped": fails}},

		// Mounts of the host.
		{name: "a file of /etc, read-only", options: []string{"-v", "/etc/shadow:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "the home of root, read-only", options: []string{"-v", "/root:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "a folder below /etc", options: []string{"-v", "/etc/cron.d:/x"}, want: map[string]string{"sensitive-host-mounts": fails, "writable-mounts": warns}},
		{name: "the engine's containers, read-only", options: []string{"-v", "/var/lib/docker/containers:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}, open: []string{"writable-mounts", "tmpfs-options", "tmpfs-size"}},
		{name: "/etc where secrets are", options: []string{"-v", "/etc:/run/secrets/etc:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "a part of /sys in its own place", options: []string{"-v", "/sys/kernel:/sys/kernel:ro"}, want: map[string]string{"sensitive-host-mounts": fails}, open: []string{"sysfs-read-only"}},
		{name: "a part of /proc/sys", options: []string{"-v", "/proc/sys/kernel:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "the host's /etc/hosts, read-only", options: []string{"-v", "/etc/hosts:/etc/hosts:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "the host's /etc/hosts", options: []string{"-v", "/etc/hosts:/etc/hosts"}, want: map[string]string{"sensitive-host-mounts": fails, "writable-mounts": warns}},
		{name: "the host's shared memory", options: []string{"-v", "/dev/shm:/dev/shm"}, want: map[string]string{
			"sensitive-host-mounts": warns, "writable-mounts": warns, "tmpfs-options": fails, "tmpfs-size": warns}},
		{name: "the variables of another container", options: []string{"-v", config + ":/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "a file of /etc where Docker puts its init", options: []string{"-v", "/etc/shadow:/sbin/docker-init:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "a volume that is a folder of the host", options: []string{"--mount", "type=volume,src=" + other + ",dst=/x,readonly,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/etc"},
			want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "the time zone", options: []string{"-v", "/etc/timezone:/etc/timezone:ro"}, want: map[string]string{"sensitive-host-mounts": warns}},
		{name: "the certificates that the host trusts", options: []string{"-v", "/etc/ssl/certs:/etc/ssl/certs:ro"}, want: map[string]string{"sensitive-host-mounts": warns}},
		{name: "the units of the host", options: []string{"-v", "/usr/lib/systemd:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "all cgroups, read-only", options: []string{"-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"}, want: map[string]string{"sensitive-host-mounts": fails},
			open: []string{"sysfs-read-only", "memory-limit", "cpu-limit", "pids-limit"}},
		{name: "the host's message queues", options: []string{"-v", "/dev/mqueue:/dev/mqueue"}, want: map[string]string{"ipc-namespace": warns}},
		{name: "the host's terminals", options: []string{"-v", "/dev/pts:/terminals:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "/boot, read-only", options: []string{"-v", "/boot:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "/usr/bin, read-only", options: []string{"-v", "/usr/bin:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "/home, read-only", options: []string{"-v", "/home:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "/var/log, read-only", options: []string{"-v", "/var/log:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "/proc, read-only", options: []string{"-v", "/proc:/x:ro"}, want: map[string]string{"sensitive-host-mounts": fails}},
		{name: "a secret as compose mounts it", options: []string{"-v", secret + ":/run/secrets/key:ro"}},
		{name: "a file of a user, read-only", options: []string{"-v", secret + ":/key:ro"}, want: map[string]string{"sensitive-host-mounts": warns}},
		{name: "a second tmpfs", options: []string{"--tmpfs", "/cache:size=1m,noexec,nosuid,nodev"}},
		{name: "a second tmpfs with suid", options: []string{"--tmpfs", "/cache:size=1m,noexec,suid,nodev"}, want: map[string]string{"tmpfs-options": fails}},
		{name: "a tmpfs above the memory limit", replace: map[string][]string{"tmpfs": {"--tmpfs", "/tmp:size=100g,mode=1777,noexec,nosuid,nodev"}}, want: map[string]string{"tmpfs-size": warns}},

		// Devices anywhere.
		{name: "a disk elsewhere", options: []string{"--device", "/dev/loop0:/opt/disk"}, want: map[string]string{"device-nodes": fails}},
		{name: "a disk by a mount", options: []string{"-v", "/dev/loop0:/disk:ro"}, want: map[string]string{"device-nodes": fails}},
		{name: "a disk by a mount in /dev", options: []string{"-v", "/dev/loop0:/dev/disk:ro"}, want: map[string]string{"device-nodes": fails}},
		{name: "null by a mount in /dev", options: []string{"-v", "/dev/null:/dev/nix"}},
		{name: "the kernel's log by a mount", options: []string{"-v", "/dev/kmsg:/log:ro"}, want: map[string]string{"device-nodes": fails}},
		{name: "disks that it may make", replace: map[string][]string{"caps": nil}, options: []string{"--device-cgroup-rule", "b *:* rwm"},
			want: map[string]string{"capabilities-dropped": fails, "device-nodes": deviceRules(t)}},
		{name: "null under another name", options: []string{"--device", "/dev/null:/dev/xnull"}},
		{name: "null by a mount", options: []string{"-v", "/dev/null:/x"}, open: []string{"writable-mounts"}},

		// Limits that limit nothing.
		{name: "more processes than the kernel has", replace: map[string][]string{"pids": {"--pids-limit", "4194304"}}, want: map[string]string{"pids-limit": warns}},
		{name: "one of several processors", replace: map[string][]string{"cpu": {"--cpuset-cpus", "0"}}, open: oneProcessor()},
		{name: "more processors than there are", replace: map[string][]string{"cpu": {"--cpu-period", "100000", "--cpu-quota", "100000000"}}, want: map[string]string{"cpu-limit": warns}},
		{name: "more memory than there is", replace: map[string][]string{"memory": {"--memory", "64t"}}, want: map[string]string{"memory-limit": warns}},
		{name: "core dumps of a byte", replace: map[string][]string{"ulimits": {"--ulimit", "core=1:1", "--ulimit", "nofile=8192:8192"}}, want: map[string]string{"ulimits": warns}},
		{name: "https", options: []string{"-e", "PORT=443"}, want: map[string]string{"listening-ports": warns}},

		// The image.
		{name: "settings without a secret", image: layered(t, added{"app/.env", 0o644, "PORT=8000\nTOKEN_TTL=60\n"})},
		{name: "settings with a secret", image: layered(t, added{"app/.env", 0o644, "PORT=8000\nDB_PASS=hunter2\n"}), want: map[string]string{"secrets-in-files": fails}},
		{name: "settings of an example", image: layered(t, added{"app/.env.defaults", 0o644, "DB_PASS=hunter2\n"})},
		{name: "a locale called id_ID", image: layered(t, added{"usr/share/i18n/locales/id_ID", 0o644, "LC_IDENTIFICATION\n"})},
		{name: "an ssh key", image: layered(t, added{"home/a/.ssh/id_ed25519", 0o644, "unreadable form\n"}), want: map[string]string{"secrets-in-files": fails}},
		{name: "a token of a provider", image: layered(t, added{"app/conf.txt", 0o644, "key = ghp_" + strings.Repeat("a1", 18) + "\n"}), want: map[string]string{"secrets-in-files": fails}},
		{name: "setuid that nobody may execute", image: layered(t, added{"su", 0o4644, "#!/none\n"})},
		{name: "setgid", image: layered(t, added{"su", 0o2755, "#!/none\n"}), want: map[string]string{"setuid-files": warns}},
		{name: "an interpreter", image: layered(t, added{"usr/bin/perl", 0o755, "#!/none\n"}), want: map[string]string{"interpreter-absent": warns}},
	}
	for variable, secret := range environments {
		p := posture{name: "variable " + variable, options: []string{"-e", variable}}
		if secret {
			p.want = map[string]string{"secrets-in-env": fails}
		}
		postures = append(postures, p)
	}
	var right, wrong atomic.Int64
	t.Cleanup(func() {
		t.Logf("%d configurations: %d verdicts right, %d wrong", len(postures), right.Load(), wrong.Load())
	})
	for _, p := range postures {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			r := p.audit(t, network)
			want := maps.Clone(hardened)
			maps.Copy(want, p.want)
			n := 0
			for id, status := range r.verdicts() {
				if p.image == "imagelab:alpine" && p.want[id] == "" || slices.Contains(p.open, id) {
					continue // that image's own contents are another test's
				}
				n++
				right.Add(1)
				if status != want[id] {
					right.Add(-1)
					wrong.Add(1)
					t.Errorf("%s = %s (%s), want %s", id, status, r.why(id), want[id])
				}
			}
			t.Logf("%d verdicts: %s", n, p.name)
		})
	}
}

// oneProcessor leaves the limit open where there is no second one.
func oneProcessor() []string {
	if runtime.NumCPU() > 1 {
		return nil
	}
	return []string{"cpu-limit"}
}

// deviceRules is what becomes of rules for devices: only version 1 of cgroups shows them.
func deviceRules(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/devices"); err != nil {
		return passes
	}
	return fails
}

// environments are variables, and whether each is a secret.
var environments = map[string]bool{
	"DB_PASS=hunter2": true, "MYSQL_PWD=hunter2": true, "RAILS_MASTER_KEY=0123456789abcdef": true, "ENCRYPTION_KEY=abc": true,
	"A=sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc": true, "POSTGRES_PASSWORD=12345678": true, "API_KEY=/q7s8/x": true,
	"CONN=Server=db;User Id=sa;Password=hunter2": true, "REDIS=redis://:hunter2@db/0": true,
	"TOKENIZER=bpe": false, "TOKEN_URL=https://id.example/": false, "TOKEN_TTL=60": false, "SECRET_NAME=db": false, "PASSWORD_POLICY=strict": false,
	"SECRETS_BACKEND=vault": false, "AWS_CREDENTIALS_PROVIDER=env": false, "COMPASS=north": false,
}

// dangerous are the calls that Docker's documentation gives reasons to refuse, less
// keyctl.
var dangerous = []string{
	"acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module", "finit_module", "get_mempolicy", "init_module",
	"ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "lookup_dcookie", "mbind", "mount", "move_pages", "nfsservctl", "open_by_handle_at",
	"perf_event_open", "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "reboot", "request_key", "set_mempolicy", "setns",
	"settimeofday", "swapon", "swapoff", "sysfs", "umount2", "unshare", "uselib", "userfaultfd", "ustat",
}

// profile writes a seccomp profile that refuses these calls and allows all others.
func profile(t *testing.T, calls ...string) string {
	t.Helper()
	list, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "profile.json")
	text := fmt.Sprintf(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":%s,"action":"SCMP_ACT_ERRNO"}]}`, list)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// added is one file of a layer.
type added struct {
	name    string
	mode    int64
	content string
}

// layered makes an image of imagelab:scratch and files on top.
func layered(t *testing.T, files ...added) string {
	t.Helper()
	return layeredOn(t, "imagelab:scratch", files...)
}

func layeredOn(t *testing.T, base string, files ...added) string {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name, image := newName(), newName()
	docker(t, "create", "--name", name, "--label", label(), base)
	defer docker(t, "rm", name)
	cp := exec.Command("docker", "cp", "-", name+":/")
	cp.Stdin = &layer
	if _, stderr, err := execute(t, cp); err != nil {
		t.Fatalf("docker cp: %v\n%s", err, stderr)
	}
	t.Cleanup(func() { docker(t, "image", "rm", "-f", image) })
	docker(t, "commit", "--change", "LABEL "+label(), name, image)
	return image
}

// imagelabOf is the binary of the image, to be mounted into others.
func imagelabOf(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "imagelab")
	if err := os.WriteFile(binary, saved(t, imageOf("scratch")).files["imagelab"].content, 0o755); err != nil {
		t.Fatal(err)
	}
	return binary
}

func TestAuditInForeignImages(t *testing.T) {
	t.Parallel()
	needEngine(t)
	binary := imagelabOf(t)
	empty := newName()
	t.Cleanup(func() { docker(t, "image", "rm", "-f", empty) })
	importEmpty(t, empty)
	for _, tc := range []struct {
		image string
		want  map[string]string
	}{
		{empty, map[string]string{"shell-absent": passes, "package-manager-absent": passes, "executable-count": passes, "run-as-non-root": passes}},
		{"imagelab:alpine", map[string]string{"shell-absent": fails, "network-client-absent": fails}},
	} {
		for _, user := range []string{"65532:65532", "0:0", "4711:4711"} {
			stdout, stderr, code := try(t, "run", "--rm", "--label", label(), "--user", user, "--read-only", "--cap-drop", "ALL",
				"-v", binary+":/audit:ro", "--entrypoint", "/audit", tc.image, "--audit", "--format", "json")
			var r report
			if err := json.Unmarshal([]byte(stdout), &r); err != nil || code > 1 {
				t.Errorf("--audit in %s as %s = %d, %v, %s", tc.image, user, code, err, stderr)
				continue
			}
			want := maps.Clone(tc.want)
			want["pid1-sigterm"] = noQuestion // the auditor is PID 1
			if strings.HasPrefix(user, "0:") {
				want["run-as-non-root"] = fails
			}
			for id, status := range want {
				if got := r.verdicts()[id]; got != status {
					t.Errorf("%s in %s as %s = %s (%s), want %s", id, tc.image, user, got, r.why(id), status)
				}
			}
			if tc.image == empty && r.Facts.Image.Bytes > 1<<10 {
				t.Errorf("an empty image has %d bytes, want none but the engine's own", r.Facts.Image.Bytes)
			}
		}
	}
}

func TestServedReportIsTheContainersOwn(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", hardened...)
	eventually(t, "first audit", func() bool { return c.metric(t, `imagelab_audit_checks{verdict="pass"}`) != "" })
	resp, body := fetch(t, "GET", c.ops+"/audit", "")
	var r report
	if err := json.Unmarshal([]byte(body), &r); err != nil || resp.StatusCode != 200 {
		t.Fatalf("GET /audit = %d, %v", resp.StatusCode, err)
	}
	for id, want := range map[string]string{"rootfs-read-only": passes, "network-namespace": fails, "memory-limit": fails, "pid1-sigterm": passes} {
		if got := r.verdicts()[id]; got != want {
			t.Errorf("%s = %s (%s), want %s", id, got, r.why(id), want)
		}
		value := map[string]string{passes: "1", fails: "0"}[want]
		severity := map[string]string{"pid1-sigterm": "medium"}[id]
		if severity == "" {
			severity = "high"
		}
		if got := c.metric(t, fmt.Sprintf("imagelab_audit_check{id=%q,severity=%q}", id, severity)); got != value {
			t.Errorf("imagelab_audit_check of %s = %s, want %s", id, got, value)
		}
	}
}

// TestAuditOfADebianImage audits an image that is nobody's here: Debian's own
// bootstrap of its smallest system.
func TestAuditOfADebianImage(t *testing.T) {
	t.Parallel()
	needEngine(t)
	if _, err := exec.LookPath("debootstrap"); err != nil || os.Geteuid() != 0 {
		leaveOut(t, "a Debian root needs debootstrap, run by root")
	}
	dir := filepath.Join(t.TempDir(), "root")
	if stdout, stderr, err := execute(t, exec.Command("debootstrap", "--variant=minbase", "bookworm", dir)); err != nil {
		t.Fatalf("debootstrap: %v\n%s\n%s", err, stdout, stderr)
	}
	image := newName()
	pack := exec.Command("sh", "-c", `tar -C "$0" -c . | docker import -c "LABEL $1" - "$2"`, dir, label(), image)
	t.Cleanup(func() { docker(t, "image", "rm", "-f", image) })
	if _, stderr, err := execute(t, pack); err != nil {
		t.Fatalf("docker import: %v\n%s", err, stderr)
	}
	binary := imagelabOf(t)
	stdout, stderr, code := try(t, "run", "--rm", "--label", label(), "--memory", "32m", "--memory-swap", "32m",
		"-v", binary+":/audit:ro", "--entrypoint", "/audit", image, "--audit", "--format", "json")
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 1 {
		t.Fatalf("--audit = %d, %v, %s; want 1 and a report within 32 MiB", code, err, stderr)
	}
	for id, want := range map[string]string{
		"run-as-non-root": fails, "rootfs-read-only": fails, "no-new-privileges": fails, "capabilities-dropped": fails,
		"setuid-files": fails, "shell-absent": fails, "package-manager-absent": fails, "interpreter-absent": warns,
		"executable-count": fails, "memory-limit": passes, "secrets-in-files": passes, "not-privileged": passes,
	} {
		if got := r.verdicts()[id]; got != want {
			t.Errorf("%s = %s (%s), want %s", id, got, r.why(id), want)
		}
	}
	if r.Facts.Image.Files < 1000 {
		t.Errorf("files = %d, want thousands", r.Facts.Image.Files)
	}
}
