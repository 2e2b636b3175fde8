// Does what is shown read back as the same configuration, whatever the configuration?

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anyConfig draws configurations without errors: names, addresses and devices are numbered, so that none comes twice.
func anyConfig(t *rapid.T) *Config {
	between := func(name string, least, most time.Duration) Duration {
		return Duration(rapid.Int64Range(int64(least), int64(most)).Draw(t, name))
	}
	c := &Config{
		Cluster: ClusterConfig{
			Name: anyName(t, "cluster"), KeyFile: anyPath(t, "key_file"),
			WaitForAll: rapid.Bool().Draw(t, "wait_for_all"), NoQuorum: rapid.SampledFrom(noQuorumModes).Draw(t, "no_quorum"), LogLevel: rapid.SampledFrom(logLevels).Draw(t, "log_level"),
		},
		Heartbeat: HeartbeatConfig{Interval: between("interval", intervalMin, intervalMax), Port: rapid.IntRange(1, 65535).Draw(t, "port")},
	}
	c.Heartbeat.Deadtime = between("deadtime", max(deadtimeMin, intervalsInDead*c.Heartbeat.Interval.D()), deadtimeMax)
	second := int64(time.Second)
	c.Watchdog.Timeout = Duration(rapid.Int64Range((2*int64(c.Heartbeat.Deadtime)+second-1)/second, 600).Draw(t, "watchdog") * second)
	c.Watchdog.Device = rapid.SampledFrom([]string{watchdogNone, watchdogReboot, "/dev/watchdog1"}).Draw(t, "watchdog device")
	nodes, links := rapid.IntRange(1, nodesMax).Draw(t, "nodes"), rapid.IntRange(1, linksMax).Draw(t, "links")
	six := make([]bool, links)
	for l := range links {
		six[l] = rapid.Bool().Draw(t, "IPv6")
		link := LinkConfig{Name: fmt.Sprintf("link%d", l), Interface: fmt.Sprintf("eth%d", l)}
		if rapid.Bool().Draw(t, "multicast") {
			link.Multicast = map[bool]string{true: "ff02::694", false: "239.192.6.94"}[six[l]]
		}
		c.Links = append(c.Links, link)
	}
	if nodes == 2 {
		c.Cluster.TwoNode = rapid.SampledFrom(twoNodeModes).Draw(t, "two_node")
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "pings") {
		p := PingConfig{Name: fmt.Sprintf("ping%d", i), Failures: rapid.IntRange(pingFailures, 100).Draw(t, "failures"),
			Interval: between("ping interval", c.Heartbeat.Deadtime.D()/pingFailures+1, time.Hour)}
		p.Timeout = between("ping timeout", timeoutMin, p.Interval.D())
		if rapid.Bool().Draw(t, "tcp") {
			p.TCP = fmt.Sprintf("[fd00:f::%d]:443", i+1)
		} else {
			p.Address = fmt.Sprintf("198.51.100.%d", i+1)
		}
		c.Pings = append(c.Pings, p)
	}
	for n := range nodes {
		node := NodeConfig{Name: fmt.Sprintf("node-%d", n), Role: "full"}
		if n > 0 {
			node.Role = rapid.SampledFrom(nodeRoles).Draw(t, "role")
		}
		for l := range links {
			address := fmt.Sprintf("10.%d.0.%d", l, n+1)
			if six[l] {
				address = fmt.Sprintf("fd00:%x::%x", l, n+1)
			}
			node.Address = append(node.Address, LinkAddress{c.Links[l].Name, address})
		}
		c.Nodes = append(c.Nodes, node)
	}
	for _, n := range c.fullNodes() {
		if c.Cluster.TwoNode == "fence" || rapid.Bool().Draw(t, "fenced") {
			c.Fences = append(c.Fences, anyFence(t, n, between))
		}
	}
	for g := range rapid.IntRange(0, 4).Draw(t, "groups") {
		c.Groups = append(c.Groups, anyGroup(t, c, g, between))
	}
	return c
}

func anyName(t *rapid.T, label string) string {
	return rapid.StringMatching(`[a-z][a-z0-9-]{0,31}`).Draw(t, label)
}

func anyPath(t *rapid.T, label string) string {
	return "/" + strings.ReplaceAll(anyText(t, label), "\x00", "")
}

// anyText has what needs care in TOML: quotes, backslashes, control and wide characters.
func anyText(t *rapid.T, label string) string {
	return rapid.StringOfN(rapid.SampledFrom([]rune("ab \"'\\\n\r\t\x01\x1b\x7fü€😀\ufffd\ufeff#=[]{}$")), 1, 12, -1).Draw(t, label)
}

func anyGroup(t *rapid.T, c *Config, i int, between func(string, time.Duration, time.Duration) Duration) GroupConfig {
	g := GroupConfig{
		Name: fmt.Sprintf("group%d", i), Failback: rapid.SampledFrom(failbackModes).Draw(t, "failback"),
		MigrationThreshold: rapid.IntRange(0, 1_000_000).Draw(t, "threshold"), FailureTimeout: between("failure_timeout", 0, time.Hour),
	}
	for _, n := range c.Nodes {
		if !n.witness() && rapid.Bool().Draw(t, "preferred") {
			g.Prefer = append(g.Prefer, n.Name)
		}
	}
	for _, p := range c.Pings {
		if rapid.Bool().Draw(t, "needs") {
			g.Needs = append(g.Needs, p.Name)
		}
	}
	for _, o := range c.Groups { // only groups before it: no circles
		switch rapid.IntRange(0, 3).Draw(t, "relation") {
		case 1:
			g.After = append(g.After, o.Name)
		case 2:
			if len(g.Apart) == 0 && len(o.Apart) == 0 && len(o.With) == 0 {
				g.With = append(g.With, o.Name)
			}
		case 3:
			if len(g.With) == 0 {
				g.Apart = append(g.Apart, o.Name)
			}
		}
	}
	for r := range rapid.IntRange(1, 5).Draw(t, "resources") {
		g.Resources = append(g.Resources, anyResource(t, i, r, between))
	}
	return g
}

