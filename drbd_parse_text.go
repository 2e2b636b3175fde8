// What do DRBD's tools say to people? The formats without a machine-readable twin: `drbdsetup status`, /proc/drbd of
// 8.4, and the one-word answers of drbdadm role, cstate and dstate. Pure; the model is in drbd_parse.go.

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseDRBDText reads `drbdsetup status [--verbose] [--statistics]` of 8.4 and 9. A short status leaves out what is
// as it should be, so a peer with a role is Connected, and a connected volume is Established.
func parseDRBDText(out string) ([]drbdStatus, error) {
	var list []drbdStatus
	t := drbdText{}
	for n, line := range strings.Split(out, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " \t"))
		if indent == 0 {
			list = append(list, drbdStatus{Name: words[0]})
			t = drbdText{s: &list[len(list)-1]}
			if !strings.HasPrefix(strings.Join(words[1:], " "), "role:") && !strings.HasPrefix(strings.Join(words[1:], " "), "node-id:") {
				return nil, fmt.Errorf("read drbdsetup status, line %d: expected a resource and its role, got %.80q", n+1, line)
			}
			words = words[1:]
		}
		if t.s == nil {
			return nil, fmt.Errorf("read drbdsetup status, line %d: %.80q comes before any resource", n+1, line)
		}
		if err := t.line(indent, words); err != nil {
			return nil, fmt.Errorf("read drbdsetup status, line %d: %w", n+1, err)
		}
	}
	for i := range list {
		list[i].fillShort()
	}
	return list, nil
}

// drbdText is the place in the text: the object that a wrapped line goes on with.
type drbdText struct {
	s          *drbdStatus
	volume     int
	peer       int // index into s.Peers
	peerVolume int
	at         string // "", volume, peer, peer-volume
}

func (t *drbdText) line(indent int, words []string) error {
	first := drbdWord{}
	if len(words) > 0 {
		first = splitDRBDWord(words[0])
	}
	var err error
	switch {
	case indent == 0:
		t.at = ""
	case indent == 2 && (first.key == "volume" || first.key == "disk"):
		t.at = "volume"
		t.volume, err = textVolume(first)
		t.s.volume(t.volume)
	case indent == 2:
		t.at, t.peer = "peer", len(t.s.Peers)
		t.s.Peers = append(t.s.Peers, drbdPeer{ID: len(t.s.Peers), Name: words[0], Role: drbdRoleUnknown})
		words = words[1:]
	case indent == 4 && (t.at == "peer" || t.at == "peer-volume") && textPeerVolume(first.key):
		t.at = "peer-volume"
		t.peerVolume, err = textVolume(first)
		t.s.Peers[t.peer].volume(t.peerVolume)
	}
	if err != nil {
		return err
	}
	for _, w := range words {
		if err := t.word(splitDRBDWord(w)); err != nil {
			return err
		}
	}
	return nil
}

// textVolume is the number of a volume that begins a line: a lone one is not numbered.
func textVolume(w drbdWord) (int, error) {
	if w.key != "volume" {
		return 0, nil
	}
	n, err := parseDRBDNumber(w.value)
	return n, wrapDRBDWord(w, err)
}

func textPeerVolume(key string) bool {
	return key == "volume" || key == "replication" || key == "peer-disk"
}

func (t *drbdText) word(w drbdWord) error {
	switch t.at {
	case "volume":
		return t.s.volume(t.volume).set(w)
	case "peer":
		if w.key == "node-id" {
			id, err := parseDRBDNumber(w.value)
			t.s.Peers[t.peer].ID = id
			return wrapDRBDWord(w, err)
		}
		t.s.Peers[t.peer].set(w)
	case "peer-volume":
		return t.s.Peers[t.peer].volume(t.peerVolume).set(w)
	default:
		t.s.set(w)
	}
	return nil
}

