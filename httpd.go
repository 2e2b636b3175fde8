// Does the web server run and answer? apache2 or httpd, started through its systemd unit where there is one, else in
// the foreground. How its process is started and stopped is systemd.go's and httpd_foreground.go's; what it says of
// itself is httpd_status.go's. Nothing here restarts it unasked.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// runner is one of the two ways to run a process: a unit of systemd, or in the foreground.
type runner interface {
	// fit says why this host cannot run it, or errRunsHere.
	fit(ctx context.Context) error
	// probe looks for the process, whoever started it; an error that comes with conditionFailed or conditionUnknown
	// says what is wrong.
	probe(ctx context.Context) (pid int, c condition, err error)
	// start begins to run it; whether it serves is the caller's to see.
	start(ctx context.Context) error
	// stop returns nil when no process of it is left.
	stop(ctx context.Context) error
	// explain adds to the error about a start that came to nothing what its configuration test or output says.
	explain(ctx context.Context, err error) error
	watch(ctx context.Context, changed func(reason string))
}

type httpd struct {
	probe statusProbe
	log   *slog.Logger
	// choose finds the runner; asked again while it fails, since systemd may not be up yet.
	choose func(ctx context.Context) (runner, error)

	mu     sync.Mutex
	runner runner
	last   serverStatus // of the last reading, for the rate
	lastAt instant
}

func newHTTPD(c ResourceConfig, env resourceEnv) (resource, error) {
	probe, err := newStatusProbe(c)
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", c.Name, err)
	}
	h := &httpd{probe: probe, log: env.Log}
	h.choose = func(ctx context.Context) (runner, error) {
		return chooseRunner(ctx, c, env, systemdRuns(), dialSystemd)
	}
	return h, nil
}

// systemdRuns is sd_booted(3).
func systemdRuns() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// distributionUnits are the units of the distributions, each with the only configuration that it reads.
var distributionUnits = []struct{ unit, config string }{
	{"apache2.service", "/etc/apache2/apache2.conf"}, // Debian and its like
	{"apache2.service", "/etc/apache2/httpd.conf"},   // SUSE
	{"httpd.service", "/etc/httpd/conf/httpd.conf"},  // Fedora, Arch and their like
}

// chooseRunner takes the unit that is named. A web server without one has the distribution's where systemd runs and knows it,
// unless the operator wants none or names another configuration than the one that the unit reads.
func chooseRunner(ctx context.Context, c ResourceConfig, env resourceEnv, booted bool, dial systemdDialer) (runner, error) {
	foreground := func() (runner, error) { return newForeground(c, env), nil }
	switch {
	case c.Unit == "none":
		return foreground()
	case c.Type == "systemd" && !booted:
		return absent{noSystemd(c.Unit)}, nil
	case c.Unit != "" && !booted:
		return absent{fmt.Errorf("%w: set unit = \"none\"", noSystemd(c.Unit))}, nil
	case c.Unit != "":
		return newUnit(c.Unit, env, dial), nil
	case !booted || c.Program != "":
		return foreground()
	}
	for _, d := range distributionUnits {
		if c.ConfigFile != "" && c.ConfigFile != d.config {
			continue
		}
		u := newUnit(d.unit, env, dial)
		st, err := u.state(ctx)
		if err != nil {
			return nil, err
		}
		if st.known() {
			return u, nil
		}
	}
	return foreground()
}

// absent is what this host cannot have, and so does not run.
type absent struct{ why error }

func (a absent) fit(context.Context) error                        { return a.why }
func (a absent) probe(context.Context) (int, condition, error)    { return 0, conditionStopped, nil }
func (a absent) start(context.Context) error                      { return fmt.Errorf("%w (%w)", a.why, errHopeless) }
func (a absent) stop(context.Context) error                       { return nil }
func (a absent) explain(_ context.Context, err error) error       { return err }
func (a absent) watch(ctx context.Context, _ func(reason string)) { <-ctx.Done() }

func (h *httpd) run(ctx context.Context) (runner, error) {
	h.mu.Lock()
	r := h.runner
	h.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := h.choose(ctx)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runner == nil {
		h.runner = r
	}
	return h.runner, nil
}

func (h *httpd) Fit(ctx context.Context) error {
	r, err := h.run(ctx)
	if err != nil {
		return err
	}
	return fitRunner(ctx, r)
}

func fitRunner(ctx context.Context, r runner) error {
	if err := r.fit(ctx); err != nil {
		return err
	}
	if u, ok := r.(*unit); ok {
		u.prepare(ctx)
	}
	return nil
}

func (h *httpd) Start(ctx context.Context, _ startHint) error {
	r, err := h.run(ctx)
	if err != nil {
		return err
	}
	_, c, err := r.probe(ctx)
	if c == conditionFailed { // the remains of a crash hold its port
		if err := r.stop(ctx); err != nil {
			return err
		}
		c = conditionStopped
	}
	switch {
	case c == conditionRunning:
		return h.ready(ctx, r, "")
	case c == conditionUnknown && !errors.Is(err, errChanging):
		return err
	}
	holder := whoListens(h.probe.port()) // before: afterwards it is the server itself
	if err := r.start(ctx); err != nil {
		return h.blame(r.explain(ctx, err), holder)
	}
	return h.ready(ctx, r, holder)
}

