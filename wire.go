// What do the bytes of a message mean? The bodies of heartbeats, acks and holds; sealing is in seal.go. Pure: it never
// looks at a clock or a socket, and it never trusts a length that it reads.
//
// All numbers are big-endian; durations are nanoseconds unless said otherwise; a name is its length (1 byte) and its
// bytes. A body opens with its version, 1. A later release may append fields, which this one skips; it raises the
// version only when what is here changes its meaning, and such a body is refused.
//
//	heartbeat  offset size  field            ack    size   field            hold   size   field
//	                0    1  version                    1   version                    1   version
//	                1    8  Seq                        8   Seq                    1 + n   Owner
//	                9    8  Clock                                                 1 + n   Group
//	               17    8  Interval                   8   Member                     8   Epoch
//	               25    8  Lease                      8   Incarnation                8   Index
//	               33    8  Member                     8   Lease                      8   Hold
//	               41    8  Cluster                    8   Generation
//	               49    8  Counter                    8   Clock
//	               57    8  Incarnation                1   number of pairs, then for each:
//	               65    2  Flags                  1 + n   Group, then Epoch 8
//	               67    8  Boot                   hello  size   field
//	               75    8  Generation                 1   version
//	               83    8  FileHash                   8   challenge
//	               91    8  Term                       8   answer
//	               99    8  Leader
//	              107    8  Applied
//	              115    8  StateHash
//	              123    2  Feature
//	              125    8  Wall
//	              133    1  number of ancestors, then for each: ID 8, Fork 8
//	                     1  number of peers heard, then for each: Name 4, Session 8, Age 4 (ms), Links 2

package main

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

const (
	bodyVersion  = 1
	maxHeard     = 16 // peers in a heartbeat
	maxAncestors = 4  // incarnations in a heartbeat
	maxName      = 63 // bytes in a node's name that maxBody counts on

	// maxBody is what fits in a datagram whatever the sender's name: header and tag, kind, name, receiver's session
	// and serial are taken off.
	maxBody = maxDatagram - headerSize - tagSize - 1 - 1 - maxName - 8 - 8
)

// heartbeat is what a node says of itself at every interval, on every link.
type heartbeat struct {
	Seq         uint64        // counts this session's heartbeats; what an ack refers to
	Clock       instant       // the sender's CLOCK_BOOTTIME
	Interval    time.Duration // between two of them
	Lease       time.Duration // L that is asked for; 0: no grant asked
	Member      uint64        // raft member id; 0: has none yet
	Cluster     uint64        // first 8 bytes of the cluster id; 0: blank
	Counter     uint64        // of the incarnation
	Incarnation uint64
	Ancestors   []Ancestor // newest first, at most maxAncestors
	Flags       uint16     // flag*
	Boot        uint64     // first 8 bytes of SHA-256 of the kernel boot id
	Generation  uint64
	FileHash    uint64 // first 8 bytes of the hash of the config this node would found a cluster with, or runs
	Term        uint64
	Leader      uint64 // member id of the leader it knows; 0: none
	Applied     uint64 // raft index
	StateHash   uint64 // of the state at Applied
	Feature     uint16
	Wall        int64       // Unix ns, for the warning that clocks are apart
	Heard       []heardPeer // by name's hash, at most maxHeard
}

const (
	flagBlank = 1 << iota // has no state, wants to join or to found
	flagWitness
	flagLeaving    // hands its groups over and goes
	flagJoined     // has been joined since its kernel booted
	flagForceable  // lost its memory: its old member id will never vote again
	flagSick       // asks for no grants: its state writes fail or its agent is stuck
	flagNoLease    // owns a group and has no lease for it
	flagQuorum     // knows a leader that has a majority
	flagRestarting // will be back at once: a planned restart of the daemon
)

// heardPeer tells whom the sender hears.
type heardPeer struct {
	Name    uint32        // nameHash
	Session uint64        // first 8 bytes of the session heard
	Age     time.Duration // since the last datagram, ms on the wire
	Links   uint16        // bit i: heard within deadtime on the i-th link of the config
}

