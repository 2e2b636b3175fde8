// Which fence devices does the file have, and can they work? The keys of [[fence]], what is wrong with each and with all
// together. What the agents on this host say of their options is fence_metadata.go's.

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// agentExec is the agent whose calls are the operator's own commands.
const agentExec = "exec"

// optionPassword is what password_file stands for.
const optionPassword = "password"

var fenceSpec = tableSpec{"[[fence]]", []keySpec{
	{key: "name", required: true, check: checkName},
	{key: "agent", required: true, check: checkAgent},
	{key: "node", check: checkName},
	{key: "plugs", kind: kindOptions, pair: checkPlug},
	{key: "options", kind: kindOptions, pair: checkOption},
	{key: "password_file", check: checkPasswordFile},
	{key: "secret_files", kind: kindOptions, pair: checkSecretFile},
	{key: "off"},
	{key: "status"},
	{key: "level", kind: kindInt, def: "1", min: 1, max: 9},
	{key: "timeout", kind: kindDuration, def: "30s", min: int64(100 * time.Millisecond), max: int64(10 * time.Minute)},
	{key: "retries", kind: kindInt, def: "2", min: 0, max: 10},
	{key: "delay", kind: kindDuration, def: "0s", min: 0, max: int64(10 * time.Minute)},
	{key: "monitor", kind: kindTable, table: &tableSpec{"monitor", []keySpec{
		{key: "command"},
		{key: "interval", kind: kindDuration, def: "1m", min: int64(time.Second), max: int64(timeoutMax)},
		{key: "timeout", kind: kindDuration, def: "20s", min: int64(100 * time.Millisecond), max: int64(10 * time.Minute)},
	}}},
}}

func buildFence(s *section) FenceConfig {
	pairs := func(key string) []Option { v, _ := s.values[key].([]Option); return v }
	m := s.table("monitor")
	return FenceConfig{
		Name:         s.text("name"),
		Agent:        s.text("agent"),
		Node:         s.text("node"),
		Plugs:        pairs("plugs"),
		Options:      pairs("options"),
		Secrets:      pairs("secret_files"),
		PasswordFile: s.text("password_file"),
		Off:          s.text("off"),
		Status:       s.text("status"),
		Level:        s.number("level"),
		Timeout:      s.duration("timeout"),
		Retries:      s.number("retries"),
		Delay:        s.duration("delay"),
		Monitor:      OpConfig{m.text("command"), m.duration("interval"), m.duration("timeout")},
	}
}

func (f *FenceConfig) shown(key string) any {
	switch key {
	case "name":
		return f.Name
	case "agent":
		return f.Agent
	case "node":
		return notEmpty(f.Node)
	case "plugs":
		return notPaired(f.Plugs)
	case "options":
		return notPaired(f.Options)
	case "password_file":
		return notEmpty(f.PasswordFile)
	case "secret_files":
		return notPaired(f.Secrets)
	case "off":
		return notEmpty(f.Off)
	case "status":
		return notEmpty(f.Status)
	case "level":
		return f.Level
	case "timeout":
		return f.Timeout
	case "retries":
		return f.Retries
	case "delay":
		return f.Delay
	case "monitor":
		return f.Monitor
	}
	panic("no key " + key)
}

func notPaired(pairs []Option) any {
	if len(pairs) == 0 {
		return nil
	}
	return pairs
}

// options reads { name = value, … } into pairs that are sorted by name. A value is never shown in a message: it may be a
// secret that should not be here.
func (w *walker) options(s *section, k *keySpec, path string, raw any) (any, bool) {
	m, ok := raw.(map[string]any)
	if !ok {
		w.onValue(path, s.where(k.key)+" is no table", fmt.Sprintf("a table such as %s = { NAME = \"…\" }", k.key), "")
		return nil, false
	}
	var out []Option
	for _, name := range sortedNames(m) {
		at, where := pathKey(path, name), s.where(k.key+"."+shownKey(name))
		text, ok := optionText(m[name])
		f := newFlaw("is neither a string nor a whole number nor true or false", "a value of one line", "")
		if ok {
			f = k.pair(name, text)
		}
		if f != nil {
			w.onValue(at, where+" "+f.what, f.want, f.hint)
			w.faulty[at] = true
			continue
		}
		out = append(out, Option{name, text})
	}
	return out, true
}

// optionText is a value as agents read it.
func optionText(raw any) (string, bool) {
	switch v := raw.(type) {
	case string:
		return v, !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f })
	case int64:
		return strconv.FormatInt(v, 10), true
	case bool:
		return map[bool]string{true: "1", false: "0"}[v], true
	}
	return "", false
}

func checkAgent(v string) *flaw {
	if v == agentExec || strings.HasPrefix(v, "/") || strings.HasPrefix(v, "fence_") && !strings.ContainsAny(v, "/ \t") {
		return nil
	}
	f := newFlaw("is no fence agent", "a name such as \"fence_ipmilan\", the path of a program, or \"exec\"", "")
	if !strings.ContainsAny(v, "/ \t") {
		f.hint = fmt.Sprintf("did you mean %q?", "fence_"+v)
	}
	return f
}

func checkPlug(node, plug string) *flaw {
	if f := checkName(node); f != nil {
		return newFlaw("names no node", "NODE = \"…\"", f.hint)
	}
	if plug == "" {
		return newFlaw("is empty", "what the device calls this node: the number of its outlet, the name of its virtual machine", "")
	}
	return nil
}

