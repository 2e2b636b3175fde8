package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeDog is a device that writes down what is done to it.
type fakeDog struct {
	options  uint32
	identity string
	timeout  time.Duration
	most     time.Duration // longer ones are cut to it; 0: none
	refuses  error         // of SetTimeout
	did      []string
}

func (d *fakeDog) Support() (uint32, string, error) { return d.options, d.identity, nil }
func (d *fakeDog) Timeout() (time.Duration, error)  { return d.timeout, nil }
func (d *fakeDog) Pet() error                       { d.did = append(d.did, "pet"); return nil }
func (d *fakeDog) SetTimeout(t time.Duration) error {
	if d.timeout = t; d.most > 0 {
		d.timeout = min(t, d.most)
	}
	d.did = append(d.did, "set")
	return d.refuses
}
func (d *fakeDog) Close(magic bool) error {
	d.did = append(d.did, map[bool]string{true: "rest", false: "abandon"}[magic])
	return nil
}

const wellBehaved = unix.WDIOF_MAGICCLOSE | unix.WDIOF_SETTIMEOUT | unix.WDIOF_KEEPALIVEPING

// dogRig is a hostDog over a fake device; run does what was asked and returns the last word.
type dogRig struct {
	*hostDog
	dev    *fakeDog
	told   []dogState
	time   instant
	opened []string
}

func newDogRig(t *testing.T, dir string, dev *fakeDog) *dogRig {
	r := &dogRig{dev: dev, time: at(1000)}
	r.hostDog = newHostDog(dir, slog.New(slog.DiscardHandler), func(s dogState) { r.told = append(r.told, s) })
	r.sys, r.now = t.TempDir(), func() instant { return r.time }
	r.reset = func() error { return errors.New("a test resets nothing") }
	r.open = func(device string) (dogDevice, error) {
		r.opened = append(r.opened, device)
		return r.dev, nil
	}
	return r
}

func (r *dogRig) run() dogState {
	for len(r.jobs) > 0 {
		(<-r.jobs)()
	}
	if len(r.told) == 0 {
		return dogState{}
	}
	return r.told[len(r.told)-1]
}

func TestWatchdogIsSetPettedAndLaidToRest(t *testing.T) {
	r := newDogRig(t, t.TempDir(), &fakeDog{options: wellBehaved, identity: "iTCO_wdt"})
	r.Arm("/dev/watchdog", 5*time.Second, at(2000))
	want := dogState{Device: "iTCO_wdt", Armed: true, Timeout: 5 * time.Second}
	if got := r.run(); got != want {
		t.Fatalf("armed: %+v, want %+v", got, want)
	}
	r.Pet(at(2000))
	r.run()
	r.time = at(2000)
	r.Pet(at(2000)) // its grant has ended by now
	r.run()
	r.Disarm()
	if got := r.run(); got.Armed || got.Left || got.Fault != "" {
		t.Fatalf("at rest: %+v", got)
	}
	if want := []string{"set", "pet", "pet", "rest"}; !slices.Equal(r.dev.did, want) {
		t.Errorf("did %q, want %q", r.dev.did, want)
	}
	r.Pet(at(9000))
	r.Disarm()
	if r.run(); len(r.dev.did) != 4 || len(r.opened) != 1 {
		t.Errorf("a watchdog at rest was touched: %q, opened %q", r.dev.did, r.opened)
	}
}

func TestWatchdogIsNotStartedForAGrantThatHasEnded(t *testing.T) {
	r := newDogRig(t, t.TempDir(), &fakeDog{options: wellBehaved})
	r.Arm("/dev/watchdog", 5*time.Second, r.time)
	if got := r.run(); got.Armed || len(r.opened) > 0 {
		t.Fatalf("%+v, opened %q", got, r.opened)
	}
}

func TestWatchdogThatGuardsNothingIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		dev  fakeDog
		err  error
		want string
	}{
		{"stops with its program", fakeDog{options: unix.WDIOF_SETTIMEOUT, identity: "toy"}, nil, "/dev/watchdog (toy) stops when its program dies"},
		{"cannot be set", fakeDog{options: unix.WDIOF_MAGICCLOSE, identity: "toy"}, nil, "has a timeout that cannot be set"},
		{"refuses to be set", fakeDog{options: wellBehaved, identity: "toy", refuses: unix.EINVAL}, nil, "choose another [watchdog] timeout"},
		{"too short", fakeDog{options: wellBehaved, identity: "toy", most: 3 * time.Second}, nil, "/dev/watchdog (toy) can wait for 3s only"},
		{"busy", fakeDog{}, unix.EBUSY, "in use by another program: systemd (RuntimeWatchdogSec"},
		{"missing", fakeDog{}, unix.ENOENT, "there is no /dev/watchdog: load the driver"},
		{"forbidden", fakeDog{}, unix.EACCES, "open /dev/watchdog: permission denied"},
	} {
		dir := t.TempDir()
		r := newDogRig(t, dir, &c.dev)
		if c.err != nil {
			r.open = func(string) (dogDevice, error) { return nil, c.err }
		}
		r.Arm("/dev/watchdog", 5*time.Second, at(2000))
		got := r.run()
		if got.Armed || !strings.Contains(got.Fault, c.want) {
			t.Errorf("%s: %+v, want %q", c.name, got, c.want)
		}
		if c.err == nil && c.dev.did[len(c.dev.did)-1] != "rest" {
			t.Errorf("%s: not laid to rest: %q", c.name, c.dev.did)
		}
		if _, err := os.Stat(filepath.Join(dir, "watchdog")); err == nil {
			t.Errorf("%s: the next daemon would take it for running", c.name)
		}
	}
}

// A daemon that is killed leaves it running. The next one neither opens nor pets it before it is granted anew, leaves its
// timeout as the others know it, and can lay it to rest when nothing runs here any more.
func TestWatchdogOfADeadDaemon(t *testing.T) {
	dir := t.TempDir()
	first := newDogRig(t, dir, &fakeDog{options: wellBehaved, identity: "iTCO_wdt"})
	first.Arm("/dev/watchdog1", 5*time.Second, at(2000))
	first.run()

	next := newDogRig(t, dir, first.dev)
	if !next.is.Left || next.is.Armed || next.is.Fault != "" {
		t.Fatalf("found %+v, want one that runs and nobody pets", next.is)
	}
	next.Look("/dev/watchdog1")
	if got := next.run(); !got.Left || len(next.opened) > 0 {
		t.Fatalf("a look: %+v, opened %q", got, next.opened)
	}
	next.Arm("/dev/watchdog1", 0, at(2000))
	if got := next.run(); !got.Armed || got.Left || got.Timeout != 5*time.Second {
		t.Fatalf("taken over: %+v", got)
	}
	if want := []string{"set", "pet", "pet"}; !slices.Equal(first.dev.did, want) {
		t.Errorf("did %q, want %q", first.dev.did, want)
	}

	last := newDogRig(t, dir, first.dev)
	last.Disarm()
	if got := last.run(); got.Left || got.Armed || !slices.Equal(last.opened, []string{"/dev/watchdog1"}) || first.dev.did[3] != "rest" {
		t.Errorf("laid to rest: %+v, opened %q, did %q", got, last.opened, first.dev.did)
	}
	if after := newDogRig(t, dir, first.dev); after.is.Left {
		t.Error("the daemon after that takes it for running")
	}
}

func TestWatchdogIsLookedAtWithoutStartingIt(t *testing.T) {
	r := newDogRig(t, t.TempDir(), &fakeDog{})
	device := "/dev/null" // a character device without files about it
	if got := r.look(device); got.Fault != "" || got.Device != "null" {
		t.Errorf("unknown to the kernel's class: %+v", got)
	}
	files := filepath.Join(r.sys, "class/watchdog/null")
	set := func(name, value string) {
		if err := os.MkdirAll(files, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(files, name), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("identity", softDog)
	set("state", "inactive")
	set("nowayout", "0")
	if got := r.look(device); !got.Soft || got.Fault != "" || got.Device != softDog {
		t.Errorf("softdog: %+v", got)
	}
	set("state", "active")
	if got := r.look(device); !strings.Contains(got.Fault, "in use by another program") {
		t.Errorf("somebody has it: %+v", got)
	}
	set("state", "inactive")
	set("nowayout", "1")
	if got := r.look(device); !strings.Contains(got.Fault, "load its driver with nowayout=0") {
		t.Errorf("it cannot be stopped: %+v", got)
	}
	if got := r.look(t.TempDir()); !strings.Contains(got.Fault, "it is no device") {
		t.Errorf("a folder: %+v", got)
	}
	if got := r.look("/dev/no-such-watchdog"); !strings.Contains(got.Fault, "there is no /dev/no-such-watchdog") {
		t.Errorf("nothing: %+v", got)
	}
	if len(r.opened) > 0 {
		t.Errorf("opened %q", r.opened)
	}
}

// What is a device and no watchdog says so by its ioctls: the real calls, on a device that does nothing.
func TestDeviceThatIsNoWatchdog(t *testing.T) {
	d, err := openDog("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setDog(d, "/dev/null", time.Second); err == nil || !strings.Contains(err.Error(), "/dev/null is no watchdog") {
		t.Errorf("%v", err)
	}
	if err := d.Close(true); err != nil {
		t.Error(err)
	}
}
