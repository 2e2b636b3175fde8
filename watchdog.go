// How is this host's watchdog held? The device is opened, set, petted and let go on one goroutine of its own, since a slow
// one must not hold up the loop; before each petting it looks once more whether the grant still holds. It decides nothing:
// node_watchdog.go does. The device's contract is the kernel's Documentation/watchdog/watchdog-api.rst.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dogDevice is an open watchdog.
type dogDevice interface {
	Support() (options uint32, identity string, err error)
	SetTimeout(d time.Duration) error // whole seconds
	Timeout() (time.Duration, error)
	Pet() error
	// Close lets it go. Only after the magic character it rests then; without that it goes on.
	Close(magic bool) error
}

// hostDog is the watchdog of the daemon.
type hostDog struct {
	sys   string // /sys
	note  string // names the device that this process, or one before it, left running; in a folder that a reboot empties
	log   *slog.Logger
	tell  func(dogState)
	open  func(device string) (dogDevice, error)
	reset func() error
	now   func() instant
	jobs  chan func()

	device dogDevice // nil: not open
	is     dogState
}

const (
	softDog = "Software Watchdog" // what the kernel's softdog calls itself
	dogNote = "watchdog"          // in the daemon's run folder
)

func newHostDog(runDir string, log *slog.Logger, tell func(dogState)) *hostDog {
	h := &hostDog{sys: "/sys", note: filepath.Join(runDir, dogNote), log: log, tell: tell, open: openDog, reset: resetHost, now: boottime,
		jobs: make(chan func(), 64)}
	h.is = h.left()
	return h
}

// run does the work until ctx ends. What is armed then stays so: a clean end has disarmed it before.
func (h *hostDog) run(ctx context.Context) {
	for {
		select {
		case job := <-h.jobs:
			job()
		case <-ctx.Done():
			return
		}
	}
}

// do never waits, and forgets nothing.
func (h *hostDog) do(job func()) {
	select {
	case h.jobs <- job:
	default:
		go func() { h.jobs <- job }()
	}
}

func (h *hostDog) Arm(device string, timeout time.Duration, until instant) {
	h.do(func() {
		if h.device == nil && h.now() < until {
			h.is = h.arm(device, timeout)
		}
		h.tell(h.is)
	})
}

func (h *hostDog) Pet(until instant) {
	select {
	case h.jobs <- func() { h.pet(until) }:
	default: // a device that is so far behind needs no further petting
	}
}

func (h *hostDog) pet(until instant) {
	if h.device == nil || h.now() >= until {
		return
	}
	if err := h.device.Pet(); err != nil {
		h.log.Error("the watchdog cannot be petted: the host will be reset", "event", "watchdog-failed", "err", err)
	}
}

func (h *hostDog) Disarm() {
	h.do(func() {
		h.is = h.disarm()
		h.tell(h.is)
	})
}

func (h *hostDog) Look(device string) {
	h.do(func() {
		if h.device == nil && !h.is.Left {
			h.is = h.look(device)
		}
		h.tell(h.is)
	})
}

// Reset does not wait for its turn: nothing else matters any more.
func (h *hostDog) Reset(why string) {
	h.log.Error("resetting this host at once: "+why, "event", "self-fence")
	if err := h.reset(); err != nil {
		h.log.Error("this host cannot be reset; its watchdog, if it has one, is petted no more", "event", "self-fence", "err", err)
	}
}

// arm opens the device, which starts it, and sets its timeout. One that a killed daemon would stop by dying, or that cannot
// be set, is let go again.
func (h *hostDog) arm(device string, timeout time.Duration) dogState {
	was := h.is
	if err := os.WriteFile(h.note, []byte(device), 0o600); err != nil { // first: what runs must be known to the next daemon
		return dogState{Fault: fmt.Sprintf("note that %s runs: %v", device, err)}
	}
	d, err := h.open(device)
	if err != nil {
		if !was.Left {
			os.Remove(h.note)
		}
		return dogState{Fault: openFault(device, err), Left: was.Left, Timeout: was.Timeout}
	}
	s, err := setDog(d, device, timeout)
	if err != nil {
		err = errors.Join(err, d.Close(true))
		os.Remove(h.note)
		return dogState{Fault: err.Error()}
	}
	h.device = d
	return s
}

// setDog makes sure that an open device does what it is needed for.
func setDog(d dogDevice, device string, timeout time.Duration) (dogState, error) {
	options, identity, err := d.Support()
	if err != nil {
		return dogState{}, fmt.Errorf("%s is no watchdog: %w", device, err)
	}
	s := dogState{Device: identity, Soft: identity == softDog, Armed: true}
	switch {
	case options&unix.WDIOF_MAGICCLOSE == 0:
		return s, fmt.Errorf("%s (%s) stops when its program dies, so it guards against nothing: use another, or softdog", device, identity)
	case timeout > 0 && options&unix.WDIOF_SETTIMEOUT == 0:
		return s, fmt.Errorf("%s (%s) has a timeout that cannot be set: use another, or softdog", device, identity)
	}
	if timeout > 0 {
		if err := d.SetTimeout(timeout); err != nil {
			return s, fmt.Errorf("set the timeout of %s (%s) to %s: %w: choose another [watchdog] timeout", device, identity, timeout, err)
		}
	}
	if s.Timeout, err = d.Timeout(); err != nil {
		return s, fmt.Errorf("read the timeout of %s (%s): %w", device, identity, err)
	}
	if s.Timeout < timeout {
		return s, fmt.Errorf("%s (%s) can wait for %s only: set [watchdog] timeout to that", device, identity, s.Timeout)
	}
	return s, d.Pet()
}

