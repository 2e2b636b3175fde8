// Does the configuration fit this host, and which of its nodes is it? Pure: the caller lists the interfaces. Everything
// else about the file is checked without the host (config_check.go), so that a file can be checked anywhere.

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

var errWhoAmI = errors.New("cannot tell which node this is")

// identify says which [[node]] this host is: the one of whose addresses one is configured here, or the one that was
// named. No DNS and no host name.
func identify(c *Config, local []netip.Addr, override string) (string, error) {
	var names []string
	for i := range c.Nodes {
		names = append(names, c.Nodes[i].Name)
	}
	if override != "" {
		if c.node(override) != nil {
			return override, nil
		}
		hint := didYouMean(override, names)
		if hint == "" {
			hint = "its nodes are " + wordList(names, "and")
		}
		return "", fmt.Errorf("%w: the configuration has no node %q; %s", errWhoAmI, override, hint)
	}
	here := map[netip.Addr]bool{}
	for _, a := range local {
		here[a.Unmap().WithZone("")] = true
	}
	var found, looked []string
	for i := range c.Nodes {
		n, mine := &c.Nodes[i], ""
		for _, la := range n.Address {
			looked = append(looked, fmt.Sprintf("%s (%s on %s)", la.Address, n.Name, la.Link))
			if a, err := netip.ParseAddr(la.Address); err == nil && here[a] && mine == "" {
				mine = fmt.Sprintf("%s by %s", n.Name, la.Address)
			}
		}
		if mine != "" {
			found = append(found, mine)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: this host has none of the addresses %s; configure one of them, or name the node with --node",
			errWhoAmI, strings.Join(looked, ", "))
	case 1:
		name, _, _ := strings.Cut(found[0], " ")
		return name, nil
	}
	return "", fmt.Errorf("%w: this host is %s; remove the addresses that belong elsewhere, or name the node with --node",
		errWhoAmI, wordList(found, "and"))
}

// checkHost tells what of the configuration this host, as that node, cannot do. The text gives the places; nil is fine.
func checkHost(c *Config, text []byte, node string, host []hostInterface) []configError {
	h := &hostChecker{
		walker: newWalker(locate(strings.TrimPrefix(string(text), "\ufeff"))),
		cfg:    c, host: host,
	}
	self := c.node(node)
	if self == nil {
		return []configError{{0, 0, severityError, fmt.Sprintf("the configuration has no node %q", node), "", ""}}
	}
	for i := range c.Links {
		if a := self.on(c.Links[i].Name); a != "" {
			h.link(i, self, a)
		}
	}
	if !self.witness() {
		for g := range c.Groups {
			for r := range c.Groups[g].Resources {
				if c.Groups[g].Resources[r].Type == "vip" {
					h.vip(g, r)
				}
			}
		}
	}
	if len(text) == 0 {
		for i := range h.problems {
			h.problems[i].Line, h.problems[i].Col = 0, 0
		}
	}
	return sortProblems(h.problems)
}

// newFaults are the errors of an edit on this host that what is in force does not have: what it asks for is not here.
func newFaults(before, next *Config, text []byte, node string, host []hostInterface) []configError {
	known := checkHost(before, nil, node, host)
	return slices.DeleteFunc(checkHost(next, text, node, host), func(p configError) bool {
		return p.Severity != severityError || slices.ContainsFunc(known, func(k configError) bool { return k.What == p.What })
	})
}

// cutOff: by this config the host can be heard on no link, since the interfaces or their addresses are not there.
func (c *Config) cutOff(node string, host []hostInterface) bool {
	self := c.node(node)
	if self == nil {
		return true
	}
	h := hostChecker{cfg: c, host: host}
	return !slices.ContainsFunc(c.Links, func(l LinkConfig) bool {
		i := h.find(l.Interface)
		a, err := netip.ParseAddr(self.on(l.Name))
		return i != nil && err == nil && h.network(i, a).IsValid()
	})
}

type hostChecker struct {
	*walker
	cfg  *Config
	host []hostInterface
}

func (h *hostChecker) find(name string) *hostInterface {
	for i := range h.host {
		if h.host[i].Name == name {
			return &h.host[i]
		}
	}
	return nil
}

func (h *hostChecker) names() []string {
	var names []string
	for _, i := range h.host {
		names = append(names, i.Name)
	}
	return names
}

