package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const capturesDRBD = "testdata/drbd/8.4"

// drbdGolden compares with a file; UPDATE_GOLDEN=1 writes it.
func drbdGolden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func readFixture(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// captureNodes lists "state/node" of every captured state.
func captureNodes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(capturesDRBD, "*/*.exit"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures in %s: %v", capturesDRBD, err)
	}
	var nodes []string
	for _, f := range files {
		rel, _ := filepath.Rel(capturesDRBD, f)
		nodes = append(nodes, strings.TrimSuffix(rel, ".exit"))
	}
	sort.Strings(nodes)
	return nodes
}

func captured(t *testing.T, node, what string) string {
	return readFixture(t, filepath.Join(capturesDRBD, node+"."+what+".out"))
}

func one(t *testing.T, list []drbdStatus, err error) *drbdStatus {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return &list[0]
	}
	t.Fatalf("%d resources, expected one", len(list))
	return nil
}

// judge is everything that is decided from a status, as text.
func judge(s *drbdStatus) string {
	if s == nil {
		return "  down\n"
	}
	c, frozen, err := s.health()
	p, why := s.promotable()
	out := "  " + s.summary() + "\n  monitor: " + c.String()
	if frozen {
		out += " (fencing)"
	}
	if err != nil {
		out += ": " + err.Error()
	}
	names := [...]string{"yes", "no", "not yet", "not known", "nothing"}
	out += "\n  promotable: " + names[p]
	if why != "" {
		out += ": " + why
	}
	return out + "\n"
}

// Every captured state has its line, its health and its answer to "may it be promoted".
func TestDRBDCaptureGolden(t *testing.T) {
	var b strings.Builder
	for _, node := range captureNodes(t) {
		list, err := parseDRBDEvents(captured(t, node, "drbdsetup-events2-now-statistics"))
		s := one(t, list, err)
		fmt.Fprintf(&b, "%s\n%s", node, judge(s))
	}
	drbdGolden(t, filepath.Join(capturesDRBD, "judged.golden"), b.String())
}

// facts leaves what every form of the same state must agree on.
func facts(s *drbdStatus) *drbdStatus {
	if s == nil {
		return nil
	}
	f := &drbdStatus{Name: s.Name, Role: s.Role}
	if s.Suspended != "" {
		f.Suspended = "yes"
	}
	for _, v := range s.Volumes {
		f.Volumes = append(f.Volumes, drbdVolume{Number: v.Number, Disk: v.Disk})
	}
	for _, p := range s.Peers {
		q := drbdPeer{Connection: p.Connection, Role: p.Role}
		for _, v := range p.Volumes {
			q.Volumes = append(q.Volumes, drbdPeerVolume{Number: v.Number, Replication: v.Replication, PeerDisk: v.PeerDisk})
		}
		f.Peers = append(f.Peers, q)
	}
	return f
}

// The five ways in which the tools tell one state mean the same.
func TestDRBDCapturesAgree(t *testing.T) {
	agreed := 0
	for _, node := range captureNodes(t) {
		t.Run(node, func(t *testing.T) {
			list, err := parseDRBDEvents(captured(t, node, "drbdsetup-events2-now-statistics"))
			want := facts(one(t, list, err))
			compare := func(form string, got, want *drbdStatus) {
				t.Helper()
				agreed++
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s differs from events2 with statistics:\n%s", form, diff)
				}
			}
			list, err = parseDRBDEvents(captured(t, node, "drbdsetup-events2-now"))
			compare("events2", facts(one(t, list, err)), want)

			proc, err := parseProcDRBD(captured(t, node, "proc-drbd"))
			if err != nil {
				t.Fatal(err)
			}
			var fromProc *drbdStatus
			if m := proc.minor(0); m != nil {
				s := m.status("r0")
				fromProc = facts(&s)
			}
			compare("/proc/drbd", fromProc, want)

			visible := want
			if want != nil && len(want.Peers) == 1 && want.Peers[0].Connection == connStandAlone {
				c := *want // status of 8.4 does not show a peer that nobody looks for
				c.Peers = nil
				visible = &c
			}
			list, err = parseDRBDText(captured(t, node, "drbdsetup-status-verbose-statistics"))
			compare("status --verbose", facts(one(t, list, err)), visible)
			list, err = parseDRBDText(captured(t, node, "drbdsetup-status"))
			compare("status", facts(one(t, list, err)), withoutFenced(visible))
			if want == nil {
				return
			}
			words, err := parseDRBDWords("r0", captured(t, node, "drbdadm-role"), captured(t, node, "drbdadm-cstate"), captured(t, node, "drbdadm-dstate"))
			if err != nil {
				t.Fatal(err)
			}
			withoutFreeze := *want
			withoutFreeze.Suspended = "" // the words do not tell it
			compare("role, cstate, dstate", facts(&words), &withoutFreeze)
		})
	}
	if agreed == 0 {
		t.Error("nothing was compared")
	}
}

