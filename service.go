// How does a program that runs in the foreground stay up when the daemon dies, and how does the next daemon find it
// again? It gets a session, a control group and a log file of its own, and a state file names exactly this process.
// Nothing here restarts it: a crash is told, the cluster decides.

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// service is one foreground program. Its methods may run beside each other.
type service struct {
	name string // "group.resource"
	base string // path of its files without suffix: .service is the state, .log its output
	log  *slog.Logger

	mu       sync.Mutex
	loaded   bool
	run      *serviceRun   // nil: none that is known of
	turn     chan struct{} // closed when run changes
	stopping bool          // its end is no news
}

// serviceRun is one run of the program, from its start until it is stopped; in between it may have crashed.
type serviceRun struct {
	proc    *process
	family  family
	logFrom int64 // where its output begins in the log
}

// serviceState is the state file, JSON. It is written before the program is started, without a number, and again
// after, so that there is no moment in which a killed daemon leaves a program that the next one does not find.
type serviceState struct {
	processID
	Boot    string `json:"boot"`
	Cgroup  string `json:"cgroup,omitempty"`
	Program string `json:"program,omitempty"`
	Token   string `json:"token,omitempty"`
}

// serviceLogLimit is where the log is emptied: it lies in memory (/run), and its use is to explain a failed start.
const serviceLogLimit = 1 << 20

func newService(env resourceEnv, resource string) *service {
	name := runFileName(env.Group) + "." + runFileName(resource)
	return &service{name: name, base: filepath.Join(env.RunDir, name), log: env.Log, turn: make(chan struct{})}
}

// current is the run that is known of, nil for none, and a channel that is closed when that changes.
func (s *service) current() (*serviceRun, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		s.loaded = true
		if run, err := s.load(); err != nil {
			s.log.Warn("cannot read what an earlier daemon ran", "event", "service-unreadable", "service", s.name, "error", err)
		} else {
			s.run = run
		}
	}
	return s.run, s.turn
}

func (s *service) set(run *serviceRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run, s.loaded, s.stopping = run, true, false
	close(s.turn)
	s.turn = make(chan struct{})
}

// load finds what an earlier daemon started.
func (s *service) load() (*serviceRun, error) {
	b, err := os.ReadFile(s.base + ".service")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var st serviceState
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("read %s.service: %w", s.base, err)
	}
	if boot, err := kernelBoot(); err != nil || boot != st.Boot {
		return nil, err // another boot's: nothing of it can live
	}
	fam := family{root: st.processID, exe: st.Program, token: st.Token}
	if st.Cgroup != "" {
		fam.group = openCgroup(st.Cgroup)
	}
	if st.PID == 0 { // the daemon died while it started it
		members := fam.members()
		if len(members) == 0 {
			return nil, nil
		}
		fam.root = eldest(members)
	}
	run := &serviceRun{family: fam}
	run.proc, err = openProcess(fam.root)
	if errors.Is(err, errGone) {
		if len(fam.members()) == 0 {
			return nil, nil
		}
		run.proc, err = endedProcess(fam.root, "ended while no daemon watched"), nil
	}
	if err != nil {
		return nil, err
	}
	return run, nil
}

// eldest is the member whose parent is none; of several orphans any will do, as all are stopped together.
func eldest(members []processID) processID {
	for _, id := range members {
		s, err := readStat(id.PID)
		if err == nil && !slices.ContainsFunc(members, func(m processID) bool { return m.PID == s.Parent }) {
			return id
		}
	}
	return members[0]
}

// start runs the program and returns when it runs; whether it serves is the caller's to see.
func (s *service) start(argv, env []string) error {
	if run, _ := s.current(); run != nil {
		return fmt.Errorf("start %s: process %d has not been stopped", s.name, run.proc.PID)
	}
	out, from, err := s.openLog()
	if err != nil {
		return fmt.Errorf("open log of %s: %w", s.name, err)
	}
	defer out.Close()
	if env == nil {
		env = childEnv()
	}
	token := rand.Text()
	c := command{Name: s.name, Argv: argv, Env: append(slices.Clone(env), tokenVariable+"="+token), Output: out}
	group, _ := newCgroup(s.name) // none: the family is told by its session and the token
	if err := s.save(family{group: group, token: token}); err != nil {
		if group != nil {
			group.remove()
		}
		return err
	}
	cmd, fam, err := c.launch(newOutput(c), &syscall.SysProcAttr{Setsid: true}, group)
	if err != nil {
		s.clear()
		return err
	}
	proc, err := adoptChild(cmd.Process.Pid, cmd.Wait)
	if err != nil {
		fam.kill()
		cmd.Wait()
		fam.forget()
		s.clear()
		return err
	}
	fam.root, fam.exe, fam.token = proc.processID, exeOf(proc.PID), token
	s.set(&serviceRun{proc: proc, family: fam, logFrom: from})
	return s.save(fam)
}

