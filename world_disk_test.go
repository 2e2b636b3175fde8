// What is on the disk after a crash? The state folder of one machine: writes are durable some time after they were
// asked for, in order; what a crash finds on its way is lost, or not, as chance will have it. A full disk refuses
// writes until there is room. It is the keeper of the machine's daemon.

package main

import (
	"slices"
	"strings"
	"time"
)

// worldDisk is /var/lib/ha of a machine.
type worldDisk struct {
	m       *machine
	delay   time.Duration // of a write
	jitter  time.Duration
	full    string // why nothing can be written, "" if it can
	stalled bool   // it answers nothing

	member   member
	durable  *restored // nil: blank
	joined   string    // kernel boot in which this node last joined
	met      meeting   // better incarnations that were glimpsed
	base     string    // hash of what was last accepted
	aside    int       // folders kept aside
	queue    []diskJob
	held     []write // reported, and written with the next that must be durable
	busy     bool
	batch    int    // writes that are under way
	turn     uint64 // counts processes: what an earlier one asked for is not reported
	trap     bool   // the power is cut while the folder is replaced
	accepted []uint64
	copied   *folderCopy // a backup of the folder
	old      bool        // it was put back
}

// folderCopy is what a backup of the state folder holds.
type folderCopy struct {
	member  member
	durable *restored
	joined  string
	met     meeting
	base    string
}

// backUp copies the folder of a running daemon; putBack is what an operator does who thinks that this is a good idea.
func (d *worldDisk) backUp() {
	d.copied = &folderCopy{d.member, cloneRestored(d.durable), d.joined, d.met, d.base}
}

func (d *worldDisk) putBack() {
	c := d.copied
	d.member, d.durable, d.joined, d.met, d.base = c.member, cloneRestored(c.durable), c.joined, c.met, c.base
	d.queue, d.held, d.copied, d.old, d.m.glimpsed = nil, nil, nil, true, 0
}

type diskJob struct {
	l       *life
	w       write
	replace bool
	member  member
	failed  bool
}

// open reads the folder as a starting daemon does.
func (d *worldDisk) open() (*restored, member) {
	if d.member.ID == 0 {
		d.member = member{Node: d.m.name, ID: d.m.w.random()}
	}
	if d.durable == nil || d.durable.Snapshot == nil {
		d.durable = nil
		return nil, d.member
	}
	if err := d.durable.check(); err != nil {
		d.m.w.checks.fail("the disk of %s holds what raft cannot start with: %v", d.m.name, err)
	}
	return cloneRestored(d.durable), d.member
}

// wipe empties the folder; corrupt makes it unreadable, so that a starting daemon sets it aside. Both lose the member id.
func (d *worldDisk) wipe() {
	d.durable, d.member, d.joined, d.base, d.met = nil, member{}, "", "", meeting{}
	d.queue, d.held = nil, nil
}

func (d *worldDisk) corrupt() {
	d.durable, d.member = nil, member{}
	d.aside++
	d.queue, d.held = nil, nil
}

// killed: the process is gone, and with it what it had not handed to the kernel.
func (d *worldDisk) killed() {
	d.held = nil
	if len(d.queue) > 0 && d.full == "" && d.m.w.chance.disk.IntN(2) == 0 {
		d.put(d.queue[0])
	}
	d.queue = nil
	d.turn++
	d.busy = false
}

// crash is a power cut; killed has done what there is to do, since what was reported was durable.
func (d *worldDisk) crash() { d.queue, d.held = nil, nil }

// flush is an orderly end.
func (d *worldDisk) flush() {
	for d.full == "" && len(d.queue) > 0 {
		d.put(d.queue[0])
		d.queue = d.queue[1:]
	}
	if d.full == "" {
		d.putHeld()
	}
}

func (d *worldDisk) push(j diskJob) {
	d.queue = append(d.queue, j)
	if d.trap && j.replace {
		d.trap = false
		d.m.w.checks.meet("crash while the folder is replaced")
		d.m.w.after(time.Duration(d.m.w.chance.disk.Int64N(int64(2*d.delay))), d.m.powerOff)
	}
	d.work()
}

func (d *worldDisk) work() {
	if d.busy || len(d.queue) == 0 {
		return
	}
	d.busy = true
	d.batch = 1 // what waits is written with one sync, but for what changes the folder
	for d.batch < len(d.queue) && d.queue[d.batch-1].ordinary() && d.queue[d.batch].ordinary() {
		d.batch++
	}
	wait := d.delay + time.Duration(d.m.w.chance.disk.Int64N(int64(d.jitter)+1))
	if d.queue[0].failed {
		wait = 100 * time.Millisecond
	}
	turn := d.turn
	d.finish(wait, turn)
}

