package main

// The suite in network namespaces: real daemons, real addresses, real apache. Each host is a network namespace with a
// mount namespace of its own, in which it has its own kernel boot id; the switch is a namespace with a bridge for each
// link. Tests wait for states and never sleep for one.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	clusterPatience = 60 * time.Second // for a state that surely comes; these machines may be slow
	clusterVIP      = "10.77.0.100"
)

// cluster is one set of hosts.
type cluster struct {
	t       *testing.T
	dir     string
	tag     string
	key     string
	hosts   []*clusterHost
	groups  string // TOML
	extra   string // TOML within [cluster]
	timing  string // TOML within [heartbeat]
	witness string
	guard   *addressGuard
	patient time.Duration   // how long a state is waited for; 0: clusterPatience
	pace    time.Duration   // how often a client asks; 0: probeEvery
	stopped <-chan struct{} // somebody does not want to wait any longer; nil: never
}

type clusterHost struct {
	c      *cluster
	name   string
	number int
	dir    string
	daemon *exec.Cmd
	ended  chan struct{}
}

// clusterTag begins the name of every namespace; the number of the test process follows, so that what a killed test left
// behind can be told from what another one is using.
const clusterTag = "hactl-test-"

var clusterCount atomic.Int32

// sweep removes what test processes that live no more have left behind.
var sweep = sync.OnceFunc(func() {
	names, _ := filepath.Glob("/run/netns/" + clusterTag + "*") // the pattern is well formed
	for _, path := range names {
		name := filepath.Base(path)
		owner, _, _ := strings.Cut(strings.TrimPrefix(name, clusterTag), "-")
		if pid, err := strconv.Atoi(owner); err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		killNamespace(name)
		_ = exec.Command("ip", "netns", "del", name).Run() // another test process may sweep too
	}
})

// killNamespace kills what runs in a namespace, and returns what it found.
func killNamespace(name string) []string {
	out, _ := exec.Command("ip", "netns", "pids", name).Output() // fails when it is gone: nothing runs there
	pids := strings.Fields(string(out))
	for _, p := range pids {
		if pid, err := strconv.Atoi(p); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
	}
	return pids
}

var builtBinary string // folder; "": none was built

// removeBinary is for the end of the test run.
func removeBinary() {
	if builtBinary != "" {
		os.RemoveAll(builtBinary)
	}
}

var clusterBinary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("HACTL_BINARY"); b != "" {
		return b, nil
	}
	dir, err := os.MkdirTemp("", "hactl-suite-")
	if err != nil {
		return "", err
	}
	builtBinary = dir
	out := filepath.Join(dir, "hactl")
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, b)
	}
	return out, nil
})

// clusterSlots bounds how many clusters run at once.
var clusterSlots = make(chan struct{}, 3)

// newCluster makes the hosts; nothing runs on them yet. Options are set between this and up.
func newCluster(t *testing.T, groups string, names ...string) *cluster {
	t.Helper()
	mayCluster(t)
	t.Parallel()
	clusterSlots <- struct{}{}
	t.Cleanup(func() { <-clusterSlots })
	return makeCluster(t, groups, names)
}

// servingCluster is two nodes and a witness that have settled, with the group web on alice.
func servingCluster(t *testing.T, groups string) (c *cluster, alice, bob *clusterHost) {
	t.Helper()
	c = newCluster(t, groups, "alice", "bob", "carol")
	c.witness = "carol"
	c.up()
	alice, bob = c.host("alice"), c.host("bob")
	alice.runsOn("web", "alice")
	alice.settled("alice", "bob", "carol")
	return c, alice, bob
}

// newQuietCluster is one that no other runs beside.
func newQuietCluster(t *testing.T, groups string, names ...string) *cluster {
	t.Helper()
	mayCluster(t)
	return makeCluster(t, groups, names)
}

// mayCluster skips the test where clusters cannot be made.
func mayCluster(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("the suite in namespaces is not part of -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"ip", "bridge", "unshare", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (iproute2, util-linux, nftables)", tool)
		}
	}
	if _, err := clusterBinary(); err != nil {
		t.Fatal(err)
	}
	sweep()
}

