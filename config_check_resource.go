// Do the resources fit together, in their group and over the whole cluster? The second half of config_check.go.

package main

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
)

// resourceUse is what may be claimed only once in a cluster.
type resourceUse struct {
	addresses, devices, directories, drbd, servers map[string]string
}

func (c *checker) resources() {
	use := resourceUse{map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}}
	for i := range c.cfg.Groups {
		g := &c.cfg.Groups[i]
		names := map[string]string{}
		for j := range g.Resources {
			r, at := &g.Resources[j], resourcePath(i, j)
			label := "[[group.resource]] " + strings.TrimPrefix(c.groupLabel(i), "[[group]] ") + "/" + r.Name
			if c.src.has(pathKey(at, "name")) {
				c.once(names, r.Name, pathKey(at, "name"), fmt.Sprintf("%s: the resource name %q", c.groupLabel(i), r.Name))
			}
			switch r.Type {
			case "vip":
				c.vip(r, at, label, use.addresses)
			case "httpd":
				c.httpd(g, r, at, label, use.servers)
			case "systemd":
				if r.Unit != "" {
					c.once(use.servers, "unit "+r.Unit, pathKey(at, "unit"), fmt.Sprintf("%s unit %q", label, r.Unit))
				}
			case "filesystem":
				c.filesystem(i, j, at, label, use)
			case "drbd":
				c.once(use.drbd, r.Resource, pathKey(at, "resource"), fmt.Sprintf("%s resource %q", label, r.Resource))
			}
			c.pace(g, r, at, label)
		}
	}
}

// pace warns of a failcount that is forgotten before the next look: the threshold would never be reached.
func (c *checker) pace(g *GroupConfig, r *ResourceConfig, at, label string) {
	if g.FailureTimeout > 0 && g.MigrationThreshold > 1 && r.Monitor.Interval >= g.FailureTimeout {
		c.warn(pathKey(at, "monitor"), fmt.Sprintf("%s monitor.interval %q is not shorter than the group's failure_timeout %q", label,
			shortDuration(r.Monitor.Interval.D()), shortDuration(g.FailureTimeout.D())), "less", "failures would be forgotten before they add up")
	}
}

func (c *checker) vip(r *ResourceConfig, at, label string, used map[string]string) {
	here := pathKey(at, "address")
	if a := r.vipAddress(); a.IsValid() {
		c.once(used, a.String(), here, fmt.Sprintf("%s address %q", label, r.Address))
		for _, n := range c.cfg.Nodes {
			for _, na := range n.Address {
				if netip.MustParseAddr(na.Address) == a {
					c.onValue(here, fmt.Sprintf("%s address %q is that of node %s on link %s", label, r.Address, n.Name, na.Link),
						"an address that no host has by itself", "")
				}
			}
		}
		if a.IsLoopback() {
			c.warn(here, fmt.Sprintf("%s address %q is a loopback address", label, r.Address), "one that other hosts reach", "")
		}
	}
	if r.ProbeWait > r.ProbeTimeout {
		c.onValue(pathKey(at, "probe_wait"), fmt.Sprintf("%s probe_wait %q is longer than probe_timeout %q", label,
			shortDuration(r.ProbeWait.D()), shortDuration(r.ProbeTimeout.D())), "at most as long", "")
	}
	if r.ProbeTimeout >= r.Start.Timeout {
		path := pathKey(at, "probe_timeout")
		if !c.src.has(path) {
			path = pathKey(pathKey(at, "start"), "timeout")
		}
		c.warn(path, fmt.Sprintf("%s start.timeout %q is not longer than probe_timeout %q", label,
			shortDuration(r.Start.Timeout.D()), shortDuration(r.ProbeTimeout.D())), "more", "a start would fail while it still waits for another host to let go of the address")
	}
}

// vipAddress is the address without its prefix length.
func (r *ResourceConfig) vipAddress() netip.Addr {
	address, _, _ := strings.Cut(r.Address, "/")
	a, _ := netip.ParseAddr(address) // refused ones are empty by now
	return a
}

func (c *checker) httpd(g *GroupConfig, r *ResourceConfig, at, label string, used map[string]string) {
	// Two with one unit, or with one configuration, would listen on the same port. Which unit a host has is not known
	// here: without one the configuration tells them apart.
	key := "config_file " + r.ConfigFile
	if r.Unit != "" && r.Unit != "none" {
		key = "unit " + r.Unit
	}
	path := pathKey(at, "type")
	if first, ok := used[key]; ok {
		c.onValue(path, fmt.Sprintf("%s is the same web server as the one in line %d", label, c.lineOf(first)), "another unit or another config_file",
			"two of one server cannot listen on the same port; one can serve several addresses")
	} else {
		used[key] = path
	}
	if !c.faulty[pathKey(at, "status_url")] {
		c.statusURL(g, r, at, label)
	}
	if r.Unit != "" && r.Unit != "none" {
		for _, k := range []string{"program", "environment"} {
			if c.src.has(pathKey(at, k)) {
				c.warn(pathKey(at, k), fmt.Sprintf("%s %s has no effect beside unit %q", label, k, r.Unit), "unit = \"none\"", "the unit says how it is started")
			}
		}
	}
}

