// What would hurt when the next fault comes? `check` looks at this host (key file, state disk), at the configuration and,
// where the daemon runs, at the cluster, and says what is well, what is not, and what nothing here protects from.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

// Levels of a finding. A note is a limit to know of, not a thing to mend: it leaves the exit status alone.
const (
	levelOK   = "ok"
	levelNote = "note"
	levelWarn = "warn"
	levelFail = "fail"
)

type finding struct {
	Level string `json:"level"`
	What  string `json:"what"`
	Hint  string `json:"hint,omitempty"` // what to type
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Category:  categoryLook,
		Usage:     "what would hurt when the next fault comes",
		UsageText: "hactl check [--json] [--state-dir FOLDER]",
		Description: `Looks at this host, the configuration and the cluster: key file and which key each node seals
with, how fast the state disk is for the deadtime, silent links, clocks, what two_node does not
protect from. Where the daemon does not run it checks this host against the file.

Exit status: 0 all is well, 1 warnings, 2 something must be mended.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "what is found, as JSON: level (ok, note, warn, fail), what, hint"},
			&cli.StringFlag{Name: "state-dir", Value: defaultStateDir, Usage: "measure the disk of this `FOLDER`"},
		},
		Action: func(c *cli.Context) error {
			l, err := displayOf(c)
			if err != nil {
				return err
			}
			findings := allFindings(c)
			p := &sheet{width: l.width, color: l.color}
			code := 0
			for _, f := range findings {
				code = max(code, f.exit())
				p.finding(f)
			}
			if c.Bool("json") {
				err = writeJSON(c.App.Writer, findings)
			} else {
				_, err = fmt.Fprint(c.App.Writer, p.b.String())
			}
			if err != nil {
				return err
			}
			if code != 0 {
				return exitStatus(code)
			}
			return nil
		},
	}
}

func (f finding) exit() int {
	switch f.Level {
	case levelWarn:
		return 1
	case levelFail:
		return 2
	}
	return 0
}

func (p *sheet) finding(f finding) {
	s := styleNone
	switch f.Level {
	case levelOK:
		s = styleGood
	case levelWarn:
		s = styleWarning
	case levelFail:
		s = styleError
	}
	const hang = 6 // "ok    text"
	for i, line := range wrap(plain(f.What), p.width-hang) {
		label := ""
		if i == 0 {
			label = f.Level
		}
		p.line(p.paint(s, label) + strings.Repeat(" ", hang-len(label)) + line)
	}
	if f.Hint != "" {
		p.line(strings.Repeat(" ", hang) + "do: " + plain(f.Hint))
	}
}

// allFindings asks the daemon first, and takes the file where that does not run.
func allFindings(c *cli.Context) []finding {
	var all []finding
	cl := newClient(c)
	st, failed := cl.status(c.Context)
	var cfg *Config
	self := ""
	if failed == nil {
		self = st.Node
		answer, err := runningConfig(c.Context, cl)
		if err != nil {
			all = append(all, finding{levelFail, "configuration: " + err.Error(), "hactl status"})
		} else {
			cfg = answer.Effective
			all = append(all, fileFinding(c.String("config"), answer))
		}
	} else {
		all = append(all, daemonFinding(failed))
		var more []finding
		cfg, more = fileConfig(c.String("config"))
		all = append(all, more...)
		if cfg != nil {
			self, _, _ = whoAmI(cfg, "") // who it would be; a host that is nobody of the file lacks no service
		}
	}
	if cfg != nil {
		all = append(all, hostFindings(c.Context, cfg, self)...)
		all = append(all, agentFindings(c.Context, cfg, self)...)
		all = append(all, diskFindings(c.String("state-dir"), cfg.Heartbeat.Deadtime.D())...)
		all = append(all, configFindings(cfg)...)
	}
	if failed == nil {
		all = append(all, statusFindings(st)...)
	}
	return all
}

func daemonFinding(err error) finding {
	var h *hintError
	hint := ""
	if errors.As(err, &h) {
		hint = strings.Replace(h.hint, hintStart, "systemctl start ha; if it does not stay up: journalctl -u ha -n 50", 1)
	}
	return finding{levelWarn, err.Error() + ": only this host and its file are checked", hint}
}

func fileConfig(name string) (*Config, []finding) {
	text, err := configFileText(name)
	if err != nil {
		return nil, []finding{{levelFail, "configuration: " + err.Error(), "hactl --config FILE check, or write it: ha.toml.example documents every key"}}
	}
	cfg, err := fileEffective(name, text)
	if err != nil {
		return nil, []finding{{levelFail, "configuration: " + err.Error(), "hactl config check " + name}}
	}
	return cfg, []finding{{levelOK, "configuration: " + name + " is good", ""}}
}

// fileFinding tells whether the file of this host says what the cluster runs.
func fileFinding(name string, answer *ConfigAnswer) finding {
	text, err := configFileText(name)
	if err != nil {
		return finding{levelWarn, fmt.Sprintf("configuration: generation %d is in force, but %v", answer.Generation, err), "hactl config show --text > " + name}
	}
	if answer.Generation == 0 {
		return finding{levelOK, fmt.Sprintf("configuration: %s is good; the cluster is not founded yet", name), ""}
	}
	if configHash(text) != answer.Hash {
		return finding{levelWarn, fmt.Sprintf("configuration: %s is not what the cluster runs (generation %d)", name, answer.Generation), "hactl config show --text | diff - " + name}
	}
	return finding{levelOK, fmt.Sprintf("configuration: %s is what the cluster runs (generation %d)", name, answer.Generation), ""}
}

// hostFindings are what this host lacks for being that node of the file. Without a node its services are left out.
func hostFindings(ctx context.Context, cfg *Config, node string) []finding {
	all := []finding{keyFinding(cfg.Cluster.KeyFile)}
	if cfg.node(node) == nil || cfg.isWitness(node) || os.Geteuid() != 0 {
		return all
	}
	for _, g := range cfg.Groups {
		var mounted []string
		for _, r := range g.Resources {
			name, env := g.Name+"/"+r.Name, resourceEnv{Group: g.Name, Log: slog.New(slog.DiscardHandler)}
			switch r.Type {
			case "httpd", "systemd":
				runner, err := chooseRunner(ctx, r, env, systemdRuns(), dialSystemd)
				all = append(all, serverFindings(ctx, name, runner, err)...)
			case "exec":
				all = append(all, equipmentFinding(name, lacksProgram(ctx, mounted, r.Start.Command, r.Stop.Command, r.Monitor.Command)))
			case "filesystem":
				mounted = append(mounted, r.Directory)
				fallthrough
			case "drbd":
				res, _ := newResource(r, env) // fails for what the check of the file has refused
				if x, ok := res.(equipped); ok {
					err := x.Lacks(ctx)
					all = append(all, equipmentFinding(name, err))
					if x, ok := res.(guarded); ok && err == nil {
						missing, err := x.Unguarded(ctx)
						all = append(all, guardFinding(cfg, &g, r.Resource, missing, err))
						all = append(all, adviceFindings(r.Resource, x.Advice(ctx, cfg.Heartbeat.Deadtime.D()))...)
					}
				}
			}
		}
	}
	for i := range cfg.Fences {
		if f := &cfg.Fences[i]; f.Agent == agentExec && f.neededBy(node) {
			all = append(all, equipmentFinding("[[fence]] "+f.Name, lacksProgram(ctx, nil, f.Off, f.Status, f.Monitor.Command)))
		}
	}
	return all
}

func equipmentFinding(name string, lacks error) finding {
	if lacks != nil {
		return finding{levelFail, name + ": " + lacks.Error(), ""}
	}
	return finding{levelOK, name + ": this host has what it needs", ""}
}

// guardFinding tells whether DRBD as it runs freezes what loses its peer, and what it matters.
func guardFinding(cfg *Config, g *GroupConfig, resource string, missing []string, err error) finding {
	switch {
	case err != nil:
		return finding{levelNote, fmt.Sprintf("DRBD %s: whether it freezes what loses its peer is seen when it is up: %v", resource, err), ""}
	case len(missing) == 0 && g.class() == classGuarded && len(cfg.Nodes) > 2 && len(cfg.fenced()) == 0:
		wait, _ := cfg.silentFor(classGuarded)
		return finding{levelOK, fmt.Sprintf("DRBD %s: freezes what loses its peer until that is recorded, so %s is taken over %s after the last sign of its node", resource, g.Name, shortTime(wait)), ""}
	case len(missing) == 0:
		return finding{levelOK, fmt.Sprintf("DRBD %s: freezes what loses its peer until that is recorded", resource), ""}
	}
	f := finding{levelNote, fmt.Sprintf("DRBD %s: as it runs it does not freeze what loses its peer; missing: %s", resource, strings.Join(missing, " ")),
		fmt.Sprintf("put that into its file in /etc/drbd.d on both nodes, then: drbdadm adjust %s", resource)}
	if _, ends := cfg.silentFor(classStateful); g.class() == classGuarded && len(cfg.Nodes) > 2 && !ends && len(cfg.unfenced()) > 0 {
		f.Level = levelWarn
		f.What += fmt.Sprintf(". When its node dies %s waits for your word that the node is off", g.Name)
	}
	return f
}

// agentFindings are what is wrong here with the agents of the fence devices.
func agentFindings(ctx context.Context, cfg *Config, node string) []finding {
	var all []finding
	for _, p := range checkFenceAgents(cfg, nil, askAgents(ctx, cfg, node)) {
		level := levelFail
		if p.Severity == severityWarning {
			level = levelWarn
		}
		all = append(all, finding{level, p.What, p.Hint})
	}
	return all
}

// serverFindings tells whether this host has that web server or unit, and whether it leaves its start to the cluster.
func serverFindings(ctx context.Context, name string, r runner, err error) []finding {
	if err == nil {
		err = r.fit(ctx)
	}
	if err != nil && !errors.Is(err, errRunsHere) {
		return []finding{{levelFail, name + ": " + err.Error(), ""}}
	}
	if u, ok := r.(*unit); ok {
		if st, err := u.state(ctx); err == nil && st.atBoot() {
			return []finding{{levelWarn, fmt.Sprintf("%s: %s is enabled: it starts at boot before the cluster has decided where it runs", name, u.name), "systemctl disable " + u.name}}
		}
	}
	return []finding{{levelOK, name + ": it is installed and left to the cluster to start", ""}}
}

// keyFinding looks at who can read the key file; what is in it never leaves it.
func keyFinding(name string) finding {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return finding{levelFail, "key file: there is no " + name, "hactl keygen " + name + ", or copy it from another node"}
	case err != nil:
		return finding{levelFail, "key file: " + err.Error(), ""}
	case !info.Mode().IsRegular():
		return finding{levelFail, "key file: " + name + " is no file", ""}
	case info.Mode().Perm()&0o077 != 0:
		return finding{levelFail, fmt.Sprintf("key file: others than its owner can read %s (mode %04o)", name, info.Mode().Perm()), "chmod 600 " + name}
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return finding{levelFail, fmt.Sprintf("key file: %s belongs to %s", name, userName(sys.Uid)), "chown root " + name}
	}
	return finding{levelOK, fmt.Sprintf("key file: only its owner can read %s (mode %04o)", name, info.Mode().Perm()), ""}
}

// diskFindings measures how long the state's disk takes to keep something for good: a vote waits for it.
func diskFindings(dir string, deadtime time.Duration) []finding {
	var all []finding
	info, err := os.Stat(dir)
	if err != nil {
		return []finding{{levelWarn, "state disk: not measured: " + err.Error(), "the daemon makes the folder at its first start; --state-dir names another"}}
	}
	if info.Mode().Perm()&0o077 != 0 {
		all = append(all, finding{levelFail, fmt.Sprintf("state folder: others than its owner can read %s (mode %04o)", dir, info.Mode().Perm()), "chmod 700 " + dir})
	}
	for _, kept := range keptAside(dir) {
		all = append(all, finding{levelNote, "state folder: an earlier state of this node was set aside as " + kept, "journalctl -u ha says why; rm -r it when nobody needs it"})
	}
	took, err := measureSync(dir)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return append(all, finding{levelWarn, "state disk: not measured: " + err.Error(), "run it as root"})
		}
		return append(all, finding{levelFail, "state disk: nothing can be stored: " + err.Error(), "df -h " + dir + "; dmesg"})
	}
	return append(all, judgeSync(took, deadtime))
}

// measureSync writes and syncs as the state's log does: a block appended, then fsync.
func measureSync(dir string) ([]time.Duration, error) {
	const times, block = 20, 4096
	f, err := os.CreateTemp(dir, ".check-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for range times {
		start := time.Now()
		if _, err := f.Write(make([]byte, block)); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, fmt.Errorf("sync %s: %w", filepath.Base(f.Name()), err)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// judgeSync holds the times against what waits for them: a beat of the leader (D/10), and the shortest election (0.4 D),
// which cannot end while a vote is being stored. docs/design.md section 5 has both.
func judgeSync(took []time.Duration, deadtime time.Duration) finding {
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	text := fmt.Sprintf("state disk: %d fsyncs took %s in the middle, %s at most; deadtime is %s", len(took), shortTime(median), shortTime(worst), deadtime)
	switch {
	case median > deadtime*4/10:
		return finding{levelFail, text + ": no election can end in time", fmt.Sprintf("a faster disk, or deadtime of at least %s", shortTime(median*10))}
	case worst > deadtime/10:
		return finding{levelWarn, text + ": takeovers wait for the disk", fmt.Sprintf("a faster disk, or deadtime of at least %s", shortTime(worst*10))}
	}
	return finding{levelOK, text, ""}
}

// shortTime rounds to what is worth reading.
func shortTime(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// configFindings says what the configuration leaves open. Pure.
func configFindings(c *Config) []finding {
	var all []finding
	switch voters := len(c.Nodes); {
	case voters == 2 && c.Cluster.TwoNode == "fence":
		all = append(all, finding{levelNote, `two voters with two_node = "fence": whoever is left has the other cut off, and takes over when its devices confirm that. A device that loses its power with its node, or is cut off with it, confirms nothing: then the group waits for your word. The side without head start takes over ` + shortTime(3*c.Heartbeat.Deadtime.D()) + ` after the other's last sign of life at the earliest.`, "add a witness: a third node with role = \"witness\" decides by itself and is right"})
	case voters == 2 && c.Cluster.TwoNode == "manual":
		all = append(all, finding{levelNote, `two voters with two_node = "manual": when one dies the other goes on with what it runs, and takes over the rest only after you have said that the first is dead. Say so of a node that runs, and both run its groups.`, "add a witness: a third node with role = \"witness\" decides by itself and is right"})
	case voters == 2 && c.Cluster.TwoNode == "ignore" && len(c.Cluster.NeedsPing) > 0:
		targets := wordList(c.Cluster.NeedsPing, "and")
		all = append(all, finding{levelNote, fmt.Sprintf(`two voters with two_node = "ignore" and needs_ping: a node that hears neither the other nor %s stops what it runs, so one that is cut off is caught. When they do not hear each other and both reach %s, both run everything; when one is dead and %s is down, nothing runs.`, targets, targets, targets), "add a witness: a third node with role = \"witness\" prevents it"})
	case voters == 2 && c.Cluster.TwoNode == "ignore":
		all = append(all, finding{levelNote, `two voters with two_node = "ignore": when they do not hear each other both run everything. Addresses then answer twice, and data that both write goes separate ways.`, "add a witness: a third node with role = \"witness\" prevents it"})
	case voters > 2:
		all = append(all, finding{levelOK, fmt.Sprintf("voters: %d, of which %d may be away", voters, (voters-1)/2), ""})
	}
	all = append(all, resetFindings(c)...)
	if len(c.Links) == 1 {
		all = append(all, finding{levelWarn, "links: there is only one, and a fault of it looks like the death of a node", "add a [[link]] over another cable and switch"})
	} else {
		all = append(all, finding{levelOK, fmt.Sprintf("links: %d", len(c.Links)), ""})
	}
	return all
}

