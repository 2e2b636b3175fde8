// What is the real world around a node? It finds out who this host is, opens folder, sockets and keys, and runs the
// loop that has the only clock and the only select. It decides nothing: node.go does.

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// daemonOptions are the flags of `hactl daemon`.
type daemonOptions struct {
	Config    string // /etc/ha.toml
	Node      string // "": the node one of whose addresses is configured on this host
	StateDir  string // /var/lib/ha
	RunDir    string // /run/ha
	Socket    string // control socket; in RunDir unless --socket says otherwise
	Bootstrap bool   // found the cluster although not all voters are there
	LogFormat string // auto, journal, text, json
}

const (
	eventQueue   = 4096                  // events that may wait for the loop
	statusGap    = 20 * time.Millisecond // between two Status documents
	statusStale  = time.Second           // ages in it are no older
	detailsEvery = 2 * time.Second       // resources are asked for what they have to show, while somebody looks
	detailsIdle  = 20 * time.Second      // … and while nobody does
	lookLasts    = time.Minute           // a look at the status, until the next one
	readyLimit   = 30 * time.Second      // a monitor that hangs keeps no boot waiting, and systemd gives a start 90 s
	stopSlack    = 5 * time.Second       // the daemon gives up on its own before systemd kills it
)

// daemon is one run of the program.
type daemon struct {
	o         daemonOptions
	log       *slog.Logger
	level     slog.LevelVar
	boot      string
	name      string
	folder    stateFolder
	store     *diskStore
	net       *network
	host      *host
	dog       *hostDog
	fencer    *fenceAgents
	node      *node
	files     *configFile
	wired     *Config  // what the transport talks by: the config in force, and those who are about to leave it
	makeshift bool     // wired is the edited file, since by the config in force nobody is heard
	cutOff    bool     // by the config in force this host can be heard on no link: wired is another one, by which it can
	retiring  []string // nodes in wired that are in the config no more
	listed    bool     // the file at the start has this node
	events    chan any
	aside     sync.WaitGroup // what the loop does not wait for
	ended     chan struct{}  // closed when the loop is over: nobody takes events any more

	meeting     atomic.Pointer[meeting] // the newest, whichever write of it is under way
	meetingSave sync.Mutex

	published atomic.Pointer[published]
	mu        sync.Mutex
	changed   chan struct{} // closed and made anew with each published document
	details   map[string]groupDetails
	looked    atomic.Int64  // when somebody looked at the status last
	look      chan struct{} // somebody does after a while
	lease     noteFile
	reload    chan os.Signal // SIGHUP: look at the file now
	told      string         // the line that systemctl status shows
}

// errNobody ends a daemon that was told to end before it knew which node it is.
var errNobody = errors.New("ended before this host had one of the cluster's addresses")

// published is what the commands see; made on the loop, never changed after.
type published struct {
	status  *Status
	history []Event
	config  ConfigState
	version uint64
	at      instant
}

// runDaemon runs until ctx ends and the groups are handed over, or left to the daemon that is started next, or until a
// second signal comes.
func runDaemon(ctx context.Context, o daemonOptions) error {
	began := boottime()
	err := runDaemonOnce(ctx, o)
	if err != nil && underSystemd() {
		pause(ctx, failedPause-boottime().sub(began)) // what fails at once would fill the journal
	}
	return err
}

