// Why does a group run where it runs, or nowhere? The reason of the last decision and, node by node, who may take it.

package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Category:  categoryLook,
		Usage:     "why a group runs where it runs, node by node",
		ArgsUsage: "GROUP",
		Description: `The rule by its number (section 6 of design.md, in /usr/share/doc/hactl or docs/ of the source) and its reason, then each node: may it take the
group now, and why, or why not.`,
		Action: func(c *cli.Context) error {
			l, err := displayOf(c)
			if err != nil {
				return err
			}
			st, err := newClient(c).status(c.Context)
			if err != nil {
				return err
			}
			name := c.Args().First()
			if err := st.checkGroup(name, ""); err != nil {
				return err
			}
			_, err = io.WriteString(c.App.Writer, renderWhy(st, name, l.width, l.color))
			return err
		},
	}
}

// renderWhy is the answer for one group that exists. Pure.
func renderWhy(s *Status, name string, width int, color bool) string {
	p := &sheet{width: width, color: color}
	for i := range s.Groups {
		g := &s.Groups[i]
		if g.Name != name {
			continue
		}
		p.paragraph(stateStyle(g.State), "", g.Name+" is "+groupState(g)+".")
		if g.Why != "" {
			rule := ""
			if g.Rule != "" {
				rule = " (rule " + g.Rule + ")"
			}
			p.wrapped("", "Because: "+g.Why+rule)
		}
		if g.Pin != nil {
			p.wrapped("", "It is "+pinSentence(g)+".")
		}
		if m := s.Maintenance; m != nil {
			p.wrapped("", fmt.Sprintf("Maintenance is on (%s): nothing is started, stopped or moved.", m.By))
		}
		for _, n := range g.Nodes {
			verdict := "cannot take it"
			switch {
			case n.Node == g.Owner:
				verdict = "has it"
			case n.May:
				verdict = "may take it"
			}
			text := n.Node + " " + verdict
			if n.Why != "" {
				text += ": " + n.Why
			}
			p.wrapped("  ", text)
		}
	}
	return p.b.String()
}
