// Does a host know which node it is, and does it say what it lacks?

package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func goodConfig(t *testing.T, file string) (*Config, []byte) {
	t.Helper()
	text := readFile(t, "testdata/config/"+file)
	c, problems := parseConfig(text)
	if c == nil {
		t.Fatal(renderProblems(file, problems))
	}
	return c, text
}

func addresses(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestIdentify(t *testing.T) {
	c, _ := goodConfig(t, "good-three.toml")
	for _, k := range []struct {
		name, override string
		local          []netip.Addr
		want, fault    string
	}{
		{name: "one of its addresses", local: addresses("127.0.0.1", "10.0.0.12"), want: "bob"},
		{name: "all of its addresses", local: addresses("192.168.10.12", "10.0.0.12"), want: "bob"},
		{name: "in IPv6 form", local: addresses("::ffff:192.168.10.13"), want: "carol"},
		{name: "named", override: "alice", local: addresses("192.168.10.12"), want: "alice"},
		{name: "misnamed", override: "alise", fault: `cannot tell which node this is: the configuration has no node "alise"; did you mean "alice"?`},
		{name: "a stranger", override: "zoe", fault: `cannot tell which node this is: the configuration has no node "zoe"; its nodes are alice, bob and carol`},
		{name: "none", local: addresses("127.0.0.1"), fault: "cannot tell which node this is: this host has none of the addresses " +
			"192.168.10.11 (alice on lan), 10.0.0.11 (alice on repl), 192.168.10.12 (bob on lan), 10.0.0.12 (bob on repl), 192.168.10.13 (carol on lan); " +
			"configure one of them, or name the node with --node"},
		{name: "two", local: addresses("10.0.0.12", "192.168.10.11"), fault: "cannot tell which node this is: this host is alice by 192.168.10.11 and bob by 10.0.0.12; " +
			"remove the addresses that belong elsewhere, or name the node with --node"},
	} {
		got, err := identify(c, k.local, k.override)
		if k.fault == "" {
			if err != nil || got != k.want {
				t.Errorf("%s: %q, %v; want %q", k.name, got, err, k.want)
			}
			continue
		}
		if got != "" || err == nil || err.Error() != k.fault || !errors.Is(err, errWhoAmI) {
			t.Errorf("%s: %q,\n%v; want\n%s", k.name, got, err, k.fault)
		}
	}
}

func TestIdentifyIPv6(t *testing.T) {
	c, _ := goodConfig(t, "good-inline.toml")
	if got, err := identify(c, addresses("fe80::1%eth0", "fd00::2"), ""); got != "b" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// prefixed makes an interface that is up, with these addresses.
func prefixed(name string, prefixes ...string) hostInterface {
	i := hostInterface{Name: name, Up: true, Carrier: true}
	for _, p := range prefixes {
		i.Addresses = append(i.Addresses, netip.MustParsePrefix(p))
	}
	return i
}

func TestCheckHost(t *testing.T) {
	lo := prefixed("lo", "127.0.0.1/8")
	eth0, eth1 := prefixed("eth0", "192.168.10.11/24", "fe80::1/64"), prefixed("eth1", "10.0.0.11/24")
	down, dark := eth1, eth1
	down.Up, dark.Carrier = false, false
	for _, k := range []struct {
		name, node string
		host       []hostInterface
		want       []string
	}{
		{"all well", "alice", []hostInterface{lo, eth0, eth1}, nil},
		{"no such node", "dave", nil, []string{`f: error: the configuration has no node "dave"`}},
		{"interface missing", "alice", []hostInterface{lo, eth0, prefixed("eth10", "10.0.0.11/24")}, []string{
			`f:14:13: error: [[link]] repl interface: this host has no "eth1"; expected "lo", "eth0" or "eth10"`, `    hint: did you mean "eth10"?`}},
		{"down", "alice", []hostInterface{lo, eth0, down}, []string{
			`f:14:13: warning: [[link]] repl interface "eth1" is down; expected it up`, "    hint: `ip link set eth1 up`"}},
		{"no carrier", "alice", []hostInterface{lo, eth0, dark}, []string{
			`f:14:13: warning: [[link]] repl interface "eth1" has no carrier; expected a link`, `    hint: is the cable plugged in?`}},
		{"address elsewhere", "alice", []hostInterface{lo, eth0, prefixed("eth1"), prefixed("eth2", "10.0.0.11/24")}, []string{
			`f:18:43: error: [[node]] alice address "10.0.0.11" is not configured on eth1; expected an address on eth1, which has none`,
			`    hint: it is on eth2: is that the interface of this link?`}},
		{"another address", "alice", []hostInterface{lo, prefixed("eth0", "192.168.10.1/24", "192.168.10.2/24"), eth1}, []string{
			`f:18:19: error: [[node]] alice address "192.168.10.11" is not configured on eth0; expected 192.168.10.1 or 192.168.10.2`}},
		{"peers out of reach", "alice", []hostInterface{lo, eth0, prefixed("eth1", "10.0.0.11/32")}, []string{
			`f:22:43: warning: [[node]] bob address "10.0.0.12" is outside the network 10.0.0.11/32 of eth1; expected one in it`,
			`    hint: heartbeats leave through this interface alone: without a router there nothing arrives`}},
		{"address of the group outside", "alice", []hostInterface{lo, prefixed("eth0", "192.168.10.11/28", "172.16.0.1/16", "fe80::1/64"), eth1}, []string{
			`f:35:11: warning: [[group.resource]] web/vip address "192.168.10.100" is outside the networks of eth0; expected an address in 192.168.10.0/28 or 172.16.0.0/16`,
			`    hint: hosts of the network will not ask for it by ARP or neighbour discovery; it needs a route to this node`}},
		{"a witness runs nothing", "carol", []hostInterface{prefixed("eth0", "192.168.10.13/28")}, nil},
	} {
		t.Run(k.name, func(t *testing.T) {
			c, text := goodConfig(t, "good-three.toml")
			want := strings.Join(append(k.want, ""), "\n")
			if got := renderProblems("f", checkHost(c, text, k.node, k.host)); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			for _, p := range checkHost(c, nil, k.node, k.host) {
				if p.Line != 0 || p.Col != 0 {
					t.Errorf("a place without a text: %+v", p)
				}
			}
		})
	}
}

func TestCheckHostPrefix(t *testing.T) {
	c, text := goodConfig(t, "good-twins.toml")
	host := []hostInterface{prefixed("eth0", "192.168.10.11/24"), prefixed("eth1", "10.0.0.11/24")}
	got := renderProblems("f", checkHost(c, text, "alice", host))
	want := `f:42:11: warning: [[group.resource]] first/vip-3 address "fd00::100/64" is outside the networks of eth0; expected an interface with an IPv6 network
    hint: its prefix makes a network of its own here; neighbours without an address in that will not reach it
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
