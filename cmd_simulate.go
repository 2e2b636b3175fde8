// What would happen if …? Fetches the live state, checks the steps against it and shows what the cluster would do, with
// the very code that decides (simulate.go). Nothing is touched.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func simulateCommand() *cli.Command {
	return &cli.Command{
		Name:      "simulate",
		Category:  categorySteer,
		Usage:     "what would happen; touches nothing",
		ArgsUsage: "STEP...",
		UsageText: "hactl simulate STEP [, STEP]...",
		Description: `Runs the rules on a copy of the live state. Steps follow one another, each when the one before has
settled; they are separated by commas.

Steps
` + stepHelp() + `
Examples
  hactl simulate kill alice
  hactl simulate kill carol, kill alice`,
		Action: func(c *cli.Context) error {
			steps, err := splitSteps(c.Args().Slice())
			if err != nil {
				return err
			}
			var state []byte
			if err := newClient(c).get(c.Context, "/v1/state", &state); err != nil {
				return err
			}
			names, err := stateNames(state)
			if err != nil {
				return err
			}
			for _, s := range steps {
				if err := s.check(names); err != nil {
					return err
				}
			}
			text, err := simulate(state, stepTexts(steps))
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.App.Writer, text)
			return err
		},
	}
}

// stepForm is how one kind of step is written; a capital word is a name of that kind.
type stepForm struct{ form, what string }

func stepForms() []stepForm {
	return []stepForm{
		{"kill NODE", "the node dies at once"},
		{"cut LINK", "nobody hears anybody on the link"},
		{"cut NODE NODE", "the two do not hear each other on any link"},
		{"fail GROUP RESOURCE NODE", "the resource fails there, as often as it is tried"},
		{"move GROUP NODE", "as hactl move"},
		{"unmove GROUP", "as hactl unmove"},
		{"standby NODE", "as hactl standby"},
		{"online NODE", "as hactl online"},
	}
}

func stepHelp() string {
	var b strings.Builder
	for _, f := range stepForms() {
		fmt.Fprintf(&b, "  %-25s %s\n", f.form, f.what)
	}
	return b.String()
}

// step is the words of one step: a verb and names.
type step []string

// splitSteps takes arguments apart: one step in each argument of several words, or one spread over arguments, and in
// either case several with commas between.
func splitSteps(args []string) ([]step, error) {
	var text strings.Builder
	for _, a := range args {
		if strings.ContainsAny(strings.TrimSpace(a), " \t\n") {
			a = "," + a + ","
		}
		text.WriteString(a + " ")
	}
	var steps []step
	for _, part := range strings.Split(text.String(), ",") {
		words := step(strings.Fields(part))
		if len(words) == 0 {
			continue
		}
		if len(words.forms()) == 0 {
			return nil, words.wrong()
		}
		steps = append(steps, words)
	}
	if len(steps) == 0 {
		return nil, wrongUse("hactl help simulate lists the steps", "no step given")
	}
	return steps, nil
}

func stepTexts(steps []step) []string {
	var texts []string
	for _, s := range steps {
		texts = append(texts, strings.Join(s, " "))
	}
	return texts
}

// forms are those with the same verb and the same number of names.
func (s step) forms() []stepForm {
	var forms []stepForm
	for _, f := range stepForms() {
		if words := strings.Fields(f.form); words[0] == s[0] && len(words) == len(s) {
			forms = append(forms, f)
		}
	}
	return forms
}

// wrong says how a step that has no form should have been written.
func (s step) wrong() error {
	var verbs, same []string
	for _, f := range stepForms() {
		verb, _, _ := strings.Cut(f.form, " ")
		if !slices.Contains(verbs, verb) {
			verbs = append(verbs, verb)
		}
		if verb == s[0] {
			same = append(same, f.form)
		}
	}
	if len(same) > 0 {
		return wrongUse("write: "+strings.Join(same, ", or: "), "%q is no step", strings.Join(s, " "))
	}
	return noSuch("step", s[0], verbs)
}

// clusterNames are the names that a step can speak of.
type clusterNames struct {
	nodes, links, groups []string
	config               *Config
}

func stateNames(state []byte) (clusterNames, error) {
	var sim simulation
	if err := json.Unmarshal(state, &sim); err != nil {
		return clusterNames{}, fmt.Errorf("read the cluster's state: %w", err)
	}
	var n clusterNames
	if sim.State != nil {
		n.config = sim.State.Config.Effective
	}
	if n.config == nil {
		return n, &hintError{"the cluster has no configuration yet", "hactl status says what it waits for", exitError}
	}
	for _, c := range n.config.Nodes {
		n.nodes = append(n.nodes, c.Name)
	}
	for _, c := range n.config.Links {
		n.links = append(n.links, c.Name)
	}
	for _, c := range n.config.Groups {
		n.groups = append(n.groups, c.Name)
	}
	return n, nil
}

// check looks up each name of the step.
func (s step) check(n clusterNames) error {
	for i, kind := range strings.Fields(s.forms()[0].form)[1:] {
		name := s[i+1]
		known := n.nodes
		switch kind {
		case "LINK":
			known = n.links
		case "GROUP":
			known = n.groups
		case "RESOURCE":
			known = nil
			for _, r := range n.config.group(s[i]).Resources {
				known = append(known, r.Name)
			}
		}
		if !slices.Contains(known, name) {
			return noSuch(strings.ToLower(kind), name, known)
		}
	}
	if s[0] == "move" && n.config.isWitness(s[2]) {
		return runsNoGroups(s[2], n.config.fullNodes())
	}
	if len(s) == 3 && s[0] == "cut" && s[1] == s[2] {
		return wrongUse("name two nodes", "%s cannot be cut from itself", s[1])
	}
	return nil
}
