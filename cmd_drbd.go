// What does DRBD ask of the cluster, and what may only an operator say of its data? The two handlers that DRBD calls, whose
// exit statuses decide about I/O, and the word that a copy which misses something is to be used all the same.

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	// exitPeerStale is what DRBD takes for leave to go on without its peer. Of the other statuses that it knows none may ever
	// come out of fence-peer: 3, 5 and 6 mean that the peer is well, gone or Primary, and 7 that it has no power.
	exitPeerStale = 4
	// fencePeerTime is short because a promotion waits for it up to four times; the daemon goes on where a Primary is frozen.
	fencePeerTime  = 10 * time.Second
	fencePeerPause = 500 * time.Millisecond
)

func drbdCommand() *cli.Command {
	return &cli.Command{
		Name:      "drbd",
		Category:  categoryGone,
		Usage:     "DRBD's handlers, and data that only a lost node has whole",
		UsageText: "hactl drbd resolve RESOURCE --keep NODE [--yes]; hactl drbd unmark RESOURCE NODE [--yes]; hactl drbd fence-peer; hactl drbd unfence-peer",
		Subcommands: []*cli.Command{{
			Name:      "resolve",
			Usage:     "say whose copy counts after a split brain",
			ArgsUsage: "RESOURCE",
			UsageText: "hactl drbd resolve RESOURCE --keep NODE [--discard NODE] [--yes]",
			Description: `After a split brain each side of DRBD's RESOURCE has written what the other has not, and DRBD keeps
them apart. This throws away what the other node alone has: both are connected again, and its copy
becomes as that of the node that is kept. Until that is done it runs nothing from it. Refused while
another node than the kept one owns the group. Shows what is known of both sides, then asks for the
name of the node that is kept. What the other one alone has cannot be got back afterwards: copy it
first, or take a snapshot of the disk below DRBD there.`,
			Flags: []cli.Flag{yesFlag(), &cli.StringFlag{Name: "keep", Usage: "`NODE` whose copy is the good one"},
				&cli.StringFlag{Name: "discard", Usage: "`NODE` whose copy is given up, where more than two run groups"}},
			Action: func(c *cli.Context) error {
				resource, keep, discard := c.Args().First(), c.String("keep"), c.String("discard")
				if keep == "" {
					return wrongUse("hactl drbd resolve RESOURCE --keep NODE", "whose copy is the good one?")
				}
				return confirmed(c, Command{Name: commandResolve, Resource: resource, Node: keep, Text: discard}, keep,
					fmt.Sprintf("Throw away what others alone have of %s, and keep what %s has? Type the name of %s to confirm: ", resource, keep, keep))
			},
		}, {
			Name:      "unmark",
			Usage:     "use a copy although newer data was written elsewhere",
			ArgsUsage: "RESOURCE NODE",
			UsageText: "hactl drbd unmark RESOURCE NODE [--yes]",
			Description: `While NODE was away another node went on writing to DRBD's RESOURCE, and NODE may not run the group
until it has caught up. If that other node is lost for good this lets NODE start from what it has:
everything that was written since is lost. Refused while any node owns the group. Shows what is
missing, then asks for the name of NODE.`,
			Flags: []cli.Flag{yesFlag()},
			Action: func(c *cli.Context) error {
				resource, node := c.Args().Get(0), c.Args().Get(1)
				return confirmed(c, Command{Name: commandUnmark, Resource: resource, Node: node}, node,
					fmt.Sprintf("Give up what was written to %s without %s? Type the name of %s to confirm: ", resource, node, node))
			},
		}, {
			Name:      "fence-peer",
			Usage:     "for DRBD: may this node write on without its peer?",
			UsageText: "hactl drbd fence-peer",
			Description: `DRBD's handler of that name; DRBD says in its environment which resource and peer are meant. I/O
stays frozen until the cluster has recorded that the peer's copy is stale, which only the owner of
the group can have done. Exit status 4 when it is recorded, 1 when it is not within 10 seconds;
the daemon goes on trying then, and thaws the I/O itself.

In DRBD's configuration of the resource
  disk     { fencing resource-and-stonith; }        (DRBD 9: net)
  handlers { fence-peer   "/usr/sbin/hactl drbd fence-peer";
             unfence-peer "/usr/sbin/hactl drbd unfence-peer"; }`,
			Action: fencePeer,
		}, {
			Name:      "unfence-peer",
			Usage:     "for DRBD: the peer has caught up",
			UsageText: "hactl drbd unfence-peer",
			Description: `DRBD's handler of that name. It only makes the daemon look at the resource now: what ends the mark
is what the owner of the group sees.`,
			Action: func(c *cli.Context) error {
				resource, _, err := askedByDRBD(c)
				if err != nil {
					return err
				}
				return newClient(c).command(c.Context, Command{Name: commandUnfencePeer, Resource: resource}, func(string) {})
			},
		}},
	}
}

// askedByDRBD is what a handler finds in its environment.
func askedByDRBD(c *cli.Context) (resource, peer string, err error) {
	if resource = os.Getenv("DRBD_RESOURCE"); resource == "" {
		return "", "", wrongUse("for people: hactl status; hactl drbd unmark RESOURCE NODE", "DRBD calls this, with DRBD_RESOURCE in its environment")
	}
	peers := strings.Fields(cmp.Or(os.Getenv("DRBD_PEER"), os.Getenv("DRBD_PEERS")))
	if len(peers) > 1 {
		return "", "", fmt.Errorf("DRBD asks about several peers at once: %s", strings.Join(peers, ", "))
	}
	return resource, strings.Join(peers, ""), nil
}

// fencePeer asks until it is told that the mark is recorded. Whatever goes wrong ends in a status that DRBD takes for a
// refusal, which most statuses of other commands are not.
func fencePeer(c *cli.Context) error {
	resource, peer, err := askedByDRBD(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, fencePeerTime)
	defer cancel()
	told := ""
	for {
		err := newClient(c).command(ctx, Command{Name: commandFencePeer, Resource: resource, Node: peer}, func(text string) {
			fmt.Fprintln(c.App.Writer, text)
		})
		if err == nil {
			return exitStatus(exitPeerStale)
		}
		if ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			fmt.Fprintln(c.App.ErrWriter, "asking again: "+told)
		}
		if !pause(ctx, fencePeerPause) {
			return &hintError{fmt.Sprintf("it is not recorded that %s goes on without its peer, so its I/O stays frozen: %s", resource, cmp.Or(told, "no answer")),
				"hactl status; the daemon thaws it as soon as it can be recorded", exitError}
		}
	}
}