func runDaemonOnce(ctx context.Context, o daemonOptions) error {
	d := &daemon{o: o, folder: stateFolder(o.StateDir), events: make(chan any, eventQueue), ended: make(chan struct{}), changed: make(chan struct{}), look: make(chan struct{}, 1),
		lease: noteFile{path: filepath.Join(o.RunDir, "lease")}}
	d.log = newLogger(o.LogFormat, os.Stderr, &d.level)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d.reload = make(chan os.Signal, 1) // from the very beginning: SIGHUP would end a process that does not ask for it
	signal.Notify(d.reload, syscall.SIGHUP)
	defer signal.Stop(d.reload)
	if err := lockMemory(); err != nil {
		d.log.Warn("the daemon may be swapped out", "event", "memory-unlocked", "err", err)
	}
	if err := raisePriority(); err != nil {
		d.log.Warn("a busy host may keep the daemon waiting", "event", "priority-low", "err", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read the kernel's boot id: %w", err)
	}
	d.boot = strings.TrimSpace(string(boot))
	if err := os.MkdirAll(o.RunDir, 0o750); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	err = d.live(ctx)
	var old *tooOld
	switch {
	case errors.Is(err, errNobody):
		d.log.Info(err.Error(), "event", "daemon-ended")
		return nil
	case errors.As(err, &old):
		return d.refuse(ctx, old)
	}
	return err
}

// live is the daemon from the opening of its folder to its end.
func (d *daemon) live(ctx context.Context) error {
	restored, member, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer d.store.Close()
	if err := d.begin(restored, member); err != nil {
		return err
	}
	defer d.net.Close()
	defer d.host.Close()
	defer d.fencer.Close()
	defer d.aside.Wait()
	return d.serve(ctx)
}

// tooOld: the cluster has agreed on what this binary does not know. Its folder stays as it is.
type tooOld struct {
	state *State
	level int // the cluster's
	knows int // this binary
}

func (e *tooOld) Error() string {
	return fmt.Sprintf("this hactl is too old for its cluster: the cluster is at feature level %d, and version %s knows no more than %d",
		e.level, versionText(), e.knows)
}

// checkLevel is for a state that was stored or told by others, and for what the log has after it.
func checkLevel(s *State, entries []*raftpb.Entry, knows int) error {
	if s == nil {
		return nil
	}
	level := s.Feature
	for _, x := range entries {
		var e Entry
		if json.Unmarshal(x.GetData(), &e) == nil && e.Kind == entryFeature {
			level = max(level, e.Feature)
		}
	}
	if level > knows {
		return &tooOld{s, level, knows}
	}
	return nil
}

// refuse stays, touches nothing and says why, until it is told to end: a daemon that ended would be started again for ever.
// What runs here runs on, and its addresses are shut when their lease is over.
func (d *daemon) refuse(ctx context.Context, old *tooOld) error {
	s := &Status{Node: d.name, Version: versionText(), Wall: time.Now(), Overall: "down", Generation: old.state.Config.Generation,
		Incarnation: old.state.Incarnation.Counter, Enforcer: "the other nodes: this one takes no part"}
	if c := old.state.Config.Effective; c != nil {
		s.Cluster = c.Cluster.Name
	}
	for _, g := range old.state.Groups {
		s.Groups = append(s.Groups, GroupStatus{Name: g.Name, State: "waiting", Epoch: g.Epoch})
	}
	s.Problems = []Problem{{ID: "too-old", Severity: "error", What: old.Error(), Next: "its state in " + d.o.StateDir + " is kept as it is",
		Command: "hactl --version"}}
	d.published.Store(&published{status: s, history: old.state.History, config: old.state.Config})
	l, err := listenControl(d.o.Socket, d.o.RunDir)
	if err != nil {
		return err
	}
	d.log.Error(old.Error(), "event", "too-old", "fix", "install here the version that the other nodes run, then: systemctl restart ha")
	tellSystemd(sd.SdNotifyReady, statusLine(old.Error()))
	around, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() {
		if err := serveControl(around, l, d, d.log); err != nil {
			d.log.Error("the control socket is gone", "event", "control-failed", "err", err)
		}
	})
	for pause(ctx, failedPause) {
		tellSystemd(sd.SdNotifyWatchdog)
	}
	return nil
}

