// Is the data good, and what does the operator see of it? Judges the model of drbd_parse.go: may it be promoted, what
// has changed, what is the one line for status. Pure. A word that it does not know leads to "don't know", never to a
// guess.

package main

import (
	"fmt"
	"strings"
)

// summary is the line of `hactl status`: roles, disks, connection, progress, and what to worry about.
func (s *drbdStatus) summary() string {
	words := []string{s.roles()}
	for _, v := range s.Volumes {
		d := string(v.Disk)
		for _, p := range s.Peers {
			d += "/" + string(p.disk(v.Number))
		}
		if len(s.Volumes) > 1 {
			d = fmt.Sprintf("%d:%s", v.Number, d)
		}
		words = append(words, d)
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		c := string(p.Connection)
		if len(s.Peers) > 1 {
			c = p.label() + ":" + c
		}
		words = append(words, c)
		for _, v := range p.Volumes {
			if v.Replication.moving() {
				words = append(words, v.progress(len(p.Volumes) > 1))
			}
		}
	}
	line := strings.Join(words, " ")
	for _, w := range s.warnings() {
		line += "; " + w
	}
	return line
}

func (s *drbdStatus) roles() string {
	r := string(s.Role)
	for _, p := range s.Peers {
		r += "/" + string(p.Role)
	}
	return r
}

func (p *drbdPeer) label() string {
	if p.Name == "" {
		return "peer"
	}
	return p.Name
}

// disk is the peer's disk state of a volume.
func (p *drbdPeer) disk(number int) drbdDisk {
	for _, v := range p.Volumes {
		if v.Number == number {
			return v.PeerDisk
		}
	}
	return diskDUnknown
}

func (v *drbdPeerVolume) progress(numbered bool) string {
	s := string(v.Replication)
	if numbered {
		s = fmt.Sprintf("%d:%s", v.Number, s)
	}
	if v.Done >= 0 {
		s += fmt.Sprintf(" %.1f%%", v.Done)
	}
	if v.Left > 0 {
		s += fmt.Sprintf(", %s left", v.Left)
	}
	if v.Paused != "" {
		s += " (paused by " + v.Paused + ")"
	}
	return s
}

// warnings are sentences about what does not stop the service but makes it less safe than it looks.
func (s *drbdStatus) warnings() []string {
	var w []string
	if s.Suspended != "" {
		w = append(w, "I/O is frozen ("+s.Suspended+")")
	}
	for _, v := range s.Volumes {
		if s.Role == drbdPrimary && (v.Disk == diskDiskless || v.Disk == diskFailed) {
			w = append(w, fmt.Sprintf("%s is without a disk here: all data is read from and written to the peer only", s.volumeName(v.Number)))
		}
		if v.NoQuorum {
			w = append(w, fmt.Sprintf("%s has lost DRBD's quorum", s.volumeName(v.Number)))
		}
	}
	if len(s.Peers) == 0 {
		w = append(w, "no peer: data is not replicated")
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		switch {
		case p.Connection == connConnected:
		case p.Connection == connStandAlone:
			w = append(w, fmt.Sprintf("not replicated to %s until somebody connects it (drbdadm connect %s; after a split brain "+
				"first choose whose changes to drop)", p.label(), s.Name))
		case p.Connection.passing():
			w = append(w, "not replicated: "+p.label()+" is not connected")
		default:
			w = append(w, fmt.Sprintf("connection state %q of %s is not known to this version", p.Connection, p.label()))
		}
	}
	return w
}

func (s *drbdStatus) volumeName(number int) string {
	if len(s.Volumes) < 2 {
		return s.Name
	}
	return fmt.Sprintf("%s volume %d", s.Name, number)
}

// reachable finds a connected peer whose disk of that volume is UpToDate: then the data is at hand without ours.
func (s *drbdStatus) reachable(number int) *drbdPeer {
	for i := range s.Peers {
		if p := &s.Peers[i]; p.Connection == connConnected && p.disk(number) == diskUpToDate {
			return p
		}
	}
	return nil
}

// copies says where all volumes are up to date. Who is neither Primary nor connected cannot know: its disk calls itself
// UpToDate until it learns that the other has gone on.
func (s *drbdStatus) copies() copies {
	c := copies{Here: len(s.Volumes) > 0, Known: s.Role == drbdPrimary, Primary: s.Role == drbdPrimary, Of: 1 + len(s.Peers), Frozen: s.Suspended == "fencing",
		Replica: s.replica()}
	for _, v := range s.Volumes {
		c.Here = c.Here && v.Disk == diskUpToDate
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		c.Known = c.Known || p.Connection == connConnected
		good := p.Connection == connConnected && len(s.Volumes) > 0
		for _, v := range s.Volumes {
			good = good && p.disk(v.Number) == diskUpToDate
		}
		if good {
			c.Peers = append(c.Peers, p.Name)
		} else {
			c.Stale = append(c.Stale, p.Name)
		}
	}
	return c
}

// replica is all of it for people and programs.
func (s *drbdStatus) replica() *Replica {
	r := &Replica{Resource: s.Name, Role: string(s.Role), Frozen: s.Suspended, Volumes: []ReplicaDisk{}, Peers: []ReplicaPeer{}}
	for _, v := range s.Volumes {
		r.Volumes = append(r.Volumes, ReplicaDisk{v.Number, string(v.Disk)})
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		for _, v := range p.Volumes {
			x := ReplicaPeer{Name: p.label(), Volume: v.Number, Connection: string(p.Connection), Role: string(p.Role), Disk: string(v.PeerDisk),
				Replication: string(v.Replication), OutOfSync: v.OutOfSync << 10, Left: v.Left.Seconds()}
			if v.Done >= 0 {
				x.Done = &v.Done
			}
			r.Peers = append(r.Peers, x)
		}
	}
	return r
}

