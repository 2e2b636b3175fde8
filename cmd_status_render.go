// What does a status look like? A sentence, the groups, the nodes, the problems, on one screen of 80 by 24 for a cluster
// of the usual size. Pure: from a Status to text.

package main

import (
	"fmt"
	"slices"
	"strings"
)

// renderStatus lays s out for a terminal of that width; without color it is plain text.
func renderStatus(s *Status, width int, color bool) string {
	p := &sheet{width: max(width, 40), color: color}
	p.paragraph(overallStyle(s), "", headline(s))
	p.wrapped("", summary(s))
	if m := s.Maintenance; m != nil {
		p.paragraph(styleWarning, "", fmt.Sprintf("Maintenance is on for %s (%s): nothing is started, stopped or moved until: hactl maintenance off",
			age(s.Wall.Sub(wallTime(m.Wall)).Seconds()), m.By))
	}
	p.line("")
	for i := range s.Groups {
		p.group(s, &s.Groups[i])
	}
	if len(s.Groups) > 0 {
		p.line("")
	}
	p.nodes(s)
	p.pings(s)
	p.wrapped("", "Never two: held by "+s.Enforcer+".")
	if len(s.Problems) > 0 {
		p.line("")
	}
	for i := range s.Problems {
		p.problem(&s.Problems[i])
	}
	return p.b.String()
}

// headline answers the operator's questions in one or two sentences.
func headline(s *Status) string {
	var text string
	switch {
	case len(s.Groups) == 0:
		text = "No groups are configured."
	default:
		text = sentence(strings.Join(groupClauses(s, ""), "; "))
	}
	switch {
	case s.Caretaker:
		text += " No majority: this node is caretaker of what it runs."
	case !s.Quorum && s.Voters == 0:
		text += " This node is not part of a running cluster yet."
	case !s.Quorum:
		text += " This node hears no majority, so what it knows of the others may be old."
	}
	if s.Maintenance != nil {
		text += " Maintenance is on."
	}
	yours := 0
	for i := range s.Problems {
		if s.Problems[i].Command != "" {
			yours++
		}
	}
	switch {
	case yours == 1:
		text += " One problem needs you."
	case yours > 1:
		text += fmt.Sprintf(" %d problems need you.", yours)
	case len(s.Problems) > 0:
		text += " What is not well is named below."
	default:
		text += " Nothing needs you."
	}
	return text
}

// clusterLine is the cluster for whoever types systemctl status: the groups, how many voters are heard, and the first of
// what is not well.
func clusterLine(s *Status) string {
	text := "no groups are configured"
	if len(s.Groups) > 0 {
		text = strings.Join(groupClauses(s, " (here)"), "; ")
	}
	if s.Voters > 0 {
		text += fmt.Sprintf("; %d of %d voters", votersHeard(s), s.Voters)
		if !s.Quorum {
			text += ", no majority is known"
		}
	}
	for _, g := range s.Groups {
		if g.State != "started" && g.Why != "" {
			return text + "; " + g.Why
		}
	}
	if len(s.Problems) > 0 {
		text += "; " + s.Problems[0].What
	}
	return text
}

// groupClauses names each of a few groups, or those of many that are not up and how many are. What is up on the node that
// answers is marked.
func groupClauses(s *Status, here string) []string {
	const few = 3
	groups := s.Groups
	var clauses []string
	up := 0
	for i := range groups {
		g := &groups[i]
		if g.State == "started" {
			up++
			if len(groups) > few {
				continue
			}
		}
		clauses = append(clauses, groupClause(s, g, here))
	}
	switch {
	case len(groups) <= few || up == 0:
	case up == len(groups):
		clauses = append(clauses, fmt.Sprintf("all %d groups are up", up))
	default:
		clauses = append(clauses, fmt.Sprintf("%d of %d groups are up", up, len(groups)))
	}
	return clauses
}

