// Does the whole program keep a service up? Clusters for the integration tests: the real binary, real addresses and a
// real apache2, on hosts that are namespaces, joined by switches that can be cut. This file is the cluster and what is
// asked of it; cluster_host_test.go is one host, cluster_net_test.go the cables, cluster_client_test.go who uses it.
// Nothing waits for a time: every wait is for a state, and ends the test if that never comes.

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// clusterPatience bounds a wait on a machine that is busy with other tests.
const clusterPatience = 90 * time.Second

// cluster is a number of hosts, two switches and a client.
type cluster struct {
	t      *testing.T
	binary string
	base   string // folder with one folder for each host
	here   string // where a host sees its own folder: the same path on all, so that their files are equal
	config string
	lans   *testHost // the switches
	client *testHost
	hosts  []*clusterHost
	began  time.Time
	guard  *addressGuard
}

// clusterOptions is what tests vary.
type clusterOptions struct {
	Nodes     []string // in the order of the file
	Witness   []string // of these
	Heartbeat string   // lines of [heartbeat]
	Cluster   string   // lines of [cluster]
	Groups    string   // HERE stands for the host's folder; default: webGroup
}

const (
	lanNet, replNet = "10.77.1.", "10.77.2."
	webVIP          = lanNet + "100"
	clientIP        = lanNet + "200"
)

// webGroup is an address and a real web server.
const webGroup = `
[[group]]
name = "web"
[[group.resource]]
type = "vip"
address = "10.77.1.100"
interface = "eth0"
` + webServer

const webServer = `
[[group.resource]]
type = "httpd"
unit = "none"
config_file = "HERE/web/apache2.conf"
status_url = "http://127.0.0.1/server-status?auto"
monitor = { interval = "1s", timeout = "20s" }
`

// vipGroup is an address alone.
func vipGroup(name, address string, more ...string) string {
	return fmt.Sprintf(`
[[group]]
name = %q
%s
[[group.resource]]
type = "vip"
address = %q
interface = "eth0"
`, name, strings.Join(more, "\n"), address)
}

// buildBinary makes the program once, as it is shipped.
var buildBinary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("HACTL_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	dir, err := os.MkdirTemp("", "hactl-test-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "hactl")
	builtBinary = binary
	cmd := exec.Command("go", "build", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hactl: %w\n%s", err, out)
	}
	return binary, nil
})

var builtBinary string // "": none was built

// removeBinary is for the end of the test run.
func removeBinary() {
	if builtBinary != "" {
		os.RemoveAll(filepath.Dir(builtBinary))
	}
}

// newCluster makes hosts, switches and a client. Nothing runs yet.
func newCluster(t *testing.T, o clusterOptions) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: integration tests are left out")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes hosts out of namespaces")
	}
	for _, tool := range []string{"apache2", "nft", "bridge"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: apt-get install apache2 nftables iproute2", tool)
		}
	}
	binary, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp("", "ha") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, binary: binary, base: base, here: filepath.Join(base, "here"), began: time.Now()}
	c.must(os.Chmod(base, 0o755)) // apache2 reads its pages as another user
	c.must(os.Mkdir(c.here, 0o755))
	t.Cleanup(c.remove)
	c.config = o.text(c.here)
	c.switches()
	for i, name := range o.Nodes {
		c.addHost(name, i+1)
	}
	c.key("keygen", c.hosts[0].path("ha.key"))
	for _, h := range c.hosts[1:] {
		c.copyKey(c.hosts[0], h)
	}
	c.guard = newAddressGuard(c)
	t.Cleanup(c.examine)
	return c
}

