package audit

import (
	"fmt"
	"strings"
)

// document is docs/audit.md.
func document() string {
	var b strings.Builder
	b.WriteString(docsHead)
	b.WriteString("\n## Overview\n\n| check | what holds when it passes | severity | CIS | Pod Security Standards |\n|---|---|---|---|---|\n")
	for _, c := range Checks() {
		var cis, pss []string
		for _, ref := range c.References {
			if id, ok := strings.CutPrefix(ref, "CIS Docker Benchmark "); ok {
				cis = append(cis, id)
			}
			if control, ok := strings.CutPrefix(ref, "Pod Security Standards, "); ok {
				pss = append(pss, control)
			}
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s | %s |\n", c.ID, c.ID, escapeMarkdown(c.Title), c.Severity, strings.Join(cis, ", "), strings.Join(pss, ", "))
	}
	for _, subject := range subjects() {
		fmt.Fprintf(&b, "\n## %s\n", strings.ToUpper(string(subject[:1]))+string(subject[1:]))
		for _, c := range Checks() {
			if c.Subject != subject {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n\n%s. Severity %s.\n\n%s\n", c.ID, escapeMarkdown(c.Title), c.Severity, escapeMarkdown(c.Why))
			markdownFix(&b, c.Fix)
			fmt.Fprintf(&b, "\nReferences: %s.\n", strings.Join(c.References, "; "))
		}
	}
	b.WriteString(docsTail)
	return b.String()
}

const docsHead = `<!-- Made by go generate ./internal/audit from the table of checks; do not edit. -->

# What the audit checks

` + "`imagelab --audit`" + ` decides from inside which hardening is in effect, whatever was
declared. It needs no privilege, no shell and no network, opens nothing for
writing, and works in any image, on cgroup v1 and v2:

` + "```sh" + `
docker run --rm -v ./imagelab:/imagelab:ro --entrypoint /imagelab IMAGE --audit
docker exec CONTAINER /imagelab --audit --format json
` + "```" + `

The JSON form is described by [audit.schema.json](audit.schema.json).

## Verdicts

- **pass**, **fail**, **warn**: decided, with the evidence.
- **unknown**: it could not be read; the reason says what and why. Never a pass.
- **not-applicable**: the question has no meaning here, such as AppArmor on a
  kernel without it, or the behaviour of PID 1 where the auditor itself is PID 1.

A verdict on the contents of the image that met unreadable files or directories
keeps its value and says how many they were (` + "`incomplete`" + `). Run the audit as
root to see them all.

What is judged is the process that the container was started with, as docker exec
may run the auditor under another user: PID 1, and behind an init its child. Where
the pid namespace is the host's or another container's, it is the oldest process with
the auditor's own mounts, or the auditor itself. A mount of the auditor's executable
alone is not counted. In the fixes, MOUNT, PATH and VARIABLE stand for what was found;
a report has them filled in. The Docker line of checks on the image is for its
Dockerfile.

What counts is what the container was given. A program may take more from itself, as
imagelab does: no_new_privs, a seccomp filter. What docker exec, podman exec, kubectl
exec and lxc-attach start has the container's profile and no_new_privs and nothing of
the program's. So the auditor's own state, before it confines itself, tells the two
apart: seccomp-filter fails where the auditor has no filter and the program one, and
no-new-privileges only warns. An auditor in another cgroup than the program, as nsenter
brings one, or with more capabilities (exec --privileged), proves nothing, nor does one
that has more filters than the program: what it cannot try is unknown. A container
beside it in the same pid namespace (kubectl debug --target, a sidecar) is judged for
itself. Where a program that has confined itself starts the auditor, its filter cannot
be told from the container's.

A seccomp profile whose default action is to kill, instead of to refuse, ends the
auditor at the first call that tries the filter (see seccomp-filter).
`

const docsTail = `
## What cannot be decided from inside

Where the image came from and how it was built (CIS 4.2, 4.4 to 4.7, 4.9, 4.11,
4.12), whether it has a HEALTHCHECK (4.6, 5.27), which ports are published (5.8,
5.9, 5.14), the restart policy (5.15), the tag it was pulled by (5.28), and of the
Pod Security Standards Host Ports, Sysctls, and volume types other than what shows
as a directory of the host. On cgroup v2 the rules for devices are a BPF program
that cannot be read; the nodes in /dev decide alone.
`