// adopt takes a program that somebody else started into care; false when it is gone.
func (s *service) adopt(id processID) (bool, error) {
	proc, err := openProcess(id)
	if errors.Is(err, errGone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	fam := family{root: id, exe: exeOf(id.PID)}
	s.set(&serviceRun{proc: proc, family: fam})
	return true, s.save(fam)
}

// stop ends the program with all that it started. It returns nil when nothing of it is left.
func (s *service) stop(ctx context.Context) error {
	run, _ := s.current()
	if run == nil {
		s.clear()
		return nil
	}
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	if err := s.end(ctx, run); err != nil {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	run.proc.release()
	run.family.forget()
	s.clear()
	s.set(nil)
	return nil
}

// end gives the main process most of the time to end in order, what it leaves behind termGrace, and the rest SIGKILL.
// What a crash left behind gets no grace: it holds ports, has nobody to end in order for, and delays the next start.
func (s *service) end(ctx context.Context, run *serviceRun) error {
	polite, cancel := mostOf(ctx)
	defer cancel()
	if run.proc.alive() {
		if err := run.proc.signal(unix.SIGTERM); err != nil {
			return fmt.Errorf("signal process %d: %w", run.proc.PID, err)
		}
		select {
		case <-run.proc.done:
		case <-polite.Done():
			s.log.Warn("not stopped in time, killing it", "event", "stop-killed", "service", s.name, "pid", run.proc.PID)
			return run.family.kill()
		}
		if len(run.family.members()) > 0 {
			orphans, cancel := context.WithTimeout(polite, termGrace)
			defer cancel()
			run.family.signal(unix.SIGTERM)
			run.family.gone(orphans)
		}
	}
	return run.family.kill()
}

// mostOf leaves a fifth of the time for what has to follow.
func mostOf(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/5))
	}
	return context.WithCancel(ctx)
}

// watch tells the end of each run as it happens, unless it was asked for.
func (s *service) watch(ctx context.Context, changed func(reason string)) {
	for ctx.Err() == nil {
		run, turn := s.current()
		var ended <-chan struct{}
		if run != nil {
			ended = run.proc.done
		}
		select {
		case <-ctx.Done():
			return
		case <-turn:
			continue
		case <-ended:
		}
		s.mu.Lock()
		news := s.run == run && !s.stopping
		s.mu.Unlock()
		if news {
			changed(run.proc.ending())
		}
		select {
		case <-ctx.Done():
		case <-turn:
		}
	}
}

// save writes the state file; a program that the next daemon would not find must not run.
func (s *service) save(fam family) error {
	boot, err := kernelBoot()
	if err != nil {
		return fmt.Errorf("save %s.service: %w", s.base, err)
	}
	st := serviceState{processID: fam.root, Boot: boot, Program: fam.exe, Token: fam.token}
	if fam.group != nil {
		st.Cgroup = fam.group.path
	}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("save %s.service: %w", s.base, err)
	}
	return writeRunFile(s.base+".service", append(b, '\n'))
}

// clear removes the state file.
func (s *service) clear() {
	if err := os.Remove(s.base + ".service"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cannot remove state file", "event", "service-note-failed", "service", s.name, "error", err)
	}
}

// writeRunFile replaces a file in /run/ha at once. It need not outlive the kernel, so nothing is synced.
func writeRunFile(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o640); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// openLog opens the log for appending and tells where the new output begins.
func (s *service) openLog() (*os.File, int64, error) {
	s.trimLog()
	return openAppend(s.base + ".log")
}

func openAppend(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// trimLog empties a log that grew too long; the program goes on appending to it.
func (s *service) trimLog() {
	if info, err := os.Stat(s.base + ".log"); err == nil && info.Size() > serviceLogLimit {
		os.Truncate(s.base+".log", 0)
	}
}

// tail is the end of what the present run printed.
func (s *service) tail() string {
	run, _ := s.current()
	if run == nil {
		return ""
	}
	return fileTail(s.base+".log", run.logFrom)
}

// fileTail is the end of a file, but nothing from before an offset.
func fileTail(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	if info.Size() < from {
		from = 0 // it was emptied since
	}
	b := make([]byte, min(info.Size()-from, tailLimit))
	n, _ := f.ReadAt(b, info.Size()-int64(len(b)))
	return printableText(string(b[:n]))
}
