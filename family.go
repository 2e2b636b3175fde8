// Who belongs to a program that was started, and how are they all ended? By its control group where it has one, else by
// session, process group and descent. It never signals what it cannot tell to be of the family.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// family is a program's main process, which may have ended, with all that it started.
type family struct {
	root  processID
	group *cgroup // nil: none could be made, or it was started by somebody else
	exe   string  // program of the main process, to tell orphans by; "" when it could not be read
	token string  // in the environment of all that inherited it; "" when it was started by somebody else
}

// tokenVariable marks the environment of a service's processes, for hosts without control groups.
const tokenVariable = "HACTL_SERVICE_RUN"

// killWait is how long processes that were sent SIGKILL get to vanish. Only one that hangs in the kernel, as on a
// dead disk, needs longer, and no wait would help that one.
const killWait = time.Second

// members are those of the family that live.
func (f family) members() []processID {
	if f.group != nil {
		var ids []processID
		for _, pid := range f.group.pids() {
			if s, err := readStat(pid); err == nil && !s.ended() {
				ids = append(ids, s.processID)
			}
		}
		return ids
	}
	all := processes()
	ids, known := processTree(f.root, all)
	if !known {
		// Without the main process a session of that number could be a later one's: trust those of its program alone.
		ids = slices.DeleteFunc(ids, func(id processID) bool { return f.exe == "" || exeOf(id.PID) != f.exe })
	}
	if f.token == "" {
		return ids
	}
	for _, s := range all {
		if !s.ended() && !slices.Contains(ids, s.processID) && hasToken(s.PID, f.token) {
			ids = append(ids, s.processID)
		}
	}
	return ids
}

func hasToken(pid int, token string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && bytes.Contains(b, []byte(tokenVariable+"="+token+"\x00"))
}

// processTree is the living part of a process's family, as far as it can be told without a control group: those of its
// session or process group, and its descendants. While any member of a session lives the kernel gives the number to
// nobody else; so when another process has it (a different start time) nobody is left. known is false when no process,
// not even a zombie, has the number.
func processTree(root processID, all []processStat) (living []processID, known bool) {
	member := map[int]bool{}
	for _, s := range all {
		if s.PID == root.PID {
			if s.processID != root {
				return nil, true
			}
			known = true
			member[s.PID] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if !member[s.PID] && s.Start >= root.Start &&
				(s.Sess == root.PID || s.Group == root.PID || member[s.Parent]) {
				member[s.PID], grown = true, true
			}
		}
	}
	for _, s := range all {
		if member[s.PID] && !s.ended() {
			living = append(living, s.processID)
		}
	}
	slices.SortFunc(living, func(a, b processID) int { return a.PID - b.PID })
	return living, known
}

// exeOf is the program that a process runs, "" when that cannot be read.
func exeOf(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(exe, " (deleted)") // replaced by an upgrade
}

// signal asks all members.
func (f family) signal(sig syscall.Signal) error {
	var errs []error
	for _, id := range f.members() {
		if err := signalProcess(id, sig); err != nil {
			errs = append(errs, fmt.Errorf("signal process %d: %w", id.PID, err))
		}
	}
	return errors.Join(errs...)
}

// kill ends all members and says which of them did not go. It takes at most killWait.
func (f family) kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	var err error
	var b pollBackoff
	for {
		if f.group != nil {
			err = f.group.kill()
		} else {
			err = f.signal(unix.SIGKILL)
		}
		if f.ended() {
			return nil
		}
		if !b.wait(ctx, nil) {
			break
		}
	}
	left := f.members()
	switch {
	case f.ended():
		return nil
	case len(left) == 0:
		return errors.Join(err, errors.New("what was sent SIGKILL is ending, and may still hold its ports and files"))
	}
	return errors.Join(err, fmt.Errorf("still there after SIGKILL: %s", describe(left)))
}

// gone waits until nobody of the family lives; false when ctx ended first.
func (f family) gone(ctx context.Context) bool {
	var b pollBackoff
	for !f.ended() {
		if !b.wait(ctx, nil) {
			return f.ended()
		}
	}
	return true
}

// ended is whether nothing of it holds anything any more.
func (f family) ended() bool {
	if f.group != nil {
		return f.group.empty()
	}
	return len(f.members()) == 0
}

// forget takes the empty control group away.
func (f family) forget() {
	if f.group != nil {
		f.group.leave()
	}
}

// describe names processes for the operator, with their state: D hangs in the kernel.
func describe(ids []processID) string {
	var names []string
	for _, id := range ids {
		if len(names) == 5 {
			names = append(names, fmt.Sprintf("and %d more", len(ids)-5))
			break
		}
		s, err := readStat(id.PID)
		if err != nil {
			continue
		}
		names = append(names, fmt.Sprintf("process %d (%s, state %c)", s.PID, s.Comm, s.State))
	}
	return strings.Join(names, ", ")
}
