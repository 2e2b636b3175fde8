// What do DRBD's tools say? Reads the output of drbdsetup and drbdadm of 8.4 and 9, and /proc/drbd of 8.4, into one
// model. Pure. It must not guess: a word that it does not know is kept as it is, and whoever judges it must then say
// that they do not know.

package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The words are DRBD 9's; what 8.4 calls by another name is translated.
type (
	drbdRole        string
	drbdDisk        string
	drbdConnection  string
	drbdReplication string
)

const (
	drbdPrimary     drbdRole = "Primary"
	drbdSecondary   drbdRole = "Secondary"
	drbdRoleUnknown drbdRole = "Unknown"

	diskDiskless     drbdDisk = "Diskless"
	diskAttaching    drbdDisk = "Attaching"
	diskDetaching    drbdDisk = "Detaching"
	diskFailed       drbdDisk = "Failed"
	diskNegotiating  drbdDisk = "Negotiating"
	diskInconsistent drbdDisk = "Inconsistent"
	diskOutdated     drbdDisk = "Outdated"
	diskDUnknown     drbdDisk = "DUnknown"
	diskConsistent   drbdDisk = "Consistent"
	diskUpToDate     drbdDisk = "UpToDate"

	connStandAlone drbdConnection = "StandAlone"
	connConnecting drbdConnection = "Connecting"
	connConnected  drbdConnection = "Connected"

	replOff         drbdReplication = "Off"
	replEstablished drbdReplication = "Established"
)

// passing says that the connection is being set up or torn down: in a moment it is something else.
func (c drbdConnection) passing() bool {
	switch c {
	case "Disconnecting", "Unconnected", "Timeout", "BrokenPipe", "NetworkFailure", "ProtocolError", "TearDown",
		"Connecting":
		return true
	}
	return false
}

// moving says that data is compared or copied, so that a percentage means something.
func (r drbdReplication) moving() bool {
	switch r {
	case "SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT", "VerifyS", "VerifyT", "Ahead", "Behind":
		return true
	}
	return r.starting()
}

// starting says that a sync or a verify is about to begin.
func (r drbdReplication) starting() bool {
	switch r {
	case "StartingSyncS", "StartingSyncT", "WFBitMapS", "WFBitMapT", "WFSyncUUID":
		return true
	}
	return false
}

// drbdStatus is one resource as its own host sees it.
type drbdStatus struct {
	Name      string       `json:"name"`
	Role      drbdRole     `json:"role"`
	Suspended string       `json:"suspended,omitempty"` // why I/O is frozen: "user", "fencing", "quorum", "no-data", "yes"; "" if it is not
	Volumes   []drbdVolume `json:"volumes"`
	Peers     []drbdPeer   `json:"peers,omitempty"`
}

type drbdVolume struct {
	Number   int      `json:"volume"`
	Minor    int      `json:"minor"` // -1: not told
	Disk     drbdDisk `json:"disk"`
	Size     uint64   `json:"size,omitempty"`      // KiB
	NoQuorum bool     `json:"no_quorum,omitempty"` // 9 only
}

type drbdPeer struct {
	ID         int              `json:"id"`
	Name       string           `json:"name,omitempty"` // 8.4 has one peer and calls it "peer"
	Connection drbdConnection   `json:"connection"`
	Role       drbdRole         `json:"role"`
	Volumes    []drbdPeerVolume `json:"volumes,omitempty"`
}

type drbdPeerVolume struct {
	Number      int             `json:"volume"`
	Replication drbdReplication `json:"replication"`
	PeerDisk    drbdDisk        `json:"peer_disk"`
	Done        float64         `json:"done"`        // percent; -1: not told
	Left        time.Duration   `json:"left"`        // until the sync or verify is over, as DRBD reckons; 0: not told
	OutOfSync   uint64          `json:"out_of_sync"` // KiB
	Paused      string          `json:"paused,omitempty"`
}

func (s *drbdStatus) volume(number int) *drbdVolume {
	for i := range s.Volumes {
		if s.Volumes[i].Number == number {
			return &s.Volumes[i]
		}
	}
	s.Volumes = append(s.Volumes, drbdVolume{Number: number, Minor: -1})
	return &s.Volumes[len(s.Volumes)-1]
}