func makeCluster(t *testing.T, groups string, names []string) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "hactl-cluster-") // a short path: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, tag: fmt.Sprintf("%s%d-%d", clusterTag, os.Getpid(), clusterCount.Add(1)), groups: groups}
	c.guard = newAddressGuard(c)
	t.Cleanup(c.down)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Each host sees its own folder etc at one and the same place, since the config, which names it, is the same on all.
	c.key = filepath.Join(dir, "etc", "ha.key")
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.must("ip", "netns", "add", c.ns("sw"))
	for link := range 2 {
		c.must("ip", "-n", c.ns("sw"), "link", "add", fmt.Sprintf("br%d", link), "type", "bridge", "mcast_snooping", "0")
		c.must("ip", "-n", c.ns("sw"), "link", "set", fmt.Sprintf("br%d", link), "up")
	}
	c.plug("client", 200)
	for i, name := range names {
		h := &clusterHost{c: c, name: name, number: 11 + i, dir: filepath.Join(dir, name)}
		for _, sub := range []string{"state", "run", "www", "etc"} {
			if err := os.MkdirAll(filepath.Join(h.dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		h.write("www/index.html", name+" serves\n")
		c.plug(name, h.number)
		h.newBoot()
		c.hosts = append(c.hosts, h)
		if i == 0 {
			if _, err := keygen(h.path("etc/ha.key"), false); err != nil {
				t.Fatal(err)
			}
		} else {
			c.copyKey(c.hosts[0], h)
		}
	}
	return c
}

func (c *cluster) ns(name string) string { return c.tag + "-" + name }

// plug makes a namespace with a port on each bridge.
func (c *cluster) plug(name string, number int) {
	c.must("ip", "netns", "add", c.ns(name))
	c.must("ip", "-n", c.ns(name), "link", "set", "lo", "up")
	for link := range 2 {
		dev := fmt.Sprintf("eth%d", link)
		c.must("ip", "-n", c.ns("sw"), "link", "add", port(name, link), "type", "veth", "peer", "name", dev, "netns", c.ns(name))
		c.must("ip", "-n", c.ns("sw"), "link", "set", port(name, link), "master", fmt.Sprintf("br%d", link), "up")
		c.must("ip", "-n", c.ns(name), "addr", "add", fmt.Sprintf("10.77.%d.%d/24", link, number), "brd", "+", "dev", dev)
		c.must("ip", "-n", c.ns(name), "addr", "add", fmt.Sprintf("fd77:%d::%d/64", link, number), "dev", dev, "nodad")
		c.must("ip", "-n", c.ns(name), "link", "set", dev, "up")
	}
}

func port(name string, link int) string { return fmt.Sprintf("p%.8s-%d", name, link) }

func (c *cluster) must(argv ...string) string {
	c.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// down ends every process in the namespaces, by pid, and removes all.
func (c *cluster) down() {
	c.guard.end()
	if c.t.Failed() {
		c.dump()
	}
	for _, name := range append([]string{"client"}, c.names()...) {
		for range 100 {
			if len(c.killAll(name)) == 0 {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		_ = exec.Command("ip", "netns", "del", c.ns(name)).Run() // what is not there any more is as good
	}
	_ = exec.Command("ip", "netns", "del", c.ns("sw")).Run()
	for _, h := range c.hosts {
		h.wait()
	}
	os.RemoveAll(c.dir)
}

func (c *cluster) names() (out []string) {
	for _, h := range c.hosts {
		out = append(out, h.name)
	}
	return out
}

func (c *cluster) killAll(name string) []string { return killNamespace(c.ns(name)) }

func (c *cluster) dump() {
	for _, h := range c.hosts {
		log, _ := os.ReadFile(filepath.Join(h.dir, "log"))
		if len(log) > 6000 {
			log = log[len(log)-6000:]
		}
		c.t.Logf("== %s\n%s", h.name, log)
		if h.daemon != nil {
			out, _, _ := h.hactl("status")
			c.t.Logf("%s", out)
		}
	}
}

func (c *cluster) host(name string) *clusterHost {
	for _, h := range c.hosts {
		if h.name == name {
			return h
		}
	}
	c.t.Fatalf("no host %s", name)
	return nil
}

// toml is the config of the whole cluster.
func (c *cluster) toml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[cluster]\nname = \"suite\"\nkey_file = %q\n%s\n", c.key, c.extra)
	b.WriteString("[heartbeat]\nport = 6940\n" + c.timing + "[[link]]\nname = \"lan\"\ninterface = \"eth0\"\nmulticast = \"239.192.6.94\"\n[[link]]\nname = \"repl\"\ninterface = \"eth1\"\n")
	for _, h := range c.hosts {
		fmt.Fprintf(&b, "[[node]]\nname = %q\naddress = { lan = \"10.77.0.%d\", repl = \"10.77.1.%d\" }\n", h.name, h.number, h.number)
		if h.name == c.witness {
			b.WriteString("role = \"witness\"\n")
		}
	}
	return b.String() + strings.ReplaceAll(c.groups, "$DIR", c.dir)
}

const vipGroup = `
[[group]]
name = "web"
prefer = ["alice"]
[[group.resource]]
type = "vip"
address = "` + clusterVIP + `"
interface = "eth0"
`

// webGroup needs apache on each host; its config file is the same path everywhere, bound to the host's own.
const webGroup = vipGroup + `
[[group.resource]]
type = "httpd"
config_file = "$DIR/etc/apache.conf"
unit = "none"
monitor = { interval = "1s", timeout = "5s" }
`

// up writes the files and starts the daemons of the named hosts, or all.
func (c *cluster) up(names ...string) {
	c.t.Helper()
	if strings.Contains(c.groups, "httpd") {
		c.apache()
	}
	for _, h := range c.hosts {
		h.write("ha.toml", c.toml())
	}
	for _, h := range c.hosts {
		c.guard.watch(h)
	}
	if names == nil {
		names = c.names()
	}
	for _, name := range names {
		c.host(name).start()
	}
}

// apache writes each host's configuration.
func (c *cluster) apache() {
	c.t.Helper()
	const modules = "/usr/lib/apache2/modules"
	if _, err := os.Stat(modules + "/mod_status.so"); err != nil {
		c.t.Skip("apache2 is not installed")
	}
	for _, h := range c.hosts {
		var b strings.Builder
		fmt.Fprintf(&b, "ServerRoot %s\nServerName %s\nPidFile %s/apache.pid\nListen 80\nErrorLog %s/error.log\nUser www-data\nGroup www-data\nDocumentRoot %s/www\n", h.dir, h.name, h.dir, h.dir, h.dir)
		for _, m := range []string{"mpm_event", "authz_core", "authz_host", "status", "dir"} {
			fmt.Fprintf(&b, "LoadModule %s_module %s/mod_%s.so\n", m, modules, m)
		}
		b.WriteString("<Directory />\nRequire all granted\n</Directory>\n<Location /server-status>\nSetHandler server-status\nRequire local\n</Location>\n")
		h.write("etc/apache.conf", b.String())
	}
}

// path is a file of the host, as the test sees it.
func (h *clusterHost) path(name string) string { return filepath.Join(h.dir, name) }

// copyKey does what an operator's scp does.
func (c *cluster) copyKey(from, to *clusterHost) {
	c.t.Helper()
	to.replace("etc/ha.key", from.file("etc/ha.key"), 0o600)
}

// replace puts a file in the place of another in one step, as a good editor does.
func (h *clusterHost) replace(name, text string, mode os.FileMode) {
	h.c.t.Helper()
	err := os.WriteFile(h.path(name+".new"), []byte(text), mode)
	if err == nil {
		err = os.Rename(h.path(name+".new"), h.path(name))
	}
	if err != nil {
		h.c.t.Fatal(err)
	}
}

func (h *clusterHost) write(name, text string) {
	h.c.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o644); err != nil {
		h.c.t.Fatal(err)
	}
}

func (h *clusterHost) newBoot() {
	b, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		h.c.t.Fatal(err)
	}
	h.write("boot_id", string(b))
}

// start runs the daemon.
func (h *clusterHost) start(flags ...string) {
	h.c.t.Helper()
	binary, _ := clusterBinary()
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		h.c.t.Fatal(err)
	}
	defer log.Close()
	const enter = `mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
mount --bind "$1/etc" "$1/../etc"
if [ -x "$1/mounts" ]; then "$1/mounts" || exit 1; fi
shift; exec "$@"`
	// Three clusters share a core or two here: their daemons go before the tests that watch them.
	argv := []string{"netns", "exec", h.c.ns(h.name), "unshare", "-m", "--propagation", "private", "nice", "-n", "-10", "sh", "-ec", enter, "host", h.dir,
		binary, "--config", filepath.Join(h.dir, "ha.toml"), "daemon", "--state-dir", filepath.Join(h.dir, "state"), "--run-dir", filepath.Join(h.dir, "run"), "--log-format", "text"}
	h.daemon = exec.Command("ip", append(argv, flags...)...)
	h.daemon.Stdout, h.daemon.Stderr = log, log
	if err := h.daemon.Start(); err != nil {
		h.c.t.Fatal(err)
	}
	h.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // how it ended is in its log
		close(ended)
	}(h.daemon, h.ended)
}

