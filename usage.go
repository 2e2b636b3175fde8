// What did the operator mean, and what is said when it was wrong? Takes a command line apart before the command library
// sees it, so that flags may stand anywhere after the command, and so that every wrong use is two lines on stderr with
// nothing on stdout and exit status 64. It runs no command and talks to no daemon.

package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// Exit statuses. `status` and `check` use 0, 1 and 2 for what they found; whoever could not look must not seem to have
// found anything.
const (
	exitError       = 1
	exitNoDaemon    = 3 // it does not run, or does not answer
	exitDenied      = 4
	exitUsage       = 64
	exitInterrupted = 130
)

// exitTexts is what the help and the manual say of them; the README says the same.
var exitTexts = []struct {
	code int
	text string
}{
	{0, "done; of `status`: all is well"},
	{exitError, "it failed, or was not confirmed; of `status` and `check`: degraded, or a finding; of `config check --strict`: warnings"},
	{exitBadConfig, "of `status` and `check`: down, or a failure; of `config check`, `show`, `explain`, `edit` and `rollback`: the file has errors, or cannot be read"},
	{exitNoDaemon, "no daemon answers on this node"},
	{exitDenied, "you may not ask it; of `drbd fence-peer`: DRBD may go on without its peer"},
	{exitUsage, "wrong use: two lines on stderr say what and how"},
	{exitInterrupted, "interrupted"},
}

// hintError is an error with what to do about it. It also travels over the control socket, as Progress.
type hintError struct {
	msg, hint string
	code      int // exit status
}

func (e *hintError) Error() string { return e.msg }

// exitStatus ends a command that has said all it has to say.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func wrongUse(hint, format string, a ...any) error {
	return &hintError{fmt.Sprintf(format, a...), hint, exitUsage}
}

// report prints err as "hactl: COMMAND: …" with its hint on a second line, and returns the exit status.
func report(w io.Writer, path []*cli.Command, err error) int {
	var status exitStatus
	var hinted *hintError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case !errors.As(err, &hinted):
		hinted = &hintError{code: exitError}
	case hinted.code == 0:
		hinted = &hintError{hint: hinted.hint, code: exitError}
	}
	prefix := "hactl: "
	if len(path) > 0 {
		prefix += commandName(path) + ": "
	}
	fmt.Fprintln(w, prefix+oneLine(err.Error()))
	if hinted.hint != "" {
		fmt.Fprintln(w, "hint: "+oneLine(hinted.hint))
	}
	return hinted.code
}

// oneLine keeps messages from elsewhere from breaking the two-line form or steering the terminal.
func oneLine(s string) string {
	return strings.Join(strings.Fields(printable(s)), " ")
}

// line is a command line in the order that the library wants: flags before arguments, global ones first.
type line struct {
	path []*cli.Command // of the command, outermost first
	args []string
	help bool // --help was among the flags: print the help of path
}

// arrange takes a command line apart. The line that it returns with an error still names the command.
func arrange(app *cli.App, args []string) (line, error) {
	var l line
	var global, local, words []string
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a == "--" {
			words = append(words, args...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			if sub := subcommands(app, l.path); len(sub) > 0 {
				c := lookUp(sub, a)
				if c == nil {
					return l, noCommand(app, l.path, a)
				}
				l.path = append(l.path, c)
				continue
			}
			words = append(words, a)
			continue
		}
		name, value, has := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if name == "help" || name == "h" {
			l.help = true
			continue
		}
		if (name == "version" || name == "V") && len(l.path) == 0 && !has {
			args = append([]string{"version"}, args...)
			continue
		}
		flag, own := findFlag(app, l.path, name)
		if flag == nil {
			return l, noFlag(app, l.path, name, a[:len(a)-len(strings.TrimLeft(a, "-"))]+name)
		}
		if d, ok := flag.(cli.DocGenerationFlag); ok && d.TakesValue() {
			if !has {
				if len(args) == 0 {
					return l, wrongUse(usageHint(l.path), "%s needs a value", dashed(name))
				}
				value, args = args[0], args[1:]
			}
			if value == "" {
				return l, wrongUse(usageHint(l.path), "the value of %s is empty", dashed(name))
			}
			a = "--" + name + "=" + value
		}
		if own {
			local = append(local, a)
		} else {
			global = append(global, a)
		}
	}
	if l.help {
		return l, nil
	}
	if sub := subcommands(app, l.path); len(sub) > 0 {
		return l, missingCommand(l.path, sub)
	}
	if err := countWords(l.path, words); err != nil {
		return l, err
	}
	l.args = append(l.args, app.Name)
	l.args = append(l.args, global...)
	for _, c := range l.path {
		l.args = append(l.args, c.Name)
	}
	l.args = append(append(append(l.args, local...), "--"), words...)
	return l, nil
}

// subcommands are those that may follow: none after the last command of a path.
func subcommands(app *cli.App, path []*cli.Command) []*cli.Command {
	if len(path) == 0 {
		return app.Commands
	}
	return path[len(path)-1].Subcommands
}