// peer finds by node id: a name is missing while 8.4 is StandAlone.
func (s *drbdStatus) peer(id int) *drbdPeer {
	for i := range s.Peers {
		if s.Peers[i].ID == id {
			return &s.Peers[i]
		}
	}
	s.Peers = append(s.Peers, drbdPeer{ID: id, Role: drbdRoleUnknown})
	return &s.Peers[len(s.Peers)-1]
}

func (p *drbdPeer) volume(number int) *drbdPeerVolume {
	for i := range p.Volumes {
		if p.Volumes[i].Number == number {
			return &p.Volumes[i]
		}
	}
	p.Volumes = append(p.Volumes, drbdPeerVolume{Number: number, Done: -1})
	return &p.Volumes[len(p.Volumes)-1]
}

// word is one "key:value" of status and events2.
type drbdWord struct{ key, value string }

func splitDRBDWord(s string) drbdWord {
	k, v, _ := strings.Cut(s, ":")
	return drbdWord{k, v}
}

func (s *drbdStatus) set(w drbdWord) {
	switch w.key {
	case "role":
		s.Role = drbdRole(w.value)
	case "suspended":
		s.Suspended = w.value
		if w.value == "no" {
			s.Suspended = ""
		}
	}
}

func (v *drbdVolume) set(w drbdWord) error {
	var err error
	switch w.key {
	case "disk":
		v.Disk = drbdDisk(w.value)
	case "minor":
		v.Minor, err = parseDRBDNumber(w.value)
	case "size":
		v.Size, err = strconv.ParseUint(w.value, 10, 64)
	case "quorum":
		v.NoQuorum = w.value == "no"
	}
	return wrapDRBDWord(w, err)
}

func (p *drbdPeer) set(w drbdWord) {
	switch w.key {
	case "conn-name":
		p.Name = w.value
	case "connection":
		p.Connection = drbdConnection(w.value)
	case "role":
		p.Role = drbdRole(w.value)
	}
}

func (v *drbdPeerVolume) set(w drbdWord) error {
	var err error
	switch w.key {
	case "replication":
		v.Replication = drbdReplication(w.value)
	case "peer-disk":
		v.PeerDisk = drbdDisk(w.value)
	case "done":
		v.Done, err = parseDRBDPercent(w.value)
	case "out-of-sync":
		v.OutOfSync, err = strconv.ParseUint(w.value, 10, 64)
	case "resync-suspended":
		v.Paused = w.value
		if w.value == "no" {
			v.Paused = ""
		}
	}
	return wrapDRBDWord(w, err)
}

func wrapDRBDWord(w drbdWord, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s:%s: %w", w.key, w.value, err)
}

// parseDRBDNumber reads a volume, minor or node id. DRBD has 2^20 minors and 2^16 volumes at most.
func parseDRBDNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 20)
	return int(n), err
}

func parseDRBDPercent(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return -1, err
	}
	if !(f >= 0 && f <= 100) {
		return -1, fmt.Errorf("not a percentage: %s", s)
	}
	return f, nil
}

// drbdEvent is one line of events2: what happened to which object.
type drbdEvent struct {
	action string // exists, create, change, destroy, call, response, rename
	object string // resource, connection, device, peer-device, path, helper; "-" ends the present state
	words  []drbdWord
}

func (e drbdEvent) get(key string) string {
	for _, w := range e.words {
		if w.key == key {
			return w.value
		}
	}
	return ""
}

// parseDRBDEvent reads a line of events2, with or without --timestamps.
func parseDRBDEvent(line string) (drbdEvent, error) {
	f := strings.Fields(line)
	if len(f) > 0 && f[0][0] >= '0' && f[0][0] <= '9' {
		f = f[1:]
	}
	if len(f) < 2 {
		return drbdEvent{}, fmt.Errorf("not an event of drbdsetup events2: %.80q", line)
	}
	e := drbdEvent{action: f[0], object: f[1]}
	for _, w := range f[2:] {
		e.words = append(e.words, splitDRBDWord(w))
	}
	return e, nil
}

// drbdEvents holds the resources that a stream of events has told of, in the order of their appearance.
type drbdEvents struct {
	list     []drbdStatus
	complete bool // "exists -" was seen
}

