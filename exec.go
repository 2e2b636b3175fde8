// How is a thing run that hactl knows nothing of? By the operator's own start, stop and monitor commands. What their
// exit codes mean is decided here and nowhere else; how they are run and ended in time is command.go's.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Exit codes of a monitor command beside 0, which means running; every other one means failed.
const (
	exitStoppedLSB = 3 // "program is not running", of an init script's status
	exitStoppedOCF = 7 // OCF_NOT_RUNNING
)

// execResource runs commands by /bin/sh -c, with HA_GROUP, HA_RESOURCE and HA_OP beside `environment`. Commands have to
// be idempotent: starting what runs and stopping what is stopped is no error.
type execResource struct {
	c    ResourceConfig
	env  resourceEnv
	base string // path of its files without suffix: .exec is the mark, .log what a start printed

	mu   sync.Mutex
	said string // last line of the last monitor
}

// execMark remembers for a resource without a monitor command that it was started, or that a start was begun, so that a
// daemon that is restarted in the middle knows. It counts for one boot.
type execMark struct {
	Boot    string `json:"boot"`
	Started bool   `json:"started"` // false: the start has not ended well
}

func newExec(c ResourceConfig, env resourceEnv) (resource, error) {
	if c.Start.Command == "" || c.Stop.Command == "" {
		return nil, fmt.Errorf("resource %s: needs start and stop, each with a command", c.Name)
	}
	base := filepath.Join(env.RunDir, runFileName(env.Group)+"."+runFileName(c.Name))
	return &execResource{c: c, env: env, base: base}, nil
}

