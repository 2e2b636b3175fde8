// How is a DRBD resource promoted, demoted and looked at? Through drbdadm and drbdsetup, 8.4 and 9. It never forces:
// data that is Inconsistent or Outdated is not promoted here, and what DRBD refuses is passed on in words.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	drbdPoll = 100 * time.Millisecond // between two looks at something that passes in a moment
	// drbdMeet is how long a resource that was just brought up waits for its peer before it is promoted alone: with
	// fencing off, DRBD calls even old data UpToDate until it has met the peer that has newer.
	drbdMeet = 5 * time.Second
	// drbdPatience is how long a start tries again while the peer is still Primary. Each try makes DRBD ping the peer,
	// so that a dead one is noticed after ping-timeout (0.5 s by default) instead of ping-int (10 s).
	drbdPatience = 2 * time.Second
	// drbdFenceTime is what a fencing handler is given before frozen I/O counts as a failure.
	drbdFenceTime = 60 * time.Second
	drbdLook      = 2 * time.Second // for the look at the state that a message ends with
)

// commandRunner runs a program to its end and returns its stdout; the error carries stderr and the exit status.
type commandRunner func(ctx context.Context, name string, args ...string) (stdout string, err error)

type drbd struct {
	name   string // of DRBD's resource
	log    *slog.Logger
	run    commandRunner
	stream lineStreamer
	look   func(name string) (string, error) // exec.LookPath
	proc   string                            // /proc
	sys    string                            // /sys

	meet, patience, fenceTime time.Duration

	mu          sync.Mutex
	frozenSince time.Time // of frozen I/O while a fencing handler runs; zero: not frozen
	unguarded   *[]string // as last read
	gaveUp      bool      // its disk was detached to end frozen I/O
	splitBrain  bool      // the watcher saw DRBD call its handler, and no good connection since
}

