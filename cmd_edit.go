// How is the configuration changed with a look at what would happen, and how does one go back? The text is edited here,
// recorded by the daemon, and every node's file follows. Editing the file itself does the same, without the look.

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/urfave/cli/v2"
)

func editCommand() *cli.Command {
	return &cli.Command{
		Name:      "edit",
		Category:  categorySteer,
		Usage:     "change the configuration, with a look at what it does",
		UsageText: "hactl edit [--yes]",
		Description: `Opens what is in force in $VISUAL or $EDITOR (vi if neither is set), on a copy. What is saved is
checked; then it shows what has changed and what would stop, start and move, and asks. Confirmed, it is recorded as the next
generation and in force on all nodes, whose files follow. If somebody else was faster, nothing is changed and your copy is kept.`,
		Flags:  []cli.Flag{yesFlag()},
		Action: editConfig,
	}
}

func configHistoryCommand() *cli.Command {
	return &cli.Command{
		Name:        "history",
		Usage:       "the generations of the configuration that are kept here",
		UsageText:   "hactl config history [--json]",
		Description: "The last 50 that this node has seen. hactl config diff and rollback take their numbers.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON"}},
		Action: func(c *cli.Context) error {
			cl := newClient(c)
			running, err := runningConfig(c.Context, cl)
			if err != nil {
				return err
			}
			var all []generation
			if err := cl.get(c.Context, "/v1/generations", &all); err != nil {
				return err
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, all)
			}
			var b strings.Builder
			for _, g := range all {
				when, by := "at a time that was not noted", g.By
				if g.Wall != 0 {
					when = wallTime(g.Wall).Local().Format("2006-01-02 15:04:05")
				}
				if by != "" {
					by = "by " + by
				}
				if g.Generation == running.Generation {
					by = strings.TrimSpace(by + "  in force")
				}
				fmt.Fprintf(&b, "%6d  %s  %s\n", g.Generation, when, by)
			}
			_, err = io.WriteString(c.App.Writer, b.String())
			return err
		},
	}
}

func configDiffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "what has changed between two generations",
		ArgsUsage: "A [B]",
		UsageText: "hactl config diff A [B]",
		Description: `A and B are numbers of hactl config history, or files. Without B: what is in force.
Exit status: 0 whether or not they differ.`,
		Action: func(c *cli.Context) error {
			var texts [2]named
			for _, asks := range []bool{false, true} { // a file that is not there is wrong use, whether or not a daemon answers
				for i := range texts {
					word := c.Args().Get(i)
					if asks != (word == "" || generationOf(word) != 0) {
						continue
					}
					var err error
					if texts[i], err = textOf(c, word); err != nil {
						return err
					}
				}
			}
			_, err := c.App.Writer.Write(diff.Diff(texts[0].name, texts[0].text, texts[1].name, texts[1].text))
			return err
		},
	}
}

func configRollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "go back to an earlier generation",
		ArgsUsage: "GENERATION",
		UsageText: "hactl config rollback GENERATION [--yes]",
		Description: `Shows what would change, stop, start and move, and asks; then the text of that generation is
recorded as the next one. Nothing is lost: going forward again is a rollback too.`,
		Flags: []cli.Flag{yesFlag()},
		Action: func(c *cli.Context) error {
			if generationOf(c.Args().First()) == 0 {
				return wrongUse("hactl config history lists them", "%q is no number of a generation", c.Args().First())
			}
			cl := newClient(c)
			running, err := runningConfig(c.Context, cl)
			if err != nil {
				return err
			}
			past, err := textOf(c, c.Args().First())
			if err != nil {
				return err
			}
			if string(past.text) == running.Text {
				return &hintError{past.name + " is what is in force", "nothing was changed", exitError}
			}
			if _, problems := parseConfig(past.text); hasErrors(problems) {
				report, _ := checkReport(past.name, nil, problems, false)
				if _, err := io.WriteString(c.App.Writer, report); err != nil {
					return err
				}
				return &hintError{past.name + " is not good by this version", "nothing was changed; hactl config diff " + c.Args().First() + " shows it, hactl edit makes a new one", exitBadConfig}
			}
			return commit(c, cl, running, past.text)
		},
	}
}

// named is a text with the name that a diff gives it.
type named struct {
	name string
	text []byte
}

// generationOf is the number of a generation, 0 for any other word.
func generationOf(word string) uint64 {
	n, err := strconv.ParseUint(word, 10, 31)
	if err != nil {
		return 0
	}
	return n
}

// textOf is that of a generation, of a file, or ("") of what is in force.
func textOf(c *cli.Context, word string) (named, error) {
	var answer ConfigAnswer
	route := "/v1/config"
	if word != "" {
		n := generationOf(word)
		if n == 0 {
			text, err := configFileText(word)
			if err != nil {
				return named{}, wrongUse("hactl config history lists the generations", "%q is no number of a generation, and as a FILE: %v", word, err)
			}
			return named{word, text}, nil
		}
		route += "?generation=" + strconv.FormatUint(n, 10)
	}
	if err := newClient(c).get(c.Context, route, &answer); err != nil {
		return named{}, err
	}
	return named{fmt.Sprintf("generation %d", answer.Generation), []byte(answer.Text)}, nil
}

