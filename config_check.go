// Do the parts of a configuration fit together? Names that resolve, addresses used once, timers and modes that can work.
// Single values were checked before (config_walk.go); what needs the host is in config_host.go. A value that was refused
// there is empty here, and is never held against the file a second time.

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checker sees the configuration beside the places that it came from.
type checker struct {
	*walker
	cfg *Config
}

func checkMeaning(w *walker, cfg *Config) {
	c := &checker{w, cfg}
	c.timers()
	c.watchdog()
	c.links()
	c.nodes()
	c.reach()
	c.voters()
	c.fences()
	c.groups()
	c.pings()
	c.resources()
	c.classes()
}

// Paths of elements, for places.
func linkPath(i int) string        { return pathIndex("link", i) }
func nodePath(i int) string        { return pathIndex("node", i) }
func fencePath(i int) string       { return pathIndex("fence", i) }
func groupPath(i int) string       { return pathIndex("group", i) }
func pingPath(i int) string        { return pathIndex("ping", i) }
func resourcePath(g, i int) string { return pathIndex(pathKey(groupPath(g), "resource"), i) }

// elementName is the header with the name, or with the number of an element whose name is missing or was refused.
func elementName(header, name string, i int) string {
	if name == "" {
		name = fmt.Sprintf("#%d", i+1)
	}
	return header + " " + name
}

func (c *checker) groupLabel(i int) string { return elementName("[[group]]", c.cfg.Groups[i].Name, i) }

// lineOf is for "already … in line 7".
func (c *checker) lineOf(path string) int {
	line, _ := c.src.position(c.src.keyAt(path))
	return line
}

// once reports the second use of something that may be used once. It remembers where the first was.
func (c *checker) once(seen map[string]string, value, path, what string) {
	if value == "" {
		return
	}
	if first, ok := seen[value]; ok {
		c.onValue(path, fmt.Sprintf("%s is already used in line %d", what, c.lineOf(first)), "another one", "")
		return
	}
	seen[value] = path
}

func (c *checker) timers() {
	h := c.cfg.Heartbeat
	if c.faulty["heartbeat.interval"] || c.faulty["heartbeat.deadtime"] || h.Deadtime >= intervalsInDead*h.Interval {
		return
	}
	path := "heartbeat.deadtime"
	if !c.src.has(path) {
		path = "heartbeat.interval"
	}
	c.onValue(path, fmt.Sprintf("[heartbeat] deadtime %q is shorter than %d intervals of %q",
		shortDuration(h.Deadtime.D()), intervalsInDead, shortDuration(h.Interval.D())),
		fmt.Sprintf("at least %q", shortDuration(intervalsInDead*h.Interval.D())), "one lost datagram must not look like a death")
}

func (c *checker) links() {
	names, interfaces := map[string]string{}, map[string]int{}
	for i, l := range c.cfg.Links {
		at := linkPath(i)
		c.once(names, l.Name, pathKey(at, "name"), fmt.Sprintf("[[link]] name %q", l.Name))
		if l.Interface == "" {
			continue
		}
		if first, ok := interfaces[l.Interface]; ok {
			c.warn(pathKey(at, "interface"), fmt.Sprintf("%s interface %q is that of link %s too", elementName("[[link]]", l.Name, i), l.Interface, c.cfg.Links[first].Name),
				"an interface of its own", "one cable fails as one: this is no second path")
			continue
		}
		interfaces[l.Interface] = i
	}
	for i, l := range c.cfg.Links {
		c.linkFamily(i, l)
	}
}

// linkFamily wants one address family on a link, and a multicast group of that family.
func (c *checker) linkFamily(i int, l LinkConfig) {
	var first netip.Addr
	var owner string
	for n, node := range c.cfg.Nodes {
		a, err := netip.ParseAddr(node.on(l.Name))
		if l.Name == "" || err != nil {
			continue
		}
		if owner == "" {
			first, owner = a, node.Name
		}
		if a.Is4() != first.Is4() {
			c.onValue(pathKey(pathKey(nodePath(n), "address"), l.Name),
				fmt.Sprintf("%s address %q is %s, but link %s has the %s address of %s", elementName("[[node]]", node.Name, n), a, addressFamily(a), l.Name, addressFamily(first), owner),
				"one family on a link", "give the other family a [[link]] of its own")
		}
	}
	group, err := netip.ParseAddr(l.Multicast)
	if err != nil {
		return
	}
	at := pathKey(linkPath(i), "multicast")
	if owner != "" && group.Is4() != first.Is4() {
		c.onValue(at, fmt.Sprintf("%s multicast %q is %s, but the addresses of the link are %s", elementName("[[link]]", l.Name, i), group, addressFamily(group), addressFamily(first)),
			"a group of the same family", "")
	}
	if group.Is4() && netip.PrefixFrom(group, 24).Masked().Addr() == netip.AddrFrom4([4]byte{224, 0, 0, 0}) {
		c.warn(at, fmt.Sprintf("%s multicast %q belongs to routing protocols", elementName("[[link]]", l.Name, i), group),
			"a group of 239.0.0.0/8, which is free for local use", "")
	}
}

