// How does an operator steer the cluster? The commands that change something, but for those that vouch for a node's
// death (cmd_confirm.go). Each is one question to the daemon and the lines that it answers; names are checked there.

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"
)

func moveCommand() *cli.Command {
	return &cli.Command{
		Name:      "move",
		Category:  categorySteer,
		Usage:     "put a group on a node and pin it there",
		ArgsUsage: "GROUP NODE",
		UsageText: "hactl move GROUP NODE [--for 30m] [--no-wait]",
		Description: `Stops GROUP where it runs and starts it on NODE, and says when it is there. A pin stays until
hactl unmove GROUP, or for as long as --for says; status shows it with its age. A pin is never
a ban: if NODE dies the group fails over, and the pin waits for NODE.

Examples
  hactl move web bob              until hactl unmove web
  hactl move web bob --for 30m    while alice gets new memory`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "for", Usage: "lift the pin after this `TIME`, such as 30m or 1h30m"},
			noWaitFlag(),
		},
		Action: func(c *cli.Context) error {
			d, err := forDuration(c)
			if err != nil {
				return err
			}
			q := Command{Name: commandMove, Group: c.Args().Get(0), Node: c.Args().Get(1), For: Duration(d)}
			return operate(c, q, "hactl unmove "+q.Group+" takes it back")
		},
	}
}

func unmoveCommand() *cli.Command {
	return &cli.Command{
		Name:      "unmove",
		Category:  categorySteer,
		Usage:     "lift the pin that move has left",
		ArgsUsage: "GROUP",
		UsageText: "hactl unmove GROUP [--no-wait]",
		Description: `The group may run anywhere again. It moves at once only if its failback = "always" and a node
that it prefers is there; otherwise it stays where it is.`,
		Flags: []cli.Flag{noWaitFlag()},
		Action: func(c *cli.Context) error {
			return operate(c, Command{Name: commandUnmove, Group: c.Args().First()}, "")
		},
	}
}

func standbyCommand() *cli.Command {
	return &cli.Command{
		Name:      "standby",
		Category:  categorySteer,
		Usage:     "let a node run nothing; its groups move away",
		ArgsUsage: "NODE",
		UsageText: "hactl standby NODE [--no-wait]",
		Description: `For work on a node. Its groups move to nodes that may take them; one that nobody else may take
stops. The node still votes. Ends with: hactl online NODE`,
		Flags: []cli.Flag{noWaitFlag()},
		Action: func(c *cli.Context) error {
			node := c.Args().First()
			return operate(c, Command{Name: commandStandby, Node: node, On: true}, "hactl online "+node+" takes it back")
		},
	}
}

func onlineCommand() *cli.Command {
	return &cli.Command{
		Name:        "online",
		Category:    categorySteer,
		Usage:       "end a node's standby",
		ArgsUsage:   "NODE",
		UsageText:   "hactl online NODE [--no-wait]",
		Description: `The node may run groups again. What moved away stays away unless its failback = "always".`,
		Flags:       []cli.Flag{noWaitFlag()},
		Action: func(c *cli.Context) error {
			return operate(c, Command{Name: commandStandby, Node: c.Args().First()}, "")
		},
	}
}

func maintenanceCommand() *cli.Command {
	return &cli.Command{
		Name:      "maintenance",
		Category:  categorySteer,
		Usage:     "start, stop and move nothing while it is on",
		ArgsUsage: "on|off",
		Description: `For work on the services themselves, on all nodes at once. Nothing is restarted after a failure
and nothing fails over, so status is never "all well" while it is on.`,
		Action: func(c *cli.Context) error {
			switch word := c.Args().First(); word {
			case "on", "off":
				return operate(c, Command{Name: commandMaintenance, On: word == "on"}, "")
			default:
				return wrongUse("hactl maintenance on, or hactl maintenance off", "%q is neither on nor off", word)
			}
		},
	}
}

func cleanupCommand() *cli.Command {
	return &cli.Command{
		Name:      "cleanup",
		Category:  categorySteer,
		Usage:     "forget failures, so that what failed is tried again",
		ArgsUsage: "GROUP [RESOURCE]",
		UsageText: "hactl cleanup GROUP [RESOURCE] [--node NODE]",
		Description: `Sets the failcounts of GROUP, or of one RESOURCE in it, back to 0, on all nodes or on one. For a
group that is blocked because a stop failed it also says: I have looked, it runs no more.

Examples
  hactl cleanup web                   all of it, everywhere
  hactl cleanup web httpd --node bob  httpd's failures on bob`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "node", Usage: "only on this `NODE`"}},
		Action: func(c *cli.Context) error {
			return operate(c, Command{Name: commandCleanup, Group: c.Args().Get(0), Resource: c.Args().Get(1), Node: c.String("node")}, "")
		},
	}
}

func noWaitFlag() cli.Flag {
	return &cli.BoolFlag{Name: "no-wait", Usage: "return as soon as it is decided"}
}

// operate sends q and prints each line of progress as it comes. Back says how to undo what ^C does not.
func operate(c *cli.Context, q Command, back string) error {
	q.NoWait = c.Bool("no-wait")
	var lost error // of the output; it is no reason to give up what goes on
	err := newClient(c).command(c.Context, q, func(text string) {
		if _, err := fmt.Fprintln(c.App.Writer, text); err != nil {
			lost = err
		}
	})
	if errors.Is(err, context.Canceled) {
		hint := "hactl status shows what holds now"
		if back != "" {
			hint += "; " + back
		}
		return &hintError{"interrupted; what was decided stands", hint, exitInterrupted}
	}
	if err == nil {
		return lost
	}
	return err
}