// open reads the file, finds out who this host is, and opens the state folder.
func (d *daemon) open(ctx context.Context) (*restored, member, error) {
	text, cfg, report := loadConfigFile(d.o.Config)
	known, err := d.folder.Node()
	if err != nil {
		d.log.Warn("the node's name is not known from before", "event", "name-unknown", "err", err)
	}
	if cfg == nil && known == "" {
		return nil, member{}, &hintError{msg: report, hint: "mend " + d.o.Config + ", then: hactl config check " + d.o.Config, code: exitError}
	}
	if cfg != nil {
		if d.name, err = d.whoAmI(ctx, cfg, known); err != nil {
			return nil, member{}, err
		}
	} else {
		d.name = known
	}
	var found openedFolder
	d.store, found, err = openStore(d.o.StateDir, d.name, d.log, func(s saved) { d.emit(s) })
	if err != nil {
		return nil, member{}, err
	}
	if err := d.folder.SaveNode(d.name); err != nil {
		d.log.Error("cannot remember the node's name", "event", "store-failed", "err", err)
	}
	inForce := cfg
	if found.Restored != nil {
		st, err := stateOf(found.Restored)
		if err == nil {
			if err := checkLevel(st, found.Restored.Entries, featureLevel); err != nil {
				d.store.Close()
				return nil, member{}, err
			}
		}
		if err == nil && st.Config.Effective != nil {
			inForce = st.Config.Effective
		}
	}
	if inForce == nil {
		d.store.Close()
		return nil, member{}, &hintError{msg: report, hint: "mend " + d.o.Config, code: exitError}
	}
	if inForce.node(d.name) == nil {
		// The cluster has removed this node. It comes back when its file says that it belongs to it again; see node.rejoin.
		if cfg == nil || cfg.node(d.name) == nil {
			d.store.Close()
			return nil, member{}, &hintError{msg: d.name + " is no longer in the config of the cluster",
				hint: "systemctl disable --now ha; or put it into the config on another node, copy that file to " + d.o.Config + " and start it again", code: exitError}
		}
		inForce = cfg
	}
	d.listed = cfg != nil && cfg.node(d.name) != nil
	d.files = newConfigFile(d, text, cfg, report)
	d.files.inForce = inForce
	d.suit(inForce)
	return found.Restored, found.Member, nil
}

// whoAmI waits until one of the addresses in the file is configured here.
func (d *daemon) whoAmI(ctx context.Context, cfg *Config, saved string) (string, error) {
	override := d.o.Node
	if override == "" && saved != "" && cfg.node(saved) != nil {
		override = saved // once known, a missing interface changes nothing
	}
	told := ""
	for {
		local, err := localAddrs()
		if err != nil {
			return "", err
		}
		name, err := identify(cfg, local, override)
		if err == nil {
			return name, nil
		}
		if d.o.Node != "" {
			return "", err
		}
		if told != err.Error() {
			told = err.Error()
			d.log.Warn(told, "event", "identity-unknown")
			// Up and waiting is what there is to be had: `systemctl start` must not hang until an address comes.
			tellSystemd(sd.SdNotifyReady, statusLine(told))
		}
		tellSystemd(sd.SdNotifyWatchdog)
		if !pause(ctx, time.Second) {
			return "", errNobody
		}
	}
}

