// How is a file system mounted, unmounted and looked at? It refuses what would put one device into two places, and at
// a stop ends the processes that hold this very mount, never others. It does not repair a file system.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	busyPoll = 50 * time.Millisecond // between two tries to unmount
	// busyGrace is how long a process that holds the mount may take to end by itself after SIGTERM; less if the
	// stop's own time is short.
	busyGrace = 3 * time.Second
)

type filesystem struct {
	c   ResourceConfig
	dir string // without links
	log *slog.Logger
	run commandRunner

	proc, sys string
	probes    probeSlot
	umounts   umountSlot
}

func newFilesystem(c ResourceConfig, env resourceEnv) (resource, error) {
	if c.Device == "" || c.Directory == "" {
		return nil, fmt.Errorf("resource %s: a filesystem needs device and directory", c.Name)
	}
	if !filepath.IsAbs(c.Directory) {
		return nil, fmt.Errorf("resource %s: directory %q must begin with /", c.Name, c.Directory)
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &filesystem{c: c, dir: filepath.Clean(c.Directory), log: log, run: runToEnd, proc: "/proc", sys: "/sys"}, nil
}

func (f *filesystem) readonly() bool {
	ro := false
	for _, o := range strings.Split(f.c.Options, ",") {
		switch o {
		case "ro":
			ro = true
		case "rw":
			ro = false
		}
	}
	return ro
}

// there is what the mount table says of this resource.
type there struct {
	list  []mountEntry
	top   *mountEntry // what one sees at the directory; nil: nothing is mounted on it
	ours  *mountEntry // our device on our directory, perhaps not on top
	other []string    // directories on which our device is mounted beside
	lost  bool        // the device does not exist
}

// read compares the mount table with the configuration. A device that does not exist is mounted nowhere.
func (f *filesystem) read() (there, error) {
	var t there
	var err error
	if t.list, err = readMounts(f.proc, "self"); err != nil {
		return t, err
	}
	dir := f.mountpoint()
	t.top = mountAt(t.list, dir)
	src, err := findSource(f.c.Device, f.c.FSType)
	if errors.Is(err, fs.ErrNotExist) {
		// The name may be gone while the mount is not: a device that was pulled. A mount on our directory whose device
		// is gone too is taken for ours.
		src, t.lost = mountSource{spec: f.c.Device, kind: sourceLost}, true
	} else if err != nil {
		return t, err
	}
	for i := range t.list {
		m := &t.list[i]
		if m.Dir != dir && src.kind != sourceBlock && src.kind != sourceFile || !src.isMountedAs(m, f.sys) {
			continue
		}
		if m.Dir == dir {
			if t.ours == nil || m == t.top {
				t.ours = m
			}
		} else {
			t.other = append(t.other, m.Dir)
		}
	}
	t.other = unique(t.other)
	return t, nil
}

// mountpoint is the directory as the kernel names it: without symbolic links. A link that cannot be followed, for its
// disk is dead, leaves the name as it is.
func (f *filesystem) mountpoint() string {
	parent, err := filepath.EvalSymlinks(filepath.Dir(f.dir))
	if err != nil {
		return f.dir
	}
	path := filepath.Join(parent, filepath.Base(f.dir))
	if to, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(to) {
			to = filepath.Join(parent, to)
		}
		if to, err = filepath.EvalSymlinks(to); err == nil {
			return to
		}
	}
	return path
}

