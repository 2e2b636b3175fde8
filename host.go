// How are operations on resources run? The actuator of the daemon: each action on a goroutine of its own, with its
// timeout, never two at once on one resource, each ending in exactly one actionDone. It decides nothing.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// host runs the agent's actions on this machine.
type host struct {
	runDir string
	log    *slog.Logger
	event  func(any) // takes actionDone and noticed; may block until the loop takes it

	mu      sync.Mutex
	things  map[string]*thing  // by group, name and substance: a changed resource is another thing
	shut    map[string]bool    // groups whose traffic is shut, also for things made later: a restarted daemon knows none yet
	leases  map[string]instant // until when a group's addresses may answer, as last told
	gates   *gates
	running map[uint64]context.CancelFunc
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// thing is a resource on this host.
type thing struct {
	group, name string
	res         resource
	turn        sync.Mutex // one operation at a time
	watch       context.CancelFunc
}

func newHost(runDir string, gates *gates, log *slog.Logger, event func(any)) *host {
	h := &host{runDir: runDir, log: log, event: event, gates: gates, things: map[string]*thing{}, shut: map[string]bool{},
		leases: map[string]instant{}, running: map[uint64]context.CancelFunc{}}
	h.ctx, h.stop = context.WithCancel(context.Background())
	return h
}

// thing finds or makes the resource for a config.
func (h *host) thing(group string, c ResourceConfig) (*thing, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := thingKey(group, c)
	if t := h.things[key]; t != nil {
		return t, nil
	}
	r, err := newResource(c, resourceEnv{Group: group, RunDir: h.runDir, Log: h.log.With("group", group, "resource", c.Name), Gates: h.gates})
	if err != nil {
		return nil, err
	}
	t := &thing{group: group, name: c.Name, res: r}
	if l, ok := r.(leaser); ok {
		if until, told := h.leases[group]; told {
			l.Lease(until)
		}
	}
	if s, ok := r.(suspender); ok && h.shut[group] {
		if err := s.Suspend(); err != nil {
			return nil, fmt.Errorf("shut the address: %w", err)
		}
	}
	h.things[key] = t
	return t, nil
}

// thingKey leaves out what only the agent looks at, so that a new interval makes no new resource.
func thingKey(group string, c ResourceConfig) string {
	c.OnFail = ""
	c.Start.Timeout, c.Stop.Timeout, c.Monitor.Timeout, c.Monitor.Interval = 0, 0, 0, 0
	b, err := json.Marshal(c)
	if err != nil {
		panic("encode resource config: " + err.Error()) // plain data: cannot fail
	}
	return group + "\x00" + string(b)
}

// of lists the things of a group, all or those of one resource.
func (h *host) of(group, name string) []*thing {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*thing
	for _, t := range h.things {
		if t.group == group && (name == "" || t.name == name) {
			out = append(out, t)
		}
	}
	return out
}

// Do begins an action.
func (h *host) Do(a action) {
	ctx, cancel := context.WithTimeout(h.ctx, a.Timeout)
	h.mu.Lock()
	h.running[a.ID] = cancel
	h.mu.Unlock()
	h.wg.Go(func() {
		begin := time.Now()
		d := h.perform(ctx, a)
		d.Took = time.Since(begin)
		d.TimedOut = d.Err != "" && errors.Is(ctx.Err(), context.DeadlineExceeded)
		if d.TimedOut {
			d.Err = fmt.Sprintf("timed out after %s: %s", a.Timeout, d.Err)
		}
		cancel()
		h.mu.Lock()
		delete(h.running, a.ID)
		h.mu.Unlock()
		h.event(d)
	})
}

// perform runs the operation; a panic in an agent is that operation's failure, not the daemon's end.
func (h *host) perform(ctx context.Context, a action) (d actionDone) {
	d.action = a
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("operation panicked", "event", "agent-panic", "group", a.Group, "resource", a.Resource, "op", a.Op, "panic", p)
			d.Err, d.Condition = fmt.Sprintf("internal error: %v", p), conditionUnknown
		}
	}()
	t, err := h.thing(a.Group, a.Config)
	if err != nil {
		d.Err = err.Error()
		return d
	}
	t.turn.Lock()
	defer t.turn.Unlock()
	switch a.Op {
	case opStart:
		err = t.res.Start(ctx, a.Hint)
	case opStop:
		if err = t.res.Stop(ctx); err == nil {
			h.forget(a.Group, a.Config)
		}
	case opForce:
		err = errors.New("it has no harder way to stop")
		if f, ok := t.res.(forcer); ok {
			err = f.Force(ctx)
		}
		if err == nil {
			h.forget(a.Group, a.Config)
		}
	case opMonitor:
		d.Condition, err = t.res.Monitor(ctx)
		if r, ok := t.res.(replicated); ok && d.Condition == conditionRunning {
			d.Copies = h.copies(ctx, r)
		}
		if r, ok := t.res.(rejoiner); ok && a.Rejoin != "" && err == nil {
			if failed := r.Rejoin(ctx, a.Rejoin); failed != nil { // it runs well all the same
				h.log.Warn("a split brain cannot be ended yet, it is tried again: "+failed.Error(), "event", "split-brain", "group", a.Group, "resource", a.Resource)
			}
		}
	case opThaw:
		if th, ok := t.res.(thawer); ok {
			err = th.Thaw(ctx)
		}
	case opFit:
		if r, ok := t.res.(readier); ok && a.Ready {
			err = r.Ready(ctx)
		}
		if r, ok := t.res.(rejoiner); ok && a.Rejoin != "" && err == nil {
			err = r.Rejoin(ctx, a.Rejoin)
		}
		if f, ok := t.res.(fitter); ok && err == nil {
			err = f.Fit(ctx)
		}
		if errors.Is(err, errRunsHere) {
			d.Condition, err = conditionRunning, nil
		}
	}
	if err != nil {
		d.Err = err.Error()
		d.Hopeless, d.Waiting = errors.Is(err, errHopeless), errors.Is(err, errWaiting)
		var out *outputError
		if errors.As(err, &out) {
			d.Tail = out.tail
		}
	}
	return d
}

