// Can this host still start a process? The daemon's own eye for node_sick.go: a host that is out of memory or of process
// numbers, or whose root disk hangs, goes on answering heartbeats and can look after nothing.

package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

const (
	forkEvery   = 2 * time.Second
	forkTimeout = 5 * time.Second
	forksToFail = 2 // in a row
)

// forkWatch tells when starting a process begins to fail, and when it works again.
type forkWatch struct {
	every time.Duration
	start func() error // of a program that does nothing and ends well
	tell  func(fault string)
}

func newForkWatch(tell func(string)) *forkWatch {
	program, err := exec.LookPath("true")
	if err != nil {
		program = "/bin/true"
	}
	return &forkWatch{every: forkEvery, tell: tell, start: func() error {
		cmd := exec.Command(program)
		cmd.Dir = "/"
		return cmd.Run()
	}}
}

func (f *forkWatch) run(ctx context.Context) {
	failed, told := 0, false
	for pause(ctx, f.every) {
		err := f.try(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failed = 0
			if told {
				told = false
				f.tell("")
			}
		default:
			if failed++; failed >= forksToFail && !told {
				told = true
				f.tell(err.Error())
			}
		}
	}
}

// try starts the program. One that does not end hangs on a disk that does not answer, and is waited for by nobody.
func (f *forkWatch) try(ctx context.Context) error {
	started := make(chan error, 1)
	go func() { started <- f.start() }()
	late := time.NewTimer(forkTimeout)
	defer late.Stop()
	select {
	case err := <-started:
		return err
	case <-late.C:
		return fmt.Errorf("a process that does nothing has not ended after %s", forkTimeout)
	case <-ctx.Done():
		return nil
	}
}
