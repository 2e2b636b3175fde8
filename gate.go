// Who holds the end of a lease when this process cannot? The kernel: each gated address has a deadline in a map, and the
// program that gate_program.go writes down lets nothing of it pass from then on. A frozen, killed or starved daemon falls
// silent on time, and a late renewal is harmless, since the deadline is absolute. Nothing here decides on a deadline, and
// nothing touches what others have on a link.
//
// Nothing is pinned in a file system: the filter on the link keeps program and map, as long as the link is there, and
// whoever comes later finds both through it (gate_link.go).

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
)

// gates are the gates of this host, one for each link that has a gated address.
type gates struct {
	place   netPlace
	log     *slog.Logger
	refused string // why this host can have none; "": it can

	mu    sync.Mutex
	links map[string]*gate
	fails map[string]string // link → why it has none although an address there needs one
}

// gate is the one of a link.
type gate struct {
	deadlines *ebpf.Map
	program   ebpf.ProgramID // the one that hangs there
}

// gated is an address with its place in a gate.
type gated struct {
	gates *gates
	link  string
	ip    netip.Addr
	gate  *gate
}

// How late each kind of gate may be.
const (
	gateSlack     = 2 * time.Millisecond // what has passed the gate may still lie in a queue of the interface
	lifetimeSlack = 1250 * time.Millisecond
)

// gateReport says what enforces the end of a lease on this host.
type gateReport struct {
	Kind   string
	Slack  time.Duration // how long after the deadline an address may still answer
	Reason string        // why it is no better
}

// openGates tries whether this host can have gates, and takes away what a process before this one left at addresses that
// are gone.
func openGates(place netPlace, log *slog.Logger) *gates {
	s := &gates{place: place, log: log, links: map[string]*gate{}, fails: map[string]string{}}
	if err := tryGate(); err != nil {
		s.refused = err.Error()
		log.Error("this kernel cannot hold the end of a lease: addresses get a lifetime instead, of whole seconds", "event", "gate-refused", "err", err)
	}
	if err := s.tidy(); err != nil {
		log.Warn("cannot look for gates of a former run", "event", "gate-failed", "err", err)
	}
	return s
}

// tryGate makes the program and lets it judge two frames.
func tryGate() error {
	offsets, err := os.ReadFile("/proc/self/timens_offsets")
	if err == nil && !sameBoottime(string(offsets)) {
		return errors.New("this process is in a time namespace with a boottime of its own, which the kernel's gate does not know: run the daemon outside of it")
	}
	deadlines, err := ebpf.NewMap(gateMapSpec())
	if err != nil {
		return fmt.Errorf("make a BPF map: %w", err)
	}
	defer deadlines.Close()
	program, err := ebpf.NewProgram(gateProgramSpec(deadlines))
	if err != nil {
		return fmt.Errorf("load the BPF program of the gate: %w", err)
	}
	defer program.Close()
	ip := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	frame := announceFrames(mac{2}, ip, false)[0]
	for _, open := range []bool{true, false} {
		until := boottime()
		want := int32(gateDrop)
		if open {
			until, want = until.add(time.Minute), gatePass
		}
		if err := deadlines.Put(gateKey(ip), uint64(until)); err != nil {
			return fmt.Errorf("write to a BPF map: %w", err)
		}
		got, err := program.Run(&ebpf.RunOptions{Data: frame})
		if err != nil {
			return fmt.Errorf("try the BPF program of the gate: %w", err)
		}
		if int32(got) != want {
			return fmt.Errorf("the gate is wrong: it answers %d instead of %d; is the clock of this process another than the kernel's?", int32(got), want)
		}
	}
	return nil
}

// sameBoottime reads /proc/self/timens_offsets.
func sameBoottime(offsets string) bool {
	for _, line := range strings.Split(offsets, "\n") {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "boottime" && (f[1] != "0" || f[2] != "0") {
			return false
		}
	}
	return true
}

// report says what holds the addresses that are gated now.
func (s *gates) report() gateReport {
	switch {
	case s == nil:
		return gateReport{Kind: gateNone}
	case s.refused != "":
		return gateReport{gateLifetime, lifetimeSlack, s.refused}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var reasons []string
	for _, why := range s.fails {
		reasons = append(reasons, why)
	}
	if len(reasons) > 0 {
		slices.Sort(reasons)
		return gateReport{gateLifetime, lifetimeSlack, strings.Join(reasons, "; ")}
	}
	return gateReport{Kind: gateBPF, Slack: gateSlack}
}

// take gives the address a place in the gate of its link, which is made if there is none. What another process has left
// there stands, until move.
func (s *gates) take(link string, ip netip.Addr) (*gated, error) {
	if s.refused != "" {
		return nil, errors.New(s.refused)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.hang(link)
	if err == nil {
		// Shut, if it is new.
		if err = g.deadlines.Update(gateKey(ip), uint64(0), ebpf.UpdateNoExist); errors.Is(err, ebpf.ErrKeyExist) {
			err = nil
		}
	}
	if err != nil {
		err = fmt.Errorf("no gate on %s: %w", link, err)
		s.fails[link] = err.Error()
		return nil, err
	}
	delete(s.fails, link)
	return &gated{gates: s, link: link, ip: ip, gate: g}, nil
}

// hold makes sure that the gate is still there, and says whether it had to be put back.
func (a *gated) hold() (mended bool, err error) {
	s := a.gates
	s.mu.Lock()
	defer s.mu.Unlock()
	before := a.gate.program
	g, err := s.hang(a.link)
	if err != nil {
		s.fails[a.link] = fmt.Sprintf("no gate on %s: %v", a.link, err)
		return false, err
	}
	delete(s.fails, a.link)
	return g.program != before, nil
}

// move sets the deadline. It takes a microsecond and waits for nothing.
func (a *gated) move(until instant) error {
	if err := a.gate.deadlines.Put(gateKey(a.ip), uint64(max(until, 0))); err != nil {
		return fmt.Errorf("move the deadline of %s: %w", a.ip, err)
	}
	return nil
}

// deadline is what the kernel goes by.
func (a *gated) deadline() (instant, error) {
	var until uint64
	if err := a.gate.deadlines.Lookup(gateKey(a.ip), &until); err != nil {
		return 0, fmt.Errorf("read the deadline of %s: %w", a.ip, err)
	}
	return instant(until), nil
}

// end gives the place up, and with the last one the gate.
func (a *gated) end() error {
	s := a.gates
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fails, a.link)
	if err := a.gate.deadlines.Delete(gateKey(a.ip)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take %s out of the gate on %s: %w", a.ip, a.link, err)
	}
	if !emptyMap(a.gate.deadlines) {
		return nil
	}
	if err := s.unhang(a.link); err != nil {
		return fmt.Errorf("take the gate off %s: %w", a.link, err)
	}
	if s.links[a.link] == a.gate {
		delete(s.links, a.link)
		a.gate.deadlines.Close()
	}
	return nil
}

func emptyMap(m *ebpf.Map) bool {
	var key [16]byte
	return errors.Is(m.NextKey(nil, &key), ebpf.ErrKeyNotExist)
}
