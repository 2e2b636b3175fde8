// Did DRBD notice something before the next monitor? Follows `drbdsetup events2` and reports changes of role, disk and
// connection. It never acts. The programs that this part starts run in process groups of their own.

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// lineStreamer runs a program and hands over each line of its stdout until it ends or ctx does.
type lineStreamer func(ctx context.Context, line func(string), name string, args ...string) error

const (
	streamRetryFirst = time.Second // after a stream that ended; doubled while that goes on
	streamRetryLast  = 30 * time.Second
	killDelay        = time.Second // for what a killed program leaves open
	outputTail       = 2048        // bytes kept of what a failed command printed
	outputMost       = 1 << 20     // bytes read of stdout: no tool here says that much
)

// Watch runs until ctx ends. The stream is started again when it dies; what happened in between is found by comparing
// the pictures before and after.
func (d *drbd) Watch(ctx context.Context, changed func(reason string)) {
	var last *drbdStatus
	wait := streamRetryFirst
	for ctx.Err() == nil {
		w := drbdFollower{name: d.name, last: last, changed: func(reason string) {
			d.noteSplitBrain(reason)
			changed(reason)
		}}
		err := d.stream(ctx, w.line, "drbdsetup", "events2", d.name)
		last = w.last
		if ctx.Err() != nil {
			return
		}
		if w.events.complete {
			wait = streamRetryFirst // it worked: not a tool that is missing or too old
		}
		d.log.Debug("stream of DRBD events ended, starts again", "resource", d.name, "error", err, "in", wait)
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, streamRetryLast)
	}
}

const splitBrainReason = ": DRBD has found a split brain"

func (d *drbd) noteSplitBrain(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case strings.HasSuffix(reason, splitBrainReason):
		d.splitBrain = true
	case strings.Contains(reason, " connection to ") && strings.Contains(reason, ": Connected, was"):
		// Before it is found, a split brain shows as Connected too; then the finding follows and sets it again.
		d.splitBrain = false
	}
}

// drbdFollower turns lines of events2 into reasons.
type drbdFollower struct {
	name    string
	events  drbdEvents
	last    *drbdStatus // the picture that was reported from; nil: none yet, or not set up
	changed func(reason string)
}

func (f *drbdFollower) line(line string) {
	e, err := parseDRBDEvent(line)
	if err != nil || e.object != "-" && e.get("name") != f.name {
		return
	}
	if e.action == "call" && e.object == "helper" && e.get("helper") == "split-brain" {
		f.changed(f.name + splitBrainReason)
		return
	}
	if err := f.events.apply(e); err != nil {
		return // a line that cannot be read changes nothing; the monitor reads all anew
	}
	if !f.events.complete {
		return
	}
	now := f.events.find(f.name)
	switch {
	case f.last == nil && now == nil:
		return
	case f.last == nil:
		if e.object != "-" {
			f.changed(f.name + " was set up")
		}
	default:
		for _, reason := range f.last.differences(now) {
			f.changed(reason)
		}
	}
	f.last = now.clone()
}

// runToEnd is the commandRunner of the real world. It returns soon after ctx ends even if the program cannot be killed,
// because it sleeps in the kernel.
func runToEnd(ctx context.Context, name string, args ...string) (string, error) {
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	line := strings.Join(append([]string{name}, args...), " ")
	go func() {
		out, err := runAndWait(ctx, line, name, args...)
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.out, r.err
	case <-time.After(2 * killDelay):
		return "", fmt.Errorf("%s: does not end although it was killed: it waits in the kernel, see dmesg: %w", line, ctx.Err())
	}
}

func runAndWait(ctx context.Context, line, name string, args ...string) (string, error) {
	cmd := groupCommand(ctx, name, args...)
	var out, errs lastBytes
	out.most, errs.most = outputMost, outputTail
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well and left a child behind that holds its pipes
	}
	if err == nil && out.lost {
		err = fmt.Errorf("printed more than %d bytes", outputMost)
	}
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("did not end in time: %w", ctx.Err())
	}
	tail := errs.String()
	if strings.TrimSpace(tail) == "" {
		tail = out.String()
		tail = tail[max(0, len(tail)-outputTail):]
	}
	return out.String(), &outputError{err: fmt.Errorf("%s: %w", line, err), tail: tail}
}

// groupCommand makes a command whose whole process group is killed when ctx ends.
func groupCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A grandchild that left the group may keep the pipes open; a child in D state cannot be killed at all.
	cmd.WaitDelay = killDelay
	return cmd
}

// lastBytes keeps the last bytes that were written.
type lastBytes struct {
	bytes.Buffer
	most int
	lost bool
}

func (b *lastBytes) Write(p []byte) (int, error) {
	b.Buffer.Write(p)
	if over := b.Len() - b.most; over > 0 {
		b.Next(over)
		b.lost = true
	}
	return len(p), nil
}

// streamLines is the lineStreamer of the real world.
func streamLines(ctx context.Context, line func(string), name string, args ...string) error {
	cmd := groupCommand(ctx, name, args...)
	errs := lastBytes{most: outputTail}
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	s := bufio.NewScanner(out)
	for s.Scan() {
		line(s.Text())
	}
	if s.Err() != nil { // a line without end: not a stream of events
		_ = cmd.Cancel()
		_, _ = io.Copy(io.Discard, out)
	}
	if err := cmd.Wait(); err != nil {
		return &outputError{err: fmt.Errorf("run %s: %w", name, err), tail: errs.String()}
	}
	return s.Err()
}
