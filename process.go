// Which process is it, does it still live, and who belongs to it? A process is known by its number and its start time,
// held by a pidfd, so that a number that is used again is never taken for it. Nothing here starts a process.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processID names a process for good: within one boot no two have both in common.
type processID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// errGone says that the process that was meant has ended.
var errGone = errors.New("process is gone")

// processStat is what is used of /proc/PID/stat.
type processStat struct {
	processID
	Comm   string
	State  byte // Z and X: it has ended
	Parent int
	Group  int
	Sess   int
}

func readStat(pid int) (processStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			err = errGone
		}
		return processStat{}, err
	}
	return parseStat(string(b))
}

// parseStat reads proc_pid_stat(5). The name in parentheses may itself hold spaces and parentheses.
func parseStat(s string) (processStat, error) {
	open, closing := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 1 || closing < open {
		return processStat{}, fmt.Errorf("read process state: no name in %q", s)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(s[:open]))
	f := strings.Fields(s[closing+1:])
	if err != nil || len(f) < 20 || len(f[0]) != 1 {
		return processStat{}, fmt.Errorf("read process state: malformed %q", s)
	}
	p := processStat{Comm: s[open+1 : closing], State: f[0][0]}
	p.PID = pid
	var errs [4]error
	p.Parent, errs[0] = strconv.Atoi(f[1])
	p.Group, errs[1] = strconv.Atoi(f[2])
	p.Sess, errs[2] = strconv.Atoi(f[3])
	p.Start, errs[3] = strconv.ParseUint(f[19], 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return processStat{}, fmt.Errorf("read process state: %w", err)
	}
	return p, nil
}

func (s processStat) ended() bool { return s.State == 'Z' || s.State == 'X' }

// processes lists all there are, zombies too.
func processes() []processStat {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var all []processStat
	for _, n := range names {
		pid, err := strconv.Atoi(filepath.Base(n))
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			all = append(all, s)
		}
	}
	return all
}

// kernelBoot is the id of this kernel's run.
func kernelBoot() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// process is one that is or was alive, held so that nothing else can be mistaken for it.
type process struct {
	processID
	fd   *os.File      // pidfd
	done chan struct{} // closed when it has ended

	mu     sync.Mutex
	reason string // how it ended, once done is closed
}

// openProcess takes hold of a process that runs; errGone when it does not, or another has its number.
func openProcess(id processID) (*process, error) {
	p, err := holdProcess(id)
	if err != nil {
		return nil, err
	}
	go func() {
		if p.poll() == nil {
			p.end("exited")
		}
	}()
	return p, nil
}

// holdProcess opens the pidfd first and compares the start time after, so that the comparison is about what is held.
func holdProcess(id processID) (*process, error) {
	if id.PID <= 0 {
		return nil, errGone
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err == unix.ESRCH || err == unix.EINVAL { // EINVAL: a thread, so not what was meant
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("hold process %d (needs Linux 5.3): %w", id.PID, err)
	}
	s, err := readStat(id.PID)
	if err == nil && (s.processID != id || s.ended()) {
		err = errGone
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // lets the runtime wait for it without a thread
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &process{processID: id, fd: os.NewFile(uintptr(fd), "pidfd"), done: make(chan struct{})}, nil
}

// adoptChild holds a child that was just started. The caller reaps it with wait, which tells how it ended.
func adoptChild(pid int, wait func() error) (*process, error) {
	s, err := readStat(pid) // a child that was not reaped keeps its number and its entry, ended or not
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("hold process %d (needs Linux 5.3): %w", pid, err)
	}
	p := &process{processID: s.processID, fd: os.NewFile(uintptr(fd), "pidfd"), done: make(chan struct{})}
	go func() { p.end(exitReason(wait())) }()
	return p, nil
}

// endedProcess stands for one that ended before anybody could hold it.
func endedProcess(id processID, reason string) *process {
	p := &process{processID: id, done: make(chan struct{})}
	p.end(reason)
	return p
}

// exitReason puts the result of a wait into words.
func exitReason(err error) string {
	if err == nil {
		return "exited with status 0"
	}
	var e interface{ Sys() any }
	if errors.As(err, &e) {
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return "was killed by " + unix.SignalName(ws.Signal())
		} else if ok {
			return fmt.Sprintf("exited with status %d", ws.ExitStatus())
		}
	}
	return "exited"
}

func (p *process) end(reason string) {
	p.mu.Lock()
	p.reason = reason
	p.mu.Unlock()
	close(p.done)
}

// poll waits until the process has ended; an error only when the pidfd is closed.
func (p *process) poll() error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var perr error
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if err != nil && err != unix.EINTR {
			perr = err
			return true
		}
		return n > 0
	})
	return errors.Join(err, perr)
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ending is the sentence about a process that has ended.
func (p *process) ending() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("process %d %s", p.PID, p.reason)
}

// signal reaches this very process or none.
func (p *process) signal(sig syscall.Signal) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if serr == unix.ESRCH {
		serr = nil
	}
	return errors.Join(err, serr)
}

// release lets go of a process that is left alone.
func (p *process) release() {
	if p.fd != nil {
		p.fd.Close()
	}
}

// signalProcess reaches the process of that id or none.
func signalProcess(id processID, sig syscall.Signal) error {
	p, err := holdProcess(id)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.release()
	return p.signal(sig)
}

// pollBackoff waits from 1 ms up to 20 ms, so that what is quick is seen quickly and what is slow costs little.
type pollBackoff struct{ next time.Duration }

const (
	backoffFirst = time.Millisecond
	backoffMost  = 20 * time.Millisecond
)

// wait is false when ctx ended first. It returns early when something arrives on or, which may be nil.
func (b *pollBackoff) wait(ctx context.Context, or <-chan struct{}) bool {
	b.next = min(max(2*b.next, backoffFirst), backoffMost)
	t := time.NewTimer(b.next)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-or:
		return true
	}
}
