// How do nodes come to share a secret? `keygen` makes the key file, and rolls it without an outage. The format is key.go's.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

func keygenCommand() *cli.Command {
	return &cli.Command{
		Name:      "keygen",
		Category:  categorySetUp,
		Usage:     "make the key file that all nodes share",
		ArgsUsage: "FILE",
		UsageText: "hactl keygen [--force|--add|--drop [--key ID] [--yes]] FILE",
		Description: `Writes a new random key, mode 0600; copy the file to every node.

To roll the key without an outage:
  1. hactl keygen --add /etc/ha.key    on one node
  2. copy the file to every other node, in any order
  3. when hactl check shows that all have both keys, on each node:
     hactl keygen --drop /etc/ha.key
--drop asks the daemon, where it runs, and refuses while a node that is heard has only that key.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "add", Usage: "put a new key beside the one in FILE"},
			&cli.BoolFlag{Name: "drop", Usage: "remove the older of the two keys in FILE"},
			&cli.StringFlag{Name: "key", Usage: "with --drop: remove the key with this `ID`, to give a roll up"},
			&cli.BoolFlag{Name: "yes", Usage: "with --drop: although a node has no other; cuts it off"},
			&cli.BoolFlag{Name: "force", Usage: "replace FILE; cuts this node off until all have the new one"},
		},
		Action: func(c *cli.Context) error {
			file := c.Args().First()
			add, drop, force := c.Bool("add"), c.Bool("drop"), c.Bool("force")
			if add && drop || force && (add || drop) {
				return wrongUse("usage: "+c.Command.UsageText, "--add, --drop and --force exclude each other")
			}
			for _, name := range []string{"key", "yes"} {
				if c.IsSet(name) && !drop {
					return wrongUse("usage: "+c.Command.UsageText, "--%s goes with --drop", name)
				}
			}
			var id, done string
			var err error
			switch {
			case add:
				id, err = keygenAdd(file)
				done = "added key %s to %s; copy the file to every other node, then: hactl check\n"
			case drop:
				id, err = keygenDrop(file, c.String("key"), func(dropped string, kept []secret) error {
					return othersHave(c, file, dropped, kept)
				})
				done = "dropped key %s from %s; do the same on every node\n"
			default:
				id, err = keygen(file, force)
				done = "wrote key %s to %s; copy the file to every other node, mode 0600\n"
			}
			if err != nil {
				return keygenError(file, err)
			}
			_, err = fmt.Fprintf(c.App.Writer, done, id, file)
			return err
		},
	}
}

// othersHave refuses to drop the only key of a node that is heard, or was lately: this node and that one would not
// understand each other from then on. Where no daemon answers, or it seals with another file, nobody knows better than
// who types.
func othersHave(c *cli.Context, file, dropped string, kept []secret) error {
	st, err := newClient(c).status(c.Context)
	if err != nil || c.Bool("yes") {
		return nil
	}
	var without []string
	ours := false
	for _, x := range st.Nodes {
		seals := strings.Fields(x.Key)
		old := slices.Contains(seals, dropped)
		stays := slices.ContainsFunc(kept, func(k secret) bool { return slices.Contains(seals, keyName(k.id())) })
		switch {
		case x.Name == st.Node:
			ours = old
		case (old || x.Heard) && !stays:
			without = append(without, x.Name)
		}
	}
	if !ours || len(without) == 0 {
		return nil
	}
	who := wordList(without, "and")
	return &hintError{fmt.Sprintf("%s %s only key %s, and would not hear this node without it", who, plural(len(without), "has", "have"), dropped),
		fmt.Sprintf("copy %s to %s; when hactl check no longer tells of different keys, again; or --yes", file, who), exitError}
}

// keygenError names the file that was asked for where the system refuses, not the one that is written beside it first.
func keygenError(file string, err error) error {
	if h := (*hintError)(nil); errors.As(err, &h) {
		return h
	}
	text, hint := err.Error(), "hactl help keygen"
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		text = fmt.Sprintf("%s: %v", file, errno)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = "run it as root"
	case errors.Is(err, fs.ErrNotExist):
		hint = "is its folder there? " + hint
	}
	return &hintError{text, hint, exitError}
}
