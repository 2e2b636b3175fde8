// Do bodies survive the wire, and does nothing that arrives do harm?

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func drawHeartbeat(t *rapid.T) heartbeat {
	u64, nonNegative := rapid.Uint64(), rapid.Int64Min(0)
	h := heartbeat{
		Seq: u64.Draw(t, "seq"), Clock: instant(rapid.Int64().Draw(t, "clock")),
		Interval: time.Duration(nonNegative.Draw(t, "interval")), Lease: time.Duration(nonNegative.Draw(t, "lease")),
		Member: u64.Draw(t, "member"), Cluster: u64.Draw(t, "cluster"), Counter: u64.Draw(t, "counter"),
		Incarnation: u64.Draw(t, "incarnation"), Flags: rapid.Uint16().Draw(t, "flags"), Boot: u64.Draw(t, "boot"),
		Generation: u64.Draw(t, "generation"), FileHash: u64.Draw(t, "file hash"), Term: u64.Draw(t, "term"),
		Leader: u64.Draw(t, "leader"), Applied: u64.Draw(t, "applied"), StateHash: u64.Draw(t, "state hash"),
		Feature: rapid.Uint16().Draw(t, "feature"), Wall: rapid.Int64().Draw(t, "wall"),
	}
	for range rapid.IntRange(0, maxAncestors).Draw(t, "ancestors") {
		h.Ancestors = append(h.Ancestors, Ancestor{ID: u64.Draw(t, "id"), Fork: u64.Draw(t, "fork")})
	}
	for range rapid.IntRange(0, maxHeard).Draw(t, "heard") {
		h.Heard = append(h.Heard, heardPeer{Name: rapid.Uint32().Draw(t, "name"), Session: u64.Draw(t, "session"),
			Age:   time.Duration(rapid.Uint32().Draw(t, "age")) * time.Millisecond,
			Links: rapid.Uint16().Draw(t, "links")})
	}
	return h
}

func drawAck(t *rapid.T) ack {
	a := ack{Seq: rapid.Uint64().Draw(t, "seq"), Member: rapid.Uint64().Draw(t, "member"), Incarnation: rapid.Uint64().Draw(t, "incarnation"), Lease: time.Duration(rapid.Int64Min(0).Draw(t, "lease")),
		Generation: rapid.Uint64().Draw(t, "generation"), Clock: instant(rapid.Int64().Draw(t, "clock"))}
	for range rapid.IntRange(0, 300).Draw(t, "pairs") {
		a.Revoked = append(a.Revoked, groupEpoch{Group: rapid.StringN(0, 40, 256).Draw(t, "group"),
			Epoch: rapid.Uint64().Draw(t, "epoch")})
	}
	return a
}

func TestBodiesRoundTrip(t *testing.T) {
	t.Run("heartbeat", rapid.MakeCheck(func(t *rapid.T) {
		h := drawHeartbeat(t)
		b := h.encode()
		if len(b) > maxBody {
			t.Fatalf("heartbeat of %d bytes, a datagram holds %d", len(b), maxBody)
		}
		checkDecode(t, b, h, decodeHeartbeat)
	}))
	t.Run("ack", rapid.MakeCheck(func(t *rapid.T) {
		a := drawAck(t)
		b, ok := a.encode()
		size, longest := 50, 0
		for _, p := range a.Revoked {
			size, longest = size+1+len(p.Group)+8, max(longest, len(p.Group))
		}
		if want := size <= maxBody && len(a.Revoked) <= 255 && longest <= 255; ok != want {
			t.Fatalf("encode of %d pairs, %d bytes, is ok: %v", len(a.Revoked), size, ok)
		}
		if ok {
			checkDecode(t, b, a, decodeAck)
		}
	}))
	t.Run("hold", rapid.MakeCheck(func(t *rapid.T) {
		name := rapid.StringN(0, -1, 255)
		h := hold{Owner: name.Draw(t, "owner"), Group: name.Draw(t, "group"), Epoch: rapid.Uint64().Draw(t, "epoch"), Index: rapid.Uint64().Draw(t, "index"),
			Hold: time.Duration(rapid.Int64Min(0).Draw(t, "hold"))}
		checkDecode(t, h.encode(), h, decodeHold)
	}))
	t.Run("hello", rapid.MakeCheck(func(t *rapid.T) {
		h := hello{Challenge: rapid.Uint64().Draw(t, "challenge"), Answer: rapid.Uint64().Draw(t, "answer")}
		checkDecode(t, h.encode(), h, decodeHello)
	}))
}