func (h *clusterHost) wait() {
	if h.ended != nil {
		<-h.ended
	}
}

// signal sends to the daemon alone. `ip netns exec` and unshare exec, so the process is the daemon itself.
func (h *clusterHost) signal(s syscall.Signal) {
	h.c.t.Helper()
	if err := h.daemon.Process.Signal(s); err != nil {
		h.c.t.Fatalf("signal the daemon of %s: %v", h.name, err)
	}
}

// kill ends the daemon without a word; what it runs goes on.
func (h *clusterHost) kill() {
	h.signal(syscall.SIGKILL)
	h.wait()
}

// powerOff is the death of the host: nothing more comes from it, and when it boots again nothing runs there.
func (h *clusterHost) powerOff() {
	h.c.t.Helper()
	h.c.guard.forget(h)
	h.cut()
	for range 200 {
		if len(h.c.killAll(h.name)) == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.wait()
	h.newBoot()
	_ = os.RemoveAll(filepath.Join(h.dir, "run"))
	if err := os.Mkdir(filepath.Join(h.dir, "run"), 0o755); err != nil {
		h.c.t.Fatal(err)
	}
	out := h.c.must("ip", "-n", h.c.ns(h.name), "-o", "addr", "show", "dev", "eth0")
	for _, line := range strings.Split(out, "\n") {
		for _, f := range strings.Fields(line) {
			if strings.HasSuffix(f, "/32") || strings.HasSuffix(f, "/128") {
				h.c.must("ip", "-n", h.c.ns(h.name), "addr", "del", f, "dev", "eth0")
			}
		}
	}
}

// powerOn boots it again.
func (h *clusterHost) powerOn() {
	h.c.t.Helper()
	h.c.guard.watch(h)
	h.heal()
	h.start()
}

func (h *clusterHost) ports(links []int, state string) {
	h.c.t.Helper()
	if links == nil {
		links = []int{0, 1}
	}
	for _, l := range links {
		out, err := exec.Command("bridge", "-n", h.c.ns("sw"), "link", "set", "dev", port(h.name, l), "state", state).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "Network is down") { // without its cable a port passes nothing
			h.c.t.Fatalf("port of %s: %v: %s", h.name, err, out)
		}
	}
}