func lookUp(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func missingCommand(path []*cli.Command, sub []*cli.Command) error {
	if len(path) == 0 {
		return wrongUse("hactl status shows the cluster, hactl help lists all commands", "no command given")
	}
	return wrongUse(usageHint(path), "missing %s", strings.Join(commandNames(sub), ", "))
}

func noCommand(app *cli.App, path []*cli.Command, word string) error {
	if slices.Contains([]string{"start", "stop", "restart", "reload", "enable", "disable"}, word) {
		return wrongUse("systemctl "+word+" ha", "no command %q: the daemon is a service of systemd", word)
	}
	for _, c := range app.Commands {
		if len(path) > 0 && c.HasName(word) && !c.Hidden {
			return wrongUse("hactl "+word, "no command %q", word)
		}
		if s := lookUp(c.Subcommands, word); len(path) == 0 && s != nil {
			return wrongUse("hactl "+c.Name+" "+word, "no command %q", word)
		}
	}
	names := commandNames(subcommands(app, path))
	hint := "hactl help lists all commands"
	switch {
	case len(names) == 1:
		hint = usageHint(path)
	case len(path) > 0:
		hint = "one of " + strings.Join(names, ", ")
	}
	if near := nearest(word, names); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	return wrongUse(hint, "no command %q", word)
}

// findFlag looks among the flags of the last command, then among the global ones.
func findFlag(app *cli.App, path []*cli.Command, name string) (flag cli.Flag, own bool) {
	if len(path) > 0 {
		for _, f := range path[len(path)-1].Flags {
			if hasName(f, name) {
				return f, true
			}
		}
	}
	for _, f := range app.Flags {
		if hasName(f, name) {
			return f, false
		}
	}
	return nil, false
}

func hasName(f cli.Flag, name string) bool {
	for _, n := range f.Names() {
		if n == name {
			return true
		}
	}
	return false
}

func noFlag(app *cli.App, path []*cli.Command, name, written string) error {
	var names []string
	if len(path) > 0 {
		names = flagNames(path[len(path)-1].Flags)
	}
	names = append(names, flagNames(app.Flags)...)
	hint := usageHint(path)
	switch near := nearest(name, names); {
	case near != "":
		hint = fmt.Sprintf("did you mean %s? %s", dashed(near), hint)
	case len(path) == 0:
		hint = "the flags of a command stand after its name; hactl help lists all commands"
	}
	return wrongUse(hint, "no flag %q", written)
}

func flagNames(flags []cli.Flag) []string {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// countWords holds the arguments against ArgsUsage: "GROUP NODE", "GROUP [RESOURCE]", "STEP...".
func countWords(path []*cli.Command, words []string) error {
	wanted := strings.Fields(path[len(path)-1].ArgsUsage)
	most := len(wanted)
	for i, w := range wanted {
		if strings.HasSuffix(w, "...") {
			most = len(words)
		}
		optional := strings.HasPrefix(w, "[")
		if i >= len(words) && !optional {
			return wrongUse(usageHint(path), "missing %s", strings.TrimSuffix(w, "..."))
		}
	}
	if len(words) > most {
		return wrongUse(usageHint(path), "unexpected argument %q", words[most])
	}
	for i, w := range words {
		if strings.TrimSpace(w) == "" && !path[0].Hidden { // complete is asked about an empty word
			return wrongUse(usageHint(path), "%s is empty", strings.Trim(wanted[min(i, len(wanted)-1)], "[]."))
		}
	}
	return nil
}

func commandName(path []*cli.Command) string {
	var names []string
	for _, c := range path {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

func commandNames(commands []*cli.Command) []string {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func usageHint(path []*cli.Command) string {
	if len(path) == 0 {
		return "hactl help lists all commands"
	}
	return "usage: " + usageLine(path)
}

// usageLine is the one line that shows how a command is written.
func usageLine(path []*cli.Command) string {
	c := path[len(path)-1]
	if c.UsageText != "" {
		return c.UsageText
	}
	return strings.TrimSpace("hactl " + commandName(path) + " " + shortArgs(c))
}

// onUsageError puts what is left for the library to find, a value of the wrong kind, into our words.
func onUsageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if m := regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-([a-z-]+): `).FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%s is no value for %s", m[1], dashed(m[2]))
	}
	return wrongUse("hactl help"+strings.TrimPrefix(c.Command.HelpName, "hactl"), "%s", text)
}

// forDuration reads the flag --for: 0 when it is not given.
func forDuration(c *cli.Context) (time.Duration, error) {
	text := c.String("for")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d > 0 {
		return d, nil
	}
	hint := `a duration such as "30m" or "1h30m"`
	if _, err := strconv.Atoi(text); err == nil && text[0] != '-' && text != "0" {
		hint = fmt.Sprintf("did you mean %q? %s", text+"m", hint)
	}
	return 0, wrongUse(hint, "%q is no duration for --for", text)
}

// noSuch says that a name is unknown, which one may be meant, and which there are.
func noSuch(kind, name string, known []string) error {
	hint := fmt.Sprintf("%ss: %s", kind, strings.Join(known, ", "))
	if len(known) == 0 {
		hint = fmt.Sprintf("there are no %ss", kind)
	}
	if near := nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	return wrongUse(hint, "no %s %q", kind, name)
}