func openFault(device string, err error) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Sprintf("%s is in use by another program: systemd (RuntimeWatchdogSec in system.conf) or a watchdog daemon; fuser -v %s names it", device, device)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Sprintf("there is no %s: load the driver of this host's watchdog, or modprobe softdog", device)
	}
	return fmt.Sprintf("open %s: %v", device, err)
}

// disarm lets it rest. What a process before this one left running is opened for that.
func (h *hostDog) disarm() dogState {
	if h.device == nil && h.is.Left {
		device, err := os.ReadFile(h.note)
		if err == nil {
			h.device, err = h.open(string(device))
		}
		if err != nil {
			h.log.Error("the watchdog cannot be stopped: the host will be reset", "event", "watchdog-failed", "err", err)
			return h.is
		}
	}
	if h.device == nil {
		return h.is
	}
	err := h.device.Close(true)
	h.device = nil
	os.Remove(h.note)
	s := dogState{Device: h.is.Device, Soft: h.is.Soft}
	if err != nil {
		s.Fault = fmt.Sprintf("it cannot be stopped, so the host will be reset: %v", err)
	}
	return s
}

// left is what a process before this one left running in this boot.
func (h *hostDog) left() dogState {
	device, err := os.ReadFile(h.note)
	if err != nil {
		return dogState{}
	}
	s := h.look(string(device))
	if state, known := h.attribute(string(device), "state"); known && state != "active" {
		os.Remove(h.note) // it was about to be armed, or has just been disarmed
		return dogState{}
	}
	s.Left, s.Fault = true, ""
	if seconds, known := h.attribute(string(device), "timeout"); known {
		s.Timeout, _ = time.ParseDuration(seconds + "s")
	}
	return s
}

// look reads what the kernel shows of a device that is not open: opening it would start it.
func (h *hostDog) look(device string) dogState {
	info, err := os.Stat(device)
	if err == nil && info.Mode()&fs.ModeCharDevice == 0 {
		err = errors.New("it is no device")
	}
	if err != nil {
		return dogState{Fault: openFault(device, err)}
	}
	s := dogState{Device: filepath.Base(device)}
	if identity, known := h.attribute(device, "identity"); known {
		s.Device, s.Soft = identity, identity == softDog
	} else if h.is.Fault != "" {
		return h.is // nothing to look at: what was found out by trying stands
	}
	if v, known := h.attribute(device, "nowayout"); known && v != "0" {
		s.Fault = fmt.Sprintf("%s (%s) cannot be stopped once it runs, so that a clean stop of the daemon would reset the host: load its driver with nowayout=0", device, s.Device)
	}
	if v, known := h.attribute(device, "state"); known && v == "active" {
		s.Fault = openFault(device, unix.EBUSY)
	}
	return s
}

// attribute reads one of the kernel's files about a device. /dev/watchdog is another name of the first one.
func (h *hostDog) attribute(device, name string) (string, bool) {
	if to, err := filepath.EvalSymlinks(device); err == nil {
		device = to
	}
	base := filepath.Base(device)
	if base == "watchdog" {
		base = "watchdog0"
	}
	b, err := os.ReadFile(filepath.Join(h.sys, "class/watchdog", base, name))
	return strings.TrimSpace(string(b)), err == nil
}

// openDevice is the real one.
type openDevice struct{ fd int }

func openDog(device string) (dogDevice, error) {
	fd, err := unix.Open(device, unix.O_WRONLY|unix.O_CLOEXEC, 0) // a child that inherited it would keep it open
	if err != nil {
		return nil, err
	}
	return &openDevice{fd}, nil
}

func (d *openDevice) Support() (uint32, string, error) {
	info, err := unix.IoctlGetWatchdogInfo(d.fd)
	if err != nil {
		return 0, "", err
	}
	name, _, _ := bytes.Cut(info.Identity[:], []byte{0})
	return info.Options, string(name), nil
}

func (d *openDevice) SetTimeout(t time.Duration) error {
	return unix.IoctlSetPointerInt(d.fd, unix.WDIOC_SETTIMEOUT, int(t/time.Second))
}

func (d *openDevice) Timeout() (time.Duration, error) {
	v, err := unix.IoctlGetUint32(d.fd, unix.WDIOC_GETTIMEOUT)
	return time.Duration(v) * time.Second, err
}

func (d *openDevice) Pet() error { return unix.IoctlWatchdogKeepalive(d.fd) }

func (d *openDevice) Close(magic bool) error {
	var err error
	if magic {
		_, err = unix.Write(d.fd, []byte("V"))
	}
	return errors.Join(err, unix.Close(d.fd))
}

// resetHost asks the kernel for a reset without a word to anybody: no sync, which could hang on the very disk, and no
// unmounting. It returns only when that was refused.
func resetHost() error {
	err := os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0)
	return errors.Join(err, unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}