// cut lets the switch drop all frames; the carrier stays.
func (h *clusterHost) cut(links ...int)  { h.ports(links, "0") }
func (h *clusterHost) heal(links ...int) { h.ports(links, "3") }

// cable pulls the cable or puts it back, and waits until the host's port at the switch has noticed.
func (h *clusterHost) cable(link int, in bool) {
	h.c.t.Helper()
	word := map[bool]string{true: "up", false: "down"}[in]
	h.c.must("ip", "-n", h.c.ns("sw"), "link", "set", port(h.name, link), word)
	h.c.await(fmt.Sprintf("the cable of %s is %s", h.name, word), func() bool {
		return strings.Contains(h.c.must("ip", "-n", h.c.ns("sw"), "-o", "link", "show", port(h.name, link)), "state "+strings.ToUpper(word))
	})
}

// hactl runs a command against this host's daemon.
func (h *clusterHost) hactl(args ...string) (stdout, stderr string, code int) {
	return h.hactlWithin(2*clusterPatience, args...)
}

func (h *clusterHost) hactlWithin(d time.Duration, args ...string) (stdout, stderr string, code int) {
	binary, _ := clusterBinary()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"--socket", filepath.Join(h.dir, "run", "ha.sock"), "--config", filepath.Join(h.dir, "ha.toml")}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit status is the answer
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// mustHactl is for commands that must succeed.
func (h *clusterHost) mustHactl(args ...string) string {
	h.c.t.Helper()
	out, errs, code := h.hactl(args...)
	if code != 0 {
		h.c.t.Fatalf("hactl %s on %s: exit %d: %s%s", strings.Join(args, " "), h.name, code, out, errs)
	}
	return out
}