func anyResource(t *rapid.T, group, i int, between func(string, time.Duration, time.Duration) Duration) ResourceConfig {
	unique := fmt.Sprintf("%d-%d", group, i)
	r := ResourceConfig{
		Type: rapid.SampledFrom(resourceTypeNames()).Draw(t, "type"), Name: "r" + unique,
		OnFail:  rapid.SampledFrom(onFailModes).Draw(t, "on_fail"),
		State:   rapid.SampledFrom(append([]string{""}, states...)).Draw(t, "state"),
		Start:   OpConfig{Timeout: between("start", timeoutMin, timeoutMax)},
		Stop:    OpConfig{Timeout: between("stop", timeoutMin, timeoutMax)},
		Monitor: OpConfig{Timeout: between("timeout", timeoutMin, timeoutMax), Interval: between("interval", monitorMin, timeoutMax)},
	}
	switch r.Type {
	case "vip":
		r.Address = fmt.Sprintf("192.0.%d.%d%s", group, i+1, rapid.SampledFrom([]string{"", "/24", "/32"}).Draw(t, "prefix"))
		r.Interface = "eth0"
		r.ProbeTimeout = between("probe_timeout", time.Millisecond, time.Hour)
		r.ProbeWait = between("probe_wait", time.Millisecond, min(r.ProbeTimeout.D(), 10*time.Second))
	case "httpd":
		r.ConfigFile = anyPath(t, "config_file") + unique
		r.StatusURL = "https://127.0.0.1:8443/server-status?auto"
		r.TLSInsecure = rapid.Bool().Draw(t, "tls_insecure")
		r.Unit = rapid.SampledFrom([]string{"", "none", "web" + unique + ".service"}).Draw(t, "unit")
		if rapid.Bool().Draw(t, "expect") {
			r.Expect = &Expect{URL: "http://127.0.0.1/x", Contains: anyText(t, "contains"), Status: rapid.IntRange(100, 599).Draw(t, "status")}
		}
	case "filesystem":
		r.Device, r.Directory, r.FSType = "LABEL=d"+unique, "/srv/"+unique, rapid.SampledFrom([]string{"ext4", "xfs"}).Draw(t, "fstype")
		r.Options = rapid.SampledFrom([]string{"", "ro", "noatime,nodev"}).Draw(t, "options")
		r.Probe = rapid.SampledFrom([]string{"", "read", "write"}).Draw(t, "probe")
	case "drbd":
		r.Resource = "r" + unique
	case "systemd":
		r.Unit = "unit" + unique + ".service"
	case "exec":
		r.Start.Command, r.Stop.Command, r.Monitor.Command = anyText(t, "start"), anyText(t, "stop"), anyText(t, "monitor")
		r.Environment = []string{"A=" + anyText(t, "value"), "B="}
	}
	return r
}

func TestConfigShowReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyConfig(t)
		shown := configShow(c)
		again, problems := parseConfig([]byte(shown))
		if again == nil {
			t.Fatalf("%s\n%s", renderProblems("shown", problems), shown)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("%s\n%s", diff, shown)
		}
	})
}

// TestConfigMangled edits good files as hurried people do: lines are dropped, doubled, swapped and mistyped.
func TestConfigMangled(t *testing.T) {
	text := string(readFile(t, "ha.toml.example")) + string(readFile(t, "testdata/config/good-twins.toml"))
	rapid.Check(t, func(rt *rapid.T) {
		lines := strings.SplitAfter(text, "\n")
		for range rapid.IntRange(1, 6).Draw(rt, "edits") {
			i, j := rapid.IntRange(0, len(lines)-1).Draw(rt, "line"), rapid.IntRange(0, len(lines)-1).Draw(rt, "other")
			switch rapid.IntRange(0, 4).Draw(rt, "edit") {
			case 0:
				lines = slices.Delete(slices.Clone(lines), i, i+1)
			case 1:
				lines = slices.Insert(slices.Clone(lines), i, lines[j])
			case 2:
				lines[i], lines[j] = lines[j], lines[i]
			case 3:
				r := []rune(lines[i])
				if len(r) > 0 {
					r[rapid.IntRange(0, len(r)-1).Draw(rt, "at")] = rapid.SampledFrom([]rune("\"'[]{}=,.#\\ x0\nü")).Draw(rt, "typed")
				}
				lines[i] = string(r)
			case 4:
				left, right := strings.SplitN(lines[i], "=", 2), strings.SplitN(lines[j], "=", 2)
				lines[i] = left[0] + "=" + right[len(right)-1]
			}
			if len(lines) < 2 {
				return
			}
		}
		holdConfig(t, strings.Join(lines, ""))
	})
}

func TestTomlString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.String().Draw(t, "text")
		tree, err := decode("k = " + tomlString(want))
		if err != nil || tree["k"] != want {
			t.Fatalf("%q read as %q: %v", want, tree["k"], err)
		}
	})
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", 90 * time.Second: "1m30s", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		10 * time.Minute: "10m", 10 * time.Hour: "10h", time.Hour + time.Second: "1h0m1s", 70 * time.Minute: "1h10m",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64().Draw(t, "nanoseconds"))
		if again, err := time.ParseDuration(shortDuration(d)); err != nil || again != d {
			t.Fatalf("%d is shown as %s, which is %d: %v", d, shortDuration(d), again, err)
		}
	})
}
