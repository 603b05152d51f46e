// Command helper is what the tests run inside of containers that hold no other
// program. It is static, so that it runs on nothing at all:
//
//	helper write PATH...   create each file and say how that went, a line each
//	helper sleep           wait for SIGTERM
//	helper orphans N       leave N processes to PID 1, one after the other
//	helper -c "hang"       be a probe that never ends, with a child; mounted as
//	                       /bin/sh it is what a probe in shell form runs
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "-c" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("nothing to do")
	}
	switch args[0] {
	case "write":
		for _, path := range args[1:] {
			fmt.Printf("%s: %s\n", path, write(path))
		}
		return nil
	case "sleep":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		return nil
	case "orphans":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		for range n {
			if err := exec.Command(self, "middle").Run(); err != nil {
				return err
			}
		}
		return nil
	case "middle":
		return leave()
	case "leaf":
		// Ends when the process that started it has ended, and not before.
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "hang":
		if err := leave(); err != nil {
			return err
		}
		_, err := os.NewFile(uintptr(hold()), "pipe").Read(make([]byte, 1))
		return err
	}
	return fmt.Errorf("unknown command %q", args[0])
}

const self = "/proc/self/exe"

// leave starts a process that ends after this one.
func leave() error {
	r, _, err := os.Pipe() // the other end closes with this process
	if err != nil {
		return err
	}
	leaf := exec.Command(self, "leaf")
	leaf.Stdin = r
	return leaf.Start()
}

// hold is the reading end of a pipe that nobody ever writes to.
func hold() int {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		panic(err)
	}
	return ends[0]
}

func write(path string) string {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Unwrap(err).Error()
	}
	f.Close()
	return "written"
}
