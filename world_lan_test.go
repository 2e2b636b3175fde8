// Whom does a client reach, and is what it wrote still there? Beside the machines stands a client for each address. It
// asks who has it, remembers the answer, believes every announcement, and writes through the address again and again,
// where there is data; it never forgets an acknowledged write. Whoever holds the data may be wrong about it, the client is
// not.

package main

import (
	"slices"
	"time"
)

// clientEvery is how often a client wants something.
const clientEvery = 50 * time.Millisecond

// worldLAN is the segment that the addresses are on.
type worldLAN struct {
	w       *world
	clients []*worldClient
	data    []worldData // by group, of those that have data
}

// worldData is what lies on the storage of a group: how often it was written.
type worldData struct {
	group  string
	newest uint64
}

type worldClient struct {
	w       *world
	group   string
	address string
	cache   *machine      // whom it takes for the holder of the address
	served  time.Duration // when it was last served
	outages []time.Duration
	writes  int
}

// watch sets a client before each address of a config.
func (n *worldLAN) watch(cfg *Config) {
	for _, g := range cfg.Groups {
		for _, r := range g.Resources {
			if r.Type == "vip" {
				c := &worldClient{w: n.w, group: g.Name, address: r.Address, served: n.w.now}
				n.clients = append(n.clients, c)
				n.w.after(0, c.ask)
			}
		}
	}
}

func (n *worldLAN) of(group string) *worldData {
	i := slices.IndexFunc(n.data, func(d worldData) bool { return d.group == group })
	if i < 0 {
		n.data = append(n.data, worldData{group: group})
		i = len(n.data) - 1
	}
	return &n.data[i]
}

// changed is told of each resource that comes or goes: an address that comes is announced, data that is mounted is read.
func (n *worldLAN) changed(x *ware) {
	switch {
	case !x.present:
	case x.config.Type == "vip":
		for _, c := range n.clients {
			if c.address == x.config.Address && x.m.answers(x) {
				c.cache = x.m
			}
		}
	case x.data():
		x.version = n.of(x.group).newest
	}
}

func (x *ware) data() bool { return x.config.Type == "filesystem" || x.config.Type == "drbd" }

// answers tells whether a machine answers for an address of its own now.
func (m *machine) answers(x *ware) bool {
	return m.power && m.still() == 0 && x.up() && m.carrier(x.config.Interface)
}

// holder is the address on a machine, if that answers for it.
func (c *worldClient) holder(m *machine) *ware {
	if m == nil {
		return nil
	}
	for _, x := range m.wares {
		if x.config.Type == "vip" && x.config.Address == c.address && m.answers(x) {
			return x
		}
	}
	return nil
}

func (c *worldClient) ask() {
	c.w.after(clientEvery, c.ask)
	if c.holder(c.cache) == nil {
		c.cache = nil
		for _, m := range c.w.hosts {
			if c.holder(m) != nil && (c.cache == nil || c.w.chance.lan.IntN(2) == 0) {
				c.cache = m // two answers: the later one counts, and which that is, is chance
			}
		}
	}
	if c.cache == nil || !c.cache.serves(c.group) {
		return
	}
	replica := c.cache.copyOf(c.group)
	if replica != nil && !replica.write(c) {
		return
	}
	if d := c.w.now - c.served; d > 2*clientEvery {
		c.outages = append(c.outages, d)
	}
	c.served = c.w.now
	for _, x := range c.cache.wares {
		if x.group == c.group && x.data() && replica == nil {
			c.write(x)
		}
	}
}

// serves tells whether a machine runs every resource of a group that is there at all, and has more than one of it.
func (m *machine) serves(group string) bool {
	n := 0
	for _, x := range m.wares {
		if x.group == group {
			if !x.present || x.ill != "" {
				return false
			}
			n++
		}
	}
	return n > 0
}

// write adds to the data through one mount. Somebody else who wrote since it was mounted is overwritten.
func (c *worldClient) write(x *ware) {
	d := c.w.lan.of(c.group)
	if x.version != d.newest {
		c.w.checks.fail("%s writes to the data of %s over %d acknowledged writes", x.m.name, c.group, d.newest-x.version)
	}
	d.newest++
	x.version = d.newest
	c.writes++
	for _, m := range c.w.hosts {
		for _, y := range m.wares {
			// Two have it: what that may cost is counted here and now, so that it is not found again later.
			if y == x || !y.same(x) || !y.up() {
				continue
			}
			why := c.w.checks.excuse(x, y)
			if slices.Contains(c.w.checks.allowed, c.group) {
				why = "two_node = \"ignore\""
			}
			if why != "" {
				c.w.checks.window("acknowledged writes are lost: " + why)
				y.version = d.newest
			}
		}
	}
}
