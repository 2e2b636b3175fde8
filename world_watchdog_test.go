// What resets a machine of the world whose daemon does not pet? A timer beside its kernel, with a clock of its own, and
// the hands of the daemon on it. As with the real one a process that ends without disarming leaves it running, and is
// itself the last to pet it: the kernel does so when it closes the device.

package main

import (
	"fmt"
	"time"
)

// worldDog is the watchdog of one machine.
type worldDog struct {
	m       *machine
	busy    string // why it cannot be opened, "" if it can
	runs    bool
	open    bool // the present process holds it
	timeout time.Duration
	ppm     int64 // it counts that much too fast
	turn    uint64
	resets  int
}

// bootTakes is how long a machine that was reset takes until its daemon runs again.
const bootTakes = 5 * time.Second

func (d *worldDog) state() dogState {
	return dogState{Device: "worlddog", Armed: d.runs && d.open, Left: d.runs && !d.open, Timeout: d.timeout, Fault: d.busy}
}

// pet begins the timeout anew.
func (d *worldDog) pet() {
	d.turn++
	turn := d.turn
	took := d.timeout - time.Duration(int64(d.timeout)/(1e6+d.ppm)*d.ppm)
	d.m.w.after(took, func() {
		if turn == d.turn && d.runs {
			d.m.w.tell("%s: its watchdog resets it", d.m.name)
			d.m.reset()
		}
	})
}

// closed: the process is gone.
func (d *worldDog) closed() {
	if d.open && d.runs {
		d.pet()
	}
	d.open = false
}

// reset boots a machine as its reset button does.
func (m *machine) reset() {
	m.dog.resets++
	m.w.checks.meet("reset")
	m.powerOff()
	boot := m.boot
	m.w.after(bootTakes, func() {
		if !m.power && m.boot == boot {
			m.powerOn()
			if err := m.start(false); err != nil {
				m.w.checks.fail("%s does not start after a reset: %v", m.name, err)
			}
		}
	})
}

// The watchdog of the daemon. A look at the clock and what follows from it are two events: a process may be stopped in
// between.

func (l *life) dogged(what string, look func() bool, do func()) {
	l.w.mark(what, l.m.name)
	wait := func() time.Duration { return time.Duration(l.w.chance.act.Int64N(int64(200 * time.Microsecond))) }
	l.w.after(wait(), func() {
		l.enter(func(l *life) {
			if look() {
				l.w.after(wait(), func() { l.enter(func(*life) { do() }) })
			}
		})
	})
}

func (l *life) tellDog() {
	s := l.m.dog.state()
	l.w.after(0, func() { l.enter(func(l *life) { l.node.WatchdogIs(l.m.now(), s) }) })
}

func (l *life) Arm(_ string, timeout time.Duration, until instant) {
	d := &l.m.dog
	l.dogged("arm", func() bool {
		if l.m.now() >= until || d.busy != "" {
			l.tellDog()
			return false
		}
		return true
	}, func() {
		d.runs, d.open = true, true
		if timeout > 0 {
			d.timeout = timeout
		}
		d.pet()
		l.tellDog()
	})
}

func (l *life) Pet(until instant) {
	l.dogged("pet", func() bool { return l.m.now() < until }, l.m.dog.pet)
}

func (l *life) Disarm() {
	l.dogged("disarm", func() bool { return true }, func() {
		l.m.dog.runs, l.m.dog.open = false, false
		l.tellDog()
	})
}

func (l *life) Look(string) { l.dogged("look", func() bool { return true }, l.tellDog) }

func (l *life) Reset(why string) {
	l.w.tell("%s resets itself: %s", l.m.name, why)
	l.w.after(0, l.m.reset)
}

// health is what a story does to a machine's own health: VERB … on NODE.
func (m *machine) health(f []string) error {
	switch f[0] {
	case "jam": // disk on NODE: it answers nothing any more
		m.disk.stalled = true
	case "unjam": // disk on NODE
		m.disk.stalled = false
	case "nofork": // on NODE: it can start no process
		m.canFork("fork/exec /bin/true: resource temporarily unavailable")
	case "fork": // on NODE
		m.canFork("")
	case "busy": // watchdog on NODE: somebody else has it
		m.dog.busy = "/dev/watchdog is in use by another program"
	case "free": // watchdog on NODE
		m.dog.busy = ""
	case "dogclock": // NODE +10%: its watchdog's clock
		var percent int64
		if _, err := fmt.Sscanf(f[2], "%d%%", &percent); err != nil {
			return err
		}
		m.dog.ppm = percent * 10000
	default:
		return fmt.Errorf("no such verb")
	}
	return nil
}

func (m *machine) canFork(fault string) {
	if l := m.life; l != nil {
		l.enter(func(l *life) { l.node.CanFork(m.now(), fault) })
	}
}
