// What has happened? The events that the cluster remembers, oldest first, the same on every node.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v2"
)

func historyCommand() *cli.Command {
	const usual = 50
	return &cli.Command{
		Name:      "history",
		Category:  categoryLook,
		Usage:     "what has happened",
		UsageText: "hactl history [-n 50] [--follow] [--json]",
		Description: fmt.Sprintf(`One line for each event: when (wall clock of the node that reported it), event id, node, group,
what. The cluster remembers the last %d. events.md lists the ids (in /usr/share/doc/hactl, or docs/ of the source).`, historyMax),
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "n", Value: usual, Usage: fmt.Sprintf("the last `COUNT` events, 1 to %d", historyMax)},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes, until ^C"},
			&cli.BoolFlag{Name: "json", Usage: "one JSON object a line"},
		},
		Action: func(c *cli.Context) error {
			n := c.Int("n")
			if n < 1 || n > historyMax {
				return wrongUse(fmt.Sprintf("a number from 1 to %d", historyMax), "%d is no value for -n", n)
			}
			return printHistory(c, n)
		},
	}
}

func printHistory(c *cli.Context, n int) error {
	query := url.Values{"n": {strconv.Itoa(n)}}
	show := func(e Event) error {
		if c.Bool("json") {
			return json.NewEncoder(c.App.Writer).Encode(e)
		}
		_, err := io.WriteString(c.App.Writer, eventLine(e)+"\n")
		return err
	}
	if c.Bool("follow") {
		query.Set("follow", "1")
		err := newClient(c).lines(c.Context, http.MethodGet, "/v1/history?"+query.Encode(), nil, func(b []byte) error {
			var e Event
			if err := json.Unmarshal(b, &e); err != nil {
				return fmt.Errorf("read the daemon's answer: %w", err)
			}
			return show(e)
		})
		switch {
		case c.Context.Err() != nil:
			return nil
		case err == nil: // it never ends by itself
			err = &hintError{"the daemon went away", "systemctl status ha", exitError}
		}
		return err
	}
	var events []Event
	if err := newClient(c).get(c.Context, "/v1/history?"+query.Encode(), &events); err != nil {
		return err
	}
	for _, e := range events {
		if err := show(e); err != nil {
			return err
		}
	}
	return nil
}

// eventLine is an event for people, in the time zone of the reader.
func eventLine(e Event) string {
	where := e.Node
	if e.Group != "" {
		where = e.Group
		if e.Node != "" {
			where += "@" + e.Node
		}
	}
	if where == "" {
		where = "-"
	}
	return plain(fmt.Sprintf("%s  %-16s %-14s %s", wallTime(e.Wall).Format("2006-01-02 15:04:05.000"), e.ID, where, e.Text))
}
