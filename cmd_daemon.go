// How is the daemon started? Its flags alone; what it does is in daemon.go.

package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func logFormats() []string { return []string{"auto", "journal", "text", "json"} }

func daemonCommand() *cli.Command {
	return &cli.Command{
		Name:      "daemon",
		Category:  categorySetUp,
		Usage:     "run the daemon; systemctl start ha does it for you",
		UsageText: "hactl daemon [FLAGS]",
		Description: `Runs in the foreground until SIGTERM, then hands its groups over. A restart, a crash or a kill -9
stops no resource: the next daemon adopts what runs. Its control socket is ha.sock in --run-dir
unless --socket says otherwise. The log format "auto" is journal under systemd, else text.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "node", Usage: "be the node of this `NAME`, not the one whose address this host has"},
			&cli.StringFlag{Name: "state-dir", Value: defaultStateDir, Usage: "keep the cluster's state in this `FOLDER`"},
			&cli.StringFlag{Name: "run-dir", Value: defaultRunDir, Usage: "keep what a reboot may empty in this `FOLDER`"},
			&cli.BoolFlag{Name: "bootstrap", Usage: "found the cluster although not all voters are there; once, on one node"},
			&cli.StringFlag{Name: "log-format", Value: "auto", Usage: "log in this `FORMAT`: " + strings.Join(logFormats(), ", ")},
		},
		Action: func(c *cli.Context) error {
			o, err := daemonOptionsOf(c)
			if err != nil {
				return err
			}
			return runDaemon(c.Context, o)
		},
	}
}

func daemonOptionsOf(c *cli.Context) (daemonOptions, error) {
	o := daemonOptions{
		Config:    c.String("config"),
		Node:      c.String("node"),
		StateDir:  c.String("state-dir"),
		RunDir:    c.String("run-dir"),
		Socket:    c.String("socket"),
		Bootstrap: c.Bool("bootstrap"),
		LogFormat: c.String("log-format"),
	}
	if !c.IsSet("socket") || o.Socket == "" {
		o.Socket = filepath.Join(o.RunDir, filepath.Base(defaultSocket))
	}
	if formats := logFormats(); !slices.Contains(formats, o.LogFormat) {
		return o, noSuch("log format", o.LogFormat, formats)
	}
	return o, nil
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:     "version",
		Category: categorySetUp,
		Usage:    "which version this is",
		Action: func(c *cli.Context) error {
			_, err := fmt.Fprintln(c.App.Writer, "hactl", c.App.Version)
			return err
		},
	}
}
