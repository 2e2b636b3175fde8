// What does a grant cost? All that there would not be without leases, for each ack that comes in: the voter's answer made, sealed
// and sent, the owner's half of it received, opened and counted, the deadline moved in the kernel, the note for a restart written.
//
//	go test -run '^$' -bench Grant .

package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	grantRate = 10 // heartbeats a second at the defaults; each voter but the owner answers each once
	grantAim  = 2  // thousandths of a core that grants may take of an owner, with one other voter as with two
)

func BenchmarkGrant(b *testing.B) {
	key := testSecret(7)
	alice, bob := newWireNode("alice", 1, key), newWireNode("bob", 2, key)
	meet(b, alice, bob)
	in, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := net.DialUDP("udp4", nil, in.LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	kernel := newGateBench(b)
	address := &gated{ip: netip.MustParseAddr(gatedV4), gate: &gate{deadlines: kernel.deadlines}}
	note := noteFile{path: filepath.Join(b.TempDir(), "lease")}
	var owner grants
	var voter ledger
	voters := []string{"alice", "bob", "carol"}
	datagram := make([]byte, maxDatagram)
	var voterTook, ownerTook time.Duration
	n := 0
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		n++
		now := boottime()
		alice.now, bob.now = now, now
		seq := owner.ask(now, time.Second) // the heartbeat itself would be sent without leases, too

		begun := threadTime(b)
		a := ack{Seq: seq, Member: 2, Incarnation: 3, Lease: time.Second, Generation: 1, Clock: now, Revoked: voter.give(now, "alice", time.Second)}
		body, ok := a.encode()
		if !ok {
			b.Fatal("an ack does not fit")
		}
		if _, err := out.Write(bob.datagram(kindAck, alice.session.short(), body)); err != nil {
			b.Fatal(err)
		}
		sent := threadTime(b)
		size, err := in.Read(datagram)
		if err != nil {
			b.Fatal(err)
		}
		m, err := alice.get(datagram[:size])
		if err != nil || !m.Confirmed {
			b.Fatalf("not opened: %+v, %v", m, err)
		}
		if a, err = decodeAck(m.Body); err != nil || !owner.ack("bob", a) {
			b.Fatalf("not granted: %v", err)
		}
		until := owner.until("web", 5, voters, "alice", true)
		if until != now.add(time.Second) {
			b.Fatalf("granted until %v at %v", until, now)
		}
		if err := address.move(until); err != nil {
			b.Fatal(err)
		}
		text, err := json.Marshal(leaseNote{"boot", false, []leaseMark{{Group: "web", Epoch: 5, Until: until}}})
		if err == nil {
			err = note.write(text)
		}
		if err != nil {
			b.Fatal(err)
		}
		voterTook, ownerTook = voterTook+sent-begun, ownerTook+threadTime(b)-sent
	}
	core := func(d time.Duration) float64 { return 1000 * grantRate * d.Seconds() / float64(n) }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(core(voterTook), "voter-m-core")
	b.ReportMetric(2*core(ownerTook), "owner-m-core") // of two other voters
	b.ReportMetric(grantAim, "aim")
}

// meet lets each know that the other lives now.
func meet(b *testing.B, one, other *wireNode) {
	from, to, raw := one, other, one.beat()
	for range 10 {
		m, err := to.get(raw)
		if err != nil {
			b.Fatal(err)
		}
		if m.Reply == nil {
			return
		}
		raw = to.datagram(kindHello, m.Session.short(), m.Reply.encode())
		from, to = to, from
	}
	b.Fatal("hellos do not end")
}

// threadTime is what this thread has used of a processor.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