func (f *filesystem) Monitor(ctx context.Context) (condition, error) {
	t, err := f.read()
	if err != nil {
		return conditionUnknown, err
	}
	switch {
	case t.ours == nil && len(t.other) > 0:
		return conditionFailed, fmt.Errorf("%s is mounted on %s, not on %s: umount %s", f.c.Device, strings.Join(t.other, " and "), f.dir, t.other[0])
	case t.ours == nil:
		return conditionStopped, nil
	case t.ours != t.top:
		return conditionFailed, fmt.Errorf("%s is hidden: %s (%s) is mounted over it on %s: umount %s", f.c.Device, t.top.Source, t.top.FSType, f.dir, f.dir)
	case t.lost:
		return conditionFailed, fmt.Errorf("%s is mounted on %s, but the device does not exist any more: %s", f.c.Device, f.dir, deviceHint(f.c.Device))
	case !f.readonly() && t.ours.option("ro"):
		return conditionFailed, fmt.Errorf("%s on %s has become read-only: after an error of the disk or the file system (see dmesg), or remounted by somebody",
			f.c.Device, f.dir)
	}
	if f.c.Probe == "" {
		return conditionRunning, nil
	}
	if err := f.probes.run(ctx, f.probe); err != nil {
		return conditionFailed, fmt.Errorf("%s probe of %s: %w", f.c.Probe, f.dir, err)
	}
	return conditionRunning, nil
}

func (f *filesystem) Start(ctx context.Context, _ startHint) error {
	t, err := f.read()
	if err != nil {
		return err
	}
	if t.ours != nil && t.ours == t.top {
		if !f.readonly() && t.ours.option("ro") {
			return fmt.Errorf("%s is mounted on %s already, but read-only: it must be stopped first (umount %s)", f.c.Device, f.dir, f.dir)
		}
		return nil
	}
	if err := f.mayMount(t); err != nil {
		return err
	}
	args := []string{"-t", f.c.FSType}
	if f.c.FSType == "" {
		args = nil
	}
	if f.c.Options != "" {
		args = append(args, "-o", f.c.Options)
	}
	if _, err := f.run(ctx, "mount", append(args, f.c.Device, f.dir)...); err != nil {
		return f.mountFailed(err)
	}
	if t, err = f.read(); err != nil {
		return err
	}
	if t.ours == nil || t.ours != t.top {
		return fmt.Errorf("mount said nothing, but %s is not on %s: see %s/self/mountinfo", f.c.Device, f.dir, f.proc)
	}
	return nil
}

// mountFailed passes on what mount said: it names its own line of the manual, so the whole tail is of use.
func (f *filesystem) mountFailed(err error) error {
	if t := strings.TrimSpace(tailOf(err)); t != "" {
		return &outputError{err: fmt.Errorf("mount %s on %s: %s", f.c.Device, f.dir, strings.Join(strings.Fields(t), " "))}
	}
	return fmt.Errorf("mount %s on %s: %w", f.c.Device, f.dir, err)
}

// mayMount refuses what mount itself would do without a word, or with one that helps nobody.
func (f *filesystem) mayMount(t there) error {
	if t.top != nil {
		return fmt.Errorf("%s already holds another mount: %s (%s); umount %s, or choose another directory", f.dir, t.top.Source, t.top.FSType, f.dir)
	}
	st, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: directory %s does not exist: mkdir -p %s", errHopeless, f.dir, f.dir)
	case err != nil:
		return fmt.Errorf("directory %s: %w", f.dir, err)
	case !st.IsDir():
		return fmt.Errorf("%w: %s is not a directory", errHopeless, f.dir)
	}
	src, err := findSource(f.c.Device, f.c.FSType)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: device %s does not exist: %s", errHopeless, f.c.Device, deviceHint(f.c.Device))
	} else if err != nil {
		return err
	}
	if len(t.other) > 0 {
		return fmt.Errorf("%s is already mounted on %s: umount %s", f.c.Device, strings.Join(t.other, " and "), t.other[0])
	}
	if src.kind == sourceBlock {
		return f.notClaimed(src)
	}
	return nil
}

func deviceHint(device string) string {
	if strings.HasPrefix(device, "/dev/drbd") {
		return "is its DRBD resource set up and earlier in the group? see drbdadm status"
	}
	return "see lsblk -f for what this host has"
}