// ack answers a heartbeat that asked for a grant.
type ack struct {
	Seq         uint64
	Member      uint64 // of the voter
	Incarnation uint64
	Lease       time.Duration // repeats the L that is granted; 0: who asks is no member
	Generation  uint64
	Clock       instant
	Revoked     []groupEpoch // pairs of that owner that are not granted
}

type groupEpoch struct {
	Group string
	Epoch uint64 // this and every lower one
}

// hold is what a voter tells about a revoke that it has stored.
type hold struct {
	Owner string
	Group string
	Epoch uint64
	Index uint64        // of the revoke in the log: it counts only for the one that is committed there
	Hold  time.Duration // max(0, 1.25 L - age of its last ack to the owner), when it stored the revoke
}

// hello is the transport's own: it makes two sessions known to each other within one round trip. Receiving it is the
// echo of one's session; see seal_session.go for the challenge.
type hello struct {
	Challenge uint64 // please answer with this number; 0: nothing is asked
	Answer    uint64 // the number that was asked for; 0: none
}

// nameHash stands for a node's name in heardPeer.
func nameHash(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// heard is the entry for a peer, if the sender hears it.
func (h *heartbeat) heard(name string) (heardPeer, bool) {
	hash := nameHash(name)
	for _, p := range h.Heard {
		if p.Name == hash {
			return p, true
		}
	}
	return heardPeer{}, false
}

// encode always fits in maxBody: of longer lists it keeps the first maxAncestors and maxHeard.
func (h *heartbeat) encode() []byte {
	be := binary.BigEndian
	ancestors, heard := h.Ancestors[:min(len(h.Ancestors), maxAncestors)], h.Heard[:min(len(h.Heard), maxHeard)]
	b := make([]byte, 0, 135+16*len(ancestors)+18*len(heard))
	b = append(b, bodyVersion)
	for _, v := range [...]uint64{h.Seq, uint64(h.Clock), uint64(h.Interval), uint64(h.Lease), h.Member, h.Cluster,
		h.Counter, h.Incarnation} {
		b = be.AppendUint64(b, v)
	}
	b = be.AppendUint16(b, h.Flags)
	for _, v := range [...]uint64{h.Boot, h.Generation, h.FileHash, h.Term, h.Leader, h.Applied, h.StateHash} {
		b = be.AppendUint64(b, v)
	}
	b = be.AppendUint16(b, h.Feature)
	b = be.AppendUint64(b, uint64(h.Wall))
	b = append(b, byte(len(ancestors)))
	for _, a := range ancestors {
		b = be.AppendUint64(be.AppendUint64(b, a.ID), a.Fork)
	}
	b = append(b, byte(len(heard)))
	for _, p := range heard {
		b = be.AppendUint32(b, p.Name)
		b = be.AppendUint64(b, p.Session)
		b = be.AppendUint32(b, milliseconds(p.Age))
		b = be.AppendUint16(b, p.Links)
	}
	return b
}

// milliseconds is an age on the wire: never negative, at most 49 days.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), 1<<32-1))
}

func decodeHeartbeat(body []byte) (heartbeat, error) {
	r := reader{rest: body}
	r.version()
	h := heartbeat{
		Seq: r.u64(), Clock: instant(r.u64()), Interval: r.duration(), Lease: r.duration(),
		Member: r.u64(), Cluster: r.u64(), Counter: r.u64(), Incarnation: r.u64(),
		Flags: r.u16(),
		Boot:  r.u64(), Generation: r.u64(), FileHash: r.u64(), Term: r.u64(), Leader: r.u64(), Applied: r.u64(),
		StateHash: r.u64(), Feature: r.u16(), Wall: int64(r.u64()),
	}
	for range r.count(maxAncestors) {
		h.Ancestors = append(h.Ancestors, Ancestor{ID: r.u64(), Fork: r.u64()})
	}
	heard := r.count(maxHeard)
	h.Heard = slices.Grow(h.Heard, heard)
	for range heard {
		h.Heard = append(h.Heard, heardPeer{Name: r.u32(), Session: r.u64(),
			Age: time.Duration(r.u32()) * time.Millisecond, Links: r.u16()})
	}
	if r.err != nil {
		return heartbeat{}, fmt.Errorf("decode heartbeat: %w", r.err)
	}
	return h, nil
}

