package supervise

import (
	"bytes"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// A Usage is what the processes of a group hold at the moment.
type Usage struct {
	Processes   int
	Spent       time.Duration // processor time, of those included for which they have waited
	Resident    int64         // bytes; pages that processes share count for each
	Descriptors int           // of those that this process may look at
}

// Usage reads what the command's group uses from proc, which is /proc.
func (p *Process) Usage(proc fs.FS) (u Usage) {
	entries, _ := fs.ReadDir(proc, ".")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := fs.ReadFile(proc, e.Name()+"/stat")
		if err != nil {
			continue // gone meanwhile
		}
		fields := statFields(stat)
		if fields == nil || number(fields[2]) != int64(p.Pid) {
			continue
		}
		u.Processes++
		for _, ticks := range fields[11:15] { // utime, stime, cutime, cstime
			u.Spent += time.Duration(number(ticks)) * time.Second / ticksPerSecond
		}
		u.Resident += number(fields[21]) * int64(os.Getpagesize())
		fds, _ := fs.ReadDir(proc, e.Name()+"/fd")
		u.Descriptors += len(fds)
	}
	return u
}

// ticksPerSecond is USER_HZ, which is 100 on all that Go runs on (time(7)).
const ticksPerSecond = 100

// statFields are those of proc_pid_stat(5) from the state on, which is field 3, or nil. The
// name before it may hold spaces and parentheses, and ends at the last one.
func statFields(stat []byte) [][]byte {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return nil
	}
	return fields
}

func number(b []byte) int64 {
	n, _ := strconv.ParseInt(string(b), 10, 64)
	return n
}