func (s *drbdStatus) fillShort() {
	for i := range s.Peers {
		p := &s.Peers[i]
		if p.Connection == "" && p.Role != drbdRoleUnknown {
			p.Connection = connConnected
		}
		for j := range p.Volumes {
			v := &p.Volumes[j]
			if v.Replication == "" && p.Connection == connConnected {
				v.Replication = replEstablished
			}
			if v.Replication.verifying() {
				v.Done = -1 // 8.4 counts what is in sync here, which a verify does not change
			}
		}
		if len(p.Volumes) == 0 && p.Connection != connConnected {
			for _, v := range s.Volumes {
				p.Volumes = append(p.Volumes, drbdPeerVolume{Number: v.Number, Replication: replOff, PeerDisk: diskDUnknown, Done: -1})
			}
		}
	}
}

// procDRBD is /proc/drbd of 8.4. In 9 the file has the version only.
type procDRBD struct {
	Version string // "8.4.11"
	Minors  []procMinor
}

type procMinor struct {
	Minor          int
	Connection     drbdConnection
	Replication    drbdReplication
	Role, PeerRole drbdRole
	Disk, PeerDisk drbdDisk
	Suspended      bool
	OutOfSync      uint64  // KiB
	Done           float64 // percent of the sync or verify that runs; -1: none runs
	Left           time.Duration
}

func (p *procDRBD) minor(n int) *procMinor {
	for i := range p.Minors {
		if p.Minors[i].Minor == n {
			return &p.Minors[i]
		}
	}
	return nil
}

// parseProcDRBD reads /proc/drbd. Minors that are not configured are left out.
func parseProcDRBD(text string) (*procDRBD, error) {
	p := &procDRBD{}
	open := false // the last minor still takes lines
	for n, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if v, ok := strings.CutPrefix(line, "version: "); ok {
			p.Version, _, _ = strings.Cut(v, " ")
			continue
		}
		if number, ok := strings.CutSuffix(words[0], ":"); ok && line[0] == ' ' && len(words) > 1 && strings.HasPrefix(words[1], "cs:") {
			m, err := parseProcMinor(number, words[1:])
			if err != nil {
				return nil, fmt.Errorf("read /proc/drbd, line %d: %w", n+1, err)
			}
			if open = m.Connection != "Unconfigured"; open {
				p.Minors = append(p.Minors, m)
			}
			continue
		}
		if open {
			if err := p.Minors[len(p.Minors)-1].more(line, words); err != nil {
				return nil, fmt.Errorf("read /proc/drbd, line %d: %w", n+1, err)
			}
		}
	}
	if p.Version == "" {
		return nil, fmt.Errorf("read /proc/drbd: no version line")
	}
	return p, nil
}

// parseProcMinor reads " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----". The letter of the
// protocol is missing while StandAlone.
func parseProcMinor(number string, words []string) (procMinor, error) {
	m := procMinor{Done: -1}
	var err error
	if m.Minor, err = parseDRBDNumber(number); err != nil {
		return m, fmt.Errorf("minor: %w", err)
	}
	for _, s := range words {
		w := splitDRBDWord(s)
		here, there, paired := strings.Cut(w.value, "/")
		switch w.key {
		case "cs":
			m.Connection, m.Replication = splitCState(w.value)
			continue
		case "ro":
			m.Role, m.PeerRole = drbdRole(here), drbdRole(there)
		case "ds":
			m.Disk, m.PeerDisk = drbdDisk(here), drbdDisk(there)
		default:
			if len(s) > 1 && strings.Trim(s, "-rsapudnb") == "" {
				m.Suspended = s[0] == 's'
			}
			continue
		}
		if !paired {
			return m, fmt.Errorf("expected %s:HERE/THERE, got %s", w.key, s)
		}
	}
	return m, nil
}