// checkDecode: what was encoded comes back, also with a later release's fields behind it, and every shorter body is
// refused, as is another version.
func checkDecode[T any](t *rapid.T, body []byte, want T, decode func([]byte) (T, error)) {
	later := append(append([]byte(nil), body...), rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "later fields")...)
	for _, b := range [][]byte{body, later} {
		got, err := decode(b)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("came back different (-sent +got):\n%s", diff)
		}
	}
	cut := rapid.IntRange(0, len(body)-1).Draw(t, "cut")
	if _, err := decode(body[:cut]); err == nil {
		t.Fatalf("the first %d of %d bytes pass for whole", cut, len(body))
	}
	later[0] = bodyVersion + 1
	if _, err := decode(later); err == nil || !strings.Contains(err.Error(), "version 2, this release knows 1") {
		t.Fatalf("another version is not named: %v", err)
	}
}

func TestHeartbeatKeepsTheFirstOfLongLists(t *testing.T) {
	var h heartbeat
	for i := range 40 {
		h.Ancestors = append(h.Ancestors, Ancestor{ID: uint64(i)})
		h.Heard = append(h.Heard, heardPeer{Name: uint32(i), Age: -time.Second})
	}
	h.Heard[1].Age = 100 * 24 * time.Hour
	got, err := decodeHeartbeat(h.encode())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Ancestors) != maxAncestors || got.Ancestors[3].ID != 3 || len(got.Heard) != maxHeard || got.Heard[15].Name != 15 {
		t.Errorf("got %d ancestors and %d peers: %+v", len(got.Ancestors), len(got.Heard), got)
	}
	if got.Heard[0].Age != 0 || got.Heard[1].Age != (1<<32-1)*time.Millisecond {
		t.Errorf("ages out of range are not clamped: %v, %v", got.Heard[0].Age, got.Heard[1].Age)
	}
}

func TestDecodeRefuses(t *testing.T) {
	h := heartbeat{Lease: -1}
	if _, err := decodeHeartbeat(h.encode()); err == nil || !strings.Contains(err.Error(), "negative duration") {
		t.Errorf("a negative lease: %v", err)
	}
	o := hold{Hold: -time.Hour}
	if _, err := decodeHold(o.encode()); err == nil || !strings.Contains(err.Error(), "negative duration") {
		t.Errorf("a negative hold: %v", err)
	}
	h = heartbeat{}
	b := h.encode()
	b[133] = maxAncestors + 1
	if _, err := decodeHeartbeat(append(b, make([]byte, 500)...)); err == nil || !strings.Contains(err.Error(), "list of 5 where 4") {
		t.Errorf("too many ancestors: %v", err)
	}
}

func TestHeardFindsByName(t *testing.T) {
	h := heartbeat{Heard: []heardPeer{{Name: nameHash("bob"), Session: 7}, {Name: nameHash("carol"), Session: 8}}}
	if p, ok := h.heard("carol"); !ok || p.Session != 8 {
		t.Errorf("carol: %+v, %v", p, ok)
	}
	if p, ok := h.heard("alice"); ok {
		t.Errorf("alice is not heard, but got %+v", p)
	}
	if got := fmt.Sprintf("%08x", nameHash("a")); got != "e40c292c" { // FNV-1a's published test vector
		t.Errorf("hash of a is %s", got)
	}
}

// fuzzDecoder: no input panics, and what decodes is a fixed point of encoding.
func fuzzDecoder[T any](f *testing.F, seeds [][]byte, decode func([]byte) (T, error), encode func(T) ([]byte, bool)) {
	for _, s := range seeds {
		f.Add(s)
		f.Add(s[:len(s)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decode(b)
		if err != nil {
			return
		}
		again, ok := encode(x)
		if !ok {
			return // longer than a datagram: it could not have come in one
		}
		y, err := decode(again)
		if err != nil {
			t.Fatalf("own encoding does not decode: %v", err)
		}
		if diff := cmp.Diff(x, y); diff != "" {
			t.Fatalf("changed by encoding:\n%s", diff)
		}
	})
}

func FuzzHeartbeat(f *testing.F) {
	h := heartbeat{Seq: 1, Lease: time.Second, Ancestors: []Ancestor{{1, 2}}, Heard: []heardPeer{{Name: 1, Age: time.Second}}}
	fuzzDecoder(f, [][]byte{h.encode(), (&heartbeat{}).encode()}, decodeHeartbeat,
		func(h heartbeat) ([]byte, bool) { return h.encode(), true })
}

func FuzzAck(f *testing.F) {
	a := ack{Seq: 1, Revoked: []groupEpoch{{"web", 3}, {"db", 1}}}
	b, _ := a.encode()
	fuzzDecoder(f, [][]byte{b}, decodeAck, func(a ack) ([]byte, bool) { return a.encode() })
}

func FuzzHold(f *testing.F) {
	h := hold{Owner: "alice", Group: "web", Epoch: 4, Hold: time.Second}
	fuzzDecoder(f, [][]byte{h.encode()}, decodeHold, func(h hold) ([]byte, bool) { return h.encode(), true })
}
