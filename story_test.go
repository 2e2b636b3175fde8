// What does the cluster do when …? Plays testdata/story/*.txt, each a tale of a whole cluster on the world of
// world_test.go. -rewrite writes what happened into them; what a story expects (until, never, always, expect) and the
// world's invariants fail all the same. Each story is played twice and must leave the same trace.
//
// Directives: `cluster NODE… [NODE=witness] [KEY=VALUE…]` makes a world, its input being the groups in TOML, and lets it
// come up unless it says cold or down; `scene` plays the lines of its input; `edit NODE` proposes its input as the groups.
// The lines are in story_verbs_test.go.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

func TestStories(t *testing.T) {
	rules := map[string]int{}
	paths, err := filepath.Glob("testdata/story/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	played := 0
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		t.Run(name, func(t *testing.T) {
			first := play(t, path)
			second := play(t, path)
			if first.hash() != second.hash() {
				t.Errorf("two runs differ: the world or a node is not deterministic")
			}
			for id, n := range first.rules() {
				rules[id] += n
			}
			played++
		})
	}
	if played < len(paths) {
		return // only some were asked for, or one has failed
	}
	t.Run("every rule", func(t *testing.T) { everyRule(t, rules) })
}

// everyRule: a rule that nothing reaches is tested by nothing.
func everyRule(t *testing.T, seen map[string]int) {
	for _, r := range clusterRules() {
		if seen[r.id] == 0 {
			t.Errorf("nothing reaches rule %s: %s", r.id, r.text)
		}
	}
	for _, r := range groupRules() {
		if seen[r.id] == 0 {
			t.Errorf("nothing reaches rule %s: %s", r.id, r.text)
		}
	}
}

// TestDesignNamesEveryRule holds the tables of docs/design.md against the code.
func TestDesignNamesEveryRule(t *testing.T) {
	text, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, coded []string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		id := strings.TrimSpace(cells[1])
		if len(id) >= 2 && (id[0] == 'C' || id[0] == 'G') && strings.Trim(id[1:], "0123456789") == "" {
			documented = append(documented, id)
		}
	}
	for _, r := range clusterRules() {
		coded = append(coded, r.id)
	}
	for _, r := range groupRules() {
		coded = append(coded, r.id)
	}
	if d, c := strings.Join(documented, " "), strings.Join(coded, " "); d != c {
		t.Errorf("the design documents the rules\n%s\nand the code has\n%s", d, c)
	}
}

// story is one play of a file.
type story struct {
	t      *testing.T
	worlds []*world
	w      *world // the present one
	setup  clusterSetup
	out    strings.Builder
	failed []string
}

func play(t *testing.T, path string) *story {
	s := &story{t: t}
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		s.t = t
		s.out.Reset()
		s.directive(d)
		if len(s.failed) > 0 {
			t.Errorf("%s: %s\nwhat happened:\n%s", d.Pos, strings.Join(s.failed, "\n"), &s.out)
		}
		s.failed = nil
		if s.w != nil && len(s.w.checks.broken) > 0 {
			t.Fatalf("%s: %s\nwhat happened:\n%s", d.Pos, strings.Join(s.w.checks.broken, "\n"), &s.out)
		}
		if s.out.Len() == 0 {
			return "ok\n"
		}
		return s.out.String()
	})
	return s
}

func (s *story) hash() string {
	var b strings.Builder
	for _, w := range s.worlds {
		fmt.Fprintf(&b, "%x ", w.trace)
	}
	return b.String()
}

func (s *story) rules() map[string]int {
	all := map[string]int{}
	for _, w := range s.worlds {
		for id, n := range w.checks.rules {
			all[id] += n
		}
	}
	return all
}

func (s *story) directive(d *datadriven.TestData) {
	switch d.Cmd {
	case "cluster":
		s.cluster(d)
	case "scene":
		for line := range strings.Lines(d.Input) {
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			s.say("> %s", line)
			if err := s.verb(strings.Fields(line)); err != nil {
				s.fail("%s: %v", line, err)
			}
		}
	case "edit":
		setup := s.setup
		setup.groups = d.Input
		s.edit(d.CmdArgs[0].Key, setup)
	default:
		d.Fatalf(s.t, "no directive %q", d.Cmd)
	}
}

// say writes a line of the tale, without a time: what the story itself does.
func (s *story) say(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

// fail is for what the story expected and did not get; -rewrite cannot hide it.
func (s *story) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.failed = append(s.failed, text)
	s.say("FAILED %s", text)
}

// clusterSetup is what a config of a story is made from.
type clusterSetup struct {
	nodes    []string // "carol=witness"
	cluster  []string // lines of [cluster]
	deadtime string   // "": the defaults
	interval string
	watchdog []string // lines of [watchdog]
	groups   string
	fenced   bool
	levels   bool // and a power strip for all, of the second level
}

// defaultGroup is the classic without its data: an address and a web server.
const defaultGroup = `[[group]]
name = "web"
[[group.resource]]
type = "vip"
address = "192.168.10.100"
interface = "eth0"
[[group.resource]]
type = "httpd"
`