// resetFindings says which nodes can be cut off, which groups need a reset of a silent host before another may take them,
// and whether anything does it.
func resetFindings(c *Config) []finding {
	var all []finding
	if with := c.fenced(); len(with) > 0 {
		all = append(all, finding{levelOK, "fencing: " + wordList(with, "and") + "; hactl fence test asks the devices of this node", ""})
	}
	var data []string
	for i := range c.Groups {
		g := &c.Groups[i]
		r := g.strictest()
		if r == nil {
			continue
		}
		data = append(data, g.Name)
		if len(c.Nodes) < 3 || g.class() == classGuarded {
			continue // not by waiting is a group taken over there; or DRBD itself must be looked at
		}
		wait, ends := c.silentFor(classStateful)
		switch without := c.unfenced(); {
		case ends:
			all = append(all, finding{levelOK, fmt.Sprintf("group %s: stateful, taken over %s after the last sign of its node", g.Name, shortTime(wait)), ""})
		case len(without) == 0:
			all = append(all, finding{levelOK, fmt.Sprintf("group %s: stateful, taken over when its node is confirmed to be fenced", g.Name), ""})
		default:
			all = append(all, finding{levelWarn, fmt.Sprintf("group %s: %s is stateful, and neither a watchdog nor a fence device ends %s: when that node dies it waits for your word that the node is off", g.Name, r.Name, wordList(without, "or")),
				`[watchdog] device = "/dev/watchdog", a [[fence]], or state = "addressed" where two at once do no harm`})
		}
	}
	if without := c.unfenced(); len(c.Nodes) == 2 && len(without) > 0 && len(data) > 0 {
		all = append(all, finding{levelNote, fmt.Sprintf("fencing: %s cannot be cut off, and %s more than addresses and web servers: if the daemon there is frozen, nothing keeps it from writing on when another takes over",
			wordList(without, "and"), wordList(data, "and")+" "+plural(len(data), "holds", "hold")), "add a [[fence]] for each node"})
	}
	return all
}

