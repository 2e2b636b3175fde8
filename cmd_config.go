// Is the configuration good, what does it say with all defaults filled in, and where does each timer come from? Reads
// files and asks the daemon; the checks themselves are in config_check.go.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"
)

// exitBadConfig is for errors in a file; 1 is for warnings with --strict.
const exitBadConfig = 2

// configFileMax bounds what is read: no configuration comes near.
const configFileMax = 1 << 20

func configCommand() *cli.Command {
	return &cli.Command{
		Name:     "config",
		Category: categorySetUp,
		Usage:    "check a file, show what is in force, go back",
		Description: `Examples
  hactl config check ha.toml.new     before it replaces the file
  hactl config check --host          also what this host must have for it
  hactl config explain               each timer, and where it comes from
  hactl config diff 3                what has changed since generation 3
  hactl config rollback 3            back to it, after a look at what it does`,
		Subcommands: []*cli.Command{
			{
				Name:      "check",
				Usage:     "all errors of a file, each with line and column",
				ArgsUsage: "[FILE]",
				UsageText: "hactl config check [FILE] [--strict] [--host [--node NAME]]",
				Description: `Without FILE: /etc/ha.toml, or what --config says. Exit status: 0 good, 1 warnings with --strict,
2 errors.`,
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "strict", Usage: "exit with 1 for warnings"},
					&cli.BoolFlag{Name: "host", Usage: "also check what this host must have"},
					&cli.StringFlag{Name: "node", Usage: "with --host: as if this host were the node of this `NAME`"},
				},
				Action: checkConfigFile,
			},
			{
				Name:      "show",
				Usage:     "the configuration with every default filled in",
				ArgsUsage: "[FILE]",
				UsageText: "hactl config show [FILE] [--json|--text]",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "json", Usage: "as JSON"},
					&cli.BoolFlag{Name: "text", Usage: "the file as it was edited, with its comments"},
				},
				Description: "Without FILE: what the cluster runs. Exit status: 2 if FILE has errors.",
				Action:      showConfig,
			},
			{
				Name:        "explain",
				Usage:       "each timer, and where it comes from",
				ArgsUsage:   "[FILE]",
				Description: "Without FILE: what the cluster runs. Exit status: 2 if FILE has errors.",
				Action: func(c *cli.Context) error {
					answer, err := configOf(c)
					if err != nil {
						return err
					}
					_, err = io.WriteString(c.App.Writer, configExplain(answer.Effective))
					return err
				},
			},
			configHistoryCommand(), configDiffCommand(), configRollbackCommand(),
		},
	}
}

func checkConfigFile(c *cli.Context) error {
	if c.IsSet("node") && !c.Bool("host") {
		return wrongUse("usage: "+c.Command.UsageText, "--node goes with --host")
	}
	name := c.Args().First()
	if name == "" {
		name = c.String("config")
	}
	text, err := configFileText(name)
	if err != nil {
		return err
	}
	cfg, problems := parseConfig(text)
	if c.Bool("host") && cfg != nil {
		more, err := hostProblems(c.Context, cfg, text, c.String("node"), filepath.Dir(c.String("socket")))
		if err != nil {
			return err
		}
		problems = append(problems, more...)
	}
	out, code := checkReport(name, cfg, problems, c.Bool("strict"))
	if _, err := io.WriteString(c.App.Writer, out); err != nil {
		return err
	}
	if code != 0 {
		return exitStatus(code)
	}
	return nil
}

// whoAmI says which node of the file this host is, unless it is named, and what interfaces it has.
func whoAmI(cfg *Config, named string) (node string, host []hostInterface, err error) {
	host, err = hostInterfaces()
	if err != nil {
		return "", nil, err
	}
	var local []netip.Addr
	for _, i := range host {
		for _, p := range i.Addresses {
			local = append(local, p.Addr())
		}
	}
	node, err = identify(cfg, local, named)
	return node, host, err
}

// hostProblems are what this host lacks for being its node.
func hostProblems(ctx context.Context, cfg *Config, text []byte, node, runDir string) ([]configError, error) {
	node, host, err := whoAmI(cfg, node)
	if errors.Is(err, errWhoAmI) {
		err = &hintError{err.Error(), "hactl config check --host --node NAME", exitBadConfig}
	}
	if err != nil {
		return nil, err
	}
	problems := append(checkHost(cfg, text, node, host), checkFenceAgents(cfg, text, askAgents(ctx, cfg, node))...)
	for _, f := range append(hostFindings(ctx, cfg, node), watchdogFinding(cfg, node, runDir)...) {
		switch f.Level {
		case levelFail:
			problems = append(problems, configError{Severity: severityError, What: f.What, Hint: f.Hint})
		case levelWarn:
			problems = append(problems, configError{Severity: severityWarning, What: f.What, Hint: f.Hint})
		}
	}
	return problems, nil
}

func configFileText(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that nobody writes to is empty, not a wait
	if err != nil {
		return nil, &hintError{err.Error(), "name another FILE", exitBadConfig}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, configFileMax+1))
	if err != nil {
		return nil, &hintError{err.Error(), "name another FILE", exitBadConfig}
	}
	if len(text) > configFileMax {
		return nil, &hintError{fmt.Sprintf("%s is larger than %d bytes", name, configFileMax), "is it the right file?", exitBadConfig}
	}
	return text, nil
}

func showConfig(c *cli.Context) error {
	if c.Bool("json") && c.Bool("text") {
		return wrongUse("usage: "+c.Command.UsageText, "--json and --text exclude each other")
	}
	answer, err := configOf(c)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return writeJSON(c.App.Writer, answer.Effective)
	case c.Bool("text"):
		_, err = io.WriteString(c.App.Writer, answer.Text)
	default:
		_, err = io.WriteString(c.App.Writer, configShow(answer.Effective))
	}
	return err
}

// configOf is the configuration of the file that is named, or the one that the cluster runs.
func configOf(c *cli.Context) (*ConfigAnswer, error) {
	name := c.Args().First()
	if name == "" {
		answer, err := runningConfig(c.Context, newClient(c))
		if h := (*hintError)(nil); errors.As(err, &h) && h.code == exitNoDaemon {
			return nil, &hintError{err.Error(), h.hint + "; or name a FILE: hactl config " + c.Command.Name + " " + c.String("config"), h.code}
		}
		return answer, err
	}
	text, err := configFileText(name)
	if err != nil {
		return nil, err
	}
	cfg, err := fileEffective(name, text)
	if err != nil {
		return nil, err
	}
	return &ConfigAnswer{Text: string(text), Effective: cfg}, nil
}

// fileEffective is the configuration of a text that has no errors; warnings are for config check.
func fileEffective(name string, text []byte) (*Config, error) {
	cfg, problems := parseConfig(text)
	if cfg == nil {
		n := 0
		for _, p := range problems {
			if p.Severity == severityError {
				n++
			}
		}
		return nil, &hintError{fmt.Sprintf("%s is not good: %d errors", name, n), "hactl config check " + name + " shows each with its place", exitBadConfig}
	}
	return cfg, nil
}

func runningConfig(ctx context.Context, cl *client) (*ConfigAnswer, error) {
	answer := new(ConfigAnswer)
	if err := cl.get(ctx, "/v1/config", answer); err != nil {
		return nil, err
	}
	if answer.Effective == nil {
		return nil, &hintError{"the cluster has no configuration yet", "hactl status says what it waits for", exitError}
	}
	return answer, nil
}
