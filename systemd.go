// How is a service run through its systemd unit? Starts and stops are jobs whose result is awaited; while the cluster
// owns the unit a runtime drop-in forbids systemd to restart it. Nothing here enables, disables or edits a unit.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
)

// unitManager is what is used of systemd.
type unitManager interface {
	State(ctx context.Context, unit string) (unitState, error)
	// Start and Stop run a job to its end and return its result, "done" when it went well.
	Start(ctx context.Context, unit string) (result string, err error)
	Stop(ctx context.Context, unit string) (result string, err error)
	Kill(ctx context.Context, unit string) error // SIGKILL to all of its processes
	ResetFailed(ctx context.Context, unit string) error
	Reload(ctx context.Context) error // daemon-reload
	// Changes sends the name of each unit whose properties change, "" when it may have been any, until ctx or the
	// connection ends.
	Changes(ctx context.Context) (<-chan string, error)
	Close()
}

type systemdDialer func(ctx context.Context) (unitManager, error)

// unitState is what is used of a unit's properties, as systemctl show prints them.
type unitState struct {
	Load       string // loaded, not-found, masked, bad-setting, error
	Active     string // active, reloading, inactive, failed, activating, deactivating
	Sub        string // running, dead, …
	UnitFile   string // enabled, disabled, static, …
	Restart    string // no, on-failure, …
	Result     string // success, exit-code, signal, timeout, …
	MainPID    int
	NeedReload bool
}

// atBoot tells whether systemd starts it by itself.
func (s unitState) atBoot() bool { return s.UnitFile == "enabled" || s.UnitFile == "enabled-runtime" }

func (s unitState) runs() bool { return s.Active == "active" || s.Active == "reloading" }

func (s unitState) known() bool { return s.Load == "loaded" }

var (
	errConnectionEnded = errors.New("the connection to systemd ended")
	// errChanging wraps the error about a unit that is between two states.
	errChanging = errors.New("a job is under way")
)

// unit runs one systemd unit.
type unit struct {
	name   string
	dial   systemdDialer
	dropIn string // folder of units that vanish with the boot
	log    *slog.Logger
	warned sync.Once

	returned sync.WaitGroup // what disown leaves to do; nobody waits for it but tests
}

const (
	runtimeUnits  = "/run/systemd/system"
	dropInName    = "50-hactl.conf"
	dropInContent = "# Written by hactl while the cluster owns this unit, removed when it has stopped it: a crash is told to the\n" +
		"# cluster, which restarts or moves it.\n[Service]\nRestart=no\n"
	reloadLimit   = time.Minute
	reconnectWait = time.Second // between attempts to watch systemd again, as when it re-executes itself
)

func newUnit(name string, env resourceEnv, dial systemdDialer) *unit {
	if !strings.Contains(name, ".") {
		name += ".service"
	}
	return &unit{name: name, dial: dial, dropIn: runtimeUnits, log: env.Log}
}

// with runs f over a connection of its own: systemd may have been re-executed since the last one.
func (u *unit) with(ctx context.Context, f func(unitManager) error) error {
	m, err := u.dial(ctx)
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	defer m.Close()
	return f(m)
}

func (u *unit) state(ctx context.Context) (st unitState, err error) {
	err = u.with(ctx, func(m unitManager) (err error) {
		st, err = m.State(ctx, u.name)
		return err
	})
	if err != nil {
		return unitState{}, fmt.Errorf("read unit %s: %w", u.name, err)
	}
	return st, nil
}

func (u *unit) fit(ctx context.Context) error {
	return u.with(ctx, func(m unitManager) error {
		st, err := m.State(ctx, u.name)
		if err != nil {
			return fmt.Errorf("read unit %s: %w", u.name, err)
		}
		if err := u.usable(st); err != nil {
			return err
		}
		if st.runs() {
			return errRunsHere
		}
		return nil
	})
}

func (u *unit) usable(st unitState) error {
	switch st.Load {
	case "loaded":
		return nil
	case "not-found":
		return fmt.Errorf("systemd knows no unit %s: install it, or correct unit", u.name)
	case "masked":
		return fmt.Errorf("unit %s is masked: `systemctl unmask %s`", u.name, u.name)
	}
	return fmt.Errorf("unit %s cannot be loaded (%s): see `systemctl status %s`", u.name, st.Load, u.name)
}