func groupClause(s *Status, g *GroupStatus, here string) string {
	if g.State == "waiting" && (!s.Quorum || g.Owner == s.Node) {
		return g.Name + " is not up here, and may be up elsewhere" // this node cannot know: its own lease is over, or nobody tells it
	}
	switch g.State {
	case "started":
		text := g.Name + " is up on " + g.Owner
		if g.Owner == s.Node {
			text += here
		}
		if g.Data != "" {
			text += ", its data " + g.Data
		}
		return text
	case "impaired":
		return g.Name + " is IMPAIRED on " + g.Owner
	case "starting", "stopping":
		return fmt.Sprintf("%s is %s on %s", g.Name, g.State, g.Owner)
	case "waiting":
		return g.Name + " is DOWN and waits"
	case "blocked":
		return g.Name + " is BLOCKED"
	}
	return g.Name + " is DOWN"
}

// sentence makes the first letter large unless it begins a name, which every clause but the one on all groups does.
func sentence(text string) string {
	if strings.HasPrefix(text, "all ") {
		text = "A" + text[1:]
	}
	return text + "."
}

func votersHeard(s *Status) (heard int) {
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Voter && (n.Heard || n.Name == s.Node) {
			heard++
		}
	}
	return heard
}

// summary is the line on the cluster itself.
func summary(s *Status) string {
	leader := "no leader"
	if s.Leader != "" {
		leader = "leader " + s.Leader
	}
	parts := []string{"cluster " + s.Cluster, "on " + s.Node, leader, fmt.Sprintf("%d of %d voters", votersHeard(s), s.Voters),
		fmt.Sprintf("config %d", s.Generation)}
	if s.Incarnation > 1 {
		parts = append(parts, fmt.Sprintf("incarnation %d", s.Incarnation))
	}
	return strings.Join(append(parts, s.Wall.Format("15:04:05")), " · ")
}

func (p *sheet) group(s *Status, g *GroupStatus) {
	text := groupState(g)
	if g.Lease > 0 {
		text += fmt.Sprintf(", lease %.1f s", g.Lease)
	}
	p.line(p.paint(styleBold, plain(g.Name)) + "  " + p.paint(stateStyle(g.State), plain(text)))
	if g.State != "started" && g.Why != "" {
		p.wrapped("  ", g.Why)
	}
	if g.Data != "" {
		p.wrapped("  ", "data "+g.Data)
	}
	if g.Pin != nil {
		p.wrapped("  ", pinSentence(g))
	}
	rows := make([][]string, 0, len(g.Resources))
	for i := range g.Resources {
		r := &g.Resources[i]
		kind := ""
		if r.Type != r.Name {
			kind = r.Type
		}
		rows = append(rows, []string{r.Name, kind, resourceState(s, g, r), r.Detail})
	}
	for i, row := range columns(rows) {
		p.cut("  " + row)
		for _, f := range g.Resources[i].Failures {
			p.paragraph(styleWarning, "    ", failureSentence(s, &f))
		}
	}
}

// groupState is what the group does, where, and for how long.
func groupState(g *GroupStatus) string {
	text := g.State
	if g.Owner != "" {
		text += " on " + g.Owner
	}
	if g.Since > 0 {
		text += " for " + age(g.Since)
	}
	return text
}

// resourceState is what this node's agent sees, or who could say.
func resourceState(s *Status, g *GroupStatus, r *ResourceStatus) string {
	switch {
	case r.State != "":
		return r.State
	case g.Owner != "" && g.Owner != s.Node:
		return "on " + g.Owner
	}
	return "-"
}

func pinSentence(g *GroupStatus) string {
	text := fmt.Sprintf("pinned to %s by %s %s ago", g.Pin.Node, g.Pin.By, age(g.PinAge))
	if g.PinLeft > 0 {
		return text + ", lifts itself in " + age(g.PinLeft)
	}
	return text + ", until: hactl unmove " + g.Name
}

func failureSentence(s *Status, f *ResourceState) string {
	times := "once"
	if f.Failcount != 1 {
		times = fmt.Sprintf("%d times", f.Failcount)
	}
	text := fmt.Sprintf("failed %s on %s, last %s ago", times, f.Node, age(s.Wall.Sub(wallTime(f.Wall)).Seconds()))
	if f.Op != "" {
		text += " at " + f.Op
	}
	if f.Reason != "" {
		text += ": " + f.Reason
	}
	return text
}