// checkOption refuses what hactl says itself, and secrets in clear: this file is copied to all nodes and kept for ever.
func checkOption(name, _ string) *flaw {
	lower := strings.ToLower(name)
	switch {
	case !bareKey(name):
		return newFlaw("is no name of an option", "letters, digits, \"_\" and \"-\"", "")
	case lower == "action" || lower == "option":
		return newFlaw("is said by hactl itself", "no such option", "")
	case secretName(lower):
		file := "password_file = \"/etc/ha.fence\""
		if lower != optionPassword && lower != "passwd" {
			file = fmt.Sprintf("secret_files = { %s = \"/etc/ha.fence\" }", name)
		}
		return newFlaw("would be a secret in clear, copied to all nodes and kept in the history", "it in a file", "put it into a file of mode 0600 on each node, and write "+file)
	}
	return nil
}

func secretName(lower string) bool {
	if strings.HasSuffix(lower, "_script") || strings.HasSuffix(lower, "_file") {
		return false // says where one is
	}
	for _, part := range []string{"passw", "secret", "passphrase", "token", "community"} {
		if strings.Contains(lower, part) {
			return true
		}
	}
	return false
}

func checkPasswordFile(path string) *flaw {
	f := checkSecretFile(optionPassword, path)
	if f != nil {
		f.shown = "…"
	}
	return f
}

func checkSecretFile(name, path string) *flaw {
	switch {
	case !bareKey(name):
		return newFlaw("is no name of an option", "letters, digits, \"_\" and \"-\"", "")
	case !strings.HasPrefix(path, "/"):
		return newFlaw("is no absolute path", "the file that the secret is in, such as \"/etc/ha.fence\"", "if this is the secret itself, put it into a file of mode 0600")
	}
	return nil
}

// fences checks the devices together.
func (c *checker) fences() {
	names := map[string]string{}
	for i := range c.cfg.Fences {
		f, at := &c.cfg.Fences[i], fencePath(i)
		label := elementName("[[fence]]", f.Name, i)
		c.once(names, f.Name, pathKey(at, "name"), fmt.Sprintf("[[fence]] name %q", f.Name))
		c.fenceTargets(f, at, label)
		if c.faulty[pathKey(at, "agent")] || f.Agent == "" {
			continue
		}
		c.fenceKeys(f, at, label)
	}
	if c.cfg.Cluster.TwoNode != "fence" || c.faulty["node"] || c.faulty["fence"] || c.anyFaulty("fence") {
		return
	}
	for i, n := range c.cfg.Nodes {
		if !n.witness() && n.Name != "" && len(c.cfg.fencesOf(n.Name)) == 0 {
			c.onKey(nodePath(i), fmt.Sprintf("[[node]] %s has no [[fence]], and two_node = \"fence\" needs one for each node", n.Name),
				fmt.Sprintf("a [[fence]] with node = %q", n.Name), "without it the other could never take over; \"manual\" needs no device")
		}
	}
}

func (c *checker) fenceTargets(f *FenceConfig, at, label string) {
	nodes, whole := c.nodeNames()
	node, plugs := pathKey(at, "node"), pathKey(at, "plugs")
	switch {
	case c.faulty[node] || c.faulty[plugs] || c.anyFaulty(plugs):
		return
	case f.Node != "" && len(f.Plugs) > 0:
		c.onKey(plugs, label+" has both node and plugs", "one of them", "node for a device of one node; plugs = { NODE = \"outlet\" } for a device of several")
		return
	case f.Node == "" && len(f.Plugs) == 0:
		c.onKey(at, label+" fences nobody", "node = \"…\", or plugs = { NODE = \"outlet\" }", "")
		return
	}
	seen := map[string]string{}
	for _, name := range f.targets() {
		here := node
		if f.Node == "" {
			here = pathKey(plugs, name)
			c.once(seen, f.plug(name), here, fmt.Sprintf("%s plug %q", label, f.plug(name)))
		}
		if n := c.cfg.node(name); n == nil && whole {
			c.onValue(here, fmt.Sprintf("%s: there is no node %q", label, name), oneOf(nodes), didYouMean(name, nodes))
		} else if n != nil && n.witness() {
			c.warn(here, fmt.Sprintf("%s fences the witness %s, which runs nothing", label, name), "nodes of role \"full\"", "")
		}
	}
}

// fenceKeys keeps what only exec has from the others, and the other way round.
func (c *checker) fenceKeys(f *FenceConfig, at, label string) {
	exec := []string{"off", "status"}
	agents := []string{"options", "password_file", "secret_files"}
	if f.Agent != agentExec {
		for _, key := range append(slices.Clone(exec), "monitor.command") {
			if path := at + "." + key; c.src.has(path) {
				c.onKey(path, fmt.Sprintf("%s %s is for agent = \"exec\"", label, key), wordList(agents, "or"), "")
			}
		}
		if o := slices.IndexFunc(f.Options, func(o Option) bool { return o.Name == "plug" || o.Name == "port" }); o >= 0 && len(f.Plugs) > 0 {
			c.onKey(pathKey(pathKey(at, "options"), f.Options[o].Name), fmt.Sprintf("%s options.%s is what plugs says", label, f.Options[o].Name), "one of them", "")
		}
		if f.PasswordFile != "" && slices.ContainsFunc(f.Secrets, func(o Option) bool { return o.Name == optionPassword }) {
			c.onKey(pathKey(at, "password_file"), label+" has the password twice: in secret_files too", "one of them", "")
		}
		return
	}
	for _, key := range agents {
		if path := pathKey(at, key); c.src.has(path) {
			c.onKey(path, fmt.Sprintf("%s %s is for fence agents, and agent is \"exec\"", label, key), "off, status or monitor", "")
		}
	}
	for _, key := range exec {
		if path := pathKey(at, key); !c.src.has(path) {
			c.onKey(at, fmt.Sprintf("%s %s is missing", label, key), key+" = \"…\"",
				"off cuts the power; status tells by its exit status: 0 on, 2 off, anything else unknown")
		}
	}
}
