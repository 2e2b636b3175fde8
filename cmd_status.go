// Is my service up, where, is its data safe, what needs me? The command `status`: once, as JSON, or live. What it looks
// like is in cmd_status_render.go.

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Category:  categoryLook,
		Usage:     "is my service up, where, and what needs me",
		UsageText: "hactl status [--json|--metrics] [--watch]",
		Description: `One screen. The first line is the answer, the problems at the end each say what, since when,
why, what happens next and what to type. --watch goes on until ^C; where the output is no
terminal it prints a block for each change. --metrics is for Prometheus, as by the textfile
collector of its node exporter; where no daemon answers it says hactl_up 0.

Exit status: 0 all is well, 1 degraded (up, but the next fault may hurt), 2 down,
3 the daemon does not run here or does not answer, 4 you may not ask it. With --watch: 0 at ^C.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "the whole status as JSON; with --watch one object a line"},
			&cli.BoolFlag{Name: "metrics", Usage: "figures in the text format of Prometheus"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on until ^C"},
		},
		Action: func(c *cli.Context) error {
			d, err := displayOf(c)
			if err != nil {
				return err
			}
			if c.Bool("metrics") && (c.Bool("json") || c.Bool("watch")) {
				return wrongUse("hactl status --metrics", "--metrics goes with neither --json nor --watch")
			}
			if c.Bool("watch") {
				return watchStatus(c, d)
			}
			st, err := newClient(c).status(c.Context)
			if err != nil {
				st = nil
			}
			if c.Bool("metrics") {
				_, failed := io.WriteString(c.App.Writer, renderMetrics(st))
				err = cmp.Or(err, failed)
			}
			if err != nil {
				return err
			}
			switch {
			case c.Bool("metrics"):
			case c.Bool("json"):
				err = writeJSON(c.App.Writer, st)
			default:
				_, err = io.WriteString(c.App.Writer, renderStatus(st, d.width, d.color))
			}
			if err == nil && st.Exit() != 0 {
				err = exitStatus(st.Exit())
			}
			return err
		},
	}
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// display is what the output can show.
type display struct {
	terminal      bool
	color         bool
	width, height int
}

const (
	plainWidth  = 80
	plainHeight = 24
)

// displayOf asks the output itself, and the flag --color and NO_COLOR (no-color.org) whether to colour.
func displayOf(c *cli.Context) (display, error) {
	l := display{width: plainWidth, height: plainHeight}
	if f, ok := c.App.Writer.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			l.terminal = true
			if size.Col > 0 && size.Row > 0 { // a serial line knows no size
				l.width, l.height = int(size.Col), int(size.Row)
			}
		}
	}
	switch when := c.String("color"); when {
	case "auto":
		l.color = l.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	case "always":
		l.color = true
	case "never":
	default:
		return l, wrongUse("auto, always or never", "%q is no value for --color", when)
	}
	return l, nil
}

// watchStatus goes on until ctx ends. Once it has seen the daemon it outlives it: a restart is part of what is watched.
func watchStatus(c *cli.Context, l display) error {
	const retry = time.Second
	every := 0
	if l.terminal {
		every = 1 // ages go on while nothing changes, and a daemon that hangs is seen
	}
	seen := false
	for {
		err := newClient(c).watch(c.Context, every, func(st *Status, line []byte) error {
			seen = true
			return printWatched(c, l, st, line)
		})
		var gone *hintError
		switch {
		case c.Context.Err() != nil:
			return nil
		case !seen:
			return err
		case err != nil && !errors.As(err, &gone):
			return err // the output is closed, or the answer is none
		}
		if !c.Bool("json") {
			fmt.Fprintln(c.App.Writer, "the daemon of this node is gone; waiting for it")
		}
		if err := awaitDaemon(c, retry); err != nil {
			return nil
		}
	}
}

// awaitDaemon returns when the daemon answers again, or with an error when ctx ends.
func awaitDaemon(c *cli.Context, retry time.Duration) error {
	for {
		if _, err := newClient(c).status(c.Context); err == nil {
			return nil
		}
		if !pause(c.Context, retry) {
			return context.Canceled
		}
	}
}

func printWatched(c *cli.Context, l display, st *Status, line []byte) error {
	switch {
	case c.Bool("json"):
		_, err := fmt.Fprintf(c.App.Writer, "%s\n", line)
		return err
	case !l.terminal:
		_, err := fmt.Fprintf(c.App.Writer, "%s\n", renderStatus(st, l.width, l.color))
		return err
	}
	if now, err := displayOf(c); err == nil {
		l = now // the window may have been resized
	}
	_, err := io.WriteString(c.App.Writer, redraw(renderStatus(st, l.width, l.color), l.height))
	return err
}

// redraw puts text on a terminal of that height in place of what is there, without a flicker, and says how much of it
// did not fit.
func redraw(text string, height int) string {
	const home, clearLine, clearRest = "\x1b[H", "\x1b[K", "\x1b[J"
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if room := max(height-1, 2); len(lines) > room { // the last row stays free: a newline there would scroll
		more := len(lines) - room + 1
		lines = append(lines[:room-1:room-1], fmt.Sprintf("… %d more lines: hactl status | less", more))
	}
	return home + strings.Join(lines, clearLine+"\n") + clearLine + "\n" + clearRest
}