// notClaimed asks the kernel whether a mount in any namespace, or another block device, has claimed the device.
func (f *filesystem) notClaimed(src mountSource) error {
	fd, err := unix.Open(src.path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		return unix.Close(fd)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		by := deviceHolders(f.proc, f.sys, unix.Major(src.dev), unix.Minor(src.dev))
		if len(by) == 0 {
			by = []string{"the kernel or a mount of another PID namespace"}
		}
		return fmt.Errorf("device %s is in use by %s", f.c.Device, strings.Join(by, ", "))
	case errors.Is(err, unix.EMEDIUMTYPE):
		return fmt.Errorf("device %s cannot be opened: its DRBD resource is not Primary here", f.c.Device)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOMEDIUM), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: device %s is a name without a device behind it: %s", errHopeless, f.c.Device, deviceHint(f.c.Device))
	}
	return fmt.Errorf("open device %s: %w", f.c.Device, err)
}

// Stop unmounts. umount2 needs no fork, so it works on a host that has no memory or no root disk any more.
func (f *filesystem) Stop(ctx context.Context) error {
	var e evictor
	for {
		t, err := f.read()
		if err != nil {
			return err
		}
		if t.ours == nil {
			return f.gone(t)
		}
		if t.ours != t.top {
			return fmt.Errorf("%s (%s) is mounted over it on %s: umount %s", t.top.Source, t.top.FSType, f.dir, f.dir)
		}
		if nested := nestedMounts(t.list, t.ours); len(nested) > 0 {
			return fmt.Errorf("%s cannot be unmounted: %s is mounted below it: umount %s", f.dir, strings.Join(nested, " and "), nested[len(nested)-1])
		}
		err = f.umounts.run(ctx, t.ours.Dir)
		switch {
		case err == nil:
			continue // read back
		case errors.Is(err, unix.EINVAL): // somebody else was faster, or it is locked by a container's borders
			if !pause(ctx, busyPoll) {
				return fmt.Errorf("umount %s: %w", f.dir, err)
			}
			continue
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("umount %s: %w", f.dir, err)
		}
		if err := f.evict(ctx, t.ours, &e); err != nil {
			return err
		}
		if !pause(ctx, busyPoll) {
			return f.stillBusy(t.ours)
		}
	}
}

// gone is the last look of a stop: a device that is still mounted elsewhere has not been let go.
func (f *filesystem) gone(t there) error {
	if len(t.other) > 0 {
		return fmt.Errorf("%s is still mounted on %s: umount %s", f.c.Device, strings.Join(t.other, " and "), t.other[0])
	}
	return nil
}

// evictor remembers who was asked to go.
type evictor struct {
	asked map[int]time.Time // by pid: when it got SIGTERM
}

// evict ends the processes that hold the mount: SIGTERM first, SIGKILL to those that stay.
func (f *filesystem) evict(ctx context.Context, m *mountEntry, e *evictor) error {
	users, err := mountUsers(f.proc, m)
	if err != nil {
		return err
	}
	if e.asked == nil {
		e.asked = map[int]time.Time{}
	}
	for _, u := range users {
		if u.PID == os.Getpid() || u.PID == 1 {
			continue // named by stillBusy; ending itself or init helps nobody
		}
		at, was := e.asked[u.PID]
		sig := unix.SIGTERM
		if was {
			if time.Since(at) < grace(ctx) {
				continue
			}
			sig = unix.SIGKILL
		}
		switch err := f.end(u, m, sig); {
		case err == nil && !was:
			e.asked[u.PID] = time.Now()
			f.log.Info("ends a process that holds the file system", "event", "filesystem-holder", "directory", f.dir, "process", u.String(), "how", u.How, "signal", "TERM")
		case err == nil:
			f.log.Warn("kills a process that holds the file system and did not end by itself", "event", "filesystem-holder", "directory", f.dir, "process", u.String(), "how", u.How)
		case !errors.Is(err, unix.ESRCH):
			f.log.Warn("cannot end a process that holds the file system", "event", "filesystem-holder", "directory", f.dir, "process", u.String(), "error", err)
		}
	}
	return nil
}