// lacksProgram asks the shell, which runs them, for the first word of each command. It judges none that the shell would
// have to work on first, and none in a folder that a group brings with it.
func lacksProgram(ctx context.Context, brought []string, commands ...string) error {
	for _, text := range commands {
		word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
		within := func(dir string) bool { return strings.HasPrefix(word, strings.TrimSuffix(dir, "/")+"/") }
		if word == "" || strings.ContainsAny(word, "$`\"'\\(){}<>|&;*?[]#~=!\n\t") || slices.ContainsFunc(brought, within) {
			continue
		}
		_, err := runCommand(ctx, "look for "+word, []string{"/bin/sh", "-c", `command -v -- "$1"`, "sh", word})
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return fmt.Errorf("this host has no program %s, which `%s` runs", word, text)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (e *execResource) Start(ctx context.Context, _ startHint) error {
	if c, _ := e.Monitor(ctx); c == conditionRunning {
		return nil
	}
	if err := e.mark(false); err != nil {
		return err
	}
	if err := e.startCommand(ctx); err != nil {
		return err
	}
	if err := e.running(ctx); err != nil {
		return err
	}
	return e.mark(true)
}

// startCommand runs it with a file for its output: what it leaves in the background writes on when the daemon is gone.
func (e *execResource) startCommand(ctx context.Context) error {
	log := e.base + ".log"
	if info, err := os.Stat(log); err == nil && info.Size() > serviceLogLimit {
		os.Truncate(log, 0)
	}
	out, from, err := openAppend(log)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	c := e.command(opStart, e.c.Start.Command)
	c.Output = out
	c.Made = func(g *cgroup) {
		if err := writeRunFile(e.base+".cgroup", []byte(g.path)); err != nil {
			e.env.Log.Warn("cannot note what a start leaves running", "resource", e.c.Name, "error", err)
		}
	}
	_, err = c.run(ctx)
	var failed *outputError
	if errors.As(err, &failed) {
		failed.tail = fileTail(log, from)
	}
	return err
}

// running reads back what the start did. A program that goes to the background may need a moment to be found, so it is
// asked until the start's time is over.
func (e *execResource) running(ctx context.Context) error {
	if e.c.Monitor.Command == "" {
		return nil
	}
	var b pollBackoff
	for {
		c, err := e.monitorCommand(ctx)
		if c == conditionRunning {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("monitor says %s", c)
		}
		if !b.wait(ctx, nil) {
			return fmt.Errorf("start went well, and yet: %w (%w)", err, ctx.Err())
		}
	}
}

func (e *execResource) Stop(ctx context.Context) error {
	if _, err := e.command(opStop, e.c.Stop.Command).run(ctx); err != nil {
		return err
	}
	if e.c.Monitor.Command != "" {
		if err := e.stopped(ctx); err != nil {
			return fmt.Errorf("stop went well, and yet: %w", err)
		}
	}
	return e.unmark()
}

// stopped reads back what a stop did, until its time is over.
func (e *execResource) stopped(ctx context.Context) error {
	var b pollBackoff
	for {
		c, err := e.monitorCommand(ctx)
		if c == conditionStopped {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("monitor says %s", c)
		}
		if !b.wait(ctx, nil) {
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

// unmark forgets what was started.
func (e *execResource) unmark() error {
	for _, suffix := range []string{".exec", ".cgroup"} {
		if err := os.Remove(e.base + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove mark: %w", err)
		}
	}
	return nil
}

// Force kills what the start command left running, whatever it is: the rung after a stop command that failed.
func (e *execResource) Force(ctx context.Context) error {
	path, err := os.ReadFile(e.base + ".cgroup")
	if err != nil {
		return fmt.Errorf("kill what %s left running: no control group of its start is known: %w", e.c.Name, err)
	}
	if g := openCgroup(string(path)); g != nil {
		if err := (family{group: g}).kill(); err != nil {
			return fmt.Errorf("kill what %s left running: %w", e.c.Name, err)
		}
		g.leave()
	}
	if e.c.Monitor.Command != "" {
		if err := e.stopped(ctx); err != nil {
			return fmt.Errorf("all that its start left running is killed, and yet: %w", err)
		}
	}
	return e.unmark()
}

func (e *execResource) Monitor(ctx context.Context) (condition, error) {
	if e.c.Monitor.Command != "" {
		return e.monitorCommand(ctx)
	}
	m, err := e.readMark()
	switch {
	case err != nil:
		return conditionUnknown, err
	case m == nil:
		return conditionStopped, nil
	case !m.Started:
		return conditionFailed, errors.New("a start did not end well, and no monitor command tells what is there: stop it first")
	}
	return conditionRunning, nil
}

func (e *execResource) monitorCommand(ctx context.Context) (condition, error) {
	tail, err := e.command(opMonitor, e.c.Monitor.Command).run(ctx)
	e.mu.Lock()
	e.said = lastLine(tail)
	e.mu.Unlock()
	if err == nil {
		return conditionRunning, nil
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return conditionUnknown, err
	case errors.As(err, &exit) && (exit.ExitCode() == exitStoppedOCF || exit.ExitCode() == exitStoppedLSB):
		return conditionStopped, nil
	case ctx.Err() == nil && !errors.As(err, &exit): // could not be run at all
		return conditionUnknown, err
	}
	return conditionFailed, err
}

// Status is the last line that the monitor command printed.
func (e *execResource) Status(context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.said, nil
}

func (e *execResource) command(op, line string) command {
	env := append(childEnv(), "HA_GROUP="+e.env.Group, "HA_RESOURCE="+e.c.Name, "HA_OP="+op)
	return command{
		Name: e.c.Name + " " + op,
		Argv: []string{"/bin/sh", "-c", line},
		Env:  append(env, e.c.Environment...),
	}
}

func (e *execResource) mark(started bool) error {
	if e.c.Monitor.Command != "" {
		return nil
	}
	boot, err := kernelBoot()
	if err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	b, err := json.Marshal(execMark{Boot: boot, Started: started})
	if err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	return writeRunFile(e.base+".exec", append(b, '\n'))
}

// readMark is nil when nothing was started since the kernel booted.
func (e *execResource) readMark() (*execMark, error) {
	b, err := os.ReadFile(e.base + ".exec")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read mark: %w", err)
	}
	var m execMark
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read mark %s.exec (remove it when the resource is stopped): %w", e.base, err)
	}
	boot, err := kernelBoot()
	if err != nil {
		return nil, fmt.Errorf("read mark: %w", err)
	}
	if m.Boot != boot {
		return nil, nil
	}
	return &m, nil
}
