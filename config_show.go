// What is in force? The effective configuration as a file that reads back as the same configuration. It decides nothing:
// the keys and their order are those of config_schema.go.

package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// configShow writes every key that has a value, defaults included.
func configShow(c *Config) string {
	var b strings.Builder
	writeSection(&b, "[cluster]", "", &clusterSpec, func(key string) any { return c.Cluster.shown(key) })
	writeSection(&b, "\n[heartbeat]", "", &heartbeatSpec, func(key string) any { return c.Heartbeat.shown(key) })
	writeSection(&b, "\n[watchdog]", "", &watchdogSpec, func(key string) any { return c.Watchdog.shown(key) })
	for i := range c.Links {
		writeSection(&b, "\n[[link]]", "", &linkSpec, func(key string) any { return c.Links[i].shown(key) })
	}
	for i := range c.Nodes {
		writeSection(&b, "\n[[node]]", "", &nodeSpec, func(key string) any { return c.Nodes[i].shown(key) })
	}
	for i := range c.Pings {
		writeSection(&b, "\n[[ping]]", "", &pingSpec, func(key string) any { return c.Pings[i].shown(key) })
	}
	for i := range c.Fences {
		writeSection(&b, "\n[[fence]]", "", &fenceSpec, func(key string) any { return c.Fences[i].shown(key) })
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		writeSection(&b, "\n[[group]]", "", &groupSpec, func(key string) any { return g.shown(key) })
		for j := range g.Resources {
			r := &g.Resources[j]
			spec := pickResource(map[string]any{"type": r.Type})
			writeSection(&b, "\n  [[group.resource]]", "  ", spec, func(key string) any { return r.shown(key) })
		}
	}
	return b.String()
}

// writeSection writes the keys of a section in the order of its spec. A nil value is not written.
func writeSection(b *strings.Builder, header, indent string, spec *tableSpec, shown func(key string) any) {
	b.WriteString(header + "\n")
	width := 0
	for _, k := range spec.keys {
		if shown(k.key) != nil {
			width = max(width, len(k.key))
		}
	}
	for _, k := range spec.keys {
		if v := shown(k.key); v != nil {
			fmt.Fprintf(b, "%s%-*s = %s\n", indent, width, k.key, tomlValue(v))
		}
	}
}

// notEmpty turns what is not set into nil.
func notEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func notNone(list []string) any {
	if len(list) == 0 {
		return nil
	}
	return list
}

func (c *ClusterConfig) shown(key string) any {
	switch key {
	case "name":
		return c.Name
	case "key_file":
		return c.KeyFile
	case "two_node":
		return notEmpty(c.TwoNode)
	case "wait_for_all":
		return c.WaitForAll
	case "needs_ping":
		return notNone(c.NeedsPing)
	case "no_quorum":
		return c.NoQuorum
	case "log_level":
		return c.LogLevel
	}
	panic("no key " + key) // the schema and this switch are one program's
}

func (h *HeartbeatConfig) shown(key string) any {
	switch key {
	case "interval":
		return h.Interval
	case "deadtime":
		return h.Deadtime
	case "port":
		return h.Port
	}
	panic("no key " + key)
}

func (w *WatchdogConfig) shown(key string) any {
	switch key {
	case "device":
		return w.Device
	case "timeout":
		return w.Timeout
	}
	panic("no key " + key)
}

func (l *LinkConfig) shown(key string) any {
	switch key {
	case "name":
		return l.Name
	case "interface":
		return l.Interface
	case "multicast":
		return notEmpty(l.Multicast)
	}
	panic("no key " + key)
}

func (n *NodeConfig) shown(key string) any {
	switch key {
	case "name":
		return n.Name
	case "role":
		return n.Role
	case "address":
		return n.Address
	}
	panic("no key " + key)
}

func (p *PingConfig) shown(key string) any {
	switch key {
	case "name":
		return p.Name
	case "address":
		return notEmpty(p.Address)
	case "tcp":
		return notEmpty(p.TCP)
	case "interval":
		return p.Interval
	case "timeout":
		return p.Timeout
	case "failures":
		return p.Failures
	}
	panic("no key " + key)
}

func (g *GroupConfig) shown(key string) any {
	switch key {
	case "name":
		return g.Name
	case "prefer":
		return notNone(g.Prefer)
	case "failback":
		return g.Failback
	case "migration_threshold":
		return g.MigrationThreshold
	case "failure_timeout":
		return g.FailureTimeout
	case "after":
		return notNone(g.After)
	case "with":
		return notNone(g.With)
	case "apart":
		return notNone(g.Apart)
	case "needs":
		return notNone(g.Needs)
	case "resource":
		return nil // sections of their own
	}
	panic("no key " + key)
}

func (r *ResourceConfig) shown(key string) any {
	texts := map[string]string{
		"type": r.Type, "name": r.Name, "on_fail": r.OnFail, "state": r.State, "address": r.Address, "interface": r.Interface,
		"config_file": r.ConfigFile, "status_url": r.StatusURL, "unit": r.Unit, "program": r.Program, "device": r.Device,
		"directory": r.Directory, "fstype": r.FSType, "options": r.Options, "resource": r.Resource,
	}
	if v, ok := texts[key]; ok {
		return notEmpty(v)
	}
	switch key {
	case "probe":
		if r.Probe == "" {
			return "mounted"
		}
		return r.Probe
	case "probe_wait":
		return r.ProbeWait
	case "probe_timeout":
		return r.ProbeTimeout
	case "tls_insecure":
		return r.TLSInsecure
	case "environment":
		return notNone(r.Environment)
	case "expect":
		if r.Expect == nil {
			return nil
		}
		return *r.Expect
	case "start":
		return r.Start
	case "stop":
		return r.Stop
	case "monitor":
		return r.Monitor
	}
	panic("no key " + key)
}

// tomlValue writes one value as TOML.
func tomlValue(v any) string {
	switch v := v.(type) {
	case string:
		return tomlString(v)
	case Duration:
		return tomlString(shortDuration(time.Duration(v)))
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = tomlString(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case []Option:
		pairs := make([]string, len(v))
		for i, o := range v {
			pairs[i] = o.Name + " = " + tomlString(o.Value)
		}
		return "{ " + strings.Join(pairs, ", ") + " }"
	case []LinkAddress:
		pairs := make([]string, len(v))
		for i, a := range v {
			pairs[i] = a.Link + " = " + tomlString(a.Address)
		}
		return "{ " + strings.Join(pairs, ", ") + " }"
	case OpConfig:
		var pairs []string
		if v.Command != "" {
			pairs = append(pairs, "command = "+tomlString(v.Command))
		}
		if v.Interval != 0 {
			pairs = append(pairs, "interval = "+tomlValue(v.Interval))
		}
		return "{ " + strings.Join(append(pairs, "timeout = "+tomlValue(v.Timeout)), ", ") + " }"
	case Expect:
		pairs := []string{"url = " + tomlString(v.URL)}
		if v.Contains != "" {
			pairs = append(pairs, "contains = "+tomlString(v.Contains))
		}
		return "{ " + strings.Join(append(pairs, fmt.Sprintf("status = %d", v.Status)), ", ") + " }"
	}
	return fmt.Sprint(v) // bool and int look alike in Go and TOML
}

// tomlString is a basic string. Go's own quoting has escapes that TOML lacks.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x20 || r == 0x7f || r == utf8.RuneError:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