// withoutFenced is what status tells without --verbose: of a peer that is not connected it hides that it was fenced.
func withoutFenced(s *drbdStatus) *drbdStatus {
	if s == nil {
		return nil
	}
	s = facts(s)
	for _, p := range s.Peers {
		for i := range p.Volumes {
			if p.Connection == connConnecting && p.Volumes[i].PeerDisk == diskOutdated {
				p.Volumes[i].PeerDisk = diskDUnknown
			}
		}
	}
	return s
}

// Progress comes from where it is true: a verify leaves no trace in status, only in /proc/drbd.
func TestDRBDProgress(t *testing.T) {
	for _, c := range []struct {
		node, form string
		want       float64
	}{
		{"syncsource-synctarget/a", "proc-drbd", 7.9},
		{"syncsource-synctarget/b", "proc-drbd", 15.7},
		{"syncsource-synctarget/a", "drbdsetup-status", 10.17},
		{"syncsource-synctarget/b", "drbdsetup-status-verbose-statistics", 19.11},
		{"pausedsync/a", "drbdsetup-status", 26.82},
		{"verifying/a", "proc-drbd", 4.7},
		{"verifying/b", "proc-drbd", 12.5},
		{"verifying/a", "drbdsetup-status", -1},
		{"connected-uptodate-uptodate/a", "drbdsetup-status", -1},
		{"connected-uptodate-uptodate/a", "proc-drbd", -1},
	} {
		var got float64
		if c.form == "proc-drbd" {
			p, err := parseProcDRBD(captured(t, c.node, c.form))
			if err != nil {
				t.Fatal(err)
			}
			got = p.minor(0).Done
		} else {
			list, err := parseDRBDText(captured(t, c.node, c.form))
			got = one(t, list, err).Peers[0].Volumes[0].Done
		}
		if got != c.want {
			t.Errorf("%s %s: done %v, want %v", c.node, c.form, got, c.want)
		}
	}
}

func TestDRBD9Golden(t *testing.T) {
	dir := "testdata/drbd/9-from-documentation"
	var b strings.Builder
	for _, f := range []struct {
		name  string
		parse func(string) ([]drbdStatus, error)
	}{
		{"connected.json", parseDRBDJSON},
		{"connected.events2", parseDRBDEvents},
		{"connected.status", parseDRBDText},
		{"connected-verbose.status", parseDRBDText},
		{"three-nodes-two-volumes.json", parseDRBDJSON},
		{"two-volumes-syncing.status", parseDRBDText},
		{"quorum-lost.json", parseDRBDJSON},
		{"none.json", parseDRBDJSON},
	} {
		list, err := f.parse(readFixture(t, filepath.Join(dir, f.name)))
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		fmt.Fprintf(&b, "%s: %d\n", f.name, len(list))
		for i := range list {
			b.WriteString(judge(&list[i]))
		}
	}
	drbdGolden(t, filepath.Join(dir, "judged.golden"), b.String())
	p, err := parseProcDRBD(readFixture(t, filepath.Join(dir, "proc-drbd")))
	if err != nil || p.Version != "9.1.13" || len(p.Minors) != 0 {
		t.Errorf("/proc/drbd of 9: %+v, %v", p, err)
	}
}

