// How is a command run so that it ends in time with all that it started, and what did it say last? Programs that shall
// go on running are service.go's. It knows nothing of resources.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// command is one program to run to its end.
type command struct {
	Name string   // for messages and the control group: "web.app.start"
	Argv []string // program and arguments
	Env  []string // whole environment; nil: childEnv()
	// Output gets stdout and stderr instead of the tail. A command that leaves a program running in the background
	// needs a file here: a pipe breaks when the daemon ends, and the program with it.
	Output *os.File
	Stdout io.Writer // gets stdout beside the tail, for what is longer
	Stdin  string    // what it reads; it need not read it
	// Made is told the control group before the program starts, so that what it leaves running can be found later.
	Made func(*cgroup)
}

const (
	tailLimit = 2 << 10
	termGrace = 500 * time.Millisecond // between SIGTERM and SIGKILL, where there is no control group
	pipeGrace = 200 * time.Millisecond // for output that is still under way when the command has ended
)

// runCommand runs a program with env beside the daemon's own environment. What is left of it when ctx ends is killed,
// its background processes included. The tail is the end of its output; a failure is an outputError around the
// *exec.ExitError, context.DeadlineExceeded or context.Canceled.
func runCommand(ctx context.Context, name string, argv []string, env ...string) (tail string, err error) {
	return command{Name: name, Argv: argv, Env: append(childEnv(), env...)}.run(ctx)
}

func (c command) run(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s: not run: %w", c.Name, err)
	}
	began := time.Now()
	out := newOutput(c)
	group, _ := newCgroup(c.Name) // none: the family is told by its process group
	if c.Made != nil && group != nil {
		c.Made(group)
	}
	cmd, fam, err := c.launch(out, &syscall.SysProcAttr{Setpgid: true}, group)
	if err != nil {
		out.close(0)
		return "", err
	}
	exited := make(chan struct{})
	go func() { // leaves it a zombie, so that its number stays taken until all of its group are dealt with
		for unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		close(exited)
	}()
	var overrun error
	select {
	case <-exited:
	case <-ctx.Done():
		overrun = ctx.Err()
		err = endCommand(fam, exited)
	}
	select {
	case <-exited:
		if werr := cmd.Wait(); overrun == nil {
			err = werr
		}
	default: // hangs in the kernel: reaped whenever it comes back
		go cmd.Wait()
	}
	tail := out.close(pipeGrace)
	fam.forget()
	return tail, c.result(tail, err, overrun, time.Since(began))
}

// result puts the outcome into words.
func (c command) result(tail string, err, overrun error, took time.Duration) error {
	switch {
	case overrun != nil:
		what := fmt.Errorf("%s: cancelled after %s, killed: %w", c.Name, roundShort(took), overrun)
		if errors.Is(overrun, context.DeadlineExceeded) {
			what = fmt.Errorf("%s: not done after %s, killed: %w", c.Name, roundShort(took), overrun)
		}
		if err != nil {
			what = fmt.Errorf("%w; %w", what, err)
		}
		return &outputError{err: what, tail: tail}
	case err != nil:
		return &outputError{err: fmt.Errorf("%s: %w", c.Name, err), tail: tail}
	}
	return nil
}

// endCommand ends all that a command started: by its control group at once, else SIGTERM, then SIGKILL.
func endCommand(fam family, exited <-chan struct{}) error {
	if fam.group == nil {
		unix.Kill(-fam.root.PID, unix.SIGTERM)
		grace := time.NewTimer(termGrace)
		select {
		case <-exited:
		case <-grace.C:
		}
		grace.Stop()
		unix.Kill(-fam.root.PID, unix.SIGKILL) // the leader is not reaped yet, so this is still its group
	}
	err := fam.kill()
	last := time.NewTimer(killWait)
	defer last.Stop()
	select {
	case <-exited:
	case <-last.C:
	}
	return err
}