func (c *clusterSetup) text() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "[cluster]\nname = \"tale\"\n%s", strings.Join(c.cluster, ""))
	if c.deadtime != "" {
		fmt.Fprintf(&b, "[heartbeat]\ninterval = %q\ndeadtime = %q\n", c.interval, c.deadtime)
	}
	if len(c.watchdog) > 0 {
		fmt.Fprintf(&b, "[watchdog]\n%s", strings.Join(c.watchdog, ""))
	}
	b.WriteString("[[link]]\nname = \"lan\"\ninterface = \"eth0\"\n[[link]]\nname = \"repl\"\ninterface = \"eth1\"\n")
	for i, n := range c.nodes {
		name, role, _ := strings.Cut(n, "=")
		fmt.Fprintf(&b, "[[node]]\nname = %q\naddress = { lan = \"192.168.10.%d\", repl = \"10.0.0.%d\" }\n", name, 11+i, 11+i)
		if role != "" {
			fmt.Fprintf(&b, "role = %q\n", role)
		}
	}
	for _, n := range c.nodes {
		if c.fenced && !strings.HasSuffix(n, "=witness") {
			fmt.Fprintf(&b, "[[fence]]\nname = \"ipmi-%s\"\nagent = \"fence_ipmilan\"\nnode = %q\ntimeout = \"5s\"\n", n, n)
		}
	}
	if c.levels {
		b.WriteString("[[fence]]\nname = \"pdu\"\nagent = \"fence_apc\"\nlevel = 2\ntimeout = \"3s\"\nretries = 0\nplugs = {")
		sep := " "
		for i, n := range c.nodes {
			if !strings.HasSuffix(n, "=witness") {
				fmt.Fprintf(&b, "%s%s = %d", sep, n, i+1)
				sep = ", "
			}
		}
		b.WriteString(" }\n")
	}
	b.WriteString(c.groups)
	return []byte(b.String())
}

func (c *clusterSetup) set(key, value string) {
	switch key {
	case "deadtime":
		c.deadtime = value
	case "interval":
		c.interval = value
	case "nodes": // alice,bob,carol:witness
		c.nodes = strings.Split(strings.ReplaceAll(value, ":", "="), ",")
	case "watchdog": // its timeout, "reboot" or "none"
		device := value
		c.watchdog = nil
		if d, err := time.ParseDuration(value); err == nil {
			device = "/dev/watchdog"
			c.watchdog = []string{fmt.Sprintf("timeout = %q\n", d)}
		}
		c.watchdog = append(c.watchdog, fmt.Sprintf("device = %q\n", device))
	case "drop": // a group
		blocks := strings.Split(c.groups, "[[group]]\n")
		c.groups = strings.Join(slices.DeleteFunc(blocks, func(b string) bool {
			return strings.HasPrefix(b, fmt.Sprintf("name = %q\n", value))
		}), "[[group]]\n")
	case "two_node":
		c.cluster = append(c.cluster, fmt.Sprintf("two_node = %q\n", value))
	case "no_quorum":
		c.cluster = append(c.cluster, fmt.Sprintf("no_quorum = %q\n", strings.Trim(value, `"`)))
	case "needs_ping":
		c.cluster = append(c.cluster, fmt.Sprintf("needs_ping = [%q]\n", value))
	default:
		c.cluster = append(c.cluster, fmt.Sprintf("%s = %s\n", key, value))
	}
}

func (s *story) cluster(d *datadriven.TestData) {
	s.setup = clusterSetup{deadtime: "1s", interval: "100ms", groups: d.Input}
	if d.Input == "" {
		s.setup.groups = defaultGroup
	}
	seed, down, cold, split := uint64(1), false, false, false
	for _, a := range d.CmdArgs {
		value := strings.Join(a.Vals, ",")
		switch {
		case a.Key == "down": // nothing runs
			down = true
		case a.Key == "fenced": // each full node has a device ipmi-NODE
			s.setup.fenced = true
		case a.Key == "split": // decisions and their effects are two events
			split = true
		case a.Key == "levels":
			s.setup.levels = true
		case a.Key == "cold": // all daemons are being started
			cold = true
		case a.Key == "seed":
			if _, err := fmt.Sscan(value, &seed); err != nil {
				d.Fatalf(s.t, "seed: %v", err)
			}
		case value == "":
			s.setup.nodes = append(s.setup.nodes, a.Key)
		case value == "witness":
			s.setup.nodes = append(s.setup.nodes, a.Key+"="+value)
		default:
			s.setup.set(a.Key, value)
		}
	}
	w, err := newWorld(s.t, seed, s.setup.text())
	if err != nil {
		d.Fatalf(s.t, "%v", err)
	}
	w.split = split
	s.w = w
	s.worlds = append(s.worlds, w)
	w.told = func(at time.Duration, text string) { s.say("%8.2fs  %s", at.Seconds(), text) }
	if down {
		return
	}
	for _, m := range w.hosts {
		if err := m.start(false); err != nil {
			d.Fatalf(s.t, "%v", err)
		}
	}
	if !cold {
		s.settle(d)
	}
}

// settle brings the cluster to where most tales begin: all have joined, every group runs.
func (s *story) settle(d *datadriven.TestData) {
	tell := s.w.told
	s.w.told = nil
	if !s.w.until(20*time.Second, s.w.settled) {
		d.Fatalf(s.t, "the cluster does not come up: %s", s.where())
	}
	s.w.run(s.w.now.Truncate(time.Second) + time.Second - s.w.now)
	s.w.told = tell
	for _, g := range s.w.best().state.Groups {
		s.say("%8.2fs  %s runs on %s", s.w.now.Seconds(), g.Name, g.Owner)
	}
}

func (w *world) settled() bool {
	n := w.best()
	if n == nil {
		return false
	}
	for _, x := range n.state.Nodes {
		if !x.Voter || !x.Joined {
			return false
		}
	}
	for _, g := range n.state.Groups {
		if g.Phase != phaseStarted {
			return false
		}
	}
	return len(n.state.Nodes) == len(w.hosts) && len(n.state.Groups) == len(n.config.Groups)
}