func (d *drbdEvents) find(name string) *drbdStatus {
	for i := range d.list {
		if d.list[i].Name == name {
			return &d.list[i]
		}
	}
	return nil
}

// apply changes the picture by one event.
func (d *drbdEvents) apply(e drbdEvent) error {
	if e.object == "-" {
		d.complete = true
		return nil
	}
	name := e.get("name")
	switch e.action {
	case "exists", "create", "change":
	case "destroy":
		return d.destroy(e, name)
	default:
		return nil // helpers, and what later versions add
	}
	switch e.object {
	case "resource", "connection", "device", "peer-device":
	default:
		return nil // paths
	}
	if name == "" {
		return fmt.Errorf("event of a %s without a name", e.object)
	}
	s := d.find(name)
	if s == nil {
		d.list = append(d.list, drbdStatus{Name: name})
		s = &d.list[len(d.list)-1]
	}
	return s.apply(e)
}

func (s *drbdStatus) apply(e drbdEvent) error {
	var id, number int
	var err error
	if e.object == "connection" || e.object == "peer-device" {
		if id, err = parseDRBDNumber(e.get("peer-node-id")); err != nil {
			return fmt.Errorf("event of a %s without peer-node-id: %w", e.object, err)
		}
	}
	if e.object == "device" || e.object == "peer-device" {
		if number, err = parseDRBDNumber(e.get("volume")); err != nil {
			return fmt.Errorf("event of a %s without volume: %w", e.object, err)
		}
	}
	for _, w := range e.words {
		switch e.object {
		case "resource":
			s.set(w)
		case "connection":
			s.peer(id).set(w)
		case "device":
			err = s.volume(number).set(w)
		case "peer-device":
			err = s.peer(id).volume(number).set(w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *drbdEvents) destroy(e drbdEvent, name string) error {
	s := d.find(name)
	if s == nil {
		return nil
	}
	id, idErr := parseDRBDNumber(e.get("peer-node-id"))
	number, numberErr := parseDRBDNumber(e.get("volume"))
	switch e.object {
	case "resource":
		keep := d.list[:0]
		for _, x := range d.list {
			if x.Name != name {
				keep = append(keep, x)
			}
		}
		d.list = keep
	case "connection":
		if idErr != nil {
			return fmt.Errorf("event of a connection without peer-node-id: %w", idErr)
		}
		keep := s.Peers[:0]
		for _, p := range s.Peers {
			if p.ID != id {
				keep = append(keep, p)
			}
		}
		s.Peers = keep
	case "device":
		if numberErr != nil {
			return fmt.Errorf("event of a device without volume: %w", numberErr)
		}
		keep := s.Volumes[:0]
		for _, v := range s.Volumes {
			if v.Number != number {
				keep = append(keep, v)
			}
		}
		s.Volumes = keep
	}
	// A peer-device goes with its connection or its device; until then its last words stay.
	return nil
}

// parseDRBDEvents reads `drbdsetup events2 --now [--statistics]`, of 8.4 and 9.
func parseDRBDEvents(out string) ([]drbdStatus, error) {
	var d drbdEvents
	for _, line := range strings.Split(out, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		e, err := parseDRBDEvent(line)
		if err != nil {
			return nil, err
		}
		if err := d.apply(e); err != nil {
			return nil, err
		}
	}
	if !d.complete {
		return nil, fmt.Errorf("output of drbdsetup events2 --now ends before its end mark (exists -)")
	}
	for i := range d.list {
		d.list[i].settle()
	}
	return d.list, nil
}

// settle fills in what a source leaves out because it follows from the rest: progress from what is out of sync.
func (s *drbdStatus) settle() {
	for i := range s.Peers {
		p := &s.Peers[i]
		for j := range p.Volumes {
			v := &p.Volumes[j]
			size := s.sizeOf(v.Number)
			if v.Done >= 0 || !v.Replication.moving() || v.Replication.verifying() || size == 0 || v.OutOfSync > size {
				continue // a verify leaves no trace in out-of-sync
			}
			v.Done = 100 * float64(size-v.OutOfSync) / float64(size)
		}
	}
}

func (r drbdReplication) verifying() bool { return r == "VerifyS" || r == "VerifyT" }

func (s *drbdStatus) sizeOf(number int) uint64 {
	for _, v := range s.Volumes {
		if v.Number == number {
			return v.Size
		}
	}
	return 0
}

// drbdJSON mirrors `drbdsetup status --json` of 9. What 9.0 leaves out and 9.2 adds is optional.
type drbdJSON struct {
	Name      string   `json:"name"`
	Role      drbdRole `json:"role"`
	Suspended bool     `json:"suspended"`
	ByUser    bool     `json:"suspended-user"`
	ByNoData  bool     `json:"suspended-no-data"`
	ByFencing bool     `json:"suspended-fencing"`
	ByQuorum  bool     `json:"suspended-quorum"`
	Devices   []struct {
		Volume int      `json:"volume"`
		Minor  *int     `json:"minor"`
		Disk   drbdDisk `json:"disk-state"`
		Quorum *bool    `json:"quorum"`
		Size   uint64   `json:"size"`
	} `json:"devices"`
	Connections []struct {
		ID      int            `json:"peer-node-id"`
		Name    string         `json:"name"`
		State   drbdConnection `json:"connection-state"`
		Role    drbdRole       `json:"peer-role"`
		Devices []struct {
			Volume      int             `json:"volume"`
			Replication drbdReplication `json:"replication-state"`
			Disk        drbdDisk        `json:"peer-disk-state"`
			Paused      string          `json:"resync-suspended"`
			OutOfSync   uint64          `json:"out-of-sync"`
			Done        *float64        `json:"done"`
			InSync      *float64        `json:"percent-in-sync"`
			Left        *float64        `json:"estimated-seconds-to-finish"`
		} `json:"peer_devices"`
	} `json:"connections"`
}

// parseDRBDJSON reads `drbdsetup status --json` of 9; 8.4 has no such option and prints its usage.
func parseDRBDJSON(out string) ([]drbdStatus, error) {
	var in []drbdJSON
	if err := json.Unmarshal([]byte(out), &in); err != nil {
		return nil, fmt.Errorf("read output of drbdsetup status --json: %w", err)
	}
	list := make([]drbdStatus, 0, len(in))
	for i := range in {
		if in[i].Name == "" {
			return nil, fmt.Errorf("output of drbdsetup status --json has a resource without a name")
		}
		list = append(list, in[i].status())
	}
	return list, nil
}

func (j *drbdJSON) status() drbdStatus {
	s := drbdStatus{Name: j.Name, Role: j.Role, Suspended: j.suspended()}
	for _, d := range j.Devices {
		v := drbdVolume{Number: d.Volume, Minor: -1, Disk: d.Disk, Size: d.Size, NoQuorum: d.Quorum != nil && !*d.Quorum}
		if d.Minor != nil {
			v.Minor = *d.Minor
		}
		s.Volumes = append(s.Volumes, v)
	}
	for _, c := range j.Connections {
		p := drbdPeer{ID: c.ID, Name: c.Name, Connection: c.State, Role: c.Role}
		for _, d := range c.Devices {
			v := drbdPeerVolume{Number: d.Volume, Replication: d.Replication, PeerDisk: d.Disk, Done: -1,
				OutOfSync: d.OutOfSync, Paused: d.Paused}
			if d.Paused == "no" {
				v.Paused = ""
			}
			if v.Replication.moving() {
				v.Done = percentOf(d.Done, d.InSync)
				if d.Left != nil && *d.Left > 0 && *d.Left < drbdLongest.Seconds() {
					v.Left = time.Duration(*d.Left) * time.Second
				}
			}
			p.Volumes = append(p.Volumes, v)
		}
		s.Peers = append(s.Peers, p)
	}
	s.settle()
	return s
}

// drbdLongest is more than any sync takes that DRBD knows the end of.
const drbdLongest = 365 * 24 * time.Hour

// percentOf is the first that is told and is a percentage.
func percentOf(values ...*float64) float64 {
	for _, v := range values {
		if v != nil && *v >= 0 && *v <= 100 {
			return *v
		}
	}
	return -1
}

func (j *drbdJSON) suspended() string {
	switch {
	case j.ByFencing:
		return "fencing"
	case j.ByUser:
		return "user"
	case j.ByNoData:
		return "no-data"
	case j.ByQuorum:
		return "quorum"
	case j.Suspended:
		return "yes"
	}
	return ""
}
