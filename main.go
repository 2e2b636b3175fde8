// hactl keeps services up on several machines: it does the job of Heartbeat (who is alive), Pacemaker (who runs what)
// and of the scripts around DRBD, file systems, addresses and httpd, in one static binary with one file, /etc/ha.toml.
// `hactl daemon` runs on each node, usually as ha.service; every other command talks to the daemon of its own node
// over a socket. The daemons agree on one state by raft, and each makes what runs on its node match that state.
// docs/design.md says what is guaranteed and why.
//
// Where to read, in this order:
//
//	config*.go              what the operator wants: the file, its checks, its defaults
//	state.go status.go      what all nodes agree on; what the operator sees of it
//	heartbeat.go wire.go seal.go liveness.go     who is alive: datagrams, links, keys
//	engine*.go lease.go     who runs what: the rule table, and when an owner is surely gone
//	reach.go ping.go        which targets outside the cluster answer
//	consensus.go            how the nodes agree: etcd's raft
//	class.go node_watchdog.go watchdog.go        what must have ended before another takes over, and what ends it
//	node_sick.go health.go                       is this node well?
//	fence.go fence_run.go fence_agent.go         who is cut off, how, and by which program
//	agent.go host.go resource.go                 make what runs here match the state
//	vip.go httpd.go filesystem.go drbd.go exec.go    one type of resource each
//	gate*.go                what the kernel does when the daemon cannot
//	seams.go node.go daemon.go notify.go         the parts joined, and the world around them
//	control*.go client.go   the socket between the daemon and the commands
//	backup.go               a copy of the data from a node that does not run it
//	usage.go cmd_*.go       the commands, in the order of an operator's day
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is set by the linker for a release; otherwise versionText asks the build.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program with its surroundings as arguments; it returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	app := newApp(in, out, errOut)
	l, err := arrange(app, args)
	switch {
	case err != nil:
	case l.help:
		err = printHelp(out, app, l.path)
	default:
		err = app.RunContext(ctx, l.args)
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = &hintError{"interrupted", "hactl status shows what holds now", exitInterrupted}
	}
	var lost *fs.PathError
	if f, ok := out.(*os.File); ok && errors.As(err, &lost) && lost.Op == "write" && lost.Path == f.Name() {
		err = fmt.Errorf("the output cannot be written: %w", lost.Err)
	}
	return report(errOut, l.path, err)
}

func newApp(in io.Reader, out, errOut io.Writer) *cli.App {
	app := &cli.App{
		Name:      "hactl",
		Usage:     "keeps services up on several machines",
		Version:   versionText(),
		Reader:    in,
		Writer:    out,
		ErrWriter: errOut,
		// Usage errors, help and exit statuses are ours, so that each wrong use is two lines on stderr; see usage.go.
		HideHelp:       true,
		HideVersion:    true,
		Suggest:        true,
		OnUsageError:   onUsageError,
		ExitErrHandler: func(*cli.Context, error) {},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Value: defaultSocket, EnvVars: []string{"HACTL_SOCKET"}, Usage: "the daemon's socket at `PATH`"},
			&cli.StringFlag{Name: "config", Value: defaultConfig, Usage: "the configuration `FILE`"},
			&cli.StringFlag{Name: "color", Value: "auto", Usage: "colour the output `WHEN`: auto, always, never"},
		},
		Commands: []*cli.Command{
			// look
			statusCommand(), whyCommand(), historyCommand(), checkCommand(),
			// steer
			moveCommand(), unmoveCommand(), standbyCommand(), onlineCommand(), maintenanceCommand(), cleanupCommand(), backupCommand(), editCommand(), simulateCommand(),
			// when nodes are gone
			fenceCommand(), confirmDeadCommand(), quorumCommand(), drbdCommand(),
			// set up
			configCommand(), keygenCommand(), daemonCommand(), completionCommand(), versionCommand(), helpCommand(),
			// for shells and packages
			completeCommand(), manCommand(),
		},
	}
	hideLibraryHelp(app.Commands)
	return app
}

const (
	defaultSocket   = "/run/ha/ha.sock"
	defaultConfig   = "/etc/ha.toml"
	defaultStateDir = "/var/lib/ha"
	defaultRunDir   = "/run/ha"
)

// versionText is what `hactl version`, `status --json` and the log say.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := info.Main.Version
	if text == "" || text == "(devel)" {
		text = "devel"
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 12:
				text += "-" + s.Value[:12]
			case s.Key == "vcs.modified" && s.Value == "true":
				text += "-modified"
			}
		}
	}
	return text
}