func (u *unit) probe(ctx context.Context) (int, condition, error) {
	st, err := u.state(ctx)
	if err != nil {
		return 0, conditionUnknown, err
	}
	if st.atBoot() {
		u.warned.Do(func() {
			u.log.Warn("the unit is enabled, so systemd starts it at boot before the cluster has decided where it runs",
				"event", "unit-enabled", "unit", u.name, "fix", "systemctl disable "+u.name)
		})
	}
	switch {
	case st.runs():
		return st.MainPID, conditionRunning, nil
	case st.Active == "inactive":
		return 0, conditionStopped, nil
	case st.Active == "failed":
		return st.MainPID, conditionFailed, u.failure(st)
	}
	return st.MainPID, conditionUnknown, fmt.Errorf("unit %s is %s: %w", u.name, st.Active, errChanging)
}

func (u *unit) failure(st unitState) error {
	return fmt.Errorf("unit %s is %s (%s): see `journalctl -u %s`", u.name, st.Active, st.Result, u.name)
}

func (u *unit) start(ctx context.Context) error {
	return u.with(ctx, func(m unitManager) error {
		st, err := m.State(ctx, u.name)
		if err != nil {
			return fmt.Errorf("read unit %s: %w", u.name, err)
		}
		if err := u.usable(st); err != nil {
			return fmt.Errorf("%w (%w)", err, errHopeless)
		}
		if err := u.own(ctx, m); err != nil {
			return err
		}
		if st.Active == "failed" {
			if err := m.ResetFailed(ctx, u.name); err != nil { // else its start limit may refuse
				return fmt.Errorf("reset unit %s: %w", u.name, err)
			}
		}
		result, err := m.Start(ctx, u.name)
		if err != nil {
			return fmt.Errorf("start unit %s: %w", u.name, err)
		}
		if result == "done" {
			return nil
		}
		if st, err := m.State(ctx, u.name); err == nil && st.Active == "failed" {
			return fmt.Errorf("start job %s: %w", result, u.failure(st))
		}
		return fmt.Errorf("start unit %s: job %s: see `journalctl -u %s`", u.name, result, u.name)
	})
}

// prepare makes the drop-in's folder known to systemd before it is needed. A unit that does not run is read anew when it
// is started, and then with a drop-in that is put there: so a takeover waits for no daemon-reload, which may take seconds.
// What fails here is done, and told, by own.
func (u *unit) prepare(ctx context.Context) {
	if _, err := os.Stat(u.dropInDir()); err == nil {
		return
	}
	if err := os.MkdirAll(u.dropInDir(), 0o755); err == nil {
		_ = u.with(ctx, func(m unitManager) error { return m.Reload(ctx) })
	}
}

func (u *unit) dropInDir() string { return filepath.Join(u.dropIn, u.name+".d") }

// own writes the drop-in and makes systemd read it, where it has not by itself.
func (u *unit) own(ctx context.Context, m unitManager) error {
	path := filepath.Join(u.dropInDir(), dropInName)
	if b, err := os.ReadFile(path); err != nil || string(b) != dropInContent {
		err := os.MkdirAll(u.dropInDir(), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(dropInContent), 0o644)
		}
		if err != nil {
			return fmt.Errorf("take unit %s over: %w", u.name, err)
		}
	}
	st, err := m.State(ctx, u.name)
	if err == nil && (st.NeedReload || st.Restart != "no") {
		err = m.Reload(ctx)
	}
	if err != nil {
		return fmt.Errorf("take unit %s over: reload systemd: %w", u.name, err)
	}
	return nil
}

// disown takes the drop-in away again. It does not wait until systemd has read its files anew: what is stopped is stopped,
// and another node waits for that word.
func (u *unit) disown() error {
	err := os.Remove(filepath.Join(u.dropInDir(), dropInName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("give unit %s back: %w", u.name, err)
	}
	u.returned.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), reloadLimit)
		defer cancel()
		err := u.with(ctx, func(m unitManager) error {
			st, err := m.State(ctx, u.name)
			if err != nil || !st.NeedReload {
				return err
			}
			return m.Reload(ctx)
		})
		if err != nil {
			u.log.Warn("systemd does not restart the unit by itself before the next `systemctl daemon-reload`",
				"event", "unit-not-returned", "unit", u.name, "err", err)
		}
	})
	return nil
}