// free are the interfaces that no link of the file uses: one of these may be meant by a link that names none.
func (h *hostChecker) free() []string {
	return slices.DeleteFunc(h.names(), func(name string) bool {
		return slices.ContainsFunc(h.cfg.Links, func(l LinkConfig) bool { return l.Interface == name })
	})
}

// usable reports an interface that is missing or carries nothing, and says whether its addresses can be judged.
func (h *hostChecker) usable(path, label, name string, candidates []string) (*hostInterface, bool) {
	i := h.find(name)
	switch {
	case i == nil:
		h.onValue(path, fmt.Sprintf("%s interface: this host has no %q", label, name), oneOf(h.names()), didYouMean(name, candidates))
		return nil, false
	case !i.Up:
		h.warn(path, fmt.Sprintf("%s interface %q is down", label, name), "it up", fmt.Sprintf("`ip link set %s up`", name))
	case !i.Carrier:
		h.warn(path, fmt.Sprintf("%s interface %q has no carrier", label, name), "a link", "is the cable plugged in?")
	}
	return i, true
}

func (h *hostChecker) link(i int, self *NodeConfig, address string) {
	l := &h.cfg.Links[i]
	iface, ok := h.usable(pathKey(linkPath(i), "interface"), "[[link]] "+l.Name, l.Interface, h.free())
	if !ok {
		return
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return
	}
	n := 0
	for n < len(h.cfg.Nodes) && h.cfg.Nodes[n].Name != self.Name {
		n++
	}
	here := pathKey(pathKey(nodePath(n), "address"), l.Name)
	network := h.network(iface, a)
	if !network.IsValid() {
		hint := ""
		if other := h.owner(a); other != "" {
			hint = fmt.Sprintf("it is on %s: is that the interface of this link?", other)
		}
		h.onValue(here, fmt.Sprintf("[[node]] %s address %q is not configured on %s", self.Name, address, iface.Name), h.addressesOf(iface), hint)
		return
	}
	for m := range h.cfg.Nodes {
		peer := &h.cfg.Nodes[m]
		p, err := netip.ParseAddr(peer.on(l.Name))
		if err != nil || peer.Name == self.Name || network.Contains(p) {
			continue
		}
		h.warn(pathKey(pathKey(nodePath(m), "address"), l.Name), fmt.Sprintf("[[node]] %s address %q is outside the network %s of %s", peer.Name, p, network.Masked(), iface.Name),
			"one in it", "heartbeats leave through this interface alone: without a router there nothing arrives")
	}
}

// network is the prefix of the interface that has exactly this address, or the zero prefix.
func (h *hostChecker) network(i *hostInterface, a netip.Addr) netip.Prefix {
	for _, p := range i.Addresses {
		if p.Addr() == a {
			return p
		}
	}
	return netip.Prefix{}
}

func (h *hostChecker) owner(a netip.Addr) string {
	for i := range h.host {
		if h.network(&h.host[i], a).IsValid() {
			return h.host[i].Name
		}
	}
	return ""
}

func (h *hostChecker) addressesOf(i *hostInterface) string {
	var list []string
	for _, p := range i.Addresses {
		list = append(list, p.Addr().String())
	}
	if len(list) == 0 {
		return "an address on " + i.Name + ", which has none"
	}
	return wordList(list, "or")
}

func (h *hostChecker) vip(gi, ri int) {
	g := &h.cfg.Groups[gi]
	r := &g.Resources[ri]
	at := resourcePath(gi, ri)
	label := fmt.Sprintf("[[group.resource]] %s/%s", g.Name, r.Name)
	iface, ok := h.usable(pathKey(at, "interface"), label, r.Interface, h.names())
	a := r.vipAddress()
	if !ok || !a.IsValid() {
		return
	}
	var networks []string
	for _, p := range iface.Addresses {
		if p.Contains(a) {
			return
		}
		if p.Addr().BitLen() == a.BitLen() && !p.Addr().IsLinkLocalUnicast() {
			networks = append(networks, p.Masked().String())
		}
	}
	want := "an address in " + wordList(networks, "or")
	if len(networks) == 0 {
		want = fmt.Sprintf("an interface with an %s network", addressFamily(a))
	}
	hint := "hosts of the network will not ask for it by ARP or neighbour discovery; it needs a route to this node"
	if strings.Contains(r.Address, "/") {
		hint = "its prefix makes a network of its own here; neighbours without an address in that will not reach it"
	}
	h.warn(pathKey(at, "address"), fmt.Sprintf("%s address %q is outside the networks of %s", label, r.Address, iface.Name), want, hint)
}
