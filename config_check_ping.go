// Can the targets outside the cluster be asked, and does what needs them name them? A part of config_check.go.

package main

import (
	"fmt"
	"net/netip"
	"slices"
)

func (c *checker) pings() {
	names, targets := map[string]string{}, map[string]string{}
	for i := range c.cfg.Pings {
		p, at := &c.cfg.Pings[i], pingPath(i)
		label := elementName("[[ping]]", p.Name, i)
		c.once(names, p.Name, pathKey(at, "name"), fmt.Sprintf("[[ping]] name %q", p.Name))
		key := "address"
		switch hasAddress, hasTCP := c.src.has(pathKey(at, "address")), c.src.has(pathKey(at, "tcp")); {
		case hasAddress && hasTCP:
			c.onKey(pathKey(at, "tcp"), label+" has an address and tcp", "one of the two", "write two [[ping]] to ask both")
		case !hasAddress && !hasTCP:
			c.onKey(at, label+" has nothing to ask", "address = \"…\" for an echo by ICMP, or tcp = \"…:PORT\"", "")
		case hasTCP:
			key = "tcp"
		}
		c.once(targets, p.target(), pathKey(at, key), fmt.Sprintf("%s %s %q", label, key, p.Address+p.TCP))
		c.outside(p, pathKey(at, key), label)
		c.pingTimes(p, at, label)
	}
	c.needs()
	c.needsPing()
	c.unneeded()
}

// outside wants a target that is no part of the cluster: a node's own address says no more than its heartbeats, and a
// virtual one moves.
func (c *checker) outside(p *PingConfig, at, label string) {
	a, err := netip.ParseAddr(p.Address)
	if p.TCP != "" {
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(p.TCP)
		a = ap.Addr()
	}
	if err != nil {
		return // refused before
	}
	const want = "a host outside the cluster, such as the gateway"
	if a.IsLoopback() {
		c.onValue(at, fmt.Sprintf("%s %s is a loopback address", label, p.target()), want, "it would always answer")
	}
	for i := range c.cfg.Nodes {
		for _, na := range c.cfg.Nodes[i].Address {
			if netip.MustParseAddr(na.Address) == a {
				c.onValue(at, fmt.Sprintf("%s %s is node %s on link %s", label, p.target(), c.cfg.Nodes[i].Name, na.Link), want,
					"whether a node is there is what heartbeats tell")
			}
		}
	}
	for i := range c.cfg.Groups {
		for j := range c.cfg.Groups[i].Resources {
			if r := &c.cfg.Groups[i].Resources[j]; r.Type == "vip" && r.vipAddress() == a {
				c.onValue(at, fmt.Sprintf("%s %s is the address of group %s", label, p.target(), c.cfg.Groups[i].Name), want,
					"it answers wherever the group runs")
			}
		}
	}
}

// pingTimes refuses what would judge a target faster than a node is judged, or never.
func (c *checker) pingTimes(p *PingConfig, at, label string) {
	if c.anyFaulty(at) || c.faulty["heartbeat.deadtime"] {
		return
	}
	if p.Timeout > p.Interval {
		path := pathKey(at, "timeout")
		if !c.src.has(path) {
			path = pathKey(at, "interval")
		}
		c.onValue(path, fmt.Sprintf("%s timeout %q is longer than its interval %q", label, shortDuration(p.Timeout.D()), shortDuration(p.Interval.D())),
			"at most as long", "")
	}
	if total := int64(p.Failures) * int64(p.Interval); total < int64(c.cfg.Heartbeat.Deadtime) {
		c.onValue(pathKey(at, "interval"), fmt.Sprintf("%s: %d failures at an interval of %q are less than the deadtime %q", label, p.Failures,
			shortDuration(p.Interval.D()), shortDuration(c.cfg.Heartbeat.Deadtime.D())), "failures × interval of at least deadtime",
			"a stall that is forgiven a node must be forgiven a target")
	}
}

// pingNames lists the targets; whole is false when a name is missing, so that nothing is said of what it might be.
func (c *checker) pingNames() (names []string, whole bool) {
	for i, p := range c.cfg.Pings {
		names = append(names, c.written(p.Name, pingPath(i)))
	}
	return c.whole("ping", names)
}

// named wants each of a list to be a target.
func (c *checker) named(list []string, at, label string) {
	names, whole := c.pingNames()
	for i, name := range list {
		if whole && !slices.Contains(names, name) {
			want := oneOf(names)
			if len(names) == 0 {
				want = fmt.Sprintf("a [[ping]] with name = %q", name)
			}
			c.onValue(pathIndex(at, i), fmt.Sprintf("%s: there is no [[ping]] %q", label, name), want, didYouMean(name, names))
		}
	}
}

func (c *checker) needs() {
	for i := range c.cfg.Groups {
		c.named(c.cfg.Groups[i].Needs, pathKey(groupPath(i), "needs"), c.groupLabel(i)+" needs")
	}
}

func (c *checker) needsPing() {
	const at = "cluster.needs_ping"
	c.named(c.cfg.Cluster.NeedsPing, at, "[cluster] needs_ping")
	if len(c.cfg.Cluster.NeedsPing) > 0 && len(c.cfg.Nodes) > 2 && !c.faulty["node"] {
		c.warn(at, fmt.Sprintf("[cluster] needs_ping has no effect with %s", count(len(c.cfg.Nodes), "voter")), "exactly two voters",
			"a majority tells who is cut off; a group can have needs of its own")
	}
}

// unneeded warns of targets that decide nothing.
func (c *checker) unneeded() {
	if c.anyFaulty("ping") || c.anyFaulty("group") || c.faulty["cluster.needs_ping"] {
		return
	}
	for i := range c.cfg.Pings {
		name := c.cfg.Pings[i].Name
		needed := slices.Contains(c.cfg.Cluster.NeedsPing, name) ||
			slices.ContainsFunc(c.cfg.Groups, func(g GroupConfig) bool { return slices.Contains(g.Needs, name) })
		if name != "" && !needed {
			c.warn(pingPath(i), fmt.Sprintf("%s decides nothing", elementName("[[ping]]", name, i)),
				fmt.Sprintf("a group with needs = [%q], or needs_ping in [cluster]", name), "it is asked and shown all the same")
		}
	}
}