// primaryPeer is a connected peer that is Primary.
func (s *drbdStatus) primaryPeer() *drbdPeer {
	for i := range s.Peers {
		if p := &s.Peers[i]; p.Connection == connConnected && p.Role == drbdPrimary {
			return p
		}
	}
	return nil
}

// promotability says whether this host's data may become the data.
type promotability int

const (
	mayPromote     promotability = iota
	mustNotPromote               // stale, half copied or gone: nothing that is done here mends it
	notYetPromote                // being attached: look again
	unknownPromote               // a word that is not known
	nothingPromote               // no volume is set up
)

// promotable judges by the local disks alone. Consistent is left to DRBD: it asks its fencing handler.
func (s *drbdStatus) promotable() (promotability, string) {
	if len(s.Volumes) == 0 {
		return nothingPromote, s.Name + " has no volume set up here: drbdadm up " + s.Name
	}
	worst, why := mayPromote, ""
	for _, v := range s.Volumes {
		p, reason := s.promotableVolume(v)
		if p == mustNotPromote {
			return p, reason
		}
		if p > worst {
			worst, why = p, reason
		}
	}
	return worst, why
}

func (s *drbdStatus) promotableVolume(v drbdVolume) (promotability, string) {
	name := s.volumeName(v.Number)
	switch v.Disk {
	case diskUpToDate, diskConsistent:
		return mayPromote, ""
	case diskAttaching, diskNegotiating:
		return notYetPromote, fmt.Sprintf("%s is %s: its disk is not ready yet", name, v.Disk)
	case diskDiskless, diskFailed, diskDetaching:
		if s.reachable(v.Number) != nil {
			return mayPromote, ""
		}
		return mustNotPromote, fmt.Sprintf("%s has no disk here (%s) and no connected peer with good data: "+
			"mend the disk and attach it (drbdadm attach %s), or connect the peer (drbdadm connect %s)", name, v.Disk, s.Name, s.Name)
	case diskInconsistent:
		return mustNotPromote, s.inconsistent(v.Number, name)
	case diskOutdated:
		return mustNotPromote, fmt.Sprintf("%s here is Outdated: the newer data is on the peer; connect it (drbdadm connect %s), "+
			"or, if it is lost for good and its last changes may be lost with it: drbdadm primary --force %s", name, s.Name, s.Name)
	}
	return unknownPromote, fmt.Sprintf("disk state %q of %s is not known to this version: see drbdadm status %s", v.Disk, name, s.Name)
}

// inconsistent tells a copy under way from one that nobody makes.
func (s *drbdStatus) inconsistent(number int, name string) string {
	for i := range s.Peers {
		for _, v := range s.Peers[i].Volumes {
			if v.Number == number && s.Peers[i].Connection == connConnected && v.Replication.moving() {
				return fmt.Sprintf("%s here is Inconsistent: the copy from %s is not complete (%s); it can run here when that has ended",
					name, s.Peers[i].label(), v.progress(false))
			}
		}
	}
	return fmt.Sprintf("%s here is Inconsistent: its data is half of one thing and half of another; connect a peer with good data "+
		"(drbdadm connect %s), or, if this is a new and empty pair: drbdadm primary --force %s", name, s.Name, s.Name)
}

// differences are the changes between two pictures of one resource that a monitor should look at. Progress is none,
// nor is a step from one way of not being connected to another.
func (s *drbdStatus) differences(after *drbdStatus) []string {
	if after == nil {
		return []string{s.Name + " was taken down"}
	}
	var d []string
	change := func(what, a, b string) {
		if a != b {
			d = append(d, fmt.Sprintf("%s %s: %s, was %s", s.Name, what, orNone(b), orNone(a)))
		}
	}
	change("role", string(s.Role), string(after.Role))
	change("I/O frozen", s.Suspended, after.Suspended)
	for _, v := range after.Volumes {
		was := s.volumeOrZero(v.Number)
		change("disk", string(was.Disk), string(v.Disk))
		if was.NoQuorum != v.NoQuorum {
			change("quorum", yesNo(!was.NoQuorum), yesNo(!v.NoQuorum))
		}
	}
	for _, v := range s.Volumes {
		if after.volumeOrZero(v.Number) == (drbdVolume{}) {
			change("disk", string(v.Disk), "")
		}
	}
	for i := range after.Peers {
		p := &after.Peers[i]
		var was drbdPeer
		for _, q := range s.Peers {
			if q.ID == p.ID {
				was = q
			}
		}
		change("connection to "+p.label(), was.Connection.class(), p.Connection.class())
		if p.Connection == connConnected && was.Connection == connConnected {
			change("role of "+p.label(), string(was.Role), string(p.Role))
			for _, v := range p.Volumes {
				change("disk of "+p.label(), string(was.disk(v.Number)), string(v.PeerDisk))
			}
		}
	}
	return d
}

func (s *drbdStatus) volumeOrZero(number int) drbdVolume {
	for _, v := range s.Volumes {
		if v.Number == number {
			return v
		}
	}
	return drbdVolume{}
}

// class folds the ways of not being connected, which pass within milliseconds, into one word.
func (c drbdConnection) class() string {
	if c.passing() {
		return "not connected"
	}
	return string(c)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// clone copies what the events change in place.
func (s *drbdStatus) clone() *drbdStatus {
	if s == nil {
		return nil
	}
	c := *s
	c.Volumes = append([]drbdVolume(nil), s.Volumes...)
	c.Peers = append([]drbdPeer(nil), s.Peers...)
	for i := range c.Peers {
		c.Peers[i].Volumes = append([]drbdPeerVolume(nil), s.Peers[i].Volumes...)
	}
	return &c
}
