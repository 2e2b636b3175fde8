// How do nodes come to share a secret? `keygen` makes the key file, and rolls it without an outage. The format is key.go's.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/urfave/cli/v2"
)

func keygenCommand() *cli.Command {
	return &cli.Command{
		Name:      "keygen",
		Category:  categorySetUp,
		Usage:     "make the key file that all nodes share",
		ArgsUsage: "FILE",
		UsageText: "hactl keygen [--force|--add|--drop [--key ID]] FILE",
		Description: `Writes a new random key, mode 0600; copy the file to every node.

To roll the key without an outage:
  1. hactl keygen --add /etc/ha.key    on one node
  2. copy the file to every other node, in any order
  3. when hactl check shows that all have both keys, on each node:
     hactl keygen --drop /etc/ha.key`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "add", Usage: "put a new key beside the one in FILE"},
			&cli.BoolFlag{Name: "drop", Usage: "remove the older of the two keys in FILE"},
			&cli.StringFlag{Name: "key", Usage: "with --drop: remove the key with this `ID`, to give a roll up"},
			&cli.BoolFlag{Name: "force", Usage: "replace FILE; cuts this node off until all have the new one"},
		},
		Action: func(c *cli.Context) error {
			file := c.Args().First()
			add, drop, force := c.Bool("add"), c.Bool("drop"), c.Bool("force")
			if add && drop || force && (add || drop) {
				return wrongUse("usage: "+c.Command.UsageText, "--add, --drop and --force exclude each other")
			}
			if c.IsSet("key") && !drop {
				return wrongUse("usage: "+c.Command.UsageText, "--key goes with --drop")
			}
			var id, done string
			var err error
			switch {
			case add:
				id, err = keygenAdd(file)
				done = "added key %s to %s; copy the file to every other node, then: hactl check\n"
			case drop:
				id, err = keygenDrop(file, c.String("key"))
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

// keygenError names the file that was asked for where the system refuses, not the one that is written beside it first.
func keygenError(file string, err error) error {
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