// more reads the lines below a minor: counters, and the progress of a sync or verify.
func (m *procMinor) more(line string, words []string) error {
	for _, s := range words {
		if v, ok := strings.CutPrefix(s, "oos:"); ok {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				return fmt.Errorf("oos: %w", err)
			}
			m.OutOfSync = n
		}
	}
	if _, rest, ok := strings.Cut(line, "finish: "); ok {
		var hours, minutes, seconds int
		if n, _ := fmt.Sscanf(rest, "%d:%d:%d", &hours, &minutes, &seconds); n != 3 || min(hours, minutes, seconds) < 0 || hours > int(drbdLongest.Hours()) {
			return fmt.Errorf("finish: expected H:MM:SS, got %q", rest)
		}
		m.Left = time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute + time.Duration(seconds)*time.Second
	}
	for _, mark := range []string{"sync'ed:", "verified:"} {
		_, rest, ok := strings.Cut(line, mark)
		if !ok {
			continue
		}
		percent, _, ok := strings.Cut(strings.TrimSpace(rest), "%")
		if !ok {
			return fmt.Errorf("%s without a percentage", mark)
		}
		f, err := parseDRBDPercent(percent)
		if err != nil {
			return fmt.Errorf("%s %w", mark, err)
		}
		m.Done = f
	}
	return nil
}

// splitCState parts the one word of 8.4 into the two of 9.
func splitCState(word string) (drbdConnection, drbdReplication) {
	switch {
	case word == "WFConnection":
		return connConnecting, replOff
	case word == string(connConnected):
		return connConnected, replEstablished
	case word == "WFReportParams":
		return "Connected", replOff // the handshake is under way
	case drbdReplication(word).moving():
		return connConnected, drbdReplication(word)
	}
	return drbdConnection(word), replOff
}

// status is what /proc/drbd tells of one minor, as the resource of one volume that 8.4 mostly has.
func (m *procMinor) status(name string) drbdStatus {
	s := drbdStatus{Name: name, Role: m.Role,
		Volumes: []drbdVolume{{Minor: m.Minor, Disk: m.Disk}},
		Peers: []drbdPeer{{Connection: m.Connection, Role: m.PeerRole,
			Volumes: []drbdPeerVolume{{Replication: m.Replication, PeerDisk: m.PeerDisk, Done: m.Done, Left: m.Left, OutOfSync: m.OutOfSync}}}}}
	if m.Suspended {
		s.Suspended = "yes"
	}
	return s
}

// parseDRBDPairs reads the answer of drbdadm role, cstate or dstate: a line for each volume or peer, each with the
// words of this host and its peers.
func parseDRBDPairs(out string) ([][]string, error) {
	var pairs [][]string
	for _, line := range strings.Split(out, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		words := strings.Split(line, "/")
		for _, w := range words {
			if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
				return nil, fmt.Errorf("expected words such as UpToDate/DUnknown, got %.80q", line)
			}
		}
		pairs = append(pairs, words)
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("expected words such as UpToDate/DUnknown, got nothing")
	}
	return pairs, nil
}

// parseDRBDWords joins the answers of drbdadm role, cstate and dstate of 8.4, which always has one peer.
func parseDRBDWords(name, role, cstate, dstate string) (drbdStatus, error) {
	s := drbdStatus{Name: name}
	roles, err := parseDRBDPairs(role)
	if err != nil {
		return s, fmt.Errorf("role: %w", err)
	}
	conns, err := parseDRBDPairs(cstate)
	if err != nil {
		return s, fmt.Errorf("cstate: %w", err)
	}
	disks, err := parseDRBDPairs(dstate)
	if err != nil {
		return s, fmt.Errorf("dstate: %w", err)
	}
	if len(roles[0]) != 2 || len(conns) != len(disks) {
		return s, fmt.Errorf("role %q, cstate %q and dstate %q do not fit together", role, cstate, dstate)
	}
	s.Role = drbdRole(roles[0][0])
	p := drbdPeer{Name: "peer", Role: drbdRole(roles[0][1])}
	for i, d := range disks {
		if len(d) != 2 || len(conns[i]) != 1 {
			return s, fmt.Errorf("cstate %q and dstate %q do not fit together", cstate, dstate)
		}
		conn, repl := splitCState(conns[i][0])
		p.Connection = conn
		s.Volumes = append(s.Volumes, drbdVolume{Number: i, Minor: -1, Disk: drbdDisk(d[0])})
		p.Volumes = append(p.Volumes, drbdPeerVolume{Number: i, Replication: repl, PeerDisk: drbdDisk(d[1]), Done: -1})
	}
	s.Peers = []drbdPeer{p}
	return s, nil
}