// watchdogFinding says whether this host has the watchdog that is configured, and nobody else has it. One that the daemon
// holds, or left running, is as good as one at rest.
func watchdogFinding(cfg *Config, node, runDir string) []finding {
	device := cfg.Watchdog.Device
	if !cfg.Watchdog.watched() || cfg.isWitness(node) {
		return nil
	}
	h := hostDog{sys: "/sys"}
	s := h.look(device)
	ours, _ := os.ReadFile(filepath.Join(runDir, dogNote)) // fails: no daemon of ours has it
	switch {
	case s.Fault != "" && string(ours) != device:
		return []finding{{levelFail, "[watchdog] device: " + s.Fault, ""}}
	case s.Soft:
		return []finding{{levelWarn, fmt.Sprintf("[watchdog] device: %s is softdog, %s", device, softly), softHint}}
	}
	return []finding{{levelOK, fmt.Sprintf("[watchdog] device: %s (%s)", device, s.Device), ""}}
}

const (
	softly   = "a timer of the very kernel that it watches: a kernel that hangs, or a virtual machine that stands still, stops it too"
	softHint = "use the host's own watchdog where it has one"
)

// watchdogFindings says what the nodes have of the watchdog that is configured.
func watchdogFindings(s *Status) []finding {
	var all []finding
	for _, n := range s.Nodes {
		switch e := n.Enforce; {
		case e == nil || e.Device == "" && e.Fault == "":
		case e.Fault != "": // among the problems
		case e.Soft:
			all = append(all, finding{levelWarn, fmt.Sprintf("watchdog of %s: %s, %s", n.Name, e.Device, softly), softHint})
		default:
			all = append(all, finding{levelOK, fmt.Sprintf("watchdog of %s: %s", n.Name, e.Device), ""})
		}
	}
	return all
}