// begin opens keys and sockets and makes the node.
func (d *daemon) begin(restored *restored, m member) error {
	cfg := d.files.inForce
	keys, err := loadKeys(cfg.Cluster.KeyFile)
	if err != nil {
		return fmt.Errorf("load the key: %w", err)
	}
	wired := d.heardBy(cfg, d.files.mended)
	d.net, err = openNetwork(d.name, wired, keys, d.log)
	if err != nil {
		return err
	}
	d.wired = wired
	d.host = newHost(d.o.RunDir, openGates(nil, d.log), d.log, d.emit)
	d.dog = newHostDog(d.o.RunDir, d.log, func(s dogState) { d.emit(s) })
	d.fencer = newFenceAgents(d.log, d.emit)
	marks, caretaker := d.readLease()
	joined, err := d.folder.Boot()
	if err != nil {
		d.log.Warn("whether this node has joined since the boot is not known", "event", "boot-unknown", "err", err)
	}
	met, err := d.folder.Meeting()
	if err != nil {
		d.log.Warn("whether another incarnation of the cluster was met is not known", "event", "meeting-unknown", "err", err)
	}
	d.node, err = newNode(boottime(), nodeOptions{
		Name: d.name, Session: d.net.Session(), Boot: d.boot, Bootstrap: d.o.Bootstrap, Member: m.ID, Born: boottime(), Level: featureLevel,
		Wall: func() int64 { return time.Now().UnixNano() }, Random: random, Log: d.log,
		Config: cfg, FileHash: d.files.hash, FileText: compress(d.files.text), Listed: d.listed, Restored: restored,
		Joined: joined.Joined && joined.Boot == d.boot, Lease: marks, Caretaker: caretaker, Met: met, Fencer: d.fencer,
		Watchdog: d.dog, DogLeft: d.dog.is,
	}, d.net, d.host, d)
	if err == nil {
		d.tellGate()
		_ = os.Remove(filepath.Join(d.o.RunDir, leftNote)) // fails where there is none
	}
	return err
}

// tellGate lets the node say what holds the end of a lease here; on a link the gate may fail, and come back.
func (d *daemon) tellGate() {
	g := d.host.Gate()
	d.node.GateIs(g.Kind, g.Slack)
}

func random() uint64 {
	return newMember("").ID // never 0, never one of raft's own
}

// serve runs the loop and what stands around it.
func (d *daemon) serve(ctx context.Context) error {
	l, err := listenControl(d.o.Socket, d.o.RunDir)
	if err != nil {
		return err
	}
	d.publish(boottime())
	around, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() {
		if err := serveControl(around, l, d, d.log); err != nil {
			d.log.Error("the control socket is gone", "event", "control-failed", "err", err)
		}
	})
	wg.Go(func() {
		watchLinks(around, d.log, func() {
			d.net.LinksChanged()
			d.post(around, func(n *node, now instant) {
				d.linksChanged()
				n.LinksChanged(now)
			})
		})
	})
	wg.Go(func() { d.dog.run(around) })
	wg.Go(func() {
		newForkWatch(func(fault string) { d.post(around, func(n *node, now instant) { n.CanFork(now, fault) }) }).run(around)
	})
	wg.Go(func() { d.files.watch(around, d.reload) })
	wg.Go(func() { d.watchKeys(around) })
	wg.Go(func() { d.askDetails(around) })
	d.log.Info("hactl runs", "event", "daemon-started", "node", d.name, "version", versionText(), "cluster", d.files.inForce.Cluster.Name)
	err = d.loop(ctx)
	d.log.Info("hactl ends", "event", "daemon-ended")
	return err
}

// emit puts an event into the loop; after its end events are dropped.
func (d *daemon) emit(e any) {
	select {
	case d.events <- e:
	case <-d.ended:
	}
}

// post puts a call of the node into the loop.
func (d *daemon) post(ctx context.Context, call func(*node, instant)) {
	select {
	case d.events <- call:
	case <-d.ended:
	case <-ctx.Done():
	}
}

// leftNote is the file of the run folder that names the groups which the daemon has left behind, one a line: a removal of
// the package asks it. The next daemon knows more, and removes it.
const leftNote = "left-running"

func (d *daemon) noteLeft() {
	path, text := filepath.Join(d.o.RunDir, leftNote), ""
	for _, group := range d.node.agent.running() {
		text += group + "\n"
	}
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if text != "" {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		d.log.Warn("what is left running cannot be noted", "event", "left-unnoted", "err", err)
	}
}