// The same state told by 9 in four forms is one state.
func TestDRBD9FormsAgree(t *testing.T) {
	dir := "testdata/drbd/9-from-documentation"
	list, err := parseDRBDJSON(readFixture(t, filepath.Join(dir, "connected.json")))
	want := facts(one(t, list, err))
	list, err = parseDRBDEvents(readFixture(t, filepath.Join(dir, "connected.events2")))
	if diff := cmp.Diff(want, facts(one(t, list, err))); diff != "" {
		t.Errorf("events2: %s", diff)
	}
	for _, name := range []string{"connected.status", "connected-verbose.status"} {
		list, err = parseDRBDText(readFixture(t, filepath.Join(dir, name)))
		if diff := cmp.Diff(want, facts(one(t, list, err))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestDRBDRejects(t *testing.T) {
	usage := captured(t, "pausedsync/a", "drbdsetup-status-json")
	pairs := func(s string) error { _, err := parseDRBDPairs(s); return err }
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"the usage of 8.4 for --json", second(parseDRBDJSON(usage)), "drbdsetup status --json"},
		{"json without a name", second(parseDRBDJSON(`[{"role":"Primary"}]`)), "without a name"},
		{"events cut short", second(parseDRBDEvents("exists resource name:r0 role:Primary\n")), "end mark"},
		{"no event", second(parseDRBDEvents("hello\n")), "not an event"},
		{"event without a name", second(parseDRBDEvents("exists device volume:0\nexists -\n")), "without a name"},
		{"event without a volume", second(parseDRBDEvents("exists device name:r0 disk:UpToDate\nexists -\n")), "without volume"},
		{"a size that is none", second(parseDRBDEvents("exists device name:r0 volume:0 size:big\nexists -\n")), "size:big"},
		{"a volume that is none", second(parseDRBDEvents("exists device name:r0 volume:99999999 disk:UpToDate\nexists -\n")), "volume"},
		{"status that begins amid", second(parseDRBDText("  disk:UpToDate\n")), "before any resource"},
		{"status that is an error", second(parseDRBDText("r0: No such resource\n")), "line 1"},
		{"more than all", second(parseDRBDText("r0 role:Primary\n  disk:UpToDate\n  peer role:Secondary\n    replication:SyncSource done:101\n")), "line 4"},
		{"empty /proc/drbd", second(parseProcDRBD("")), "no version"},
		{"half a pair", second(parseProcDRBD("version: 8.4.11 (x)\n 0: cs:Connected ro:Primary ds:UpToDate/UpToDate C r-----\n")), "HERE/THERE"},
		{"words that are none", pairs("0: Failure: (127) Device minor not allocated\n"), "expected words"},
		{"no words", pairs("\n"), "got nothing"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, c.err, c.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// What is not known is said, and leads to no promotion and no verdict.
func TestDRBDUnknownWords(t *testing.T) {
	s := drbdStatus{Name: "r0", Role: "Tertiary", Volumes: []drbdVolume{{Disk: "Quantum"}},
		Peers: []drbdPeer{{Name: "bob", Connection: "Entangled", Role: drbdSecondary}}}
	if c, _, err := s.health(); c != conditionUnknown || err == nil {
		t.Errorf("unknown role: %v, %v", c, err)
	}
	if p, why := s.promotable(); p != unknownPromote || !strings.Contains(why, "Quantum") {
		t.Errorf("unknown disk: %v, %q", p, why)
	}
	if got := s.summary(); !strings.Contains(got, `"Entangled"`) || !strings.Contains(got, "Tertiary/Secondary") {
		t.Errorf("summary hides unknown words: %s", got)
	}
	s.Role = drbdPrimary
	if c, _, err := s.health(); c != conditionUnknown || err == nil {
		t.Errorf("unknown disk of a primary: %v, %v", c, err)
	}
}

// A stale volume bars the resource, whatever comes before or after it.
func TestDRBDPromotableVolumes(t *testing.T) {
	for _, c := range []struct {
		disks []drbdDisk
		want  promotability
	}{
		{nil, nothingPromote},
		{[]drbdDisk{diskUpToDate, diskConsistent}, mayPromote},
		{[]drbdDisk{diskUpToDate, diskOutdated}, mustNotPromote},
		{[]drbdDisk{diskAttaching, diskOutdated}, mustNotPromote},
		{[]drbdDisk{"Quantum", diskInconsistent}, mustNotPromote},
		{[]drbdDisk{diskNegotiating, diskUpToDate}, notYetPromote},
		{[]drbdDisk{diskAttaching, "Quantum", diskUpToDate}, unknownPromote},
		{[]drbdDisk{diskFailed}, mustNotPromote},
		{[]drbdDisk{diskDUnknown}, unknownPromote},
	} {
		s := drbdStatus{Name: "r0", Role: drbdSecondary}
		for i, d := range c.disks {
			s.Volumes = append(s.Volumes, drbdVolume{Number: i, Disk: d})
		}
		if got, why := s.promotable(); got != c.want {
			t.Errorf("%v: %v (%s), want %v", c.disks, got, why, c.want)
		}
	}
}

func FuzzDRBDStatus(f *testing.F) {
	for _, pattern := range []string{"testdata/drbd/9-from-documentation/*.json", "testdata/drbd/9-from-documentation/*.status",
		"testdata/drbd/8.4/*/*-status*.out"} {
		fuzzSeeds(f, pattern)
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, parse := range []func(string) ([]drbdStatus, error){parseDRBDJSON, parseDRBDText} {
			list, err := parse(in)
			if err == nil {
				checkFuzzed(t, list)
			}
		}
		if pairs, err := parseDRBDPairs(in); err == nil && len(pairs) == 0 {
			t.Error("no words and no error")
		}
	})
}

func FuzzEvents2(f *testing.F) {
	fuzzSeeds(f, "testdata/drbd/8.4/*/*events2*.out")
	fuzzSeeds(f, "testdata/drbd/9-from-documentation/*.events2")
	f.Fuzz(func(t *testing.T, in string) {
		if list, err := parseDRBDEvents(in); err == nil {
			checkFuzzed(t, list)
		}
		w := drbdFollower{name: "r0", changed: func(reason string) {
			if !strings.HasPrefix(reason, "r0") {
				t.Errorf("reason %q does not begin with the resource", reason)
			}
		}}
		for _, line := range strings.Split(in, "\n") {
			w.line(line)
		}
	})
}

func FuzzProcDRBD(f *testing.F) {
	fuzzSeeds(f, "testdata/drbd/8.4/*/*proc-drbd.out")
	fuzzSeeds(f, "testdata/drbd/8.4/link-cut-proc-drbd-over-4-seconds.txt")
	f.Fuzz(func(t *testing.T, in string) {
		p, err := parseProcDRBD(in)
		if err != nil {
			return
		}
		for i := range p.Minors {
			checkFuzzed(t, []drbdStatus{p.Minors[i].status("r0")})
		}
	})
}

func fuzzSeeds(f *testing.F, pattern string) {
	files, _ := filepath.Glob(pattern)
	if len(files) == 0 {
		f.Fatalf("no seeds match %s", pattern)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
}

// checkFuzzed: whatever was read, the judgements stand by their rules.
func checkFuzzed(t *testing.T, list []drbdStatus) {
	t.Helper()
	for i := range list {
		s := &list[i]
		if c, _, err := s.health(); (c == conditionFailed || c == conditionUnknown) != (err != nil) {
			t.Errorf("%v with error %v", c, err)
		}
		p, why := s.promotable()
		if (p == mayPromote) != (why == "") {
			t.Errorf("promotable %v with reason %q", p, why)
		}
		for _, v := range s.Volumes {
			if p == mayPromote && (v.Disk == diskInconsistent || v.Disk == diskOutdated) {
				t.Errorf("may promote %s data", v.Disk)
			}
		}
		for _, peer := range s.Peers {
			for _, v := range peer.Volumes {
				if v.Done != -1 && !(v.Done >= 0 && v.Done <= 100) {
					t.Errorf("done %v", v.Done)
				}
			}
		}
		if d := s.differences(s.clone()); len(d) != 0 && uniquePeers(s) {
			t.Errorf("differs from itself: %v", d)
		}
	}
}

// uniquePeers: text and JSON could repeat a number; a comparison by number means nothing then.
func uniquePeers(s *drbdStatus) bool {
	seen := map[string]bool{}
	see := func(key string) bool { was := seen[key]; seen[key] = true; return !was }
	ok := true
	for _, v := range s.Volumes {
		ok = see(fmt.Sprint("v", v.Number)) && ok
	}
	for _, p := range s.Peers {
		ok = see(fmt.Sprint("p", p.ID)) && ok
		for _, v := range p.Volumes {
			ok = see(fmt.Sprint("p", p.ID, "v", v.Number)) && ok
		}
	}
	return ok
}
