// Who vouches that a node is dead? The two commands with which an operator says what no program can know. Both first show
// what the daemon says may be lost, and go on only when the operator has typed the word that was asked for.

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func confirmDeadCommand() *cli.Command {
	return &cli.Command{
		Name:      "confirm-dead",
		Category:  categoryGone,
		Usage:     "vouch that a node is off, so others take over",
		ArgsUsage: "NODE",
		UsageText: "hactl confirm-dead NODE [--yes]",
		Description: `Look first: the node must be off, or cut from the network and from shared storage. If it still
runs its groups after this, two nodes run them, and data is lost. The daemon refuses while any link
hears the node. Shows when it was last heard and what may be lost, then asks for its name.`,
		Flags: []cli.Flag{yesFlag()},
		Action: func(c *cli.Context) error {
			node := c.Args().First()
			return confirmed(c, Command{Name: commandConfirmDead, Node: node}, node,
				fmt.Sprintf("Is %s off, or cut from network and storage? Type its name to confirm: ", node))
		},
	}
}

func quorumCommand() *cli.Command {
	return &cli.Command{
		Name:      "quorum",
		Category:  categoryGone,
		Usage:     "go on without a majority of the voters",
		UsageText: "hactl quorum force [--yes]",
		Subcommands: []*cli.Command{{
			Name:      "force",
			Usage:     "make this node the only voter and go on from what it knows",
			UsageText: "hactl quorum force [--yes]",
			Description: `For when most voters are gone for good. Nodes that come back later join what was forced here and
drop what only they knew. The daemon refuses while any link hears another voter. Shows what may
be lost, then asks for the word force.`,
			Flags: []cli.Flag{yesFlag()},
			Action: func(c *cli.Context) error {
				return confirmed(c, Command{Name: commandQuorum}, "force",
					"Are the others off, or cut from network and storage? Type force to confirm: ")
			},
		}},
	}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "do not ask: I have looked"}
}

// confirmed asks the daemon what q would mean, the operator whether to do it, and then has it done.
func confirmed(c *cli.Context, q Command, word, question string) error {
	if c.Bool("yes") {
		q.Force = true
		return operate(c, q, "")
	}
	if !isTerminal(c.App.Reader) {
		// What the daemon would refuse is said before what is missing here; what it would warn of nobody is there to read.
		if err := newClient(c).command(c.Context, q, func(string) {}); err != nil {
			return err
		}
		sure := map[string]string{
			commandConfirmDead: "once you have made sure that " + q.Node + " is off",
			commandQuorum:      "once the others are off, or cut from network and storage",
			commandUnmark:      "once you have given up what is missing there",
			commandResolve:     "once you have looked at both sides",
			commandFence:       "to switch " + q.Node + " off without a question",
		}[q.Name]
		return wrongUse(sure+": add --yes", "nobody can confirm it here: the input is no terminal")
	}
	if err := operate(c, q, ""); err != nil {
		return err
	}
	if _, err := fmt.Fprint(c.App.Writer, question); err != nil {
		return err
	}
	answer, err := readAnswer(c)
	if err != nil {
		return err
	}
	if answer != word {
		return &hintError{fmt.Sprintf("not confirmed: %q is not %q", answer, word), "nothing was changed", exitError}
	}
	q.Force = true
	return operate(c, q, "")
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// readAnswer reads one line, or ends with the context: ^C must not wait for a newline.
func readAnswer(c *cli.Context) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		const longest = 256
		text, err := bufio.NewReader(io.LimitReader(c.App.Reader, longest)).ReadString('\n')
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		if a.err != nil && a.err != io.EOF {
			return "", fmt.Errorf("read the answer: %w", a.err)
		}
		return strings.TrimSpace(a.text), nil
	case <-c.Context.Done():
		fmt.Fprintln(c.App.Writer)
		return "", &hintError{"not confirmed", "nothing was changed", exitInterrupted}
	}
}