// status is the document, or nil when the daemon does not answer.
func (h *clusterHost) status() *Status {
	out, _, code := h.hactl("status", "--json")
	if code == exitNoDaemon {
		return nil
	}
	s := &Status{}
	if err := json.Unmarshal([]byte(out), s); err != nil {
		return nil
	}
	return s
}

// await waits until the host's status is as wanted, and returns it.
func (h *clusterHost) await(what string, ok func(*Status) bool) *Status {
	h.c.t.Helper()
	var last *Status
	h.c.await(h.name+": "+what, func() bool {
		last = h.status()
		return last != nil && ok(last)
	})
	return last
}

func (c *cluster) await(what string, ok func() bool) {
	c.t.Helper()
	patience := cmp.Or(c.patient, clusterPatience)
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			c.t.Fatalf("waited %s for: %s", patience, what)
		}
		c.pause(20 * time.Millisecond)
	}
}

// pause lets time pass, or ends the test where somebody has stopped it.
func (c *cluster) pause(d time.Duration) {
	c.t.Helper()
	select {
	case <-c.stopped:
		c.t.SkipNow()
	case <-time.After(d):
	}
}

func (s *Status) testGroup(name string) GroupStatus {
	for _, g := range s.Groups {
		if g.Name == name {
			return g
		}
	}
	return GroupStatus{}
}

func (s *Status) testNode(name string) NodeStatus {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return NodeStatus{}
}

func (s *Status) testProblem(id string) *Problem {
	for i := range s.Problems {
		if s.Problems[i].ID == id {
			return &s.Problems[i]
		}
	}
	return nil
}

// runsOn waits until a group runs on a node, as this host sees it.
func (h *clusterHost) runsOn(group, node string) GroupStatus {
	h.c.t.Helper()
	return h.await(fmt.Sprintf("%s runs on %s", group, node), func(s *Status) bool {
		g := s.testGroup(group)
		return g.State == "started" && g.Owner == node && s.Quorum
	}).testGroup(group)
}

// settled waits until all named nodes are online voters.
func (h *clusterHost) settled(nodes ...string) {
	h.c.t.Helper()
	h.await(fmt.Sprintf("%v are online", nodes), func(s *Status) bool {
		for _, n := range nodes {
			if x := s.testNode(n); x.State != "online" || !x.Voter {
				return false
			}
		}
		return s.Quorum
	})
}

// holds tells whether the host has the address and its kernel lets it answer.
func (h *clusterHost) holds(address string) bool {
	h.c.t.Helper()
	nl := h.netlink()
	defer nl.Close()
	return slices.Contains(guardedHost{h, nl}.floating(), netip.MustParseAddr(address))
}

// has tells whether the address is on the host at all.
func (h *clusterHost) has(address string) bool {
	h.c.t.Helper()
	return strings.Contains(h.c.must("ip", "-n", h.c.ns(h.name), "-o", "addr", "show"), " "+address+"/")
}

// logged waits for a line in the host's log that has all the words.
func (h *clusterHost) logged(words ...string) {
	h.c.t.Helper()
	h.c.await(fmt.Sprintf("%s logs %q", h.name, words), func() bool { return h.hasLogged(words...) })
}

func (h *clusterHost) hasLogged(words ...string) bool {
	log, _ := os.ReadFile(filepath.Join(h.dir, "log"))
lines:
	for _, line := range strings.Split(string(log), "\n") {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return true
	}
	return false
}
