// How is hactl used? Prints the help from the commands themselves, so that it cannot go stale: grouped by what an
// operator is about to do, in the order of a day.

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

const helpEnd = `
Examples
  hactl status                      is my service up, where, and what needs me
  hactl move web bob --for 30m      put web on bob, let go of it in half an hour
  hactl simulate kill alice         what would happen; touches nothing
  hactl config check /etc/ha.toml   before an edit is saved

hactl help COMMAND says more of one.
`

// printHelp prints the help of the command at the end of path, or of the whole program.
func printHelp(w io.Writer, app *cli.App, path []*cli.Command) error {
	var b strings.Builder
	if len(path) == 0 {
		appHelp(&b, app)
	} else {
		commandHelp(&b, path)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func appHelp(b *strings.Builder, app *cli.App) {
	fmt.Fprintf(b, "hactl %s\n\nusage: hactl COMMAND [ARGUMENTS] [FLAGS]\n", app.Usage)
	category := ""
	for _, c := range app.Commands {
		if c.Hidden {
			continue
		}
		if c.Category != category {
			category = c.Category
			fmt.Fprintf(b, "\n%s\n", category)
		}
		entry(b, strings.TrimSpace(c.Name+" "+shortArgs(c)), c.Usage)
	}
	b.WriteString("\nFlags of every command\n")
	flagHelp(b, app.Flags)
	b.WriteString("\nExit status\n")
	for _, e := range exitTexts {
		entry(b, strconv.Itoa(e.code), strings.ReplaceAll(e.text, "`", ""))
	}
	b.WriteString(helpEnd)
}

// shortArgs is what stands behind a command in the list: its arguments, or the choice of its subcommands.
func shortArgs(c *cli.Command) string {
	if len(c.Subcommands) > 0 {
		return strings.Join(commandNames(c.Subcommands), "|")
	}
	return c.ArgsUsage
}

func commandHelp(b *strings.Builder, path []*cli.Command) {
	c := path[len(path)-1]
	fmt.Fprintf(b, "hactl %s: %s\n\n", commandName(path), c.Usage)
	if len(c.Subcommands) == 0 {
		fmt.Fprintf(b, "usage: %s\n", usageLine(path))
	}
	for i, s := range c.Subcommands {
		lead := "usage: "
		if i > 0 {
			lead = "       "
		}
		fmt.Fprintln(b, lead+usageLine(append(path[:len(path):len(path)], s)))
	}
	if c.Description != "" {
		b.WriteString("\n" + reflow(c.Description))
	}
	for _, s := range c.Subcommands {
		fmt.Fprintf(b, "\n%s: %s\n", s.Name, s.Usage)
		b.WriteString(reflow(s.Description))
		flagHelp(b, s.Flags)
	}
	if len(c.Flags) > 0 {
		b.WriteString("\nFlags\n")
		flagHelp(b, c.Flags)
	}
}

// reflow breaks the prose of a description at the width of a plain terminal; indented lines stay as they are.
func reflow(text string) string {
	var b strings.Builder
	var prose []string
	flush := func() {
		for _, l := range wrap(strings.Join(prose, " "), plainWidth) {
			b.WriteString(l + "\n")
		}
		prose = nil
	}
	for l := range strings.Lines(strings.TrimSpace(text) + "\n") {
		switch l = strings.TrimRight(l, "\n"); {
		case l == "" || l[0] == ' ':
			flush()
			b.WriteString(l + "\n")
		default:
			prose = append(prose, l)
		}
	}
	flush()
	return strings.TrimPrefix(b.String(), "\n")
}

// entry is a name and what it means, side by side.
func entry(b *strings.Builder, name, meaning string) {
	const column = 26
	if len(name) > column {
		fmt.Fprintf(b, "  %s\n", name)
		name = ""
	}
	for i, l := range wrap(meaning, plainWidth-column-3) {
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(b, "  %-*s %s\n", column, name, l)
	}
}

func flagHelp(b *strings.Builder, flags []cli.Flag) {
	for _, f := range flags {
		if name, usage := flagText(f); name != "" {
			entry(b, name, usage)
		}
	}
}

// flagText is how a flag is written, and what it does.
func flagText(f cli.Flag) (name, usage string) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return "", ""
	}
	name, usage = dashed(f.Names()[0]), d.GetUsage()
	if d.TakesValue() {
		placeholder := "VALUE"
		if before, rest, ok := strings.Cut(usage, "`"); ok {
			word, after, _ := strings.Cut(rest, "`")
			placeholder, usage = word, before+word+after
		}
		name += " " + placeholder
	}
	if v := strings.Trim(d.GetDefaultText(), `"`); v != "" && d.TakesValue() {
		usage += fmt.Sprintf(" (default %s)", v)
	}
	if env := d.GetEnvVars(); len(env) > 0 {
		usage += fmt.Sprintf(" [$%s]", env[0])
	}
	return name, usage
}

func helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Category:  categorySetUp,
		Usage:     "this text, or what there is to say of one command",
		ArgsUsage: "[COMMAND]...",
		Action: func(c *cli.Context) error {
			var path []*cli.Command
			for _, word := range c.Args().Slice() {
				sub := subcommands(c.App, path)
				found := lookUp(sub, word)
				if found == nil {
					return noCommand(c.App, path, word)
				}
				path = append(path, found)
			}
			return printHelp(c.App.Writer, c.App, path)
		},
	}
}

// hideLibraryHelp keeps the library from adding help commands that would read a group named "help" as one.
func hideLibraryHelp(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelp = true
		c.OnUsageError = onUsageError
		hideLibraryHelp(c.Subcommands)
	}
}

// The parts of an operator's day, in the order of the help.
const (
	categoryLook  = "See how things are"
	categorySteer = "Steer"
	categoryGone  = "When nodes are gone and the cluster waits for your word"
	categorySetUp = "Set up"
)