func (c *checker) statusURL(g *GroupConfig, r *ResourceConfig, at, label string) {
	here := pathKey(at, "status_url")
	u, err := url.Parse(r.StatusURL)
	if err != nil {
		return
	}
	if !u.Query().Has("auto") {
		c.warn(here, fmt.Sprintf("%s status_url %s lacks \"?auto\"", label, abbreviate(r.StatusURL)), "the page for machines", "add ?auto")
	}
	local := u.Hostname() == "localhost"
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		local = a.IsLoopback()
		for i := range g.Resources {
			local = local || g.Resources[i].Type == "vip" && g.Resources[i].vipAddress() == a
		}
	}
	if !local {
		c.warn(here, fmt.Sprintf("%s status_url %s asks another host", label, abbreviate(r.StatusURL)), "127.0.0.1, [::1] or an address of this group",
			"the monitor must see this node's own server, without a name server")
	}
	if r.TLSInsecure && u.Scheme == "http" {
		c.warn(pathKey(at, "tls_insecure"), fmt.Sprintf("%s tls_insecure has no effect on http", label), "an https status_url", "")
	}
}

// deviceless file systems name something else than a block device of this host, and may be mounted many times.
func deviceless(fstype string) bool {
	switch fstype {
	case "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse", "tmpfs", "overlay":
		return true
	}
	return strings.HasPrefix(fstype, "fuse.")
}

func (c *checker) filesystem(gi, ri int, at, label string, use resourceUse) {
	g := &c.cfg.Groups[gi]
	r := &g.Resources[ri]
	c.once(use.directories, r.Directory, pathKey(at, "directory"), fmt.Sprintf("%s directory %q", label, r.Directory))
	if r.Device != "" && r.FSType != "" && !deviceless(r.FSType) {
		c.device(r, pathKey(at, "device"), label)
		c.once(use.devices, r.Device, pathKey(at, "device"), fmt.Sprintf("%s device %q", label, r.Device))
	}
	if r.FSType == "tmpfs" {
		c.warn(pathKey(at, "fstype"), fmt.Sprintf("%s fstype \"tmpfs\" loses its content with each stop", label), "a file system on a device", "")
	}
	drbdHere := false
	for k := range g.Resources {
		o := &g.Resources[k]
		if o.Type == "drbd" && mayBeOf(r.Device, o.Resource) {
			drbdHere = true
			if k > ri && strings.HasPrefix(r.Device, "/dev/drbd") {
				c.warn(at, fmt.Sprintf("%s comes before %s/%s", label, g.Name, o.Name), "the file system after its DRBD device",
					"resources start in the order of the file, and a DRBD device opens when it is promoted")
				break
			}
		}
		if k > ri && o.Type == "filesystem" && r.Directory != "" && o.Directory != "" && strings.HasPrefix(r.Directory, path.Clean(o.Directory)+"/") {
			c.warn(at, fmt.Sprintf("%s comes before %s/%s, which hides its directory %q", label, g.Name, o.Name, r.Directory),
				"the outer directory first", "resources start in the order of the file")
		}
	}
	if !drbdHere && strings.HasPrefix(r.Device, "/dev/drbd") && len(g.With) == 0 && !c.anyFaulty(groupPath(gi)) {
		c.warn(pathKey(at, "device"), fmt.Sprintf("%s device %q: no resource of type \"drbd\" in this group promotes it", label, r.Device),
			"a [[group.resource]] of type \"drbd\" before it", "")
	}
}

// device wants a path or one of the names that mount(8) resolves.
func (c *checker) device(r *ResourceConfig, at, label string) {
	if strings.HasPrefix(r.Device, "/") {
		return
	}
	tags := []string{"UUID", "LABEL", "PARTUUID", "PARTLABEL"}
	tag, value, found := strings.Cut(r.Device, "=")
	if found && value != "" && slices.Contains(tags, tag) {
		return
	}
	hint := ""
	if near := nearest(tag, tags); found && near != "" && value != "" {
		hint = fmt.Sprintf("did you mean %q?", near+"="+value)
	}
	c.onValue(at, fmt.Sprintf("%s device %s is neither a path nor a tag", label, abbreviate(r.Device)),
		"a path such as \"/dev/drbd0\", or UUID=…, LABEL=…, PARTUUID=… or PARTLABEL=…", hint)
}
