// How do nodes come to share a secret? `keygen` makes the key file, and rolls it without an outage. The format is key.go's.

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"
)

func keygenCommand() *cli.Command {
	return &cli.Command{
		Name:      "keygen",
		Category:  categorySetUp,
		Usage:     "make the key file that all nodes share",
		ArgsUsage: "FILE",
		UsageText: "hactl keygen [--add|--drop] FILE",
		Description: `Writes a new random key, mode 0600; copy the file to every node. It never replaces a file.

To roll the key without an outage:
  1. hactl keygen --add /etc/ha.key    on one node: adds a second key
  2. copy the file to every node: hactl check shows which key each seals with
  3. hactl keygen --drop /etc/ha.key   when all seal with the new; copy again`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "add", Usage: "put a new key beside the one in FILE"},
			&cli.BoolFlag{Name: "drop", Usage: "remove the older of the two keys in FILE"},
		},
		Action: func(c *cli.Context) error {
			file := c.Args().First()
			do, done := keygen, "wrote a new key to "+file+"; copy the file to every node, mode 0600"
			switch add, drop := c.Bool("add"), c.Bool("drop"); {
			case add && drop:
				return wrongUse("usage: "+c.Command.UsageText, "--add and --drop exclude each other")
			case add:
				do, done = keygenAdd, "added a key to "+file+"; copy the file to every node, then: hactl check"
			case drop:
				do, done = keygenDrop, "dropped the older key from "+file+"; copy the file to every node"
			}
			if err := do(file); err != nil {
				return keyError(file, err)
			}
			_, err := fmt.Fprintln(c.App.Writer, done)
			return err
		},
	}
}

// keyError adds what to do where key.go has not said it.
func keyError(file string, err error) error {
	var hinted *hintError
	switch {
	case errors.As(err, &hinted):
		return err
	case errors.Is(err, fs.ErrExist):
		return &hintError{err.Error(), "hactl keygen --add " + file + " puts a new key beside the one in it", exitError}
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{err.Error(), "hactl keygen " + file + " makes it; its folder must exist", exitError}
	case errors.Is(err, fs.ErrPermission):
		return &hintError{err.Error(), "run it as root", exitError}
	}
	return err
}
