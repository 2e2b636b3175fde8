// Which keys does each type of resource have, and with which defaults? Timeouts are those that the resource agents of
// the field advertise (resource-agents' IPaddr2, apache, Filesystem and anything; DRBD's own agent), so that whoever
// comes from there finds the same patience. It checks single values; config_check.go sees them together.

package main

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"
)

type resourceType struct {
	name string
	spec tableSpec
}

// pace is the default of a type's operations, as written in the file.
type pace struct {
	start, stop, interval, timeout string
}

var (
	// An address is read from the kernel by netlink: no process is forked, so a look each second costs nothing. The
	// watcher sees a removed address at once anyway.
	vipPace = pace{start: "20s", stop: "20s", interval: "1s", timeout: "20s"}
	// apache: a graceful stop lets requests end, which takes longer than a start.
	httpdPace = pace{start: "40s", stop: "60s", interval: "10s", timeout: "20s"}
	// Filesystem: a start may replay a journal, a stop writes back what is dirty.
	filesystemPace = pace{start: "60s", stop: "60s", interval: "20s", timeout: "40s"}
	// DRBD's agent allows 90 seconds for promote and demote, which is what start and stop are here.
	drbdPace = pace{start: "90s", stop: "90s", interval: "10s", timeout: "20s"}
	// systemd gives a unit 90 seconds for each by default, and says what went wrong when they are over: it is to speak first.
	// A look is one call to systemd; what ends is seen at once anyway.
	systemdPace = pace{start: "100s", stop: "100s", interval: "10s", timeout: "20s"}
	execPace    = pace{start: "20s", stop: "20s", interval: "10s", timeout: "20s"}
)

var resourceTypes = []resourceType{
	{"drbd", resourceSpec("drbd", drbdPace, false,
		keySpec{key: "resource", required: true, check: checkDRBDName},
	)},
	{"filesystem", resourceSpec("filesystem", filesystemPace, false,
		keySpec{key: "device", required: true, check: checkWord},
		keySpec{key: "directory", required: true, check: checkDirectory},
		keySpec{key: "fstype", required: true, check: checkWord},
		keySpec{key: "options", empty: true, check: checkWord},
		keySpec{key: "probe", def: "mounted", check: checkEnum(filesystemRead)},
	)},
	{"vip", resourceSpec("vip", vipPace, false,
		keySpec{key: "address", required: true, check: checkVIP},
		keySpec{key: "interface", required: true, check: checkInterface},
		keySpec{key: "probe_wait", kind: kindDuration, def: "10ms", min: int64(time.Millisecond), max: int64(10 * time.Second)},
		keySpec{key: "probe_timeout", kind: kindDuration, def: "10s", min: int64(time.Millisecond), max: int64(time.Hour)},
	)},
	{"httpd", resourceSpec("httpd", httpdPace, false,
		keySpec{key: "config_file", check: checkAbsolute},
		keySpec{key: "status_url", def: "http://127.0.0.1/server-status?auto", check: checkURL},
		keySpec{key: "tls_insecure", kind: kindBool, def: "false"},
		keySpec{key: "unit", check: checkUnit},
		keySpec{key: "program", check: checkAbsolute},
		keySpec{key: "environment", kind: kindStrings, check: checkEnvironment},
		keySpec{key: "expect", kind: kindTable, table: &expectSpec},
	)},
	{"systemd", resourceSpec("systemd", systemdPace, false,
		keySpec{key: "unit", required: true, check: checkOwnUnit},
	)},
	{"exec", resourceSpec("exec", execPace, true,
		keySpec{key: "environment", kind: kindStrings, check: checkEnvironment},
	)},
}

var expectSpec = tableSpec{"expect", []keySpec{
	{key: "url", required: true, check: checkURL},
	{key: "contains", empty: true},
	{key: "status", kind: kindInt, def: "200", min: 100, max: 599},
}}

