// What do the manual pages say? They are printed from what the program itself goes by: hactl(8) from the commands,
// ha.toml(5) from the example that explains every key. The packages are made with this.

package main

import (
	_ "embed"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

//go:embed ha.toml.example
var exampleConfig string

func manCommand() *cli.Command {
	pages := map[string]func(*cli.App) string{"hactl": manHactl, "ha.toml": manConfig}
	return &cli.Command{
		Name:      "man",
		Hidden:    true,
		Usage:     "print a manual page, for man -l",
		ArgsUsage: "hactl|ha.toml",
		Action: func(c *cli.Context) error {
			page, ok := pages[c.Args().First()]
			if !ok {
				return noSuch("page", c.Args().First(), []string{"ha.toml", "hactl"})
			}
			_, err := io.WriteString(c.App.Writer, page(c.App))
			return err
		},
	}
}

// manPage is a page of man(7) in the making.
type manPage struct{ strings.Builder }

// manText escapes what a formatter would take for its own.
func manText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func (p *manPage) title(name, section, what string) {
	fmt.Fprintf(p, ".TH %s %s \"\" \"hactl %s\" \"hactl\"\n", strings.ToUpper(name), section, versionText())
	p.section("NAME")
	fmt.Fprintf(p, "%s \\- %s\n", manText(name), manText(what))
}

func (p *manPage) section(name string) { fmt.Fprintf(p, ".SH %s\n", name) }

// prose has paragraphs between empty lines, and lines that stay as they are where they are indented.
func (p *manPage) prose(text string) {
	literal := false
	for l := range strings.Lines(strings.TrimSpace(text) + "\n") {
		l = strings.TrimRight(l, "\n")
		if now := strings.HasPrefix(l, " "); now != literal && l != "" {
			p.WriteString(map[bool]string{true: ".PP\n.nf\n", false: ".fi\n.PP\n"}[now])
			literal = now
		}
		if l == "" {
			l = ".PP"
			if literal {
				l = ".sp"
			}
			p.WriteString(l + "\n")
			continue
		}
		p.WriteString(manText(l) + "\n")
	}
	if literal {
		p.WriteString(".fi\n")
	}
}

// item is a term with what it means.
func (p *manPage) item(term, meaning string) {
	fmt.Fprintf(p, ".TP\n.B %s\n%s\n", manText(term), manText(meaning))
}

func (p *manPage) flags(flags []cli.Flag) {
	for _, f := range flags {
		if name, usage := flagText(f); name != "" {
			p.item(name, usage)
		}
	}
}

func (p *manPage) command(path []*cli.Command) {
	c := path[len(path)-1]
	if len(c.Subcommands) > 0 {
		for _, s := range c.Subcommands {
			p.command(append(path[:len(path):len(path)], s))
		}
		return
	}
	fmt.Fprintf(p, ".SS %s\n%s.\n", manText(usageLine(path)), manText(upperFirst(c.Usage)))
	if c.Description != "" {
		p.WriteString(".PP\n")
		p.prose(c.Description)
	}
	p.flags(c.Flags)
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func manHactl(app *cli.App) string {
	var p manPage
	p.title("hactl", "8", app.Usage)
	p.section("SYNOPSIS")
	p.WriteString(".B hactl\n.I COMMAND\n[\\fIARGUMENTS\\fR] [\\fIFLAGS\\fR]\n")
	p.section("DESCRIPTION")
	p.prose(`hactl does the job of Heartbeat (who is alive), Pacemaker (who runs what) and of the scripts around DRBD, file
systems, addresses and web servers: a group of resources runs on one of a few machines, and when that machine, its network
or the service fails, another takes it over with the same data and the same address. Never do two run it at once.

The daemon, hactl daemon, runs on each node as ha.service and reads one file, /etc/ha.toml, which is the same on all
nodes: see ha.toml(5). Every other command talks to the daemon of its own node over a socket. root may use all of them,
members of the group haclient those that look.

    systemctl start ha     start the daemon of this node
    systemctl stop ha      hand the groups over, then stop it
    systemctl restart ha   restart it; what it runs goes on`)
	category := ""
	for _, c := range app.Commands {
		if c.Hidden {
			continue
		}
		if c.Category != category {
			category = c.Category
			p.section(strings.ToUpper(category))
		}
		p.command([]*cli.Command{c})
	}
	p.section("FLAGS OF EVERY COMMAND")
	p.flags(app.Flags)
	p.section("EXIT STATUS")
	for _, e := range exitTexts {
		p.item(strconv.Itoa(e.code), upperFirst(strings.ReplaceAll(e.text, "`", ""))+".")
	}
	p.section("FILES")
	p.item("/etc/ha.toml", "The configuration: ha.toml(5).")
	p.item("/etc/ha.key", "The secret that the nodes share, made by hactl keygen.")
	p.item("/var/lib/ha", "What the cluster has agreed on, and past configurations. Readable by root alone. Never put an old copy of it back.")
	p.item("/run/ha", "The daemon's socket, and what a restarted daemon has to know.")
	p.section("SEE ALSO")
	p.WriteString(".BR ha.toml (5),\n.BR systemctl (1),\n.BR drbd.conf (5)\n")
	return p.String()
}

func manConfig(*cli.App) string {
	var p manPage
	p.title("ha.toml", "5", "configuration of hactl")
	p.section("DESCRIPTION")
	p.prose(`The one file of hactl, /etc/ha.toml, the same on every node. Saving it is enough: each daemon watches its own, a
good edit goes to all nodes and takes effect there, and only what has changed is restarted; a bad one changes nothing, and
hactl status says what is wrong with it until it is mended. An edit whose base is no longer what the cluster runs (made on
an isolated node, or on two nodes at once) is kept beside the file and not applied.

    hactl config check FILE     all mistakes at once, with their places
    hactl config show           what is in force, defaults included
    hactl config explain        each timer, and where it comes from`)
	p.section("KEYS")
	p.prose(`Every key is here once, with its unit, its default and what it does. This is /usr/share/hactl/ha.toml.example.`)
	p.WriteString(".PP\n.nf\n")
	for l := range strings.Lines(exampleConfig) {
		if l = strings.TrimRight(l, "\n"); l == "" {
			p.WriteString(".sp\n")
			continue
		}
		p.WriteString(manText(l) + "\n")
	}
	p.WriteString(".fi\n")
	p.section("SEE ALSO")
	p.WriteString(".BR hactl (8)\n")
	return p.String()
}
