// Package audit finds out from inside how well a container is hardened: one
// verdict per check, and facts about image, process and limits beside them.
//
// It needs no privilege, changes nothing and opens nothing for writing. All it
// knows comes from a [System], the root file system and a few functions for what
// files cannot say; [Live] makes the one of the running process, tests make
// theirs of recorded trees. [Run] makes a [Report] of it, [WriteText],
// [WriteJSON] and [WriteMarkdown] print that.
//
// What could not be read is never a pass: the verdict is then [Unknown] and
// says why. No report holds the content of a file that may be a secret or the
// value of an environment variable.
package audit

//go:generate go test . -run TestDocsAreCurrent|TestText -update

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"imagelab/internal/near"
)

// A Check is one question about the container.
type Check struct {
	ID         string   // stable name such as "rootfs-read-only"
	Title      string   // what holds when it passes
	Subject    Subject  // the group it belongs to
	Severity   Severity // of a failure
	Why        string   // what goes wrong without it
	Fix        Fix
	References []string // CIS Docker Benchmark and Pod Security Standards ids, man pages

	run   func(*container) verdict
	walks bool // it needs the walk over the root filesystem
}

// Fix is how to make a check pass, as text to copy. MOUNT, VARIABLE and PATH
// stand for the things that the check found; a [Result] has them filled in, all of
// them, quoted where their names ask for that. An empty field means that the
// platform has no setting for it.
type Fix struct {
	Docker     string `json:"docker"`     // docker run flag, or lines of a Dockerfile
	Compose    string `json:"compose"`    // line or lines of a service in compose.yaml
	Kubernetes string `json:"kubernetes"` // fields of a container or pod, in YAML
}

// fill puts the things in the places of MOUNT, PATH and VARIABLE. A line with
// one of these is there once for each thing, and lines of the same YAML key become
// one. NAME is followed by a number from the second thing on,
// so that no two volumes or secrets share one.
func (f Fix) fill(things []string) Fix {
	if len(things) == 0 {
		return f
	}
	each := func(text string, quote func(line, thing string) string) string {
		var lines []string
		for line := range strings.SplitSeq(text, "\n") {
			if !strings.Contains(line, "MOUNT") && !strings.Contains(line, "PATH") && !strings.Contains(line, "VARIABLE") {
				lines = append(lines, line)
				continue
			}
			for i, thing := range things {
				name := "NAME"
				if i > 0 {
					name = fmt.Sprintf("NAME%d", i+1)
				}
				pairs := []string{"NAME", name}
				switch {
				case !strings.HasPrefix(line, "#"):
					thing = quote(line, thing)
				case strings.Contains(line, "RUN "): // it is to be pasted elsewhere
					thing = forShell(line, thing)
				}
				if thing != "" {
					pairs = append(pairs, "MOUNT", thing, "PATH", thing, "VARIABLE", thing)
				}
				lines = append(lines, strings.NewReplacer(pairs...).Replace(line))
			}
		}
		return strings.Join(lines, "\n")
	}
	forCompose := func(line, thing string) string { return forYAML(line, strings.ReplaceAll(thing, "$", "$$")) }
	return Fix{
		Docker:     each(f.Docker, forShell),
		Compose:    mergeLines(each(f.Compose, forCompose)),
		Kubernetes: mergeLines(each(f.Kubernetes, forYAML)),
	}
}