// text is the config file.
func (o clusterOptions) text(here string) string {
	if len(o.Nodes) == 0 {
		panic("a cluster without nodes")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[cluster]\nname = \"test\"\nkey_file = \"HERE/ha.key\"\n%s\n", o.Cluster)
	fmt.Fprintf(&b, "[heartbeat]\n%s\n", o.Heartbeat)
	for i, l := range []string{"lan", "repl"} {
		fmt.Fprintf(&b, "[[link]]\nname = %q\ninterface = \"eth%d\"\n", l, i)
	}
	for i, n := range o.Nodes {
		fmt.Fprintf(&b, "[[node]]\nname = %q\naddress = { lan = \"%s%d\", repl = \"%s%d\" }\n", n, lanNet, 11+i, replNet, 11+i)
		if slices.Contains(o.Witness, n) {
			b.WriteString("role = \"witness\"\n")
		}
	}
	if o.Groups == "" {
		o.Groups = webGroup
	}
	b.WriteString(o.Groups)
	return strings.ReplaceAll(b.String(), "HERE", here)
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// key runs hactl for a key file.
func (c *cluster) key(args ...string) {
	c.t.Helper()
	if out, err := exec.Command(c.binary, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("hactl %v: %v\n%s", args, err, out)
	}
}

// copyKey does what an operator's scp does.
func (c *cluster) copyKey(from, to *clusterHost) {
	c.t.Helper()
	b, err := os.ReadFile(from.path("ha.key"))
	c.must(err)
	c.must(os.WriteFile(to.path("ha.key.new"), b, 0o600))
	c.must(os.Rename(to.path("ha.key.new"), to.path("ha.key")))
}

func (c *cluster) host(name string) *clusterHost {
	c.t.Helper()
	for _, h := range c.hosts {
		if h.name == name {
			return h
		}
	}
	c.t.Fatalf("no host %s", name)
	return nil
}

// others are all hosts but these.
func (c *cluster) others(not ...string) []*clusterHost {
	return slices.DeleteFunc(slices.Clone(c.hosts), func(h *clusterHost) bool { return slices.Contains(not, h.name) })
}

// start powers all hosts on, in that order, and waits until all is well.
func (c *cluster) start(names ...string) {
	c.t.Helper()
	if len(names) == 0 {
		for _, h := range c.hosts {
			names = append(names, h.name)
		}
	}
	for _, n := range names {
		c.host(n).powerOn()
	}
	c.allWell()
}

// allWell waits until every daemon says so.
func (c *cluster) allWell() {
	c.t.Helper()
	for _, h := range c.hosts {
		if h.runs() {
			h.wait("all is well", func(s *Status) bool { return s.Overall == "ok" })
		}
	}
}

// owner waits until a group runs and every daemon knows where.
func (c *cluster) owner(group string) *clusterHost {
	c.t.Helper()
	owner := ""
	for _, h := range c.hosts {
		if h.runs() {
			st := h.wait(group+" runs", func(s *Status) bool {
				g := groupIn(s, group)
				return g.State == "started" && (owner == "" || g.Owner == owner)
			})
			owner = groupIn(st, group).Owner
		}
	}
	return c.host(owner)
}

// spare is a host that does not own the group and could.
func (c *cluster) spare(group string) *clusterHost {
	c.t.Helper()
	st := c.owner(group).mustStatus()
	for _, n := range groupIn(st, group).Nodes {
		if n.May && n.Node != groupIn(st, group).Owner {
			return c.host(n.Node)
		}
	}
	c.t.Fatalf("nobody else may run %s", group)
	return nil
}

// groupIn is a group's part of a status, empty when it is not there.
func groupIn(s *Status, name string) GroupStatus {
	for _, g := range s.Groups {
		if g.Name == name {
			return g
		}
	}
	return GroupStatus{}
}

func nodeIn(s *Status, name string) NodeStatus {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return NodeStatus{}
}

func resourceIn(s *Status, group, name string) ResourceStatus {
	for _, r := range groupIn(s, group).Resources {
		if r.Name == name {
			return r
		}
	}
	return ResourceStatus{}
}

func hasProblem(s *Status, id string) bool {
	return slices.ContainsFunc(s.Problems, func(p Problem) bool { return p.ID == id })
}

// problemText is what a problem tells the operator, "" when there is none.
func problemText(s *Status, id string) string {
	for _, p := range s.Problems {
		if p.ID == id {
			return strings.Join([]string{p.What, p.Why, p.Next, p.Command}, " | ")
		}
	}
	return ""
}

// runsOn tells whether a group is started on a node.
func runsOn(group, node string) func(*Status) bool {
	return func(s *Status) bool { return groupIn(s, group).State == "started" && groupIn(s, group).Owner == node }
}

// wait waits for something that is no daemon's status.
func (c *cluster) wait(what string, is func() bool) {
	c.t.Helper()
	for end := time.Now().Add(clusterPatience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("never: %s", what)
		}
	}
}

// examine ends a test: what was never allowed must not have been seen, and a failure is shown with all that was said.
func (c *cluster) examine() {
	c.guard.end()
	if !c.t.Failed() {
		return
	}
	for _, h := range c.hosts {
		c.t.Logf("---- %s\n%s\n%s", h.name, h.show(), h.logTail(120))
	}
}

// remove ends all and takes the folder away.
func (c *cluster) remove() {
	for _, h := range c.hosts {
		if h.on {
			h.powerOff()
		}
	}
	if err := os.RemoveAll(c.base); err != nil {
		c.t.Errorf("remove the hosts' folders: %v", err)
	}
}

// show is `hactl status`, as the host's operator sees it.
func (h *clusterHost) show() string {
	if !h.runs() {
		return "(no daemon)"
	}
	st, err := h.status()
	if err != nil {
		return err.Error()
	}
	return renderStatus(st, 200, false)
}

func (h *clusterHost) status() (*Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return h.client().status(ctx)
}

func (h *clusterHost) mustStatus() *Status {
	h.c.t.Helper()
	st, err := h.status()
	h.c.must(err)
	return st
}

// wait waits until the host's daemon shows a status that is as wanted.
func (h *clusterHost) wait(what string, is func(*Status) bool) *Status {
	h.c.t.Helper()
	end := time.Now().Add(clusterPatience)
	for {
		st, err := h.status()
		if err == nil && is(st) {
			return st
		}
		if time.Now().After(end) {
			shown := "no status"
			if err != nil {
				shown = err.Error()
			} else if st != nil {
				shown = renderStatus(st, 200, false)
			}
			h.c.t.Fatalf("%s never said: %s; last:\n%s", h.name, what, shown)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