func addressFamily(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// linkNames also says whether the list is whole: if not, nothing is known of a name that is not in it.
func (c *checker) linkNames() (names []string, whole bool) {
	for i, l := range c.cfg.Links {
		names = append(names, c.written(l.Name, linkPath(i)))
	}
	once, whole := c.whole("link", names)
	return once, whole && len(once) == len(names) // one of two that share a name was meant to have the one that nodes use
}

func (c *checker) nodeNames() (names []string, whole bool) {
	for i, n := range c.cfg.Nodes {
		names = append(names, c.written(n.Name, nodePath(i)))
	}
	return c.whole("node", names)
}

func (c *checker) groupNames() (names []string, whole bool) {
	for i, g := range c.cfg.Groups {
		names = append(names, c.written(g.Name, groupPath(i)))
	}
	return c.whole("group", names)
}

// written is a name, or what stands in its place and was refused: whoever names it means that section.
func (c *checker) written(name, at string) string {
	if name == "" {
		return c.refused[pathKey(at, "name")]
	}
	return name
}

func (c *checker) whole(section string, names []string) ([]string, bool) {
	var once []string
	for _, n := range names {
		if !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once, !c.faulty[section] && !slices.Contains(names, "")
}

func (c *checker) nodes() {
	names, addresses := map[string]string{}, map[string]string{}
	links, whole := c.linkNames()
	for i, n := range c.cfg.Nodes {
		at := nodePath(i)
		c.once(names, n.Name, pathKey(at, "name"), fmt.Sprintf("[[node]] name %q", n.Name))
		table := pathKey(at, "address")
		if c.src.has(table) && !c.faulty[table] && len(n.Address) == 0 && !c.anyFaulty(table) {
			c.onValue(table, fmt.Sprintf("%s is on no link", elementName("[[node]]", n.Name, i)), "an address on at least one link", "")
		}
		for _, a := range n.Address {
			here := pathKey(table, a.Link)
			if whole && !slices.Contains(links, a.Link) {
				c.onKey(here, fmt.Sprintf("%s address.%s: there is no link %s", elementName("[[node]]", n.Name, i), a.Link, abbreviate(a.Link)),
					oneOf(links), didYouMean(a.Link, links))
				c.faulty[here] = true
			}
			ip := netip.MustParseAddr(a.Address) // the walker has refused everything else
			c.once(addresses, ip.String(), here, fmt.Sprintf("%s address %q", elementName("[[node]]", n.Name, i), a.Address))
			if ip.IsLoopback() {
				c.warn(here, fmt.Sprintf("%s address %q is a loopback address", elementName("[[node]]", n.Name, i), a.Address), "one that other hosts reach", "")
			}
		}
	}
}

// anyFaulty is whether something below a path was refused.
func (c *checker) anyFaulty(path string) bool {
	for p := range c.faulty {
		if strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[") {
			return true
		}
	}
	return false
}

// reach wants two nodes on each link and a common link for any two nodes. It is silent while names or addresses are
// faulty.
func (c *checker) reach() {
	links, whole := c.linkNames()
	if !whole || c.anyFaulty("node") || len(c.cfg.Nodes) < 2 {
		return
	}
	for i, l := range c.cfg.Links {
		var on []string
		for _, n := range c.cfg.Nodes {
			if n.on(l.Name) != "" {
				on = append(on, n.Name)
			}
		}
		if len(on) == 0 {
			c.onKey(linkPath(i), fmt.Sprintf("[[link]] %s: no node is on it", l.Name), "two nodes with an address on it, or no such link", "")
		} else if len(on) == 1 {
			c.onKey(linkPath(i), fmt.Sprintf("[[link]] %s: only %s is on it", l.Name, on[0]), "two nodes with an address on it, or no such link", "")
		}
	}
	for i, n := range c.cfg.Nodes {
		for _, m := range c.cfg.Nodes[:i] {
			if !shareLink(&n, &m, links) && len(n.Address) > 0 && len(m.Address) > 0 {
				c.onValue(pathKey(nodePath(i), "address"), fmt.Sprintf("%s shares no link with %s", elementName("[[node]]", n.Name, i), m.Name),
					"an address on a common link", "any two nodes hear each other directly: nobody passes messages on")
			}
		}
	}
}

func shareLink(a, b *NodeConfig, links []string) bool {
	for _, l := range links {
		if a.on(l) != "" && b.on(l) != "" {
			return true
		}
	}
	return false
}

// voters checks what depends on how many nodes there are and of which role.
func (c *checker) voters() {
	if c.faulty["node"] || len(c.cfg.Nodes) == 0 {
		return
	}
	n, full := len(c.cfg.Nodes), len(c.cfg.fullNodes()) // a refused role counts as full, the default
	if full == 0 {
		c.onKey(nodePath(0), "all nodes are witnesses, and a witness runs nothing", "at least one [[node]] of role \"full\"", "")
	}
	c.twoNode(n)
	c.noQuorum(n)
	switch {
	case n == 1:
		c.warn(nodePath(0), "there is only one node", "two or more", "nothing can be taken over: this only restarts what fails")
	case full == 1:
		c.warn(nodePath(0), "there is only one node of role \"full\"", "two or more", "nothing can be taken over: witnesses run nothing")
	}
	if n > 2 && n%2 == 0 {
		c.warn(nodePath(n-1), fmt.Sprintf("there are %d voters, an even number", n), "an odd number",
			fmt.Sprintf("%d voters survive the loss of no more nodes than %d; add or remove a witness", n, n-1))
	}
	if n != 2 && !c.cfg.Cluster.WaitForAll {
		c.warn("cluster.wait_for_all", fmt.Sprintf("[cluster] wait_for_all has no effect with %s", count(n, "voter")), "two voters", "")
	}
}

// noQuorum warns where "freeze" does no more than "stop".
func (c *checker) noQuorum(voters int) {
	if c.cfg.Cluster.NoQuorum != "freeze" {
		return
	}
	const at = "cluster.no_quorum"
	switch data := slices.IndexFunc(c.cfg.Groups, func(g GroupConfig) bool { return g.class().writes() }); {
	case voters == 2:
		c.warn(at, "[cluster] no_quorum \"freeze\" has no effect with 2 voters", "three voters or more, or \"stop\"",
			"with two voters two_node says what one does without the other")
	case data >= 0 && c.cfg.Watchdog.watched():
		c.warn(at, "[cluster] no_quorum \"freeze\" keeps no data in place where a watchdog is configured", "no [watchdog] device, or \"stop\"",
			"the watchdog would reset a node that kept its data without a majority")
	}
}

func (c *checker) twoNode(voters int) {
	const at = "cluster.two_node"
	switch given := c.src.has(at); {
	case voters == 2 && !given && !c.faulty["cluster"]:
		c.onKey("cluster", "[cluster] two_node is missing, and with two voters there is no majority without the other", oneOf(twoNodeModes),
			"\"fence\": the other cuts it off by a [[fence]] device; it does not protect against a device that dies with its node. "+
				"\"manual\": when one node is lost, the other waits for an operator's word; it does not protect against a long outage. "+
				"\"ignore\": the other takes over by itself; it does not protect against both running a group when they cannot hear each other. "+
				"A third [[node]] with role = \"witness\" protects against both")
	case voters != 2 && given && !c.faulty[at]:
		c.warn(at, fmt.Sprintf("[cluster] two_node has no effect with %s", count(voters, "voter")), "exactly two voters",
			"leave it out: a majority decides")
		c.cfg.Cluster.TwoNode = ""
	}
}

func (c *checker) groups() {
	names := map[string]string{}
	nodes, allNodes := c.nodeNames()
	groups, allGroups := c.groupNames()
	for i := range c.cfg.Groups {
		g, at := &c.cfg.Groups[i], groupPath(i)
		c.once(names, g.Name, pathKey(at, "name"), fmt.Sprintf("[[group]] name %q", g.Name))
		for j, p := range g.Prefer {
			here := pathIndex(pathKey(at, "prefer"), j)
			if n := c.cfg.node(p); n != nil && n.witness() {
				c.onValue(here, fmt.Sprintf("%s prefer %q is a witness, which runs nothing", c.groupLabel(i), p), "nodes of role \"full\"", "")
			} else if n == nil && allNodes {
				c.onValue(here, fmt.Sprintf("%s prefer: there is no node %q", c.groupLabel(i), p), oneOf(nodes), didYouMean(p, nodes))
			}
		}
		if g.Failback == "always" && len(g.Prefer) == 0 && !c.faulty[pathKey(at, "prefer")] {
			c.warn(pathKey(at, "failback"), fmt.Sprintf("%s failback \"always\" has no effect without prefer", c.groupLabel(i)),
				"prefer = [\"NODE\"]", "")
		}
		for _, list := range []struct {
			key   string
			names []string
		}{{"after", g.After}, {"with", g.With}, {"apart", g.Apart}} {
			for j, name := range list.names {
				here := pathIndex(pathKey(at, list.key), j)
				switch {
				case name == g.Name:
					c.onValue(here, fmt.Sprintf("%s %s names the group itself", c.groupLabel(i), list.key), "other groups", "")
				case allGroups && !slices.Contains(groups, name):
					c.onValue(here, fmt.Sprintf("%s %s: there is no group %q", c.groupLabel(i), list.key, name),
						wordList(append(others(groups, g.Name), "none"), "or"), didYouMean(name, others(groups, g.Name)))
				}
			}
		}
	}
	c.cycles()
	c.apart()
}

func others(names []string, self string) []string {
	var out []string
	for _, n := range names {
		if n != self {
			out = append(out, n)
		}
	}
	return out
}

// cycles reports groups that wait for each other: each runs after or with the next.
func (c *checker) cycles() {
	told := map[string]bool{}
	for i := range c.cfg.Groups {
		g := &c.cfg.Groups[i]
		if told[g.Name] || g.Name == "" {
			continue
		}
		trail := c.trailBack(g.Name)
		if len(trail) < 2 { // a group that names itself has been told
			continue
		}
		var steps []string
		for j, name := range trail {
			told[name] = true
			word, next := "with", trail[(j+1)%len(trail)]
			if slices.Contains(c.cfg.group(name).After, next) {
				word = "after"
			}
			steps = append(steps, fmt.Sprintf("%s runs %s %s", name, word, next))
		}
		key := pathKey(groupPath(i), "after")
		if !slices.Contains(g.After, trail[1]) {
			key = pathKey(groupPath(i), "with")
		}
		c.onKey(key, fmt.Sprintf("%s waits for itself: %s", c.groupLabel(i), strings.Join(steps, ", ")), "no circle", "none of them would ever start")
	}
}

// trailBack is the shortest way from a group over after and with to itself, without the return to it.
func (c *checker) trailBack(start string) []string {
	from := map[string]string{}
	queue := []string{start}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		g := c.cfg.group(at)
		if g == nil {
			continue
		}
		for _, next := range append(append([]string{}, g.After...), g.With...) {
			if next == start && at != start {
				trail := []string{at}
				for trail[0] != start {
					trail = append([]string{from[trail[0]]}, trail...)
				}
				return trail
			}
			if _, seen := from[next]; !seen && next != start {
				from[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// apart reports groups that must be on one node and must not.
func (c *checker) apart() {
	root := map[string]string{}
	find := func(name string) string {
		for root[name] != "" && root[name] != name {
			name = root[name]
		}
		return name
	}
	for _, g := range c.cfg.Groups {
		for _, w := range g.With {
			if a, b := find(g.Name), find(w); a != b {
				root[a] = b
			}
		}
	}
	for i, g := range c.cfg.Groups {
		for j, a := range g.Apart {
			at := pathIndex(pathKey(groupPath(i), "apart"), j)
			if a == g.Name || c.cfg.group(a) == nil {
				continue
			}
			if find(g.Name) == find(a) {
				c.onValue(at, fmt.Sprintf("%s apart %q contradicts with, which keeps the two on one node", c.groupLabel(i), a), "one of the two", "")
			} else if len(c.cfg.fullNodes()) == 1 {
				c.warn(at, fmt.Sprintf("%s apart %q leaves one of them without a node", c.groupLabel(i), a), "two nodes of role \"full\"", "")
			}
		}
	}
}