// loop is the only place that waits.
func (d *daemon) loop(ctx context.Context) error {
	defer close(d.ended)
	defer d.noteLeft()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var pets <-chan time.Time
	if every := watchdogEvery(); every != 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		pets = t.C
	}
	done, leaving := ctx.Done(), false
	again := make(chan bool, 1)
	force := make(chan os.Signal, 1)
	var limit, armed instant
	ready, readyBy := false, boottime().add(readyLimit)
	for {
		now := boottime()
		if wake := min(d.node.Wake(), d.publishAt(now)); wake != armed || wake <= now {
			timer.Reset(max(0, wake.sub(now)))
			armed = wake
		}
		select {
		case e := <-d.events:
			d.handle(e)
		case r := <-d.net.Received():
			d.handle(r)
		case <-timer.C:
			armed = 0
			d.node.Tick(boottime())
		case <-pets:
			tellSystemd(sd.SdNotifyWatchdog)
		case <-done:
			done = nil
			signal.Notify(force, syscall.SIGTERM, syscall.SIGINT)
			d.aside.Go(func() { again <- d.startsAgain() })
		case restart := <-again:
			if restart {
				d.node.Restart(boottime())
				d.log.Info("restarting: what runs is left running", "event", "daemon-restarting")
				return nil
			}
			leaving = true
			most := d.node.config.stopLongest() + d.node.config.stopExtra()
			limit = boottime().add(most)
			d.log.Info("stopping: handing over", "event", "daemon-stopping")
			tellSystemd(sd.SdNotifyStopping, extendStop(most+stopSlack))
			d.node.Leave(boottime())
			d.noteLeft() // who is killed before all has stopped notes nothing
		case <-force:
			d.log.Warn("second signal: ending at once, what runs is left running", "event", "daemon-forced")
			return nil
		}
		for range len(d.net.Received()) {
			d.handle(<-d.net.Received())
		}
		for range len(d.events) {
			d.handle(<-d.events)
		}
		if err := checkLevel(d.node.state, nil, featureLevel); err != nil {
			return err
		}
		d.retire()
		d.tellGate()
		now = boottime()
		d.publishIfDue(now)
		if !ready && (d.node.Looked() || now > readyBy) {
			ready = true
			tellSystemd(sd.SdNotifyReady) // that there is a cluster to work in may take others
		}
		if leaving {
			gone, why := d.node.Gone(now)
			if gone {
				return nil
			}
			if now > limit {
				d.log.Error("ending although not everything is handed over: "+why, "event", "daemon-forced")
				return nil
			}
		}
	}
}

func (d *daemon) handle(e any) {
	now := boottime()
	switch e := e.(type) {
	case received:
		d.node.Received(now, e)
	case saved:
		d.node.Saved(now, e)
	case actionDone:
		d.node.ActionDone(now, e)
	case noticed:
		d.node.Noticed(now, e)
	case dogState:
		d.node.WatchdogIs(now, e)
	case pinged:
		d.node.Pinged(now, e.ID, e.Failure)
	case fenceDone:
		d.node.FenceDone(now, e)
	case func(*node, instant):
		e(d.node, now)
	}
}

// startsAgain asks systemd, away from the loop.
func (d *daemon) startsAgain() bool {
	restart, err := startsAgain(context.Background(), dialSystemdBus)
	if err != nil {
		d.log.Warn("cannot tell a restart from a stop: taken for a stop", "event", "job-unknown", "err", err)
	}
	return restart
}

// publishAt is when a changed document is due.
func (d *daemon) publishAt(now instant) instant {
	p := d.published.Load()
	if p.version != d.node.version {
		return p.at.add(statusGap)
	}
	return p.at.add(statusStale)
}

func (d *daemon) publishIfDue(now instant) {
	if now >= d.publishAt(now) {
		d.publish(now)
	}
}