func hasErrors(problems []configError) bool {
	errs, _ := countProblems(problems)
	return errs > 0
}

// editConfig edits a copy until it is good or given up.
func editConfig(c *cli.Context) error {
	cl := newClient(c)
	running, err := runningConfig(c.Context, cl)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hactl-edit-")
	if err != nil {
		return fmt.Errorf("make a copy to edit: %w", err)
	}
	copied := filepath.Join(dir, "ha.toml") // by its name editors know what it is
	keep := false
	defer func() {
		if !keep {
			os.RemoveAll(dir)
		}
	}()
	if err := os.WriteFile(copied, []byte(running.Text), 0o600); err != nil {
		return fmt.Errorf("make a copy to edit: %w", err)
	}
	for {
		if err := runEditor(c, copied); err != nil {
			return err
		}
		text, err := configFileText(copied)
		if err != nil {
			return err
		}
		if string(text) == running.Text {
			_, err := fmt.Fprintln(c.App.Writer, "nothing was changed")
			return err
		}
		_, problems := parseConfig(text)
		if !hasErrors(problems) {
			if err := commit(c, cl, running, text); err != nil {
				keep = true
				h := toHint(err)
				return &hintError{h.msg, strings.TrimPrefix(h.hint+"; ", "; ") + kept(copied), h.code}
			}
			return nil
		}
		report, _ := checkReport(copied, nil, problems, false)
		if _, err := io.WriteString(c.App.Writer, report); err != nil {
			return err
		}
		again := false
		if isTerminal(c.App.Reader) {
			fmt.Fprint(c.App.Writer, "Edit it again? [Y/n] ")
			answer, err := readAnswer(c)
			again = err == nil && !strings.HasPrefix(strings.ToLower(answer), "n")
		}
		if !again {
			keep = true
			return &hintError{"the edit has errors", "nothing was changed; " + kept(copied), exitBadConfig}
		}
	}
}

// kept says where an edit is that is not in force, and how to go on from it.
func kept(copied string) string {
	return fmt.Sprintf("your edit is in %s; to go on from it: EDITOR='cp %s' hactl edit", copied, copied)
}

// runEditor waits for the operator's editor.
func runEditor(c *cli.Context, path string) error {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		editor = "vi"
	}
	cmd := exec.Command("/bin/sh", "-c", editor+` "$1"`, "sh", path) // it may bring arguments along
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.App.Reader, c.App.Writer, c.App.ErrWriter
	signal.Ignore(os.Interrupt) // ^C is the editor's
	defer signal.Reset(os.Interrupt)
	if err := cmd.Run(); err != nil {
		return &hintError{fmt.Sprintf("the editor %q failed: %v", editor, err), "nothing was changed; EDITOR=nano hactl edit takes another one", exitError}
	}
	return nil
}

// commit shows what the text would do, asks, has it recorded, and sees to it that this node's file has it.
func commit(c *cli.Context, cl *client, running *ConfigAnswer, text []byte) error {
	next, problems := parseConfig(text)
	if next == nil {
		return &hintError{"the configuration is not good", "nothing was changed", exitBadConfig}
	}
	var state []byte
	if err := cl.get(c.Context, "/v1/state", &state); err != nil {
		return err
	}
	lines, err := configPlan(state, next)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.Write(diff.Diff(fmt.Sprintf("generation %d, in force", running.Generation), []byte(running.Text), "the next", text))
	for _, p := range problems {
		b.WriteString("\n" + strings.TrimSpace(p.render("the next")) + "\n")
	}
	b.WriteString("\nWhat it does\n")
	if len(lines) == 0 {
		lines = []string{"nothing that anybody would notice"}
	}
	for _, l := range lines {
		b.WriteString("  " + l + "\n")
	}
	if _, err := c.App.Writer.Write(b.Bytes()); err != nil {
		return err
	}
	if !c.Bool("yes") {
		if !isTerminal(c.App.Reader) {
			return wrongUse("having looked at the plan, add --yes", "nobody can confirm it here: the input is no terminal")
		}
		if _, err := fmt.Fprint(c.App.Writer, "Put it in force? [y/N] "); err != nil {
			return err
		}
		answer, err := readAnswer(c)
		if err != nil {
			return err
		}
		if a := strings.ToLower(answer); a != "y" && a != "yes" {
			return &hintError{"not confirmed", "nothing was changed", exitError}
		}
	}
	// The file is looked at before: one that holds something else, which was not taken, is not to be overwritten.
	path := c.String("config")
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the present file: %w", err)
	}
	if err := operate(c, Command{Name: commandEdit, Text: string(text), Base: running.Generation}, ""); err != nil {
		return err
	}
	if string(before) != running.Text && string(before) != string(text) {
		_, err := fmt.Fprintf(c.App.Writer, "%s is left as it is: it holds an edit that is not in force. hactl status says why\n", path)
		return err
	}
	return nil
}