func (u *unit) stop(ctx context.Context) error {
	return u.with(ctx, func(m unitManager) error {
		st, err := m.State(ctx, u.name)
		if err != nil {
			return fmt.Errorf("read unit %s: %w", u.name, err)
		}
		if !st.known() && st.MainPID == 0 && (st.Active == "inactive" || st.Active == "failed") {
			return u.disown() // no such unit: nothing runs
		}
		if err := u.stopJob(ctx, m); err != nil {
			return err
		}
		st, err = m.State(ctx, u.name)
		if err != nil {
			return fmt.Errorf("read unit %s: %w", u.name, err)
		}
		if st.Active == "failed" { // ended by SIGKILL or with an error, but ended
			if err := m.ResetFailed(ctx, u.name); err != nil {
				return fmt.Errorf("reset unit %s: %w", u.name, err)
			}
		} else if st.Active != "inactive" {
			return fmt.Errorf("unit %s is %s after its stop: see `systemctl status %s`", u.name, st.Active, u.name)
		}
		return u.disown()
	})
}

// stopJob stops the unit, with SIGKILL when most of the time is over.
func (u *unit) stopJob(ctx context.Context, m unitManager) error {
	polite, cancel := mostOf(ctx)
	defer cancel()
	result, err := m.Stop(polite, u.name)
	if err != nil && polite.Err() != nil && ctx.Err() == nil {
		u.log.Warn("not stopped in time, killing it", "event", "stop-killed", "unit", u.name)
		if kerr := m.Kill(ctx, u.name); kerr != nil {
			return fmt.Errorf("kill unit %s: %w", u.name, kerr)
		}
		result, err = m.Stop(ctx, u.name) // joins the job that is under way
	}
	if err != nil {
		return fmt.Errorf("stop unit %s: %w", u.name, err)
	}
	if result != "done" {
		return fmt.Errorf("stop unit %s: job %s: see `journalctl -u %s`", u.name, result, u.name)
	}
	return nil
}

func (u *unit) explain(_ context.Context, err error) error { return err }

