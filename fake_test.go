package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// fakeController answers as a daemon would, from a fixed status. It obeys commands by saying what it was asked.
type fakeController struct {
	mu      sync.Mutex
	st      *Status
	events  []Event
	cfg     *Config
	text    string
	state   []byte
	changed chan struct{}
	asked   []Command
	obey    func(ctx context.Context, c Command, progress func(Progress)) error
}

func newFake(st *Status) *fakeController {
	return &fakeController{st: st, events: sampleEvents(), cfg: sampleConfig(), text: sampleText, changed: make(chan struct{})}
}

func (f *fakeController) Status() *Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.st
}

func (f *fakeController) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// change puts a new status or event in place and tells those who wait.
func (f *fakeController) change(st *Status, events ...Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if st != nil {
		f.st = st
	}
	f.events = append(f.events, events...)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeController) History(n int) []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Event(nil), f.events[max(0, len(f.events)-n):]...)
}

func (f *fakeController) Config() (uint64, string, []byte, *Config) {
	return 7, sampleHash, []byte(f.text), f.cfg
}

// Generations: the one in force, and those before it that are kept.
func (f *fakeController) Generations() ([]generation, error) {
	return []generation{{Generation: 5}, {6, "ab", "ann@bob", ago(2 * time.Hour)}, {7, sampleHash, "root@alice", ago(time.Hour)}}, nil
}

func (f *fakeController) Generation(n uint64) ([]byte, error) {
	switch n {
	case 5:
		return []byte("not TOML\n"), nil // as of a version that took it
	case 6:
		return []byte(strings.ReplaceAll(f.text, "the shop", "our shop")), nil
	}
	return nil, fs.ErrNotExist
}

func (f *fakeController) State() ([]byte, error) {
	if f.state != nil {
		return f.state, nil
	}
	return json.Marshal(simulation{State: &State{Config: ConfigState{Effective: f.cfg}}, View: &View{}})
}