func newDRBD(c ResourceConfig, env resourceEnv) (resource, error) {
	if c.Resource == "" {
		return nil, fmt.Errorf("resource %s: which resource of DRBD? set resource = \"r0\"", c.Name)
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &drbd{name: c.Resource, log: log, run: runToEnd, stream: streamLines, look: exec.LookPath,
		proc: "/proc", sys: "/sys", meet: drbdMeet, patience: drbdPatience, fenceTime: drbdFenceTime}, nil
}

func (d *drbd) Monitor(ctx context.Context) (condition, error) {
	s, err := d.read(ctx)
	if err != nil {
		return conditionUnknown, err
	}
	if s == nil {
		return conditionStopped, nil
	}
	c, frozen, err := s.health()
	if err != nil {
		return c, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !frozen:
		d.frozenSince = time.Time{}
	case d.frozenSince.IsZero():
		d.frozenSince = time.Now()
	case time.Since(d.frozenSince) > d.fenceTime:
		return conditionFailed, fmt.Errorf("I/O of %s has been frozen for %s, since the cluster has not recorded that it goes on without its peer: "+
			"is there a majority? hactl status", d.name, time.Since(d.frozenSince).Round(time.Second))
	}
	return c, nil
}

// line is what it is in, for people.
func (d *drbd) line(s *drbdStatus) string {
	if s == nil {
		return "down"
	}
	line := s.summary()
	if !d.version84() {
		line += "; DRBD 9: parser-tested only"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.splitBrain {
		line += "; split brain: both sides have changes that the other has not"
	}
	return line
}

// Copies says where good data is.
func (d *drbd) Copies(ctx context.Context) (copies, error) {
	s, err := d.read(ctx)
	if err != nil {
		return copies{}, err
	}
	if s == nil {
		return copies{Line: d.line(nil)}, nil
	}
	c := s.copies()
	c.Line = d.line(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	c.Replica.SplitBrain = d.splitBrain
	return c, nil
}

// Rejoin ends a split brain that somebody has judged. Both sides stand alone then, and each is told to connect again: the one
// that gives up its data says so with that, and DRBD takes its blocks from the other. Which of the two comes first does not
// matter: as long as one has not said so DRBD finds the split brain again, and both stand alone for the next try.
func (d *drbd) Rejoin(ctx context.Context, how string) error {
	s, err := d.read(ctx)
	if err != nil || s == nil || !slices.ContainsFunc(s.Peers, func(p drbdPeer) bool { return p.Connection == connStandAlone }) {
		return err
	}
	args := []string{"connect", d.name}
	if how == rejoinGiveUp {
		if s.Role != drbdSecondary {
			return fmt.Errorf("%s is %s here, so what is written here cannot be given up yet", d.name, s.Role)
		}
		args = []string{"connect", "--discard-my-data", d.name}
	}
	if _, err := d.run(ctx, "drbdadm", args...); err != nil {
		return d.refused(ctx, strings.Join(args[:len(args)-1], " "), err)
	}
	return nil
}

// Thaw lets I/O go on that DRBD froze when it lost its peer.
func (d *drbd) Thaw(ctx context.Context) error {
	s, err := d.read(ctx)
	if err != nil || s == nil || s.Role != drbdPrimary || s.Suspended != "fencing" {
		return err
	}
	if _, err := d.run(ctx, "drbdadm", "resume-io", d.name); err != nil {
		return d.refused(ctx, "resume-io", err)
	}
	return nil
}

func (d *drbd) Start(ctx context.Context, _ startHint) error {
	s, err := d.read(ctx)
	if err != nil {
		return err
	}
	fresh := s == nil || len(s.Volumes) == 0
	if fresh {
		if err := d.up(ctx); err != nil {
			return err
		}
	}
	if s, err = d.settled(ctx, fresh); err != nil {
		return err
	}
	if s.Role == drbdPrimary {
		if c, _, err := s.health(); c != conditionRunning {
			return fmt.Errorf("%s is Primary already but not well: %w", d.name, err)
		}
		return nil
	}
	if p, why := s.promotable(); p != mayPromote {
		err := fmt.Errorf("not promoted: %s", why)
		if p == mustNotPromote {
			return fmt.Errorf("%w: %w", errHopeless, err)
		}
		return err
	}
	return d.promote(ctx, s)
}

// Ready brings it up as Secondary where another node runs it: what is written there has a second copy then, and data that
// is old here is made new.
func (d *drbd) Ready(ctx context.Context) error {
	s, err := d.read(ctx)
	if err != nil || s != nil && len(s.Volumes) > 0 {
		return err
	}
	return d.up(ctx)
}

// up sets the resource up in the kernel: disk and connection, still Secondary.
func (d *drbd) up(ctx context.Context) error {
	_, err := d.run(ctx, "drbdadm", "up", d.name)
	if err == nil {
		return nil
	}
	if err := d.known(err); err != nil {
		return err
	}
	return d.refused(ctx, "up", err)
}

// known turns refusals that no repetition mends into words.
func (d *drbd) known(err error) error {
	switch t := tailOf(err); {
	case strings.Contains(t, "not defined in your config"), strings.Contains(t, "no resources defined"):
		return fmt.Errorf("%w: %s is not in DRBD's configuration on this host: put %s.res into /etc/drbd.d and see drbdadm dump %s",
			errHopeless, d.name, d.name, d.name)
	case strings.Contains(t, "No valid meta data found"):
		return fmt.Errorf("%w: the disk of %s has no DRBD meta data: is it the right disk? A new one gets it by drbdadm create-md %s",
			errHopeless, d.name, d.name)
	}
	return nil
}

// settled waits until the disks are attached and, after an up, until the peer was met or has had its time.
func (d *drbd) settled(ctx context.Context, fresh bool) (*drbdStatus, error) {
	meet := time.Now().Add(d.meet)
	for {
		s, err := d.read(ctx)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, fmt.Errorf("%s is not there after drbdadm up: see dmesg", d.name)
		}
		p, _ := s.promotable()
		alone := fresh && !s.met() && time.Now().Before(meet)
		if p != notYetPromote && !alone {
			return s, nil
		}
		if !pause(ctx, drbdPoll) {
			return nil, fmt.Errorf("%s did not get ready in time (%s): %w", d.name, s.summary(), ctx.Err())
		}
	}
}

// met says that each peer is connected with a known disk state, or will not come by itself.
func (s *drbdStatus) met() bool {
	for i := range s.Peers {
		p := &s.Peers[i]
		if p.Connection.passing() {
			return false
		}
		for _, v := range p.Volumes {
			if p.Connection == connConnected && (v.PeerDisk == diskDUnknown || v.PeerDisk == diskNegotiating || v.Replication.starting()) {
				return false
			}
		}
	}
	return true
}

// consistent: its data is whole, but whether there is newer DRBD cannot know before it has met the peer or asked its handler.
func (s *drbdStatus) consistent() bool {
	return slices.ContainsFunc(s.Volumes, func(v drbdVolume) bool { return v.Disk == diskConsistent })
}

func (d *drbd) promote(ctx context.Context, s *drbdStatus) error {
	until := time.Now().Add(d.patience)
	for {
		p := s.primaryPeer()
		if p != nil && d.allowsTwo(ctx) {
			return fmt.Errorf("%w: %s is still Primary on %s (and allow-two-primaries is set, so DRBD would not stop a second one)", errWaiting, d.name, p.label())
		}
		_, err := d.run(ctx, "drbdadm", "primary", d.name)
		if err == nil {
			break
		}
		if err := d.known(err); err != nil {
			return err
		}
		code := drbdCode(err)
		if code == codeNotFenced || code == codeNoData && s.consistent() {
			// Its handler was asked: the cluster has not recorded yet that this node goes on without the peer.
			return fmt.Errorf("%w: %w", errWaiting, d.refused(ctx, "primary", err))
		}
		switch code {
		case codeNoData:
			return fmt.Errorf("%w: %w", errHopeless, d.refused(ctx, "primary", err))
		case codeTwoPrimaries, codePeerPrimary, codeTransient, codeConcurrent:
			if time.Now().After(until) || !pause(ctx, drbdPoll) {
				return fmt.Errorf("%w: %s is still Primary on the peer: %w", errWaiting, d.name, d.refused(ctx, "primary", err))
			}
		default:
			return d.refused(ctx, "primary", err)
		}
		if s, err = d.read(ctx); err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("%s was taken down by somebody while it was promoted", d.name)
		}
		if p, why := s.promotable(); p == mustNotPromote {
			return fmt.Errorf("%w: not promoted: %s", errHopeless, why)
		}
	}
	s, err := d.read(ctx)
	if err != nil {
		return err
	}
	if s == nil || s.Role != drbdPrimary {
		return fmt.Errorf("drbdadm primary %s said nothing, but it is not Primary: see dmesg", d.name)
	}
	return nil
}

// allowsTwo reads whether DRBD itself would let a second Primary be. In doubt it would.
func (d *drbd) allowsTwo(ctx context.Context) bool {
	out, err := d.run(ctx, "drbdsetup", "show", d.name)
	if err != nil {
		return true
	}
	for _, line := range strings.Split(out, "\n") {
		f := strings.Fields(line)
		if len(f) > 0 && strings.TrimSuffix(f[0], ";") == "allow-two-primaries" && !(len(f) > 1 && strings.HasPrefix(f[1], "no")) {
			return true
		}
	}
	return false
}

func (d *drbd) Stop(ctx context.Context) error {
	// Why it has not stepped down yet, which says more than whatever the deadline happened to cut off.
	var reason func() error
	for {
		again, err := d.stepDown(ctx)
		if again != nil {
			reason = again
			if pause(ctx, drbdPoll) {
				continue
			}
		}
		if ctx.Err() != nil && reason != nil {
			return reason()
		}
		return err
	}
}

// stepDown tries to make it secondary, once. With what can pass by itself the first result says why it stays Primary.
func (d *drbd) stepDown(ctx context.Context) (func() error, error) {
	s, err := d.read(ctx)
	if err != nil || s == nil || s.Role == drbdSecondary {
		return nil, err
	}
	if _, refusal := d.run(ctx, "drbdadm", "secondary", d.name); refusal != nil {
		switch drbdCode(refusal) {
		case codeInUse:
			return func() error {
				return fmt.Errorf("%s stays Primary: it is held open by %s", d.name, strings.Join(d.holders(s), ", "))
			}, nil
		case codeTransient, codeConcurrent:
			return func() error { return d.refused(ctx, "secondary", refusal) }, nil
		}
		return nil, d.refused(ctx, "secondary", refusal)
	}
	if s, err = d.read(ctx); err != nil {
		return nil, err
	}
	if s != nil && s.Role == drbdSecondary && d.gaveUp {
		_, err := d.run(ctx, "drbdadm", "down", d.name) // the next start, or the other's need, brings it up with its disk
		d.gaveUp = err != nil
		return nil, err
	}
	if s != nil && s.Role != drbdSecondary {
		return nil, fmt.Errorf("drbdadm secondary %s said nothing, but its role is %s: see dmesg", d.name, s.Role)
	}
	return nil, nil
}

// forceSince is the first DRBD that can be made secondary while it is in use; the I/O of whoever uses it fails then.
const forceSince = "9.1"

// Force makes it secondary although it is held open: the rung after a stop that failed.
func (d *drbd) Force(ctx context.Context) error {
	s, err := d.read(ctx)
	if err == nil && s != nil && s.Role == drbdPrimary && s.Suspended == "fencing" {
		return d.giveUp(ctx)
	}
	if v := d.kernelVersion(); !atLeast(v, forceSince) {
		return fmt.Errorf("DRBD %s cannot be made secondary while it is in use: only %s and later can", v, forceSince)
	}
	if _, err := d.run(ctx, "drbdadm", "secondary", "--force", d.name); err != nil {
		return d.refused(ctx, "secondary --force", err)
	}
	if s, err = d.read(ctx); err != nil {
		return err
	}
	if s != nil && s.Role != drbdSecondary {
		return fmt.Errorf("drbdadm secondary --force %s said nothing, but its role is %s: see dmesg", d.name, s.Role)
	}
	return nil
}

// giveUp ends frozen I/O with errors, without writing any of it: whoever waits for it could not let go otherwise, and nothing may
// be written here any more. The resource is down afterwards, unless it is held open: then what holds it can be stopped now.
func (d *drbd) giveUp(ctx context.Context) error {
	d.log.Warn("the frozen I/O is ended with errors, so that what waits for it can stop; nothing of it is written", "event", "drbd-given-up", "resource", d.name)
	if _, err := d.run(ctx, "drbdadm", "detach", "--force", d.name); err != nil {
		return d.refused(ctx, "detach --force", err)
	}
	d.gaveUp = true
	if _, err := d.run(ctx, "drbdadm", "disconnect", d.name); err != nil {
		return d.refused(ctx, "disconnect", err)
	}
	if _, err := d.run(ctx, "drbdadm", "down", d.name); err != nil {
		return fmt.Errorf("the frozen I/O of %s was ended; it is still in use: %w", d.name, d.refused(ctx, "down", err))
	}
	d.gaveUp = false
	return nil
}

// kernelVersion is that of the loaded module, "" when it cannot be read.
func (d *drbd) kernelVersion() string {
	b, err := os.ReadFile(filepath.Join(d.sys, "module/drbd/version"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// atLeast compares versions number by number.
func atLeast(version, least string) bool {
	have := strings.Split(version, ".")
	for i, want := range strings.Split(least, ".") {
		if i >= len(have) {
			return false
		}
		h, err := strconv.Atoi(have[i])
		w, _ := strconv.Atoi(want)
		if err != nil || h != w {
			return err == nil && h > w
		}
	}
	return true
}

// holders names who has the devices of a resource open.
func (d *drbd) holders(s *drbdStatus) []string {
	var all []string
	for _, v := range s.Volumes {
		if v.Minor >= 0 {
			all = append(all, deviceHolders(d.proc, d.sys, drbdMajor, uint32(v.Minor))...)
		}
	}
	if len(all) == 0 {
		return []string{"something in the kernel or in another PID namespace (see lsof and /proc/mounts of containers)"}
	}
	return all
}

// Lacks names the tool, the module or the configuration that this host does not have.
func (d *drbd) Lacks(ctx context.Context) error {
	for _, tool := range []string{"drbdadm", "drbdsetup"} {
		if _, err := d.look(tool); err != nil {
			return fmt.Errorf("%s is not installed on this host: install drbd-utils", tool)
		}
	}
	if !d.loaded() {
		if _, err := d.run(ctx, "modprobe", "-n", "-q", "drbd"); err != nil {
			return fmt.Errorf("this kernel has no drbd module: install it for this kernel, then modprobe drbd")
		}
	}
	if _, err := d.run(ctx, "drbdadm", "dump", d.name); err != nil {
		if known := d.known(err); known != nil {
			return known
		}
		return fmt.Errorf("drbdadm cannot read its configuration: %w", err)
	}
	return nil
}

// Fit says before a start whether this host could run it: what it lacks, and whether its data is stale.
func (d *drbd) Fit(ctx context.Context) error {
	if err := d.Lacks(ctx); err != nil {
		return err
	}
	s, err := d.read(ctx)
	if err != nil {
		return err
	}
	if s == nil {
		return d.fitDown(ctx)
	}
	if s.Role == drbdPrimary {
		return nil
	}
	switch p, why := s.promotable(); p {
	case mayPromote, notYetPromote, nothingPromote:
		return nil
	default:
		return errors.New(why)
	}
}

// fitDown asks the meta data on the disk, which drbdadm dstate reads while the resource is down.
func (d *drbd) fitDown(ctx context.Context) error {
	out, err := d.run(ctx, "drbdadm", "dstate", d.name)
	if err != nil {
		return d.known(err) // anything else is found out, and said, by the start
	}
	pairs, err := parseDRBDPairs(out)
	if err != nil {
		return nil
	}
	s := drbdStatus{Name: d.name}
	for i, p := range pairs {
		s.Volumes = append(s.Volumes, drbdVolume{Number: i, Minor: -1, Disk: drbdDisk(p[0])})
	}
	for _, v := range s.Volumes {
		if v.Disk == diskInconsistent || v.Disk == diskOutdated {
			_, why := s.promotable()
			return errors.New(why)
		}
	}
	return nil
}

// DRBD's reasons to refuse a change of state (drbd.h, enum drbd_state_rv).
const (
	codeTwoPrimaries = -1
	codeNoData       = -2
	codeNotFenced    = -7
	codeInUse        = -12
	codeTransient    = -18
	codeConcurrent   = -19
	codePeerPrimary  = -20
)

// drbdCode finds the reason in what a tool printed; 0: there is none.
func drbdCode(err error) int {
	m := regexp.MustCompile(`State change failed: \((-\d+)\)`).FindStringSubmatch(tailOf(err))
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// refused says in one sentence what DRBD refused, why, and in what state.
func (d *drbd) refused(ctx context.Context, command string, err error) error {
	text := refusalText(tailOf(err))
	state := "down"
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drbdLook) // the time of the operation may be over
	defer cancel()
	if s, readErr := d.read(ctx); readErr != nil {
		state = "state could not be read"
	} else if s != nil {
		state = s.summary()
	}
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) && text != "" && exit.ExitCode() > 0 {
		return fmt.Errorf("drbdadm %s %s: %s (exit %d; %s)", command, d.name, text, exit.ExitCode(), state)
	}
	return fmt.Errorf("drbdadm %s %s: %w (%s)", command, d.name, err, state)
}

// refusalText joins the lines that say something: not the echo of the command that drbdadm ends with.
func refusalText(tail string) string {
	var keep []string
	for _, line := range strings.Split(tail, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "Command '") || strings.HasPrefix(line, "additional info from kernel") {
			continue
		}
		if _, rest, ok := strings.Cut(line, ": State change failed: "); ok {
			_, rest, _ = strings.Cut(rest, ") ")
			line = rest
		} else if _, rest, ok := strings.Cut(line, ": Failure: "); ok {
			_, rest, _ = strings.Cut(rest, ") ")
			line = rest
		}
		keep = append(keep, line)
	}
	return strings.Join(keep, "; ")
}

func tailOf(err error) string {
	var o *outputError
	if errors.As(err, &o) {
		return o.tail
	}
	return ""
}
