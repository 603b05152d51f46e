// Package sandbox lets a process give up what it does not need, for good and for all of its threads and children. It
// needs no privilege, no container engine and no configuration of the machine.
//
//	r := sandbox.Confine(sandbox.Policy{Write: []string{"/tmp"}, Connect: []uint16{53}})
//	…                                    // r says what was applied, and what was refused, and why
//	err := sandbox.ConfineReads([]string{"/proc", "/etc/hosts"})
//
// # What is given up
//
// Confine sets no_new_privs, then a Landlock ruleset (landlock(7)), then a seccomp filter (seccomp(2)).
//
//   - Files: nothing is opened for writing, made, deleted, renamed or executed but below the paths of the policy. What is
//     open stays open. Mode, owner, times and attributes of a file are none of Landlock's business: the filter of a
//     process that starts no programs refuses to change them, and with them truncate(2). Devices are made nowhere.
//   - TCP: ports are bound and connected to as the policy says. Landlock knows nothing of other protocols, nor of
//     Unix sockets with a path: the filter refuses those that the policy does not have.
//   - Devices, signals and abstract Unix sockets: none but what its own processes have made.
//   - System calls: see calls.go. A process that may start programs keeps some that programs need.
//
// ConfineReads comes later, when all has been read that is not needed again. It says nothing of stat(2), readlink(2) and
// access(2), which Landlock does not restrict.
//
// # What the kernel has
//
// Landlock is as good as the kernel is: files from Linux 5.13 (ABI 1), TCP from 6.7 (ABI 4), devices from 6.10 (ABI 5),
// signals and abstract sockets from 6.12 (ABI 6, and only where erratum 2 is fixed: before, a thread could not signal
// another one of its own process). What is missing is left out and reported. So is what an outer seccomp profile
// refuses: those of container engines from before 2021 do not know the calls of Landlock.
//
// # What it does not do
//
// Other processes of the container go on as they are, those that docker exec starts among them. Landlock also keeps a
// confined process from looking into those outside by /proc/PID/mem, environ, exe, fd and root, as it may not trace them.
package sandbox