func (d *worldDisk) finish(wait time.Duration, turn uint64) {
	d.m.after(wait, func() {
		if d.stalled {
			d.finish(10*time.Millisecond, turn)
			return
		}
		if turn == d.turn {
			for range d.batch {
				if turn != d.turn || !d.done() {
					break
				}
			}
			d.busy = false
			d.work()
		}
	})
}

func (j *diskJob) ordinary() bool { return !j.replace && j.w.Snapshot == nil }

// done ends the oldest write, or fails it for now.
func (d *worldDisk) done() bool {
	j := &d.queue[0]
	report := func(j diskJob, err string) {
		j.l.enter(func(l *life) { l.node.Saved(l.m.now(), saved{Done: j.w.Done, Err: err}) })
	}
	if d.full != "" && (j.w.Sync || j.replace) {
		j.failed = true
		// A Replace behind it makes it pointless.
		if !j.replace && slices.ContainsFunc(d.queue, func(x diskJob) bool { return x.replace }) {
			gone := *j
			d.queue = d.queue[1:]
			report(gone, d.full)
			return false
		}
		report(*j, d.full)
		return false
	}
	ended := *j
	d.queue = d.queue[1:]
	d.put(ended)
	report(ended, "")
	return true
}

func (d *worldDisk) put(j diskJob) {
	w := d.m.w
	w.mark("saved", d.m.name, j.w.Done, uint64(len(j.w.Entries)))
	if j.replace {
		d.held = nil
		d.member = j.member
		if d.durable != nil {
			d.aside++
		}
		d.durable = nil
		if j.w.Snapshot != nil {
			d.apply(j.w)
		}
		return
	}
	if !j.w.Sync {
		d.held = append(d.held, j.w)
		return
	}
	d.putHeld()
	d.apply(j.w)
}

func (d *worldDisk) putHeld() {
	for _, w := range d.held {
		d.apply(w)
	}
	d.held = nil
}

func (d *worldDisk) apply(w write) {
	if d.durable == nil {
		d.durable = &restored{}
	}
	if err := d.durable.apply(w); err != nil {
		d.m.w.checks.fail("%s writes what cannot be read back: %v", d.m.name, err)
	}
}

// The keeper of the daemon.

func (l *life) Save(w write) { l.m.disk.push(diskJob{l: l, w: w}) }

func (l *life) Replace(why string, m member, w write) {
	if l.m.disk.trap && strings.HasPrefix(why, "incarnation-") {
		l.w.checks.meet("a crash while it is forced")
	}
	l.m.disk.push(diskJob{l: l, w: w, replace: true, member: m})
}

func (l *life) KeepLease(marks []leaseMark, caretaker bool) {
	l.m.run = leaseNote{Boot: l.m.bootID(), Caretaker: caretaker, Marks: slices.Clone(marks)}
}

func (l *life) KeepMeeting(m meeting) { l.m.disk.met = m }

func (l *life) KeepJoined() { l.m.disk.joined = l.m.bootID() }

// Accept takes a config that came into force, and writes it into a file that nobody has edited.
func (l *life) Accept(c ConfigState) {
	text, err := decompress(c.Text)
	if err != nil {
		l.w.checks.fail("config generation %d on %s cannot be read: %v", c.Generation, l.m.name, err)
		return
	}
	l.m.disk.accepted = append(l.m.disk.accepted, c.Generation)
	l.m.disk.base = c.Hash
	l.m.file = text
	l.wired, l.retiring = withMembers(c.Effective, l.wired, l.node.state)
	l.rewire()
}

// rewire and retire are what daemon.go does: who is removed is talked to until it is no member any more.
func (l *life) rewire() {
	if l.wired.node(l.m.name) != nil {
		l.port.reconfigure(l.wired)
	}
}

func (l *life) retire() {
	if len(l.retiring) == 0 || l.node.state == nil || l.node.state.Config.Effective == nil {
		return
	}
	before := len(l.retiring)
	wired, retiring := withMembers(l.node.state.Config.Effective, l.wired, l.node.state)
	if len(retiring) < before {
		l.wired, l.retiring = wired, retiring
		l.rewire()
	}
}