// statusFindings says what is not well between the nodes. Pure.
func statusFindings(s *Status) []finding {
	all := []finding{keysFinding(s)}
	all = append(all, linkFindings(s)...)
	all = append(all, clockFindings(s)...)
	all = append(all, watchdogFindings(s)...)
	all = append(all, gateFinding(s))
	for _, p := range s.Problems {
		level := levelWarn
		if p.Severity == "error" {
			level = levelFail
		}
		all = append(all, finding{level, "status: " + p.What, p.Command})
	}
	return all
}

// gateFinding says what ends a lease where the daemon cannot.
func gateFinding(s *Status) finding {
	f := finding{levelNote, "never two: held by " + s.Enforcer, ""}
	if s.Gate == gateLifetime {
		f.Level, f.Hint = levelWarn, "mend what keeps the gate out, then: hactl status"
	}
	return f
}

func keysFinding(s *Status) finding {
	var keys, seals []string
	for _, n := range s.Nodes {
		if n.Key == "" || !n.Heard {
			continue
		}
		if !slices.Contains(keys, n.Key) {
			keys = append(keys, n.Key)
		}
		seals = append(seals, n.Name+" "+n.Key)
	}
	switch len(keys) {
	case 0:
		return finding{levelWarn, "keys: no node says which key it seals with", "hactl status"}
	case 1:
		return finding{levelOK, "keys: every node that is heard seals with " + strings.ReplaceAll(keys[0], " ", " and "), ""}
	}
	return finding{levelWarn, "keys: nodes seal with different keys: " + strings.Join(seals, ", "), "copy the newest key file to every node before you drop a key"}
}