// publish makes the documents that the commands read.
func (d *daemon) publish(now instant) {
	d.mu.Lock()
	details := d.details
	d.mu.Unlock()
	out := surroundings{version: versionText(), details: details, keys: map[string]string{}, gate: d.host.Gate(), cutOff: d.cutOff}
	for _, l := range d.net.LinkStates() {
		out.links = append(out.links, LinkStatus{Name: l.Name, Interface: l.Interface, State: l.State})
	}
	stats := d.net.Stats()
	out.keys[d.name] = strings.Join(stats.Keys, " ")
	for _, p := range stats.Peers {
		out.keys[p.Name] = strings.Join(p.Keys, " ")
	}
	p := &published{status: d.node.Status(now, out), version: d.node.version, at: now}
	p.status.tellRefused(stats.Peers, now)
	if s := d.node.state; s != nil {
		p.history = append(p.history, s.History...)
		p.config = s.Config
	}
	d.published.Store(p)
	if text := clusterLine(p.status); text != d.told {
		d.told = text
		tellSystemd(statusLine(text))
	}
	d.mu.Lock()
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
}

// askDetails asks the resources for what they have to show, away from the loop. It takes connections and processes, so it is
// done seldom while nobody looks.
func (d *daemon) askDetails(ctx context.Context) {
	var asked time.Time
	for ctx.Err() == nil {
		every := detailsIdle
		if time.Since(time.Unix(0, d.looked.Load())) < lookLasts {
			every = detailsEvery
		}
		if left := every - time.Since(asked); left > 0 {
			select {
			case <-time.After(left):
			case <-d.look:
			case <-ctx.Done():
			}
			continue
		}
		asked = time.Now()
		all := map[string]groupDetails{}
		for _, g := range d.published.Load().status.Groups {
			ask, cancel := context.WithTimeout(ctx, detailsEvery)
			all[g.Name] = d.host.Status(ask, g.Name)
			cancel()
		}
		d.mu.Lock()
		d.details = all
		d.mu.Unlock()
	}
}

// The controller, for control.go.

func (d *daemon) Status() *Status {
	if now := time.Now().UnixNano(); d.looked.Swap(now) < now-int64(lookLasts) {
		select {
		case d.look <- struct{}{}: // the next look has what is true now
		default:
		}
	}
	return d.published.Load().status
}

func (d *daemon) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

func (d *daemon) History(n int) []Event {
	h := d.published.Load().history
	return h[max(0, len(h)-n):]
}

func (d *daemon) Config() (uint64, string, []byte, *Config) {
	p := d.published.Load()
	if p.config.Effective == nil {
		hash, text := d.files.founding()
		return 0, hash, text, d.files.inForce
	}
	text, err := decompress(p.config.Text)
	if err != nil {
		d.log.Error("the config's text cannot be read", "event", "config-unreadable", "err", err)
	}
	return p.config.Generation, p.config.Hash, text, p.config.Effective
}

// Generations are those whose text this node has: a node that was away lacks those that came and went meanwhile.
func (d *daemon) Generations() ([]generation, error) {
	all, err := d.folder.Generations()
	var out []generation
	for _, n := range all {
		out = append(out, d.folder.About(n))
	}
	return out, err
}

func (d *daemon) Generation(n uint64) ([]byte, error) { return d.folder.Generation(n) }

func (d *daemon) State() ([]byte, error) {
	answer := make(chan []byte, 1)
	d.post(context.Background(), func(n *node, now instant) {
		if n.state == nil {
			answer <- nil
			return
		}
		answer <- n.snapshot(now)
	})
	select {
	case b := <-answer:
		if b == nil {
			return nil, &hintError{msg: "this node has no state yet", hint: "hactl status"}
		}
		return b, nil
	case <-d.ended:
		return nil, errors.New("the daemon is ending")
	}
}

func (d *daemon) Command(ctx context.Context, c Command, progress func(Progress)) error {
	if c.Name == commandEdit {
		if err := d.edits(c); err != nil {
			return err
		}
	}
	return d.ask(ctx, progress, func(n *node, now instant, say func(Progress)) { n.Command(now, c, say) })
}

