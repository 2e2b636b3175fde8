// Which cable is where? The switches between the hosts of the integration tests: a frame can be dropped at the switch
// (the carrier stays), a cable can be pulled (the carrier goes), and a part of the datagrams can be lost.

package main

import (
	"fmt"
	"net"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
)

// The two networks, by the interface that a host has on each.
const lanPort, replPort = "eth0", "eth1"

// switches makes both, and the client on the first.
func (c *cluster) switches() {
	c.t.Helper()
	c.lans = newTestHost(c.t, "lans")
	for _, name := range []string{lanPort, replPort} {
		noSnooping := false
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-" + name}, MulticastSnooping: &noSnooping}
		c.lans.must("add switch", c.lans.nl.LinkAdd(br))
		c.lans.up("br-" + name)
	}
	c.client = newTestHost(c.t, "client")
	c.plug(c.client, lanPort, 200)
	c.client.add(lanPort, clientIP+"/24")
	c.client.add(lanPort, "fd77:1::200/64")
}

// wire gives a host that boots its interfaces and addresses.
func (c *cluster) wire(h *clusterHost) {
	c.t.Helper()
	for i, name := range []string{lanPort, replPort} {
		c.plug(h.net, name, h.number)
		h.net.add(name, fmt.Sprintf("%s%d/24", []string{lanNet, replNet}[i], 10+h.number))
		h.net.add(name, fmt.Sprintf("fd77:%d::%d/64", i+1, 10+h.number))
	}
}

// plug connects a namespace to a switch. A host keeps its hardware address over reboots.
func (c *cluster) plug(h *testHost, name string, number int) {
	c.t.Helper()
	port := h.name + "-" + name
	hw := net.HardwareAddr{0x52, 0x54, 0, 0x77, name[len(name)-1], byte(number)}
	c.lans.must("add port", c.lans.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: c.lans.link("br-" + name).Attrs().Index}, PeerName: name,
		PeerHardwareAddr: hw, PeerNamespace: netlink.NsFd(h.fd),
	}))
	h.sysctl("ipv6/conf/"+name+"/accept_dad", "0")
	c.lans.up(port)
	h.up(name)
	await(c.t, name+" of "+h.name+" carries", func() bool {
		return asInterface(h.link(name).Attrs()).Carrier && c.lans.link(port).Attrs().OperState == netlink.OperUp
	})
}

// unplug takes a host's ports away, after the switch has stopped to pass its frames.
func (c *cluster) unplug(h *clusterHost) {
	c.t.Helper()
	for _, name := range []string{lanPort, replPort} {
		port := h.name + "-" + name
		if l, err := c.lans.nl.LinkByName(port); err == nil {
			c.portState(port, 0)
			c.lans.must("remove port", c.lans.nl.LinkDel(l))
		}
	}
}

// portState 3 passes frames, 0 drops them.
func (c *cluster) portState(port string, state int) {
	c.t.Helper()
	c.lans.must("set port", c.lans.do(func() error {
		out, err := exec.Command("bridge", "link", "set", "dev", port, "state", fmt.Sprint(state)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
}

func both(ports []string) []string {
	if len(ports) == 0 {
		return []string{lanPort, replPort}
	}
	return ports
}

// cut drops the host's frames at the switch: it keeps its carrier and is alone. Without ports: on both networks.
func (h *clusterHost) cut(ports ...string) {
	h.c.t.Helper()
	for _, p := range both(ports) {
		h.c.portState(h.name+"-"+p, 0)
	}
}

// heal undoes cut.
func (h *clusterHost) heal(ports ...string) {
	h.c.t.Helper()
	for _, p := range both(ports) {
		h.c.portState(h.name+"-"+p, 3)
	}
}

// pull takes the cable out: the host loses its carrier.
func (h *clusterHost) pull(ports ...string) {
	h.c.t.Helper()
	for _, p := range both(ports) {
		h.c.lans.down(h.name + "-" + p)
	}
}

// replug undoes pull.
func (h *clusterHost) replug(ports ...string) {
	h.c.t.Helper()
	for _, p := range both(ports) {
		h.c.lans.up(h.name + "-" + p)
	}
}

// lose drops that many of a hundred of the heartbeats' packets that come in, on every link.
func (h *clusterHost) lose(percent int) {
	h.c.t.Helper()
	h.nft("add table inet loss",
		"add chain inet loss in { type filter hook input priority 0; }",
		fmt.Sprintf("add rule inet loss in meta l4proto { tcp, udp } th dport 694 numgen random mod 100 < %d counter drop", percent),
		fmt.Sprintf("add rule inet loss in meta l4proto tcp th sport 694 numgen random mod 100 < %d counter drop", percent))
}

// nft runs commands in the host's network.
func (h *clusterHost) nft(lines ...string) {
	h.c.t.Helper()
	h.net.must("nft", h.net.do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
}