// resourceSpec puts a type's own keys between those that all types have.
func resourceSpec(name string, p pace, commands bool, own ...keySpec) tableSpec {
	keys := []keySpec{
		{key: "type", required: true, check: checkEnum(resourceTypeNames())},
		{key: "name", check: checkName},
	}
	keys = append(keys, own...)
	keys = append(keys,
		keySpec{key: "on_fail", def: "restart", check: checkEnum(onFailModes)},
		keySpec{key: "state", check: checkEnum(states)},
		operation("start", p.start, "", commands),
		operation("stop", p.stop, "", commands),
		operation("monitor", p.timeout, p.interval, commands))
	return tableSpec{fmt.Sprintf("[[group.resource]] of type %q", name), keys}
}

func operation(op, timeout, interval string, command bool) keySpec {
	var keys []keySpec
	if command {
		keys = append(keys, keySpec{key: "command", required: true})
	}
	if interval != "" {
		keys = append(keys, keySpec{key: "interval", kind: kindDuration, def: interval,
			min: int64(monitorMin), max: int64(timeoutMax)})
	}
	keys = append(keys, keySpec{key: "timeout", kind: kindDuration, def: timeout,
		min: int64(timeoutMin), max: int64(timeoutMax)})
	return keySpec{key: op, kind: kindTable, required: command, table: &tableSpec{op, keys}}
}

// resourceTypeNames is written out, since resourceTypes is built with it.
func resourceTypeNames() []string {
	return []string{"drbd", "filesystem", "vip", "httpd", "systemd", "exec"}
}

// anyResourceSpec has the keys of all types, for a resource whose type is missing or wrong: then only a key that no
// type has is told.
var anyResourceSpec = func() tableSpec {
	spec := tableSpec{label: "[[group.resource]]"}
	spec.keys = append(spec.keys, resourceSpec("", pace{}, false).keys[:2]...)
	for _, t := range resourceTypes {
		for _, k := range t.spec.keys {
			if spec.find(k.key) == nil {
				spec.keys = append(spec.keys, keySpec{key: k.key, kind: kindAny})
			}
		}
	}
	return spec
}()

func pickResource(m map[string]any) *tableSpec {
	if name, ok := m["type"].(string); ok {
		for i := range resourceTypes {
			if resourceTypes[i].name == name {
				return &resourceTypes[i].spec
			}
		}
	}
	return &anyResourceSpec
}

// flaw says what is wrong with one value.
type flaw struct {
	what, want, hint string
	shown            string // instead of the value, where that holds a secret
	bare             string // a duration's number, where its unit is missing
}

func newFlaw(what, want, hint string) *flaw { return &flaw{what: what, want: want, hint: hint} }

const nameLengthMax = 32

