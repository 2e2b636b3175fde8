// What does a monitoring system draw and watch? The status as figures in the text format of Prometheus
// (prometheus.io/docs/instrumenting/exposition_formats). Pure.

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// metrics collects families in their order; what belongs to one stands together, as the format demands.
type metrics struct {
	names []string
	text  map[string]string
}

// add puts down one value of a family. Labels are names and values in turn.
func (m *metrics) add(name, help string, value float64, labels ...string) {
	if m.text[name] == "" {
		m.names = append(m.names, name)
		m.text[name] = fmt.Sprintf("# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
	}
	var pairs []string
	for i := 0; i+1 < len(labels); i += 2 {
		pairs = append(pairs, fmt.Sprintf("%s=\"%s\"", labels[i], strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(labels[i+1])))
	}
	where := ""
	if len(pairs) > 0 {
		where = "{" + strings.Join(pairs, ",") + "}"
	}
	m.text[name] += name + where + " " + strconv.FormatFloat(value, 'g', -1, 64) + "\n"
}

// renderMetrics is nil's too: then no daemon answered.
func renderMetrics(s *Status) string {
	m := &metrics{text: map[string]string{}}
	m.add("hactl_up", "1: the daemon here answers.", yes(s != nil))
	if s == nil {
		return m.text["hactl_up"]
	}
	m.add("hactl_status", "0: all is well, 1: degraded, 2: down.", float64(s.Exit()))
	m.add("hactl_quorum", "1: this node knows a leader with a majority.", yes(s.Quorum))
	m.add("hactl_maintenance", "1: maintenance is on, nothing is started, stopped or moved.", yes(s.Maintenance != nil))
	m.add("hactl_config_generation", "Generation of the configuration in force.", float64(s.Generation))
	m.add("hactl_incarnation", "How often the cluster went on without a majority of its voters.", float64(s.Incarnation))
	for _, severity := range []string{"error", "warning"} {
		n := 0
		for i := range s.Problems {
			n += int(yes(s.Problems[i].Severity == severity))
		}
		m.add("hactl_problems", "Problems that need somebody, by severity.", float64(n), "severity", severity)
	}
	for _, x := range s.Nodes {
		m.add("hactl_node_online", "1: the node is in the cluster and may do its part.", yes(x.State == "online"), "node", x.Name, "role", x.Role)
		m.add("hactl_node_heard", "1: this node hears it.", yes(x.Heard || x.Name == s.Node), "node", x.Name)
		m.add("hactl_node_leader", "1: it leads.", yes(x.Leader), "node", x.Name)
	}
	for _, l := range s.Links {
		m.add("hactl_link_up", "1: this node's interface of the link has a carrier and no peer is silent on it alone.", yes(l.State == "up" && len(l.Silent) == 0), "link", l.Name, "interface", l.Interface)
	}
	for _, g := range s.Groups {
		m.add("hactl_group_started", "1: all of the group runs.", yes(g.State == "started"), "group", g.Name)
		for _, c := range g.Nodes {
			m.add("hactl_group_owner", "1: the group is that node's to run.", yes(c.Node == g.Owner), "group", g.Name, "node", c.Node)
		}
		m.add("hactl_group_placements", "How often any group of the cluster had been placed when this one was, so it grows when it moves.", float64(g.Epoch), "group", g.Name)
		if g.Since > 0 {
			m.add("hactl_group_state_seconds", "How long it is in its present state.", g.Since, "group", g.Name, "state", g.State)
		}
		for i := range g.Resources {
			m.resource(g.Name, &g.Resources[i])
		}
	}
	var out strings.Builder
	for _, name := range m.names {
		out.WriteString(m.text[name])
	}
	return out.String()
}

func (m *metrics) resource(group string, r *ResourceStatus) {
	for _, f := range r.Failures {
		m.add("hactl_resource_failures", "Failures that are not forgotten yet.", float64(f.Failcount), "group", group, "resource", r.Name, "node", f.Node)
	}
	if r.Replica == nil {
		return
	}
	d := r.Replica
	m.add("hactl_drbd_primary", "1: DRBD's role here is Primary.", yes(d.Role == string(drbdPrimary)), "drbd", d.Resource)
	m.add("hactl_drbd_frozen", "1: its I/O waits.", yes(d.Frozen != ""), "drbd", d.Resource)
	for _, v := range d.Volumes {
		m.add("hactl_drbd_up_to_date", "1: this node's copy is UpToDate.", yes(v.Disk == string(diskUpToDate)), "drbd", d.Resource, "volume", strconv.Itoa(v.Volume))
	}
	for _, p := range d.Peers {
		at := []string{"drbd", d.Resource, "peer", p.Name, "volume", strconv.Itoa(p.Volume)}
		m.add("hactl_drbd_connected", "1: the peer is connected.", yes(p.Connection == string(connConnected)), at...)
		m.add("hactl_drbd_peer_up_to_date", "1: the peer's copy is UpToDate.", yes(p.Disk == string(diskUpToDate)), at...)
		m.add("hactl_drbd_out_of_sync_bytes", "What the copies do not have in common.", float64(p.OutOfSync), at...)
		if p.Done != nil {
			m.add("hactl_drbd_sync_done_ratio", "How much of a sync or verify that runs is done.", *p.Done/100, slices.Concat(at, []string{"replication", p.Replication})...)
		}
		if p.Left > 0 {
			m.add("hactl_drbd_sync_left_seconds", "Until it is over, as DRBD reckons.", p.Left, at...)
		}
	}
}

// yes is a truth as a figure.
func yes(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