// forget drops a resource that is stopped: the next operation makes it anew, under the config of then.
func (h *host) forget(group string, c ResourceConfig) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, t := range h.things { // also under former configs: a changed timeout of a probe made it another thing
		if t.group != group || t.name != c.Name {
			continue
		}
		if t.watch != nil {
			t.watch()
		}
		delete(h.things, key)
	}
}

// Cancel asks a running action to end early.
func (h *host) Cancel(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cancel := h.running[id]; cancel != nil {
		cancel()
	}
}

// Suspend and Resume do not wait for their turn: shutting an address must not stand behind a slow operation.
func (h *host) Suspend(group string) { h.gate(group, true, suspender.Suspend) }
func (h *host) Resume(group string)  { h.gate(group, false, suspender.Resume) }

func (h *host) gate(group string, shut bool, do func(suspender) error) {
	h.mu.Lock()
	h.shut[group] = shut
	h.mu.Unlock()
	for _, t := range h.of(group, "") {
		if s, ok := t.res.(suspender); ok {
			if err := do(s); err != nil {
				h.log.Error("cannot shut or open an address", "event", "gate-failed", "shut", shut, "group", group, "resource", t.name, "err", err)
			}
		}
	}
}

// Lease tells the kernel until when a group's addresses may answer. It is called for every grant: no netlink, no wait.
func (h *host) Lease(group string, until instant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leases[group] = until
	for _, t := range h.things {
		if l, ok := t.res.(leaser); ok && t.group == group {
			l.Lease(until)
		}
	}
}

// Gate says what enforces the end of a lease on this host.
func (h *host) Gate() gateReport { return h.gates.report() }

// announcer is a resource that tells the network where it is.
type announcer interface{ Announce() }

// Announce tells the network again who has the group's addresses.
func (h *host) Announce(group string) {
	for _, t := range h.of(group, "") {
		if a, ok := t.res.(announcer); ok {
			h.wg.Go(a.Announce)
		}
	}
}

// Watch turns the eyes of a resource on or off.
func (h *host) Watch(group, name string, on bool) {
	for _, t := range h.of(group, name) {
		w, ok := t.res.(watcher)
		if !ok {
			continue
		}
		h.mu.Lock()
		if t.watch != nil {
			t.watch()
			t.watch = nil
		}
		if on {
			ctx, cancel := context.WithCancel(h.ctx)
			t.watch = cancel
			h.wg.Go(func() {
				w.Watch(ctx, func(reason string) {
					if ctx.Err() == nil {
						h.event(noticed{Group: group, Resource: name, Reason: reason})
					}
				})
			})
		}
		h.mu.Unlock()
	}
}

// copies is what a monitor says of them, nil where that could not be read.
func (h *host) copies(ctx context.Context, r replicated) *copies {
	c, err := r.Copies(ctx)
	if err != nil {
		return nil
	}
	if g, ok := r.(guarded); ok {
		c.Missing, err = g.Unguarded(ctx)
		c.Guarded = err == nil && c.Primary && len(c.Missing) == 0
	}
	return &c
}

// groupDetails is what the resources of a group have to show.
type groupDetails struct {
	lines    map[string]string   // by resource
	replicas map[string]*Replica // likewise
	data     []copies            // of those that are replicated
}

// Status asks the resources of a group that have something to tell.
func (h *host) Status(ctx context.Context, group string) groupDetails {
	out := groupDetails{lines: map[string]string{}, replicas: map[string]*Replica{}}
	for _, t := range h.of(group, "") {
		if r, ok := t.res.(replicated); ok { // one look for all
			c, err := r.Copies(ctx)
			c.Known = c.Known && err == nil
			out.data = append(out.data, c)
			out.replicas[t.name] = c.Replica
			if out.lines[t.name] = c.Line; err != nil {
				out.lines[t.name] = err.Error()
			}
		} else if s, ok := t.res.(statuser); ok {
			if line, err := s.Status(ctx); err == nil {
				out.lines[t.name] = line
			} else {
				out.lines[t.name] = err.Error()
			}
		}
	}
	return out
}

// Close ends what runs. Resources stay as they are.
func (h *host) Close() {
	h.stop()
	h.wg.Wait()
}