// encode is not ok when the pairs do not fit in a datagram: then the ack must be withheld, since one that leaves a
// pair out would grant it.
func (a *ack) encode() (body []byte, ok bool) {
	be := binary.BigEndian
	b := append(make([]byte, 0, 64), bodyVersion) // enough where nothing is revoked
	for _, v := range [...]uint64{a.Seq, a.Member, a.Incarnation, uint64(a.Lease), a.Generation, uint64(a.Clock)} {
		b = be.AppendUint64(b, v)
	}
	if len(a.Revoked) > 255 {
		return nil, false
	}
	b = append(b, byte(len(a.Revoked)))
	for _, p := range a.Revoked {
		if len(p.Group) > 255 {
			return nil, false
		}
		b = be.AppendUint64(appendName(b, p.Group), p.Epoch)
	}
	return b, len(b) <= maxBody
}

func decodeAck(body []byte) (ack, error) {
	r := reader{rest: body}
	r.version()
	a := ack{Seq: r.u64(), Member: r.u64(), Incarnation: r.u64(), Lease: r.duration(), Generation: r.u64(), Clock: instant(r.u64())}
	for range r.count(255) {
		a.Revoked = append(a.Revoked, groupEpoch{Group: r.name(), Epoch: r.u64()})
	}
	if r.err != nil {
		return ack{}, fmt.Errorf("decode ack: %w", r.err)
	}
	return a, nil
}

func (h *hold) encode() []byte {
	b := appendName(appendName([]byte{bodyVersion}, h.Owner), h.Group)
	b = binary.BigEndian.AppendUint64(b, h.Epoch)
	b = binary.BigEndian.AppendUint64(b, h.Index)
	return binary.BigEndian.AppendUint64(b, uint64(h.Hold))
}

func decodeHold(body []byte) (hold, error) {
	r := reader{rest: body}
	r.version()
	h := hold{Owner: r.name(), Group: r.name(), Epoch: r.u64(), Index: r.u64(), Hold: r.duration()}
	if r.err != nil {
		return hold{}, fmt.Errorf("decode hold: %w", r.err)
	}
	return h, nil
}

func (h *hello) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{bodyVersion}, h.Challenge)
	return binary.BigEndian.AppendUint64(b, h.Answer)
}

func decodeHello(body []byte) (hello, error) {
	r := reader{rest: body}
	r.version()
	h := hello{Challenge: r.u64(), Answer: r.u64()}
	if r.err != nil {
		return hello{}, fmt.Errorf("decode hello: %w", r.err)
	}
	return h, nil
}

// appendName cuts a name that is too long for its length byte. The config allows none; a cut one matches nothing.
func appendName(b []byte, name string) []byte {
	name = name[:min(len(name), 255)]
	return append(append(b, byte(len(name))), name...)
}

// reader takes fields off a body. After the first error nothing is left and it yields zeros, so that only the last needs to be
// looked at.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(n int) []byte {
	if len(r.rest) < n {
		return r.missing(n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) missing(n int) []byte {
	r.fail("%d bytes missing", n-len(r.rest))
	return make([]byte, n) // n is a constant or a length byte
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.rest = nil
}

func (r *reader) u8() byte     { return r.take(1)[0] }
func (r *reader) u16() uint16  { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32  { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64  { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) name() string { return string(r.take(int(r.u8()))) }

func (r *reader) version() {
	if v := r.u8(); v != bodyVersion {
		r.fail("version %d, this release knows %d", v, bodyVersion)
	}
}

// duration refuses a negative one: a lease or a hold below zero could only do harm.
func (r *reader) duration() time.Duration {
	d := time.Duration(r.u64())
	if d < 0 {
		r.fail("negative duration %v", d)
	}
	return d
}

// count is the length of a list; 0 after an error, so that loops over it end.
func (r *reader) count(limit int) int {
	n := int(r.u8())
	if n > limit {
		r.fail("list of %d where %d are allowed", n, limit)
	}
	if r.err != nil {
		return 0
	}
	return n
}