func linkFindings(s *Status) []finding {
	var all []finding
	for _, l := range s.Links {
		name, heard := fmt.Sprintf("link %s (%s)", l.Name, l.Interface), 0
		for _, n := range s.Nodes {
			if slices.Contains(n.Links, l.Name) {
				heard++
			}
		}
		switch {
		case l.State != "up":
			all = append(all, finding{levelFail, name + ": " + l.State, "ip link show " + l.Interface})
		case heard == 0 && len(s.Nodes) > 1:
			all = append(all, finding{levelWarn, name + ": nobody is heard on it", "cable, switch, firewall (the heartbeat port, UDP); does the daemon run on the others, with this key?"})
		case len(l.Silent) > 0:
			all = append(all, finding{levelWarn, name + ": not heard on it: " + strings.Join(l.Silent, ", "), "cable, switch, firewall (the heartbeat port, UDP)"})
		default:
			all = append(all, finding{levelOK, name + ": every node is heard on it that is heard at all", ""})
		}
	}
	return all
}

func clockFindings(s *Status) []finding {
	const apart = 1.0 // seconds; decisions need no common clock, people who read two logs do
	var all []finding
	for _, n := range s.Nodes {
		if n.Clock > apart || n.Clock < -apart {
			direction := "ahead of"
			if n.Clock < 0 {
				direction = "behind"
			}
			all = append(all, finding{levelWarn, fmt.Sprintf("clocks: that of %s is %s %s that of %s; the cluster does not mind, logs are hard to compare", n.Name, age(max(n.Clock, -n.Clock)), direction, s.Node), "chronyc tracking, on both"})
		}
	}
	if len(all) == 0 {
		all = append(all, finding{levelOK, "clocks: within a second of one another", ""})
	}
	return all
}