func checkName(v string) *flaw {
	good := len(v) <= nameLengthMax && v != "" && v[0] >= 'a' && v[0] <= 'z'
	for i := 0; i < len(v) && good; i++ {
		c := v[i]
		good = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if good {
		return nil
	}
	f := newFlaw("is no name", fmt.Sprintf("a small letter and then small letters, digits or \"-\", at most %d in all", nameLengthMax), "")
	lower := strings.NewReplacer("_", "-", ".", "-", " ", "-").Replace(strings.ToLower(v))
	if lower != v && checkName(lower) == nil {
		f.hint = fmt.Sprintf("did you mean %q?", lower)
	}
	return f
}

func checkEnum(values []string) func(string) *flaw {
	return func(v string) *flaw {
		for _, e := range values {
			if v == e {
				return nil
			}
		}
		return newFlaw("is none of its values", oneOf(values), didYouMean(v, values))
	}
}

// checkTCP wants a literal address with a port.
func checkTCP(v string) *flaw {
	const want = "an address and a port such as \"192.168.10.5:443\" or \"[fd00::5]:443\""
	a, err := netip.ParseAddrPort(v)
	if err != nil {
		f := newFlaw("is no address with a port", want, "")
		if _, err := netip.ParseAddr(v); err == nil {
			f.what, f.hint = "has no port", "for an echo by ICMP write address instead of tcp"
		} else if strings.ContainsAny(v, "ghijklmnopqrstuvwxyz") {
			f.hint = "names are not looked up, so that the cluster does not depend on a name server"
		}
		return f
	}
	if a.Port() == 0 {
		return newFlaw("has port 0", want, "")
	}
	return checkHostAddress(a.Addr().String(), want)
}

func checkAbsolute(v string) *flaw {
	if strings.HasPrefix(v, "/") {
		return nil
	}
	return newFlaw("is no absolute path", "a path that begins with \"/\"", "")
}

func checkWatchdog(v string) *flaw {
	if v == watchdogNone || v == watchdogReboot || strings.HasPrefix(v, "/") {
		return nil
	}
	return newFlaw("is no watchdog", fmt.Sprintf("a device such as \"/dev/watchdog\", %q or %q", watchdogReboot, watchdogNone),
		didYouMean(v, []string{watchdogReboot, watchdogNone}))
}

// checkInterface follows the kernel's dev_valid_name.
func checkInterface(v string) *flaw {
	const longest = 15 // IFNAMSIZ less the final zero
	want := fmt.Sprintf("the name of a network interface, at most %d bytes", longest)
	switch {
	case len(v) > longest:
		return newFlaw(fmt.Sprintf("has %d bytes", len(v)), want, "")
	case v == "." || v == ".." || strings.ContainsAny(v, "/ \t\n\v\f\r"):
		return newFlaw("is no name of an interface", want, "`ip link` lists them")
	case strings.Contains(v, ":"):
		return newFlaw("is an alias", want, fmt.Sprintf("aliases are not needed: write %q", v[:strings.Index(v, ":")]))
	}
	return nil
}

const literal = "an address such as \"192.168.10.11\" or \"fd00::11\""

// checkNodeAddress wants what one host can have and others can reach.
func checkNodeAddress(v string) *flaw { return checkHostAddress(v, literal) }

func checkHostAddress(v, want string) *flaw {
	a, err := netip.ParseAddr(v)
	if err != nil {
		f := newFlaw("is no address", want, "")
		if _, err := netip.ParsePrefix(v); err == nil {
			f.what, f.hint = "has a prefix length", fmt.Sprintf("did you mean %q?", v[:strings.Index(v, "/")])
		} else if _, err := netip.ParseAddrPort(v); err == nil {
			f.what, f.hint = "has a port", "the port of all nodes is [heartbeat] port"
		} else if strings.ContainsAny(v, "ghijklmnopqrstuvwxyz") {
			f.hint = "names are not looked up, so that the cluster does not depend on a name server"
		}
		return f
	}
	switch {
	case a.Is4In6():
		return newFlaw("is an IPv4 address in IPv6 form", want, fmt.Sprintf("did you mean %q?", a.Unmap()))
	case a.IsUnspecified():
		return newFlaw("means any address", want, "")
	case a.IsMulticast():
		return newFlaw("is a multicast group", want, "")
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return newFlaw("is the broadcast address", want, "")
	case a.Is6() && a.IsLinkLocalUnicast():
		return newFlaw("is link-local", want, "a link-local address means nothing without its interface; give the interface one of fd00::/8")
	case a.Zone() != "":
		return newFlaw("has a zone", want, fmt.Sprintf("did you mean %q?", a.WithZone("")))
	}
	return nil
}

func checkMulticast(v string) *flaw {
	const want = "a multicast group such as \"239.192.6.94\" or \"ff02::694\""
	a, err := netip.ParseAddr(v)
	switch {
	case err != nil:
		return newFlaw("is no address", want, "")
	case !a.IsMulticast():
		return newFlaw("is no multicast group", want, "leave multicast out to send to each node's own address")
	case a.Zone() != "":
		return newFlaw("has a zone", want, fmt.Sprintf("did you mean %q?", a.WithZone("")))
	case a.IsInterfaceLocalMulticast():
		return newFlaw("never leaves the host", want, "")
	}
	return nil
}

// checkVIP takes an address with or without a prefix length.
func checkVIP(v string) *flaw {
	const want = "an address such as \"192.168.10.100\" or \"fd00::100/64\""
	p, err := netip.ParsePrefix(v)
	if err != nil {
		address, bits, found := strings.Cut(v, "/")
		if _, e := netip.ParseAddr(address); found && e == nil {
			return newFlaw(fmt.Sprintf("has no prefix length but %q", bits), "/1 to /32 for IPv4, /1 to /128 for IPv6", "")
		}
		return checkHostAddress(v, want)
	}
	if f := checkHostAddress(p.Addr().String(), want); f != nil {
		return f
	}
	switch {
	case p.Bits() == 0:
		return newFlaw("has a prefix length of 0", "/1 to /32 for IPv4, /1 to /128 for IPv6", "leave it out for the address alone")
	case p.Addr().BitLen()-p.Bits() < 2:
		return nil // one host, or a pair of which both are hosts (RFC 3021, RFC 6164)
	case p.Masked().Addr() == p.Addr():
		return newFlaw("is the network itself", "the address of a host in it", "")
	case p.Addr().Is4() && broadcast(p) == p.Addr():
		return newFlaw("is the network's broadcast address", "the address of a host in it", "")
	}
	return nil
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

func checkURL(v string) *flaw {
	const want = "a URL such as \"http://127.0.0.1/server-status?auto\""
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return newFlaw("is no URL", want, "")
	case u.Scheme != "http" && u.Scheme != "https":
		f := newFlaw("is neither http nor https", want, "")
		if !strings.Contains(v, "://") {
			f.hint = fmt.Sprintf("did you mean %q?", "http://"+v)
		}
		return f
	case u.Hostname() == "":
		return newFlaw("names no host", want, "")
	case u.User != nil:
		return &flaw{what: "holds a password", want: want, shown: u.Redacted(),
			hint: "this file is copied to all nodes; serve the page to the host itself without one"}
	case strings.ContainsAny(v, " \t"):
		return newFlaw("has a space", want, "")
	}
	return nil
}

// checkUnit is for httpd, which can do without one.
func checkUnit(v string) *flaw {
	if v == "none" {
		return nil
	}
	return checkService(v, "a unit such as \"apache2.service\", or \"none\" to run it without systemd")
}

func checkOwnUnit(v string) *flaw { return checkService(v, "a unit such as \"mariadb.service\"") }

func checkService(v, want string) *flaw {
	stem, isService := strings.CutSuffix(v, ".service")
	var f *flaw
	switch {
	case strings.ContainsAny(v, "/ \t") || !isService || stem == "":
		f = newFlaw("is no service unit", want, "")
		if !strings.ContainsAny(v, "/ \t.") && v != "" {
			f.hint = fmt.Sprintf("did you mean %q?", v+".service")
		}
	case strings.HasSuffix(stem, "@"):
		f = newFlaw("is a template", want, fmt.Sprintf("name one of its instances, such as %q", stem+"1.service"))
	case stem == "ha":
		f = newFlaw("is hactl itself", want, "")
	}
	return f
}

func checkEnvironment(v string) *flaw {
	name, _, found := strings.Cut(v, "=")
	good := found && name != "" && !strings.ContainsAny(name, " \t-.") && (name[0] < '0' || name[0] > '9')
	if good {
		return nil
	}
	return newFlaw("sets no variable", "\"NAME=value\"", "")
}

func checkWord(v string) *flaw {
	if strings.ContainsAny(v, " \t\r\n") {
		return newFlaw("has a space", "a value without white space", "")
	}
	return nil
}

func checkDRBDName(v string) *flaw {
	for _, c := range v {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-", c)) {
			return newFlaw("is no name of a DRBD resource", "letters, digits, \"_\", \".\" and \"-\", as in its .res file", "")
		}
	}
	if v == "all" || strings.HasPrefix(v, "-") {
		return newFlaw("means something else to drbdadm", "the name of one resource, as in its .res file", "")
	}
	return nil
}

func checkDirectory(v string) *flaw {
	if f := checkAbsolute(v); f != nil {
		return f
	}
	switch {
	case path.Clean(v) != v:
		return newFlaw("is not in its shortest form", fmt.Sprintf("%q", path.Clean(v)), "")
	case v == "/":
		return newFlaw("is the root of the host", "a mount point of its own", "")
	}
	return nil
}

// keyOfType says to which types a key belongs, for a hint.
func keyOfType(key string) []string {
	var types []string
	for _, t := range resourceTypes {
		if t.spec.find(key) != nil {
			types = append(types, fmt.Sprintf("%q", t.name))
		}
	}
	return types
}