// isPlain says whether the name means itself in a shell and in YAML. Names come from the container,
// and may be made for whoever pastes a fix.
func isPlain(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("/._-+@", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

// forShell quotes the name for a line of a shell or of a Dockerfile. A variable with such a name is not
// filled in.
func forShell(line, name string) string {
	switch {
	case isPlain(name):
		return name
	case strings.Contains(line, "VARIABLE"):
		return ""
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// forYAML quotes the name as what stands between double quotes, and adds these where the line has none.
// The characters that are taken for YAML's own when lines are joined are written as numbers.
func forYAML(line, name string) string {
	switch {
	case isPlain(name):
		return name
	case strings.Contains(line, "VARIABLE"):
		return ""
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\x22`, "#", `\x23`).Replace(name)
	if before, _, _ := strings.Cut(line, "MOUNT"); strings.Count(before, `"`)%2 == 1 {
		return quoted
	}
	return `"` + quoted + `"`
}

// Subject is the group of a check.
type Subject string

// The subjects, in the order of reports.
const (
	Process    Subject = "process"
	Namespaces Subject = "namespaces"
	Filesystem Subject = "filesystem"
	Mounts     Subject = "mounts"
	Limits     Subject = "limits"
	Signals    Subject = "signals"
	Network    Subject = "network"
	Secrets    Subject = "secrets"
	Contents   Subject = "contents"
)

// Status is a verdict.
type Status string

// The verdicts. Unknown means that it could not be read, NotApplicable that the
// question has no meaning here; both come with a reason.
const (
	Pass          Status = "pass"
	Fail          Status = "fail"
	Warn          Status = "warn"
	Unknown       Status = "unknown"
	NotApplicable Status = "not-applicable"
)

// Severity says how bad it is when a check fails.
type Severity int

// The severities, in rising order.
const (
	Info Severity = iota
	Low
	Medium
	High
	Critical
)

var severityNames = [...]string{"info", "low", "medium", "high", "critical"}

func (s Severity) String() string {
	if s < Info || s > Critical {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return severityNames[s]
}

// MarshalText writes the name of the severity.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name such as "high"; the error lists the names.
func (s *Severity) UnmarshalText(text []byte) error {
	i := slices.Index(severityNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("severity %q: want %s%s", text, strings.Join(severityNames[:], ", "), near.Hint(string(text), severityNames[:]))
	}
	*s = Severity(i)
	return nil
}

// Checks returns all checks, in the order of reports.
func Checks() []Check { return slices.Clone(checks) }

// Snippets that more than one check gives, so that following one fix never
// undoes another.
const (
	composeSecurityOpt = `security_opt: ["no-new-privileges:true"]`
	composeTmpfs       = `tmpfs: ["MOUNT:size=16m,mode=1777,noexec,nosuid,nodev"]`
	composeVolume      = `volumes: ["NAME:MOUNT:ro"]`
	composeUlimits     = `ulimits: {core: 0, nofile: 1024}`
	dockerTmpfs        = `--tmpfs MOUNT:size=16m,mode=1777,noexec,nosuid,nodev`
	dockerfileScratch  = "FROM scratch\nCOPY --from=build /app /app\nUSER 65532:65532\nENTRYPOINT [\"/app\"]"
	kubernetesSecrets  = "volumes: [{name: secrets, secret: {secretName: APP}}]\n" +
		"volumeMounts: [{name: secrets, mountPath: /secrets, readOnly: true}]"
)

// checks is the table of all checks. It is only read.
var checks = []Check{
	{
		ID: "run-as-non-root", Title: "The main process is not uid 0", Subject: Process, Severity: High,
		Why: "Root in the container is root on the host wherever no user namespace remaps it: a bug in the kernel, the runtime or a mount then gives away the host.",
		Fix: Fix{
			Docker:     `--user 65532:65532`,
			Compose:    `user: "65532:65532"`,
			Kubernetes: `securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532}`,
		},
		References: []string{"CIS Docker Benchmark 4.1", "Pod Security Standards, restricted: Running as Non-root user", "credentials(7)"},
		run:        runAsNonRoot,
	},
	{
		ID: "non-root-group", Title: "No root group, primary or supplementary", Subject: Process, Severity: Low,
		Why: "Files that only the root group may read or write stay open to the process. A user given without a group gets group 0.",
		Fix: Fix{
			Docker:     `--user 65532:65532`,
			Compose:    `user: "65532:65532"`,
			Kubernetes: `securityContext: {runAsUser: 65532, runAsGroup: 65532}  # and no 0 in supplementalGroups or fsGroup`,
		},
		References: []string{"credentials(7)"},
		run:        nonRootGroup,
	},
	{
		ID: "capabilities-dropped", Title: "All capabilities are dropped", Subject: Process, Severity: High,
		Why: "What is left in the bounding set comes back through any setuid file, even for a process that runs as another user. NET_BIND_SERVICE alone is accepted.",
		Fix: Fix{
			Docker:     `--cap-drop ALL`,
			Compose:    `cap_drop: [ALL]`,
			Kubernetes: `securityContext: {capabilities: {drop: [ALL], add: []}}`,
		},
		References: []string{"CIS Docker Benchmark 5.4", "Pod Security Standards, restricted: Capabilities", "capabilities(7)"},
		run:        capabilitiesDropped,
	},
	{
		ID: "capabilities-added", Title: "No capability beyond the engine's default", Subject: Process, Severity: Critical,
		Why: "Each one beyond the 14 that engines grant (SYS_ADMIN, SYS_PTRACE, NET_ADMIN, SYS_MODULE…) opens a known way to the host or to other containers.",
		Fix: Fix{
			Docker:     `--cap-drop ALL  # and no --cap-add`,
			Compose:    `cap_add: []`,
			Kubernetes: `securityContext: {capabilities: {drop: [ALL], add: []}}`,
		},
		References: []string{"CIS Docker Benchmark 5.4", "Pod Security Standards, baseline: Capabilities", "capabilities(7)"},
		run:        capabilitiesAdded,
	},
	{
		ID: "not-privileged", Title: "Not a privileged container", Subject: Process, Severity: Critical,
		Why: "A privileged container has all capabilities, all devices, no masks and no seccomp filter: it is the host's root in another directory.",
		Fix: Fix{
			Docker:     `--privileged=false`,
			Compose:    `privileged: false`,
			Kubernetes: `securityContext: {privileged: false}`,
		},
		References: []string{"CIS Docker Benchmark 5.5", "Pod Security Standards, baseline: Privileged Containers"},
		run:        notPrivileged,
	},
	{
		ID: "no-new-privileges", Title: "no_new_privs is set", Subject: Process, Severity: High,
		Why: "Without it any setuid file or file capability in the image lifts the process above its own user.",
		Fix: Fix{
			Docker:     `--security-opt no-new-privileges`,
			Compose:    composeSecurityOpt,
			Kubernetes: `securityContext: {allowPrivilegeEscalation: false}`,
		},
		References: []string{"CIS Docker Benchmark 5.26", "Pod Security Standards, restricted: Privilege Escalation", "PR_SET_NO_NEW_PRIVS(2const)"},
		run:        noNewPrivileges,
	},
	{
		ID: "seccomp-filter", Title: "A seccomp filter that filters", Subject: Process, Severity: High,
		Why: "The default profile keeps away the system calls in which most kernel bugs were found. A profile that allows everything counts as a filter for the kernel, so calls are tried that default profiles refuse, with arguments that no kernel accepts; more than half have to be refused.",
		Fix: Fix{
			Docker:     `--security-opt no-new-privileges  # and no other --security-opt seccomp=…`,
			Compose:    composeSecurityOpt + `  # and no item that begins with "seccomp"`,
			Kubernetes: `securityContext: {seccompProfile: {type: RuntimeDefault}}`,
		},
		References: []string{"CIS Docker Benchmark 5.22", "Pod Security Standards, baseline and restricted: Seccomp", "seccomp(2)", "proc_pid_status(5)"},
		run:        seccompFilter,
	},
	{
		ID: "lsm-confined", Title: "Confined by AppArmor or SELinux", Subject: Process, Severity: Medium,
		Why: "The profile still refuses mounts and writes to /proc and /sys when capabilities or masks fail.",
		Fix: Fix{
			Docker:     `--security-opt apparmor=docker-default`,
			Compose:    `security_opt: ["no-new-privileges:true", "apparmor=docker-default"]`,
			Kubernetes: `securityContext: {appArmorProfile: {type: RuntimeDefault}}  # and no seLinuxOptions`,
		},
		References: []string{"CIS Docker Benchmark 5.2", "CIS Docker Benchmark 5.3", "Pod Security Standards, baseline: AppArmor", "Pod Security Standards, baseline: SELinux"},
		run:        lsmConfined,
	},
	{
		ID: "exec-not-elevated", Title: "The auditor is not stronger than PID 1", Subject: Process, Severity: Low,
		Why: "What was started in the container beside its main process (docker exec, a debug container) holds more than the container itself was given, and undoes its hardening for as long as it runs.",
		Fix: Fix{
			Docker:     `docker exec CONTAINER …  # without --privileged and without -u 0`,
			Compose:    `# docker compose exec SERVICE …  (without --privileged and without -u 0)`,
			Kubernetes: `# kubectl debug --profile=restricted …`,
		},
		References: []string{"CIS Docker Benchmark 5.23", "CIS Docker Benchmark 5.24"},
		run:        execNotElevated,
	},

	{
		ID: "user-namespace", Title: "Root is remapped by a user namespace", Subject: Namespaces, Severity: Low,
		Why: "Without a remap uid 0 in the container is uid 0 on the host. It is the engine's setting, not the container's.",
		Fix: Fix{
			Docker:     `{"userns-remap": "default"}  # /etc/docker/daemon.json on the host, and no --userns host`,
			Compose:    `# /etc/docker/daemon.json on the host: {"userns-remap": "default"}, and no "userns_mode: host" here`,
			Kubernetes: `# hostUsers: false, a field of the pod, where the runtime of the nodes can (containerd 2.0, CRI-O 1.30)`,
		},
		References: []string{"CIS Docker Benchmark 5.31", "user_namespaces(7)"},
		run:        userNamespace,
	},
	{
		ID: "pid-namespace", Title: "Own pid namespace", Subject: Namespaces, Severity: Critical,
		Why: "In the host's namespace the container sees every process of the host and may signal or trace those of its uid.",
		Fix: Fix{
			Docker:     `# drop --pid host`,
			Compose:    `# delete the line "pid: host"`,
			Kubernetes: "hostPID: false  # field of the pod\nshareProcessNamespace: false  # field of the pod",
		},
		References: []string{"CIS Docker Benchmark 5.16", "Pod Security Standards, baseline: Host Namespaces", "pid_namespaces(7)"},
		run:        pidNamespace,
	},
	{
		ID: "network-namespace", Title: "Own network namespace", Subject: Namespaces, Severity: High,
		Why: "In the host's namespace the container reaches services that listen on the host's loopback, and opens ports of the host itself.",
		Fix: Fix{
			Docker:     `# drop --network host, publish what is needed: -p 127.0.0.1:8000:8000`,
			Compose:    `ports: ["127.0.0.1:8000:8000"]  # instead of the line "network_mode: host"`,
			Kubernetes: `hostNetwork: false  # field of the pod`,
		},
		References: []string{"CIS Docker Benchmark 5.10", "Pod Security Standards, baseline: Host Namespaces", "network_namespaces(7)"},
		run:        networkNamespace,
	},
	{
		ID: "ipc-namespace", Title: "Own IPC namespace", Subject: Namespaces, Severity: High,
		Why: "In the host's namespace the container shares the host's shared memory, semaphores and message queues.",
		Fix: Fix{
			Docker:     `--ipc private`,
			Compose:    `ipc: private`,
			Kubernetes: `hostIPC: false  # field of the pod`,
		},
		References: []string{"CIS Docker Benchmark 5.17", "Pod Security Standards, baseline: Host Namespaces", "ipc_namespaces(7)"},
		run:        ipcNamespace,
	},
	{
		ID: "uts-namespace", Title: "Own UTS namespace", Subject: Namespaces, Severity: Medium,
		Why: "In the host's namespace the container can, with the capability, rename the host.",
		Fix: Fix{
			Docker:  `# drop --uts host`,
			Compose: `# delete the line "uts: host"`,
		},
		References: []string{"CIS Docker Benchmark 5.21", "uts_namespaces(7)"},
		run:        utsNamespace,
	},
	{
		ID: "cgroup-namespace", Title: "Own cgroup namespace", Subject: Namespaces, Severity: Low,
		Why: "In the host's namespace the container sees where in the host's tree it sits. It is the default of engines on cgroup v1.",
		Fix: Fix{
			Docker:     `--cgroupns private`,
			Compose:    `cgroup: private`,
			Kubernetes: `# no field: the runtime gives each pod its own on cgroup v2 nodes`,
		},
		References: []string{"cgroup_namespaces(7)"},
		run:        cgroupNamespace,
	},

	{
		ID: "rootfs-read-only", Title: "The root filesystem is read-only", Subject: Filesystem, Severity: High,
		Why: "Whoever gets to run code can otherwise replace the program, add tools and stay after a restart of the process. With SYS_ADMIN it can be remounted.",
		Fix: Fix{
			Docker:     `--read-only --tmpfs /tmp:size=16m,mode=1777,noexec,nosuid,nodev`,
			Compose:    "read_only: true\ntmpfs: [\"/tmp:size=16m,mode=1777,noexec,nosuid,nodev\"]",
			Kubernetes: `securityContext: {readOnlyRootFilesystem: true}`,
		},
		References: []string{"CIS Docker Benchmark 5.13", "proc_pid_mountinfo(5)"},
		run:        rootfsReadOnly,
	},
	{
		ID: "world-writable-paths", Title: "Nothing that everyone may write, except sticky directories", Subject: Filesystem, Severity: Low,
		Why: "Any process in the container, whatever its uid, can change such a file, or replace what is in such a directory.",
		Fix: Fix{
			Docker:     "RUN chmod o-w PATH\n# a shared temporary directory: chmod 1777",
			Kubernetes: "# in the Dockerfile: RUN chmod o-w PATH",
		},
		References: []string{"inode(7)"},
		run:        worldWritablePaths,
		walks:      true,
	},
	{
		ID: "setuid-files", Title: "No setuid or setgid executables", Subject: Filesystem, Severity: Medium,
		Why: "Each one runs with more than its caller has, and many had bugs. no_new_privs takes the effect away, which makes this a warning.",
		Fix: Fix{
			Docker:     "RUN chmod a-s PATH\n# all of them: RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +",
			Compose:    composeSecurityOpt,
			Kubernetes: `securityContext: {allowPrivilegeEscalation: false}`,
		},
		References: []string{"CIS Docker Benchmark 4.8", "Pod Security Standards, restricted: Privilege Escalation", "inode(7)"},
		run:        setuidFiles,
		walks:      true,
	},
	{
		ID: "file-capabilities", Title: "No executable with file capabilities", Subject: Filesystem, Severity: Medium,
		Why: "A file capability raises whoever runs the file, as the setuid bit does, and is not seen in ls -l.",
		Fix: Fix{
			Docker:     `RUN setcap -r PATH`,
			Compose:    composeSecurityOpt,
			Kubernetes: `securityContext: {allowPrivilegeEscalation: false}`,
		},
		References: []string{"CIS Docker Benchmark 4.8", "Pod Security Standards, restricted: Privilege Escalation", "capabilities(7), File capabilities"},
		run:        fileCapabilities,
		walks:      true,
	},
	{
		ID: "app-binary-immutable", Title: "The main process cannot write its own program", Subject: Filesystem, Severity: Medium,
		Why: "A program that can be overwritten by the process that runs it turns one exploited request into a lasting one.",
		Fix: Fix{
			Docker:     "COPY --chown=0:0 --chmod=0755 app PATH\nUSER 65532:65532",
			Compose:    "read_only: true\nuser: \"65532:65532\"",
			Kubernetes: `securityContext: {readOnlyRootFilesystem: true, runAsNonRoot: true, runAsUser: 65532}`,
		},
		References: []string{"proc_pid_exe(5)"},
		run:        appBinaryImmutable,
	},

	{
		ID: "writable-mounts", Title: "No writable mount that outlives the container", Subject: Mounts, Severity: Medium,
		Why: "What is written there survives the container, and may be read or run by others. A program that needs one has to accept this warning.",
		Fix: Fix{
			Docker:     `-v NAME:MOUNT:ro`,
			Compose:    composeVolume + `  # the same entry, with :ro`,
			Kubernetes: `volumeMounts: [{mountPath: MOUNT, readOnly: true}]  # beside its name`,
		},
		References: []string{"proc_pid_mountinfo(5)"},
		run:        writableMounts,
	},
	{
		ID: "tmpfs-options", Title: "Every tmpfs is noexec, nosuid and nodev", Subject: Mounts, Severity: Medium,
		Why: "A tmpfs is where an attacker drops a program in a read-only container; noexec keeps it from running.",
		Fix: Fix{
			Docker:     dockerTmpfs,
			Compose:    composeTmpfs,
			Kubernetes: `# no field for an emptyDir; mount only what is needed`,
		},
		References: []string{"tmpfs(5)", "mount(8)"},
		run:        tmpfsOptions,
	},
	{
		ID: "tmpfs-size", Title: "Every tmpfs has a size", Subject: Mounts, Severity: Low,
		Why: "Without a size a tmpfs may take half of the host's memory, charged to the container, which then dies of it.",
		Fix: Fix{
			Docker:     dockerTmpfs,
			Compose:    composeTmpfs,
			Kubernetes: `volumes: [{name: tmp, emptyDir: {medium: Memory, sizeLimit: 16Mi}}]`,
		},
		References: []string{"tmpfs(5)"},
		run:        tmpfsSize,
	},
	{
		ID: "runtime-socket", Title: "No socket of a container runtime", Subject: Mounts, Severity: Critical,
		Why: "Whoever can connect to it can start a privileged container: it is root on the host, also when it is mounted read-only.",
		Fix: Fix{
			Docker:     `# drop -v …:MOUNT`,
			Compose:    `# delete the entry with the target MOUNT from "volumes:"`,
			Kubernetes: `# delete the hostPath volume mounted at MOUNT`,
		},
		References: []string{"CIS Docker Benchmark 5.32", "Pod Security Standards, baseline: HostPath Volumes"},
		run:        runtimeSocket,
	},
	{
		ID: "sensitive-host-mounts", Title: "No directory of the host", Subject: Mounts, Severity: Critical,
		Why: "System directories of the host give away its keys and accounts even when read-only, and the host itself when not. The ro of a mount does not reach the mounts below it.",
		Fix: Fix{
			Docker:     `-v NAME:MOUNT:ro  # a named volume instead of the host's directory`,
			Compose:    composeVolume + `  # instead of the host's directory: a volume; at the top level: volumes: {NAME: {}}`,
			Kubernetes: `# delete the hostPath volume mounted at MOUNT; use a configMap, secret, emptyDir or persistentVolumeClaim`,
		},
		References: []string{"CIS Docker Benchmark 5.6", "Pod Security Standards, baseline: HostPath Volumes", "proc_pid_mountinfo(5)"},
		run:        sensitiveHostMounts,
	},
	{
		ID: "mount-propagation", Title: "No shared mount propagation", Subject: Mounts, Severity: High,
		Why: "What is mounted inside such a mount appears on the host as well.",
		Fix: Fix{
			Docker:     `-v NAME:MOUNT:ro  # without shared or rshared`,
			Compose:    composeVolume + `  # without shared or rshared`,
			Kubernetes: `volumeMounts: [{mountPath: MOUNT, mountPropagation: None}]  # beside its name`,
		},
		References: []string{"CIS Docker Benchmark 5.20", "mount_namespaces(7)"},
		run:        mountPropagation,
	},
	{
		ID: "proc-paths-masked", Title: "The masks over /proc and /sys are in place", Subject: Mounts, Severity: High,
		Why: "The masked files show secrets and addresses of the kernel and change it when written, whatever the namespace.",
		Fix: Fix{
			Docker:     `--security-opt no-new-privileges  # and no --security-opt systempaths=unconfined`,
			Compose:    composeSecurityOpt + `  # and no item that begins with "systempaths"; nor privileged`,
			Kubernetes: `securityContext: {procMount: Default, privileged: false}`,
		},
		References: []string{"Pod Security Standards, baseline and restricted: /proc Mount Type"},
		run:        procPathsMasked,
	},
	{
		ID: "sysfs-read-only", Title: "/sys and the cgroup mounts are read-only", Subject: Mounts, Severity: High,
		Why: "Writable, they change the host's kernel and devices; a writable cgroup v1 mount has been a way out of the container (release_agent).",
		Fix: Fix{
			Docker:     `--privileged=false  # and no -v of MOUNT`,
			Compose:    `privileged: false  # and no entry with the target MOUNT in "volumes:"`,
			Kubernetes: `securityContext: {privileged: false}  # and no hostPath mounted at MOUNT`,
		},
		References: []string{"CIS Docker Benchmark 5.5", "cgroups(7)"},
		run:        sysfsReadOnly,
	},
	{
		ID: "device-nodes", Title: "No device of the host", Subject: Mounts, Severity: High,
		Why: "A block device is the host's disk without its file permissions, /dev/mem and /dev/kmsg are its kernel.",
		Fix: Fix{
			Docker:     `# drop --device PATH, --device-cgroup-rule and --privileged`,
			Compose:    "devices: []\ndevice_cgroup_rules: []",
			Kubernetes: `securityContext: {privileged: false}  # and no hostPath of PATH`,
		},
		References: []string{"CIS Docker Benchmark 5.18", "Linux allocated devices (admin-guide/devices)"},
		run:        deviceNodes,
		walks:      true,
	},

	{
		ID: "memory-limit", Title: "Memory is limited", Subject: Limits, Severity: High,
		Why: "Without a limit one leak or one burst takes the host down, and the kernel kills whatever it likes.",
		Fix: Fix{
			Docker:     `--memory 64m`,
			Compose:    `mem_limit: 64m`,
			Kubernetes: `resources: {limits: {memory: 64Mi}}`,
		},
		References: []string{"CIS Docker Benchmark 5.11", "cgroup v2: memory.max", "cgroup v1: memory.stat"},
		run:        memoryLimit,
	},
	{
		ID: "cpu-limit", Title: "CPU time is limited", Subject: Limits, Severity: Medium,
		Why: "Shares only divide what is contended; without a quota one busy container takes all of the host.",
		Fix: Fix{
			Docker:     `--cpus 0.5`,
			Compose:    `cpus: 0.5`,
			Kubernetes: `resources: {limits: {cpu: 500m}}`,
		},
		References: []string{"CIS Docker Benchmark 5.12", "cgroup v2: cpu.max", "cgroup v1: cpu.cfs_quota_us"},
		run:        cpuLimit,
	},
	{
		ID: "pids-limit", Title: "The number of processes is limited", Subject: Limits, Severity: Medium,
		Why: "A fork bomb, or a program that leaks processes, uses up the host's process ids.",
		Fix: Fix{
			Docker:     `--pids-limit 64`,
			Compose:    `pids_limit: 64`,
			Kubernetes: `podPidsLimit: 64  # in the kubelet's configuration`,
		},
		References: []string{"CIS Docker Benchmark 5.29", "cgroups(7): pids.max"},
		run:        pidsLimit,
	},
	{
		ID: "ulimits", Title: "No core dumps, and a bound on open files", Subject: Limits, Severity: Low,
		Why: "A core dump writes the process's memory, secrets included, to a disk; too high a bound on open files lets one process use up the kernel's.",
		Fix: Fix{
			Docker:     `--ulimit core=0:0 --ulimit nofile=1024:1024`,
			Compose:    composeUlimits,
			Kubernetes: `# no field: the defaults of the node's runtime`,
		},
		References: []string{"CIS Docker Benchmark 5.19", "getrlimit(2)", "proc_pid_limits(5)"},
		run:        ulimits,
	},
	{
		ID: "oom-killable", Title: "The OOM killer may end it", Subject: Limits, Severity: Low,
		Why: "A container that may not be killed hangs at its limit, or has others killed in its place.",
		Fix: Fix{
			Docker:     `# drop --oom-kill-disable and --oom-score-adj -1000`,
			Compose:    "oom_kill_disable: false\noom_score_adj: 0",
			Kubernetes: `# no field`,
		},
		References: []string{"proc_pid_oom_score_adj(5)", "cgroup v1: memory.oom_control"},
		run:        oomKillable,
	},
	{
		ID: "cgroup-parent", Title: "In the engine's default cgroup", Subject: Limits, Severity: Info,
		Why: "Under another parent the limits and the accounting that the host's administrator set for containers may not hold.",
		Fix: Fix{
			Docker:  `# drop --cgroup-parent`,
			Compose: `# delete the line "cgroup_parent: …"`,
		},
		References: []string{"CIS Docker Benchmark 5.25", "cgroups(7)"},
		run:        cgroupParent,
	},

	{
		ID: "pid1-sigterm", Title: "PID 1 reacts to SIGTERM", Subject: Signals, Severity: Medium,
		Why: "The kernel drops a signal that PID 1 has no handler for: each stop then takes the whole grace period and ends in SIGKILL, with requests cut.",
		Fix: Fix{
			Docker:     `--init`,
			Compose:    `init: true`,
			Kubernetes: `command: [/tini, --, /app]  # an init that the image ships, or a program that handles SIGTERM`,
		},
		References: []string{"pid_namespaces(7)", "proc_pid_status(5): SigCgt"},
		run:        pid1Sigterm,
	},
	{
		ID: "pid1-not-shell", Title: "No shell between runtime and program", Subject: Signals, Severity: Medium,
		Why: "A shell does not pass SIGTERM on, so the program never hears of the stop; an init in front of the shell does not help.",
		Fix: Fix{
			Docker:     "ENTRYPOINT [\"/app\"]\n# a script ends with: exec /app \"$@\"",
			Compose:    `entrypoint: ["/app"]  # a list, not a string with sh -c; a script ends with: exec /app "$$@"`,
			Kubernetes: `command: [/app]  # without sh -c; a script ends with: exec /app "$@"`,
		},
		References: []string{"Dockerfile reference: exec form"},
		run:        pid1NotShell,
	},
	{
		ID: "zombie-reaping", Title: "No zombies under PID 1", Subject: Signals, Severity: Low,
		Why: "PID 1 inherits every orphan; one that does not wait for them fills the pids limit with dead processes.",
		Fix: Fix{
			Docker:     `--init`,
			Compose:    `init: true`,
			Kubernetes: `shareProcessNamespace: true  # field of the pod: the pause container reaps; or an init in the image`,
		},
		References: []string{"wait(2)", "proc_pid_stat(5)"},
		run:        zombieReaping,
	},

	{
		ID: "sshd-absent", Title: "No ssh or telnet daemon runs", Subject: Network, Severity: Medium,
		Why: "A second way in, with keys and logins of its own; docker exec and kubectl exec need none.",
		Fix: Fix{
			Docker:     `RUN apk del openssh-server dropbear  # or apt-get purge; and do not start it`,
			Compose:    `command: ["/app"]  # only the program itself, no daemon beside it`,
			Kubernetes: `command: [/app]  # only the program itself, no daemon beside it`,
		},
		References: []string{"CIS Docker Benchmark 5.7"},
		run:        sshdAbsent,
	},
	{
		ID: "listening-ports", Title: "No listener on a port below 1024", Subject: Network, Severity: Info,
		Why: "A port below 1024 asks for root or NET_BIND_SERVICE on many hosts. Which ports are published cannot be seen from inside.",
		Fix: Fix{
			Docker:     `-p 80:8000  # and let the program listen on 8000`,
			Compose:    `ports: ["80:8000"]  # and let the program listen on 8000`,
			Kubernetes: `ports: [{containerPort: 8000}]  # and let the program listen on 8000`,
		},
		References: []string{"CIS Docker Benchmark 5.8", "CIS Docker Benchmark 5.9", "proc_pid_net(5)"},
		run:        listeningPorts,
	},
	{
		ID: "default-bridge-network", Title: "Not on Docker's default bridge", Subject: Network, Severity: Low,
		Why: "On docker0 every container reaches every other one, and names are not resolved.",
		Fix: Fix{
			Docker:  `docker network create NAME; docker run --network NAME …`,
			Compose: `# delete the line "network_mode: bridge": compose then makes a network for the project`,
		},
		References: []string{"CIS Docker Benchmark 5.30"},
		run:        defaultBridgeNetwork,
	},

	{
		ID: "secrets-in-files", Title: "No key material in the image", Subject: Secrets, Severity: High,
		Why: "Whoever can pull the image has the secret, also when a later layer deletes it. A secret that was in an image has to be revoked.",
		Fix: Fix{
			Docker:     "# keep PATH out of the image; where the build needs it:\nRUN --mount=type=secret,id=NAME …",
			Compose:    "secrets: [NAME]  # read it at run time from /run/secrets/NAME; at the top level: secrets: {NAME: {file: ./NAME}}",
			Kubernetes: kubernetesSecrets + "  # read it at run time from there",
		},
		References: []string{"CIS Docker Benchmark 4.10"},
		run:        secretsInFiles,
		walks:      true,
	},
	{
		ID: "secrets-in-env", Title: "No secret in the environment", Subject: Secrets, Severity: Medium,
		Why: "The environment is shown by docker inspect, inherited by every child, and ends up in crash reports and logs. " +
			"So do arguments, and ps shows them to everybody.",
		Fix: Fix{
			Docker:  `-v ./VARIABLE.txt:/run/secrets/VARIABLE:ro -e VARIABLE_FILE=/run/secrets/VARIABLE  # instead of -e VARIABLE=…`,
			Compose: "environment: {VARIABLE_FILE: /run/secrets/VARIABLE}  # instead of VARIABLE; the program has to read the file\nsecrets: [VARIABLE]  # at the top level: secrets: {VARIABLE: {file: ./VARIABLE.txt}}",
			Kubernetes: "env: [{name: VARIABLE, $patch: delete}, {name: VARIABLE_FILE, value: /secrets/VARIABLE}]" +
				"  # the program has to read the file; in a manifest leave VARIABLE out\n" + kubernetesSecrets,
		},
		References: []string{"CIS Docker Benchmark 4.10", "proc_pid_environ(5)", "proc_pid_cmdline(5)"},
		run:        secretsInEnv,
	},
	{
		ID: "service-account-token", Title: "No Kubernetes API token", Subject: Secrets, Severity: Low,
		Why: "With the token an exploited program talks to the cluster's API. Few programs need it.",
		Fix: Fix{
			Kubernetes: `automountServiceAccountToken: false  # field of the pod`,
		},
		References: []string{"Kubernetes: Configure Service Accounts for Pods"},
		run:        serviceAccountToken,
	},

	{
		ID: "shell-absent", Title: "No shell in the image", Subject: Contents, Severity: Medium,
		Why: "Most exploits of a program go on with a shell; without one there is nothing to start.",
		Fix: Fix{
			Docker: dockerfileScratch,
		},
		References: []string{"CIS Docker Benchmark 4.3"},
		run:        shellAbsent,
		walks:      true,
	},
	{
		ID: "package-manager-absent", Title: "No package manager in the image", Subject: Contents, Severity: Medium,
		Why: "It fetches for an attacker whatever the image lacks.",
		Fix: Fix{
			Docker: dockerfileScratch,
		},
		References: []string{"CIS Docker Benchmark 4.3"},
		run:        packageManagerAbsent,
		walks:      true,
	},
	{
		ID: "interpreter-absent", Title: "No scripting interpreter in the image", Subject: Contents, Severity: Low,
		Why: "It runs an attacker's program even where noexec forbids files of his own. A program written in such a language has to accept this warning.",
		Fix: Fix{
			Docker: dockerfileScratch,
		},
		References: []string{"CIS Docker Benchmark 4.3"},
		run:        interpreterAbsent,
		walks:      true,
	},
	{
		ID: "network-client-absent", Title: "No download or tunnel client in the image", Subject: Contents, Severity: Low,
		Why: "It brings an attacker's tools in and the data out.",
		Fix: Fix{
			Docker: dockerfileScratch,
		},
		References: []string{"CIS Docker Benchmark 4.3"},
		run:        networkClientAbsent,
		walks:      true,
	},
	{
		ID: "executable-count", Title: "Few executables in the image", Subject: Contents, Severity: Info,
		Why: "Everything that can be started has to be patched. Up to 5 pass, up to 100 warn.",
		Fix: Fix{
			Docker: dockerfileScratch,
		},
		References: []string{"CIS Docker Benchmark 4.3"},
		run:        executableCount,
		walks:      true,
	},
	{
		ID: "image-size", Title: "A small image", Subject: Contents, Severity: Info,
		Why: "Size is time at each pull and roll-out. Up to 52.43 MB pass, up to the budget (150 MB unless set) warn.",
		Fix: Fix{
			Docker: dockerfileScratch,
		},
		References: []string{"CIS Docker Benchmark 4.3"},
		run:        imageSize,
		walks:      true,
	},
}