func (f *fakeController) Command(ctx context.Context, c Command, progress func(Progress)) error {
	f.mu.Lock()
	f.asked = append(f.asked, c)
	f.mu.Unlock()
	if f.obey != nil {
		return f.obey(ctx, c, progress)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	progress(Progress{Text: string(b)})
	switch {
	case c.Name == commandConfirmDead && c.Node == "carol":
		return errors.New("carol is heard on lan")
	case (c.Name == commandConfirmDead || c.Name == commandQuorum) && !c.Force:
		progress(Progress{Text: "bob was last heard 3 min ago; nothing that is committed can be lost"})
	case c.Name == commandStandby && c.Node == "carol":
		return &hintError{msg: "carol has nothing to hand over", hint: "hactl status"}
	}
	return nil
}

// now is the moment in which all samples are taken.
func sampleNow() time.Time { return time.Date(2025, 3, 14, 15, 9, 26, 0, time.UTC) }

func ago(d time.Duration) int64 { return sampleNow().Add(-d).UnixNano() }

func sampleEvents() []Event {
	return []Event{
		{Index: 1, Wall: ago(3 * time.Hour), ID: "found", Node: "alice", Text: "cluster shop founded"},
		{Index: 5, Wall: ago(2 * time.Hour), ID: "place", Node: "alice", Group: "web", Text: "web placed on alice: preferred"},
		{Index: 5, Wall: ago(2 * time.Hour), ID: "started", Node: "alice", Group: "web", Text: "web runs on alice"},
		{Index: 9, Wall: ago(time.Hour), ID: "member", Text: "carol votes"},
	}
}

const (
	sampleText = "# the shop\n[cluster]\nname = \"shop\"\n"
	sampleHash = "9e1cf9f26f8b9fc9d0ac8eb5cb31f2d9f1ae6bfe0e4bf2dfe1d34b0c6a3f0c11" // of another text: the file differs
)

func sampleConfig() *Config {
	on := func(lan, repl string) []LinkAddress { return []LinkAddress{{"lan", lan}, {"repl", repl}} }
	return &Config{
		Cluster:   ClusterConfig{Name: "shop", KeyFile: "ha.key", LogLevel: "info"},
		Heartbeat: HeartbeatConfig{Interval: Duration(100 * time.Millisecond), Deadtime: Duration(time.Second), Port: 694},
		Links:     []LinkConfig{{Name: "lan", Interface: "eth0"}, {Name: "repl", Interface: "eth1"}},
		Nodes: []NodeConfig{
			{Name: "alice", Role: "full", Address: on("192.0.2.11", "198.51.100.11")},
			{Name: "bob", Role: "full", Address: on("192.0.2.12", "198.51.100.12")},
			{Name: "carol", Role: "witness", Address: on("192.0.2.13", "")[:1]},
		},
		Groups: []GroupConfig{
			{Name: "web", Prefer: []string{"alice"}, Resources: []ResourceConfig{{Type: "drbd", Name: "drbd"}, {Type: "filesystem", Name: "www"}, {Type: "vip", Name: "vip"}, {Type: "httpd", Name: "httpd"}}},
			{Name: "db", Resources: []ResourceConfig{{Type: "exec", Name: "postgres"}}},
		},
	}
}

// sampleStatus is a healthy cluster: two nodes, a witness, one group; each situation below changes it.
func sampleStatus() *Status {
	return &Status{
		Cluster: "shop", Node: "alice", Version: "1.0", Wall: sampleNow(), Overall: "ok", Generation: 7, Incarnation: 1,
		Leader: "carol", Quorum: true, Voters: 3, Enforcer: "the daemon itself (no gate, watchdog or fence)",
		Nodes: []NodeStatus{
			{Name: "alice", Role: "full", State: "online", Since: 10800, Voter: true, Heard: true, Key: "5f3a"},
			{Name: "bob", Role: "full", State: "online", Since: 7200, Voter: true, Heard: true, Links: []string{"lan", "repl"}, Key: "5f3a"},
			{Name: "carol", Role: "witness", State: "online", Since: 7140, Leader: true, Voter: true, Heard: true, Links: []string{"lan"}, Key: "5f3a"},
		},
		Links: []LinkStatus{{Name: "lan", Interface: "eth0", State: "up"}, {Name: "repl", Interface: "eth1", State: "up"}},
		Groups: []GroupStatus{{
			Name: "web", State: "started", Owner: "alice", Epoch: 3, Since: 7200, Rule: "G18", Why: "runs on alice since 2 h", Lease: 0.94,
			Data: "is safe on alice and bob",
			Resources: []ResourceStatus{
				{Name: "drbd", Type: "drbd", State: "running", Detail: "r0: Primary, UpToDate; peer Secondary, UpToDate"},
				{Name: "www", Type: "filesystem", State: "running", Detail: "/dev/drbd0 on /var/www"},
				{Name: "vip", Type: "vip", State: "running", Detail: "192.0.2.100 on eth0"},
				{Name: "httpd", Type: "httpd", State: "running"},
			},
			Nodes: []Candidate{
				{Node: "alice", May: true, Why: "runs it; preferred"},
				{Node: "bob", May: true, Why: "not preferred"},
			},
		}},
	}
}

// situations are what an operator may meet, by name, each as its status.
func situations() map[string]*Status {
	all := make(map[string]*Status)
	add := func(name string, change func(s *Status, web *GroupStatus)) {
		s := sampleStatus()
		change(s, &s.Groups[0])
		all[name] = s
	}
	lost := func(s *Status, n *NodeStatus, since float64) {
		n.State, n.Since, n.Heard, n.Links, n.Leader, n.Key = "lost", since, false, nil, false, ""
		s.Overall = "degraded"
	}
	add("well", func(s *Status, web *GroupStatus) {})
	add("pinned", func(s *Status, web *GroupStatus) {
		web.Pin, web.PinAge, web.PinLeft = &Pin{Node: "alice", Mark: Mark{By: "root@alice"}}, 185, 1600
	})
	add("pinned-for-good", func(s *Status, web *GroupStatus) {
		web.Pin, web.PinAge = &Pin{Node: "alice", Mark: Mark{By: "ann@bob"}}, 4*86400
	})
	add("node-lost", func(s *Status, web *GroupStatus) {
		lost(s, &s.Nodes[1], 192)
		web.Data = "has one good copy only, on alice"
		s.Problems = []Problem{{ID: "node-lost", Severity: "warning", What: "bob is lost", Since: 192, Why: "it has not been heard on any link",
			Next: "It rejoins by itself when it is back; until then nobody can take over from alice", Command: "ssh bob systemctl status ha"}}
	})
	add("waiting", func(s *Status, web *GroupStatus) {
		s.Node = "bob"
		lost(s, &s.Nodes[0], 1.1)
		s.Nodes[1].Links, s.Nodes[2].Links = nil, []string{"lan"}
		s.Overall, web.State, web.Since, web.Lease, web.Rule, web.Why = "down", "waiting", 0.2, 0, "G6", "waiting for alice: its lease ends in 0.3 s"
		web.Data = ""
		for i := range web.Resources {
			web.Resources[i].State, web.Resources[i].Detail = "", ""
		}
		s.Problems = []Problem{{ID: "takeover", Severity: "error", What: "web is between two nodes", Since: 0.2, Why: "alice is lost and its lease has not run out", Next: "bob takes it in 0.3 s"}}
	})
	add("blocked", func(s *Status, web *GroupStatus) {
		s.Overall, web.State, web.Lease, web.Rule, web.Why = "down", "blocked", 0, "G2", "a stop failed on alice: www: umount /var/www: target is busy"
		web.Resources[1].State = "failed"
		web.Resources[1].Failures = []ResourceState{{Node: "alice", Failcount: 1, Op: "stop", Reason: "umount /var/www: target is busy\x1b[31m", Wall: ago(5 * time.Minute)}}
		s.Problems = []Problem{{ID: "blocked", Severity: "error", What: "web is blocked", Since: 300, Why: "a stop of www failed on alice",
			Next: "It starts nowhere until you say that it is safe. Look at alice, then", Command: "hactl cleanup web"}}
	})
	add("maintenance", func(s *Status, web *GroupStatus) {
		s.Overall, s.Maintenance = "degraded", &Mark{By: "ann@alice", Wall: ago(25 * time.Minute)}
		web.Resources[3].State = "stopped"
		web.Resources[3].Failures = []ResourceState{{Node: "alice", Failcount: 2, Op: "monitor", Reason: "refused: http://127.0.0.1/server-status?auto", Wall: ago(90 * time.Second)}}
	})
	add("caretaker", func(s *Status, web *GroupStatus) {
		s.Nodes = s.Nodes[:2]
		lost(s, &s.Nodes[1], 3700)
		s.Leader, s.Quorum, s.Voters, s.Caretaker = "", false, 2, true
		s.Problems = []Problem{{ID: "caretaker", Severity: "warning", What: "alice goes on without a majority", Since: 3700, Why: "bob is the only other voter and is not heard",
			Next: "What runs here is kept up; nothing else changes. If bob is off, say so", Command: "hactl confirm-dead bob"}}
	})
	add("no-quorum", func(s *Status, web *GroupStatus) {
		s.Leader, s.Quorum, s.Overall = "", false, "down"
		lost(s, &s.Nodes[1], 65)
		lost(s, &s.Nodes[2], 65)
		s.Overall, web.State, web.Owner, web.Lease, web.Why, web.Data = "down", "stopped", "", 0, "this node has no lease for it", ""
		for i := range web.Resources {
			web.Resources[i].State, web.Resources[i].Detail = "stopped", ""
		}
		s.Problems = []Problem{{ID: "no-quorum", Severity: "error", What: "1 of 3 voters is heard", Since: 65, Why: "bob and carol are lost",
			Next: "Nothing starts here until one of them is heard. If both are off for good", Command: "hactl quorum force"}}
	})
	add("config-error", func(s *Status, web *GroupStatus) {
		s.Overall = "degraded"
		s.Problems = []Problem{{ID: "config-error", Severity: "warning", What: "/etc/ha.toml is not in force", Since: 42, Why: `line 9, column 1: unknown key "interfce": did you mean "interface"?`,
			Next: "Generation 7 goes on until the file is mended", Command: "hactl config check /etc/ha.toml"}}
	})
	add("two-groups", func(s *Status, web *GroupStatus) {
		s.Groups = append(s.Groups, GroupStatus{Name: "db", State: "starting", Owner: "bob", Epoch: 2, Since: 2, Rule: "G16", Why: "placed on bob: fewest groups",
			Resources: []ResourceStatus{{Name: "postgres", Type: "exec"}},
			Nodes:     []Candidate{{Node: "alice", Why: "standby"}, {Node: "bob", May: true}}})
		s.Overall = "degraded"
	})
	add("five-groups", func(s *Status, web *GroupStatus) {
		web.Resources = web.Resources[2:3]
		for _, name := range []string{"mail", "db", "files", "dns"} {
			g := *web
			g.Name = name
			s.Groups = append(s.Groups, g)
		}
		s.Groups[2].State, s.Groups[2].Owner, s.Groups[2].Why, s.Groups[2].Lease = "stopped", "", "nobody may run it: alice: no carrier on eth1; bob: in standby", 0
		s.Overall = "down"
	})
	add("witness-lost", func(s *Status, web *GroupStatus) {
		lost(s, &s.Nodes[2], 90000)
		s.Leader, s.Nodes[1].Leader = "bob", true
		s.Problems = []Problem{{ID: "node-lost", Severity: "warning", What: "carol is lost", Since: 90000, Why: "it has not been heard on any link", Next: "Services are not touched, but the next loss stops them"}}
	})
	add("link-down", func(s *Status, web *GroupStatus) {
		s.Links[1].State, s.Links[1].Silent, s.Nodes[1].Links, s.Overall = "no carrier", []string{"bob"}, []string{"lan"}, "degraded"
		s.Nodes[1].Clock, s.Nodes[1].Key = -3600, "77aa"
		s.Problems = []Problem{{ID: "link-down", Severity: "warning", What: "link repl has no carrier", Since: 12, Why: "eth1 is down on alice", Next: "Heartbeats go on over lan"}}
	})
	add("rolling", func(s *Status, web *GroupStatus) { // of the keys in testdata/script/keygen.txtar
		s.Nodes[0].Key, s.Nodes[1].Key, s.Nodes[2].Key = "ec4916dd 9267d3db", "ec4916dd 9267d3db", "ec4916dd"
	})
	add("empty", func(s *Status, web *GroupStatus) {
		s.Groups, s.Overall = nil, "degraded"
		s.Nodes[1] = NodeStatus{Name: "bob", Role: "full", State: "never seen"}
	})
	return all
}