func (p *sheet) nodes(s *Status) {
	rows := make([][]string, 0, len(s.Nodes))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		state := n.State
		if n.Since > 0 {
			state += " " + age(n.Since)
		}
		rows = append(rows, []string{n.Name, state, linkMarks(s, n), rolesOf(s, n)})
	}
	for i, row := range columns(rows) {
		style := styleNone
		if st := s.Nodes[i].State; st != "online" {
			style = styleWarning
		}
		p.cutStyled(style, row)
	}
}

// pings has a line for each target outside the cluster: who reaches it.
func (p *sheet) pings(s *Status) {
	for i := range s.Pings {
		x := &s.Pings[i]
		var marks []string
		for _, n := range x.Nodes {
			marks = append(marks, n.Node+" "+map[string]string{"reached": "ok", "lost": "no answer", "unknown": "unknown"}[n.State])
		}
		p.cut(fmt.Sprintf("ping %s  %s  %s", x.Name, x.Target, strings.Join(marks, ", ")))
	}
}

// linkMarks tells for each link whether the node is heard on it; for the node that answers, how its own end is.
func linkMarks(s *Status, n *NodeStatus) string {
	var marks []string
	if n.Name != s.Node && len(n.Links) == 0 {
		return "not heard"
	}
	for i := range s.Links {
		l := &s.Links[i]
		switch {
		case n.Name == s.Node:
			marks = append(marks, l.Name+" "+l.State)
		case slices.Contains(n.Links, l.Name):
			marks = append(marks, l.Name+" ok")
		case slices.Contains(l.Silent, n.Name): // otherwise the node is not on this link
			marks = append(marks, l.Name+" silent")
		}
	}
	return strings.Join(marks, ", ")
}

func rolesOf(s *Status, n *NodeStatus) string {
	var roles []string
	if n.Name == s.Node {
		roles = append(roles, "this node")
	}
	if n.Role == "witness" {
		roles = append(roles, "witness")
	}
	if n.Leader {
		roles = append(roles, "leader")
	}
	if !n.Voter && n.State != "never seen" {
		roles = append(roles, "no vote")
	}
	return strings.Join(roles, ", ")
}

func (p *sheet) problem(q *Problem) {
	style, text := styleWarning, "warning: "
	if q.Severity == "error" {
		style, text = styleError, "error: "
	}
	head := text
	text = q.What
	if q.Since > 0 { // before what explains it, which may end in a command
		since := ", for " + age(q.Since)
		if q.ID == "resource-failed" {
			since = ", " + age(q.Since) + " ago"
		}
		what, reason, colon := strings.Cut(text, ": ")
		text = what + since
		switch {
		case strings.Count(what, "(") > strings.Count(what, ")"): // the colon is within what is in brackets
			text = q.What + since
		case colon:
			text += ": " + reason
		}
	}
	if q.Why != "" {
		text += ": " + q.Why
	}
	text = stop(head + text)
	if q.Next != "" {
		text += " " + stop(q.Next)
	}
	p.paragraph(style, "", text)
	if q.Command != "" {
		p.line("  do: " + plain(q.Command)) // never wrapped: it is there to be copied
	}
}

// stop ends a sentence that does not end yet.
func stop(text string) string {
	text = strings.TrimSpace(text)
	if text == "" || strings.ContainsRune(".!?", rune(text[len(text)-1])) {
		return text
	}
	return text + "."
}

// age is a time span in the words of people.
func age(seconds float64) string {
	const minute, hour, day = 60, 3600, 86400
	unit := func(n float64, one, many string) string {
		if int(n) == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", int(n), many)
	}
	switch {
	case seconds < 1:
		return "less than 1 s"
	case seconds < minute:
		return unit(seconds, "s", "s")
	case seconds < hour:
		return unit(seconds/minute, "min", "min")
	case seconds < 2*day:
		return unit(seconds/hour, "h", "h")
	}
	return unit(seconds/day, "day", "days")
}
