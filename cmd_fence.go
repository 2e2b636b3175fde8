// Who is cut off from power or storage, and would it work? `hactl fence NODE` asks the cluster to do it now; `hactl fence
// test` asks the devices of this node, and turns nothing off.

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func fenceCommand() *cli.Command {
	return &cli.Command{
		Name:      "fence",
		Category:  categoryGone,
		Usage:     "cut a node off by its fence devices, so others take over",
		ArgsUsage: "NODE|test [NODE]",
		UsageText: "hactl fence NODE [--yes]; hactl fence test [NODE]",
		Description: `Has the devices of NODE turn it off, level by level, and waits until they say that it is off. What
it ran then goes on elsewhere. The node is not asked and stops nothing first. Shows what it would
mean, then asks for its name. It stays off until you switch it on.

With test it asks each device that this node may have to use whether it answers and whether the
node that it fences is on, and turns nothing off. Run it on each node: what one can reach another
may not. Exit status 1 if any call fails.

Examples
  hactl fence bob          bob hangs, or web is blocked there
  hactl fence test         do the devices answer this node?
  hactl fence test bob     those of bob`,
		Flags: []cli.Flag{yesFlag()},
		Action: func(c *cli.Context) error {
			node := c.Args().Get(0)
			if node == "test" { // a node of that name is tested too, never fenced, by this command
				if c.Bool("yes") {
					return wrongUse("usage: "+c.Command.UsageText, "test turns nothing off: there is nothing to confirm")
				}
				return operate(c, Command{Name: commandFenceTest, Node: c.Args().Get(1)}, "")
			}
			if c.NArg() > 1 {
				return wrongUse("usage: "+c.Command.UsageText, "unexpected argument %q", c.Args().Get(1))
			}
			st, err := newClient(c).status(c.Context)
			if err != nil {
				return err
			}
			if err := st.checkNode(node); err != nil { // perhaps meant as a command, such as list
				h := toHint(err)
				return wrongUse(h.hint+"; usage: "+c.Command.UsageText, "%s", h.msg)
			}
			return confirmed(c, Command{Name: commandFence, Node: node}, node,
				fmt.Sprintf("Cut %s off now? Type its name to confirm: ", node))
		},
	}
}