// grace is the time between SIGTERM and SIGKILL: a third of what is left of the stop at most.
func grace(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return busyGrace
	}
	return min(busyGrace, time.Until(end)/3)
}

// end signals a process through a pidfd, after a second look: the number may belong to somebody else by now.
func (f *filesystem) end(u mountUser, m *mountEntry, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(u.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	users, err := mountUsersAmong(f.proc, m, []int{u.PID})
	if err != nil {
		return err
	}
	if len(users) == 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// stillBusy names who holds the mount when the time is over.
func (f *filesystem) stillBusy(m *mountEntry) error {
	users, err := mountUsers(f.proc, m)
	if err != nil {
		return err
	}
	var who []string
	for _, u := range users {
		who = append(who, fmt.Sprintf("%s, which %s it", u, u.How))
	}
	who = append(who, kernelUsers(f.sys, m)...)
	if len(who) == 0 {
		return fmt.Errorf("umount %s: still busy, and no process holds it: look for swap files, NFS exports and bound sockets in it (fuser -vm %s)", f.dir, f.dir)
	}
	return fmt.Errorf("umount %s: still held by %s", f.dir, strings.Join(who, "; "))
}

// Lacks is Fit: all of that is this host's.
func (f *filesystem) Lacks(ctx context.Context) error { return f.Fit(ctx) }

// Fit says before a start whether this host could mount it.
func (f *filesystem) Fit(ctx context.Context) error {
	st, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("directory %s does not exist: mkdir -p %s", f.dir, f.dir)
	case err == nil && !st.IsDir():
		return fmt.Errorf("%s is not a directory", f.dir)
	}
	// What DRBD provides is there only after it, so it is no measure of this host.
	if !strings.HasPrefix(f.c.Device, "/dev/drbd") {
		if _, err := findSource(f.c.Device, f.c.FSType); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("device %s does not exist: %s", f.c.Device, deviceHint(f.c.Device))
		} else if err != nil {
			return err
		}
	}
	return f.fitType(ctx)
}

func (f *filesystem) fitType(ctx context.Context) error {
	if f.c.FSType == "" || f.c.FSType == "auto" || f.c.FSType == "none" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(f.proc, "filesystems"))
	if err != nil {
		return nil // no /proc, no judgement; the start finds out
	}
	for _, line := range strings.Split(string(b), "\n") {
		if w := strings.Fields(line); len(w) > 0 && w[len(w)-1] == f.c.FSType {
			return nil
		}
	}
	if _, err := exec.LookPath("mount." + f.c.FSType); err == nil {
		return nil
	}
	if _, err := f.run(ctx, "modprobe", "-n", "-q", "fs-"+f.c.FSType); err == nil {
		return nil
	}
	return fmt.Errorf("this kernel does not know the file system %s and has no module for it: see /proc/filesystems", f.c.FSType)
}

// umountSlot runs umount2 so that a dead disk cannot hold up the caller, and never two at once.
type umountSlot struct {
	mu      sync.Mutex
	pending chan error // the one that has not come back
	dir     string
}

func (s *umountSlot) run(ctx context.Context, dir string) error {
	s.mu.Lock()
	if s.pending == nil {
		c := make(chan error, 1)
		s.pending, s.dir = c, dir
		go func() { c <- unix.Unmount(dir, unix.UMOUNT_NOFOLLOW) }()
	}
	c, stuck := s.pending, s.dir
	s.mu.Unlock()
	select {
	case err := <-c:
		s.mu.Lock()
		s.pending = nil
		s.mu.Unlock()
		return err
	case <-ctx.Done():
		return fmt.Errorf("the kernel does not come back from unmounting %s, so its disk does not answer: see dmesg: %w", stuck, ctx.Err())
	}
}
