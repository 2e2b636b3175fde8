// Does the disk under a file system still answer? The read and write probes of a monitor, and the watch on the mount
// table. A probe may hang in the kernel for ever; whoever asked must not.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// probeFile is written by the write probe, in the root of the file system.
const probeFile = ".hactl-probe"

// probeBlock is read past the cache: the largest logical block that a disk has, and a page.
const probeBlock = 4096

// probeSlot holds at most one probe that has not come back, so that a dead disk costs one goroutine, not one each time.
type probeSlot struct {
	mu      sync.Mutex
	pending chan error
	since   time.Time
}

func (s *probeSlot) run(ctx context.Context, probe func() error) error {
	s.mu.Lock()
	if s.pending == nil {
		c := make(chan error, 1)
		s.pending, s.since = c, time.Now()
		go func() { c <- probe() }()
	}
	c, since := s.pending, s.since
	s.mu.Unlock()
	select {
	case err := <-c:
		s.mu.Lock()
		s.pending = nil
		s.mu.Unlock()
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer for %s: the disk stands still or the file system is frozen, see dmesg: %w",
			time.Since(since).Round(time.Millisecond), ctx.Err())
	}
}

func (f *filesystem) probe() error {
	if err := f.probeRead(); err != nil {
		return err
	}
	if f.c.Probe == "write" {
		return f.probeWrite()
	}
	return nil
}

// probeRead asks the file system for its numbers and one name, and the disk for one block: the first two may come from
// memory, the third cannot.
func (f *filesystem) probeRead() error {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	d, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("list: %w", err)
	}
	src, err := findSource(f.c.Device, f.c.FSType)
	if err != nil {
		return err
	}
	if src.kind != sourceBlock {
		return nil
	}
	return readBlock(src.path)
}

// readBlock reads the device's first block past the page cache.
func readBlock(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, probeBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned, as O_DIRECT wants
	if err != nil {
		return fmt.Errorf("get memory: %w", err)
	}
	defer unix.Munmap(buf)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if n != len(buf) {
		return fmt.Errorf("read %s: %d bytes of %d", path, n, len(buf))
	}
	return nil
}

// probeWrite writes a small file and waits until it is on the disk. O_NOFOLLOW: whoever may write there must not send
// root's write elsewhere.
func (f *filesystem) probeWrite() error {
	path := filepath.Join(f.dir, probeFile)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file: remove it", path)
	}
	text := time.Now().UTC().Format(time.RFC3339Nano) + "\n"
	if err := file.Truncate(0); err != nil {
		return err
	}
	if _, err := file.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return file.Sync()
}

// Watch waits for changes of the mount table, which the kernel tells by poll(2), and reports when this mount is gone,
// covered or has become read-only. A file system that turns read-only by itself after an error is not told; the monitor
// finds that.
func (f *filesystem) Watch(ctx context.Context, changed func(reason string)) {
	table, err := unix.Open(filepath.Join(f.proc, "self/mountinfo"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.log.Warn("cannot watch the mount table, the monitor must do", "event", "filesystem-watch", "directory", f.dir, "error", err)
		return
	}
	defer unix.Close(table)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		f.log.Warn("cannot watch the mount table, the monitor must do", "event", "filesystem-watch", "directory", f.dir, "error", err)
		return
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-woken // it must not write into a number that is somebody else's by then
		}
		unix.Close(wake)
	}()
	was := f.complaint()
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(table), Events: unix.POLLPRI}, {Fd: int32(wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			f.log.Warn("cannot watch the mount table any more, the monitor must do", "event", "filesystem-watch", "directory", f.dir, "error", err)
			return
		}
		if now := f.complaint(); now != was {
			if was = now; now != "" {
				changed(now)
			}
		}
	}
}

// complaint is what the mount table alone says is wrong.
func (f *filesystem) complaint() string {
	t, err := f.read()
	switch {
	case err != nil:
		return ""
	case t.ours == nil:
		return f.dir + " is not mounted any more"
	case t.ours != t.top:
		return f.dir + " is covered by another mount"
	case !f.readonly() && t.ours.option("ro"):
		return f.dir + " has become read-only"
	}
	return ""
}