// watch tells when the unit leaves the state active, and when its main process ends, which is known sooner.
func (u *unit) watch(ctx context.Context, changed func(reason string)) {
	warned := false
	for ctx.Err() == nil {
		if err := u.watchOnce(ctx, changed); err != nil && ctx.Err() == nil && !warned {
			warned = true // once, though it may go on failing
			u.log.Warn("cannot watch the unit, trying again every second", "event", "unit-watch", "unit", u.name, "error", err)
		}
		t := time.NewTimer(reconnectWait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// watchOnce watches over one connection.
func (u *unit) watchOnce(ctx context.Context, changed func(reason string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return u.with(ctx, func(m unitManager) error {
		changes, err := m.Changes(ctx)
		if err != nil {
			return err
		}
		var main *process
		defer func() {
			if main != nil {
				main.release()
			}
		}()
		told := "active"
		for first := true; ; first = false {
			st, err := m.State(ctx, u.name)
			if err != nil {
				return err
			}
			if first && st.Active == "active" { // it may have been started before the cluster took it over
				if err := u.own(ctx, m); err != nil {
					u.log.Warn("systemd may restart the unit by itself", "event", "unit-not-owned", "unit", u.name, "error", err)
				}
			}
			if state := st.Active; state != told {
				told = state
				if !st.runs() {
					changed(fmt.Sprintf("unit %s is %s (%s)", u.name, st.Active, st.Result))
				}
			}
			main = u.hold(main, st.MainPID)
			if err := u.await(ctx, changes, main, changed); err != nil {
				return err
			}
		}
	})
}

// hold takes hold of the unit's main process, if it is another one than before.
func (u *unit) hold(main *process, pid int) *process {
	if main != nil && main.PID == pid {
		return main
	}
	if main != nil {
		main.release()
	}
	if pid == 0 {
		return nil
	}
	s, err := readStat(pid)
	if err != nil {
		return nil
	}
	main, err = openProcess(s.processID)
	if err != nil {
		return nil // systemd will tell
	}
	return main
}

// await returns when something about the unit has changed.
func (u *unit) await(ctx context.Context, changes <-chan string, main *process, changed func(string)) error {
	var ended <-chan struct{}
	if main != nil && main.alive() {
		ended = main.done
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case name, ok := <-changes:
			if !ok {
				return errConnectionEnded
			}
			if name == u.name || name == "" {
				return nil
			}
		case <-ended:
			changed(fmt.Sprintf("unit %s: %s", u.name, main.ending()))
			return nil
		}
	}
}

// systemdBus is systemd over its private socket, which needs no message bus.
type systemdBus struct{ conn *systemd.Conn }

func dialSystemd(ctx context.Context) (unitManager, error) { return dialSystemdBus(ctx) }

func dialSystemdBus(ctx context.Context) (*systemdBus, error) {
	conn, err := systemd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return nil, err
	}
	return &systemdBus{conn}, nil
}

func (b *systemdBus) Close() { b.conn.Close() }

func (b *systemdBus) State(ctx context.Context, unit string) (unitState, error) {
	p, err := b.conn.GetAllPropertiesContext(ctx, unit)
	if err != nil {
		return unitState{}, err
	}
	text := func(name string) string { s, _ := p[name].(string); return s }
	st := unitState{
		Load: text("LoadState"), Active: text("ActiveState"), Sub: text("SubState"),
		UnitFile: text("UnitFileState"), Restart: text("Restart"), Result: text("Result"),
	}
	st.NeedReload, _ = p["NeedDaemonReload"].(bool)
	if pid, ok := p["MainPID"].(uint32); ok {
		st.MainPID = int(pid)
	}
	if st.Load == "" || st.Active == "" {
		return unitState{}, errors.New("systemd tells neither LoadState nor ActiveState")
	}
	return st, nil
}

func (b *systemdBus) Start(ctx context.Context, unit string) (string, error) {
	return b.job(ctx, unit, b.conn.StartUnitContext)
}

func (b *systemdBus) Stop(ctx context.Context, unit string) (string, error) {
	return b.job(ctx, unit, b.conn.StopUnitContext)
}

// job runs one and waits for its result. The channel holds one, as the library's reader must never wait for us.
func (b *systemdBus) job(ctx context.Context, unit string, run func(context.Context, string, string, chan<- string) (int, error)) (string, error) {
	result := make(chan string, 1)
	if _, err := run(ctx, unit, "replace", result); err != nil {
		return "", err
	}
	alive := time.NewTicker(reconnectWait / 10)
	defer alive.Stop()
	for {
		select {
		case r := <-result:
			return r, nil
		case <-ctx.Done():
			return "", fmt.Errorf("the job is not done: %w", ctx.Err())
		case <-alive.C: // the library does not tell
			if !b.conn.Connected() {
				return "", errConnectionEnded
			}
		}
	}
}

// JobOf is the kind of the job that is queued or under way for the unit of a process, "" for none.
func (b *systemdBus) JobOf(ctx context.Context, pid int) (string, error) {
	unit, err := b.conn.GetUnitNameByPID(ctx, uint32(pid))
	if err != nil {
		return "", err
	}
	jobs, err := b.conn.ListJobsContext(ctx)
	if err != nil {
		return "", err
	}
	for _, j := range jobs {
		if j.Unit == unit {
			return j.JobType, nil
		}
	}
	return "", nil
}

func (b *systemdBus) Kill(ctx context.Context, unit string) error {
	return b.conn.KillUnitWithTarget(ctx, unit, systemd.All, int32(unix.SIGKILL))
}

func (b *systemdBus) ResetFailed(ctx context.Context, unit string) error {
	return b.conn.ResetFailedUnitContext(ctx, unit)
}

func (b *systemdBus) Reload(ctx context.Context) error { return b.conn.ReloadContext(ctx) }

// Changes subscribes before the caller reads the state, so that nothing falls in between. When updates come faster
// than they are read the library drops some and says so on the second channel: then every unit may have changed.
func (b *systemdBus) Changes(ctx context.Context) (<-chan string, error) {
	updates := make(chan *systemd.PropertiesUpdate, 256)
	dropped := make(chan error, 1)
	b.conn.SetPropertiesSubscriber(updates, dropped)
	if err := b.conn.Subscribe(); err != nil {
		return nil, err
	}
	names := make(chan string)
	send := func(name string) {
		select {
		case names <- name:
		case <-ctx.Done():
		}
	}
	go func() {
		defer close(names)
		alive := time.NewTicker(reconnectWait)
		defer alive.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-dropped:
				send("")
			case <-alive.C:
				if !b.conn.Connected() {
					return
				}
			case u := <-updates:
				send(u.UnitName)
			}
		}
	}()
	return names, nil
}