// ask runs a command in the loop and passes on what it says.
func (d *daemon) ask(ctx context.Context, progress func(Progress), call func(*node, instant, func(Progress))) error {
	said := make(chan Progress, 64)
	d.post(ctx, func(n *node, now instant) {
		call(n, now, func(p Progress) {
			select {
			case said <- p:
			default: // nobody listens any more
				if p.Done {
					go func() { // there is room as soon as one is read
						select {
						case said <- p:
						case <-ctx.Done():
						}
					}()
				}
			}
		})
	})
	for {
		select {
		case p := <-said:
			if p.Done || p.Err != "" { // who asks for the status next sees what came of it
				shown := make(chan struct{})
				d.post(ctx, func(_ *node, now instant) { d.publish(now); close(shown) })
				select {
				case <-shown:
				case <-d.ended:
				case <-ctx.Done():
				}
			}
			if p.Err != "" {
				return &hintError{p.Err, p.Hint, p.Code}
			}
			if p.Text != "" {
				progress(Progress{Text: p.Text})
			}
			if p.Done {
				return nil
			}
		case <-d.ended:
			return &hintError{msg: "the daemon has ended before this was done", hint: "hactl status; what was recorded stands"}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// The keeper, for node.go.

func (d *daemon) Save(w write)                          { d.store.Save(w) }
func (d *daemon) Replace(why string, m member, w write) { d.store.Replace(why, m, w) }
func (d *daemon) Accept(c ConfigState)                  { d.accept(c) }

// KeepJoined waits for no disk: until the note is there, a restarted daemon merely waits for the others once more.
func (d *daemon) KeepJoined() {
	d.aside.Go(func() {
		if err := d.folder.SaveBoot(bootNote{Boot: d.boot, Joined: true}); err != nil {
			d.log.Error("cannot remember that this node has joined", "event", "store-failed", "err", err)
		}
	})
}

// KeepMeeting waits for no disk either: who crashes before the note is there is like one who was cut off before the glimpse.
func (d *daemon) KeepMeeting(m meeting) {
	d.meeting.Store(&m)
	d.aside.Go(func() {
		d.meetingSave.Lock()
		defer d.meetingSave.Unlock()
		if err := d.folder.SaveMeeting(*d.meeting.Load()); err != nil {
			d.log.Error("cannot remember that this node has to join another incarnation of the cluster", "event", "store-failed", "err", err)
		}
	})
}

// leaseNote is the file that a restarted daemon reads.
type leaseNote struct {
	Boot      string      `json:"boot"`
	Caretaker bool        `json:"caretaker"`
	Marks     []leaseMark `json:"marks"`
}

func (d *daemon) KeepLease(marks []leaseMark, caretaker bool) {
	b, err := json.Marshal(leaseNote{d.boot, caretaker, marks})
	if err == nil {
		err = d.lease.write(b)
	}
	if err != nil {
		d.log.Error("cannot note the lease for a restart", "event", "lease-note-failed", "err", err)
	}
}

// noteFile is a file in a folder that a reboot empties, so nothing of it is synced. It is written with each grant, so it is
// written over where that is safe.
type noteFile struct {
	path string
	file *os.File
	size int
}

func (f *noteFile) write(b []byte) error {
	var there unix.Stat_t
	inPlace := f.file != nil && max(len(b), f.size) <= os.Getpagesize() &&
		unix.Fstat(int(f.file.Fd()), &there) == nil && there.Nlink > 0 // nobody has taken it away
	if !inPlace {
		return f.replace(b)
	}
	// What is within a page is written whole or not at all by whoever is killed meanwhile. Spaces cover what was longer.
	b = append(b, bytes.Repeat([]byte{' '}, max(0, f.size-len(b)))...)
	f.size = len(b)
	_, err := f.file.WriteAt(b, 0)
	return err
}

// replace makes the file anew; the rename keeps a half-written one from being read.
func (f *noteFile) replace(b []byte) error {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
	file, err := os.OpenFile(f.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = file.Write(b); err == nil {
		err = os.Rename(file.Name(), f.path)
	}
	if err != nil {
		file.Close()
		return err
	}
	f.file, f.size = file, len(b)
	return nil
}

func (d *daemon) readLease() ([]leaseMark, bool) {
	b, err := os.ReadFile(d.lease.path)
	var note leaseNote
	if err != nil || json.Unmarshal(b, &note) != nil || note.Boot != d.boot {
		return nil, false
	}
	return note.Marks, note.Caretaker
}

// accept takes a config that came into force. The files are not the loop's business.
func (d *daemon) accept(c ConfigState) {
	d.suit(c.Effective)
	d.makeshift = false
	d.wireBy(d.heardBy(c.Effective, d.wired))
	d.files.accept(c)
}

// heardBy is the config in force, unless this host can be heard on no link by that and can by another one, such as the one
// before: an edit that some hosts cannot do must not leave nobody to take it back.
func (d *daemon) heardBy(inForce, other *Config) *Config {
	host, err := hostInterfaces()
	d.cutOff = err == nil && other != nil && sameCluster(inForce, other) == nil && inForce.cutOff(d.name, host) && !other.cutOff(d.name, host)
	if !d.cutOff {
		return inForce
	}
	d.log.Error("this host has none of the links of the config in force: it keeps to those that it has. Mend the config", "event", "links-kept")
	return other
}

// wireBy lets the transport talk by a config.
func (d *daemon) wireBy(c *Config) {
	d.wired, d.retiring = withMembers(c, d.wired, d.node.state)
	d.rewire()
}

// linksChanged tries the config in force again where it could not be done.
func (d *daemon) linksChanged() {
	if d.cutOff && d.node.state != nil {
		d.wireBy(d.heardBy(d.node.config, d.wired))
	}
}

// edits refuses what this host cannot do.
func (d *daemon) edits(c Command) error {
	next, _ := parseConfig([]byte(c.Text))
	host, err := hostInterfaces()
	_, _, _, before := d.Config()
	if next == nil || err != nil || before == nil {
		return nil // the node says what is wrong
	}
	if faults := newFaults(before, next, []byte(c.Text), d.name, host); len(faults) > 0 {
		return &hintError{msg: "this host has not what the configuration asks for: " + onOneLine("the next", faults[0]), hint: "nothing was changed", code: exitBadConfig}
	}
	return nil
}

// suit does as the config in force wants it. Who has set GOMAXPROCS knows better.
func (d *daemon) suit(c *Config) {
	d.level.Set(logLevel(c.Cluster.LogLevel))
	if c.oneThread() && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	} else {
		runtime.SetDefaultGOMAXPROCS()
	}
}

// rewire tells the transport whom to talk to. A node that is no longer in the config keeps what it had.
func (d *daemon) rewire() {
	if d.wired.node(d.name) == nil {
		return
	}
	if err := d.net.Reconfigure(d.wired); err != nil {
		d.log.Error("the links of the new config cannot be used", "event", "links-failed", "err", err)
	}
}

// retire stops talking to nodes that were removed from the config and are no members any more.
func (d *daemon) retire() {
	if len(d.retiring) == 0 || d.node.state == nil || d.node.state.Config.Effective == nil {
		return
	}
	before := len(d.retiring)
	wired, retiring := withMembers(d.node.state.Config.Effective, d.wired, d.node.state)
	if len(retiring) < before {
		d.wired, d.retiring = wired, retiring
		d.rewire()
	}
}

// withMembers is the config with those nodes of the one before that are still members: a node that is removed must be
// heard until it has handed its groups over.
func withMembers(next, before *Config, s *State) (wired *Config, retiring []string) {
	c := *next
	c.Nodes = slices.Clone(next.Nodes)
	for _, n := range before.Nodes {
		m := s.node(n.Name)
		if next.node(n.Name) == nil && m != nil && m.Member != 0 {
			c.Nodes = append(c.Nodes, n)
			retiring = append(retiring, n.Name)
		}
	}
	return &c, retiring
}

func compress(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(text); err != nil {
		panic("compress: " + err.Error()) // into memory: cannot fail
	}
	if err := w.Close(); err != nil {
		panic("compress: " + err.Error())
	}
	return b.Bytes()
}

func decompress(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 1<<20))
}