// ready waits until the server answers, or it is plain that it will not. An answer counts only when nobody else had
// the port before, or when the server itself listens there now: else it is somebody else's.
func (h *httpd) ready(ctx context.Context, r runner, holder string) error {
	next, done := h.attempts(ctx, r)
	defer done()
	var b pollBackoff
	var last error
	for {
		attempt := next()
		pid, c, perr := r.probe(ctx)
		if c == conditionStopped || c == conditionFailed {
			if perr == nil {
				perr = errors.New("the server ended")
			}
			return h.blame(r.explain(ctx, perr), holder)
		}
		st, err := h.probe.read(attempt)
		own := holder == "" || pid != 0 && listensOn(pid, h.probe.port())
		var failed *checkError
		switch {
		case err == nil && own && c == conditionRunning:
			h.remember(st)
			return nil
		case err == nil && !own:
			last = fmt.Errorf("another server answers at %s: port %d is held by %s, not by process %d", h.probe.url, h.probe.port(), holder, pid)
		case err == nil:
			last = perr
		case errors.As(err, &failed) && failed.final && own && pid != 0 && listensOn(pid, h.probe.port()):
			return err
		case ctx.Err() == nil || last == nil:
			last = err // the last one that was not cut short by the timeout, where there is one
		}
		if !b.wait(ctx, nil) {
			return fmt.Errorf("the server runs and does not serve: %w (%w)", last, ctx.Err())
		}
	}
}

// attempts makes a context for each attempt to read the status. It is given up when the server's process ends after
// next has been called: whoever else has the port may take the connection and never answer.
func (h *httpd) attempts(ctx context.Context, r runner) (next func() context.Context, done func()) {
	var giveUp atomic.Pointer[context.CancelFunc]
	end := func() {
		if cancel := giveUp.Load(); cancel != nil {
			(*cancel)()
		}
	}
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.watch(watching, func(string) { end() }) })
	next = func() context.Context {
		end()
		attempt, cancel := context.WithCancel(ctx)
		giveUp.Store(&cancel)
		return attempt
	}
	return next, func() { stop(); end(); watch.Wait() }
}

// blame adds who had the port before the start that failed.
func (h *httpd) blame(err error, holder string) error {
	if holder == "" {
		return err
	}
	return fmt.Errorf("%w (port %d is held by %s: stop it, or change `Listen`)", err, h.probe.port(), holder)
}

func (h *httpd) Stop(ctx context.Context) error {
	r, err := h.run(ctx)
	if err != nil {
		return err
	}
	if err := r.stop(ctx); err != nil {
		return err
	}
	pid, c, err := r.probe(ctx)
	if c != conditionStopped {
		if err == nil {
			err = fmt.Errorf("process %d runs", pid)
		}
		return fmt.Errorf("stopped, and yet: %w", err)
	}
	if holder := whoListens(h.probe.port()); holder != "" {
		h.log.Warn("the web server is stopped, but its port is still held by another program",
			"event", "httpd-port-held", "port", h.probe.port(), "by", holder)
	}
	return nil
}

func (h *httpd) Monitor(ctx context.Context) (condition, error) {
	r, err := h.run(ctx)
	if err != nil {
		return conditionUnknown, err
	}
	if _, c, err := r.probe(ctx); c != conditionRunning {
		return c, err
	}
	st, err := h.probe.read(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return conditionUnknown, ctx.Err()
	}
	if err != nil {
		if pid, c, perr := r.probe(ctx); c != conditionRunning && perr != nil { // ended just now
			return c, perr
		} else if pid != 0 {
			err = fmt.Errorf("process %d runs, but %w", pid, err)
		}
		return conditionFailed, err
	}
	h.remember(st)
	return conditionRunning, nil
}

func (h *httpd) remember(st serverStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.lastAt = st, boottime()
}

func (h *httpd) Watch(ctx context.Context, changed func(reason string)) {
	var b pollBackoff
	for {
		r, err := h.run(ctx)
		if err == nil {
			r.watch(ctx, changed)
			return
		}
		if !b.wait(ctx, nil) {
			return
		}
	}
}

// Status reads the figures anew; the rate is the one since the last monitor. A server that does not run here has
// nothing to tell: on the other nodes that is as it should be.
func (h *httpd) Status(ctx context.Context) (string, error) {
	r, err := h.run(ctx)
	if err != nil {
		return "", err
	}
	if _, c, _ := r.probe(ctx); c == conditionStopped {
		return "", nil
	}
	st, err := h.probe.status(ctx)
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	last, at := h.last, h.lastAt
	h.mu.Unlock()
	var ago time.Duration
	if at != 0 {
		ago = boottime().sub(at)
	}
	return st.line(last, ago), nil
}