// launch starts the program in the control group, which it takes away when it cannot use it.
func (c command) launch(out *commandOutput, attr *syscall.SysProcAttr, group *cgroup) (*exec.Cmd, family, error) {
	cmd, err := c.exec(out, attr, group)
	if err != nil && group != nil { // a kernel or sandbox without clone3
		group.remove()
		group = nil
		cmd, err = c.exec(out, attr, nil)
	}
	out.started()
	if err != nil {
		return nil, family{}, fmt.Errorf("%s: %w", c.Name, err)
	}
	fam := family{root: processID{PID: cmd.Process.Pid}, group: group}
	if s, err := readStat(cmd.Process.Pid); err == nil { // our child, not reaped: it is there
		fam.root = s.processID
	}
	return cmd, fam, nil
}

func (c command) exec(out *commandOutput, attr *syscall.SysProcAttr, group *cgroup) (*exec.Cmd, error) {
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = c.Env
	if cmd.Env == nil {
		cmd.Env = childEnv()
	}
	cmd.Dir = "/" // holds no file system that is to be unmounted
	if c.Stdin != "" {
		cmd.Stdin = strings.NewReader(c.Stdin)
		cmd.WaitDelay = pipeGrace // what is left running in the background may never read it
	}
	if out.stdout != nil {
		cmd.Stdout = out.stdout
	}
	if out.stderr != nil {
		cmd.Stderr = out.stderr
	}
	a := *attr
	if group != nil {
		dir, err := os.Open(group.dir)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		a.UseCgroupFD, a.CgroupFD = true, int(dir.Fd())
	}
	cmd.SysProcAttr = &a
	err := cmd.Start()
	if err == nil {
		makeOrdinary(cmd.Process.Pid)
	}
	return cmd, err
}

// childEnv is the daemon's environment without what systemd meant for the daemon alone, and with a PATH.
func childEnv() []string {
	env := []string{}
	path := false
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
			"INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "FDSTORE", "CREDENTIALS_DIRECTORY":
			continue
		case "PATH":
			path = value != ""
		}
		env = append(env, v)
	}
	if !path {
		env = append(env, "PATH="+defaultPath)
	}
	return env
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// output collects what a command prints.
type commandOutput struct {
	stdout, stderr *os.File    // the child's ends
	readers        []*os.File  // our ends
	writers        []*os.File  // stdout and stderr, when they are pipes
	sinks          []io.Writer // one for each reader
	copying        sync.WaitGroup
	tail           tailBuffer
}

// newOutput never fails: a command whose output cannot be had still has to run, with stdout and stderr at /dev/null.
func newOutput(c command) *commandOutput {
	o := &commandOutput{}
	if c.Output != nil {
		o.stdout, o.stderr = c.Output, c.Output
		return o
	}
	o.stderr = o.pipe(&o.tail)
	o.stdout = o.stderr
	if c.Stdout != nil {
		o.stdout = o.pipe(io.MultiWriter(c.Stdout, &o.tail))
	}
	return o
}

func (o *commandOutput) pipe(to io.Writer) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		fmt.Fprintf(&o.tail, "output is lost: %v\n", err)
		return nil
	}
	o.readers, o.writers, o.sinks = append(o.readers, r), append(o.writers, w), append(o.sinks, to)
	return w
}

// started closes the child's ends here and begins to read.
func (o *commandOutput) started() {
	for i, r := range o.readers {
		o.writers[i].Close()
		o.copying.Go(func() { io.Copy(o.sinks[i], r) })
	}
}

// close reads on for at most grace, in case a background process holds the pipe, and returns the tail.
func (o *commandOutput) close(grace time.Duration) string {
	for _, r := range o.readers {
		r.SetReadDeadline(time.Now().Add(grace))
	}
	o.copying.Wait()
	for _, r := range o.readers {
		r.Close()
	}
	return o.tail.String()
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if n > tailLimit {
		p = p[n-tailLimit:]
	}
	if over := len(t.b) + len(p) - tailLimit; over > 0 {
		t.b = append(t.b[:0], t.b[min(over, len(t.b)):]...)
	}
	t.b = append(t.b, p...)
	return n, nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return printableText(string(t.b))
}

// printableText keeps a command's output from steering the terminal of whoever reads it. It never grows.
func printableText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == unicode.ReplacementChar: // a cut or invalid character
			return '?'
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return -1
		}
		return r
	}, s)
}

// roundShort shortens a duration for people.
func roundShort(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
