// What can be done with a resource? The contract between host.go, which runs the operations, and the files that know
// one type each: vip.go, httpd.go, systemd_unit.go, filesystem.go, drbd.go, exec.go. They know nothing of clusters.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// resource is one thing on this host that can be started, stopped and monitored. Its methods run on goroutines of
// their own, never two at once for one resource (Watch apart), and end soon after ctx does.
type resource interface {
	// Start makes it run and returns nil only when it has read back that it does. Running already is no error.
	Start(ctx context.Context, hint startHint) error
	// Stop makes it not run and returns nil only when it has read back that it does not. Stopped already is no error.
	Stop(ctx context.Context) error
	// Monitor reads what is there. conditionFailed comes with an error that says which check failed and what to do;
	// conditionUnknown with one that says why it could not be read.
	Monitor(ctx context.Context) (condition, error)
}

// forcer is a resource that has a harder way to stop, for when Stop has failed. The same promise: nil only when it has read
// back that it does not run. forcible (class.go) knows which types have it.
type forcer interface {
	Force(ctx context.Context) error
}

// watcher is a resource that notices a failure by itself: a crash, a deleted address, a lost carrier.
type watcher interface {
	// Watch runs while the resource is started, until ctx ends, and calls changed with a reason whenever something
	// happened that a monitor should look at now. It never acts by itself.
	Watch(ctx context.Context, changed func(reason string))
}

// fitter is a resource that can say before it is started that this host cannot run it: no carrier, no such program.
type fitter interface {
	Fit(ctx context.Context) error // nil: it can; errRunsHere; otherwise why not, in words for the operator
}

// readier is a resource that the node which runs it needs here too: a disk that has a copy of each write.
type readier interface {
	Ready(ctx context.Context) error // quick, and nothing where that is so already
}

// How a replicated resource comes together again after a split brain that somebody has judged.
const (
	rejoinKeep   = "keep"    // this copy is the good one
	rejoinGiveUp = "give up" // what it alone has is thrown away
)

// rejoiner is one that can. It does nothing where the two are not kept apart.
type rejoiner interface {
	Rejoin(ctx context.Context, how string) error
}

// suspender is a resource whose traffic can be shut off at once and opened again without a full stop: an address.
// Both are quick, idempotent, and neither forks.
type suspender interface {
	Suspend() error
	Resume() error
}

// leaser is a resource that the kernel silences by itself when its time is over: an address.
type leaser interface {
	// Lease says until when it may be used; it is called with each grant, and must not wait for anything.
	Lease(until instant)
}

// equipped is a resource that knows what of a host it needs, whether or not it may start there now.
type equipped interface {
	Lacks(ctx context.Context) error
}

// statuser is a resource that has something to show beyond running or not, and is not replicated.
type statuser interface {
	Status(ctx context.Context) (string, error) // one line
}

// replicated is a resource that keeps copies of its data on several nodes.
type replicated interface {
	Copies(ctx context.Context) (copies, error)
}

// guarded is one that freezes its data when a copy is lost, until the cluster has recorded that, if it is set up so.
type guarded interface {
	Unguarded(ctx context.Context) ([]string, error) // what is missing for that in what runs; none: it does
	// Advice is what else of what runs works against the cluster; none also where it cannot be read.
	Advice(ctx context.Context, deadtime time.Duration) []drbdAdvice
}

// copies is where good data is, as seen from this host.
type copies struct {
	Known   bool     // false: out of touch and not the side that writes, so what is here may be old
	Here    bool     // complete and up to date on this host
	Peers   []string // and on these connected peers, by the names that the resource has for them
	Stale   []string // not, or not for sure, on these, with which it is not connected or which are still copied to
	Of      int      // how many there should be
	Primary bool     // it may be written here
	// Frozen: what is written here waits until somebody says what became of the peers.
	Frozen bool
	// Guarded: it would be; else what is missing for that, where that could be read.
	Guarded bool
	Missing []string
	Line    string   // the same for people, as of Status
	Replica *Replica // nil where there is none to see
}

// thawer is a replicated resource that may go on without its peers when that is recorded.
type thawer interface {
	Thaw(ctx context.Context) error // nil where nothing waits
}

// startHint is what the cluster knows that a resource cannot.
type startHint struct {
	Clean   bool   // the former owner reported this group stopped: nobody else has the address
	Insist  bool   // two_node = "ignore": after probe_timeout take an address although another host answers for it
	Restart bool   // a restart in place after a failure
	Group   string // for messages
}

type condition int

const (
	conditionUnknown condition = iota
	conditionStopped
	conditionRunning
	conditionFailed // there, but not well: needs a stop before a start
)

func (c condition) String() string {
	return [...]string{"unknown", "stopped", "running", "failed"}[c]
}

// errHopeless wraps an error that a restart on this node cannot mend: no carrier, no such device. The group moves at
// once instead of trying here.
var errHopeless = errors.New("cannot be mended on this node")

// errWaiting wraps an error of Start that is no failure of the resource: it must wait for somebody else, as for an
// address that another host still answers for. It is tried again and shown, and never counts.
var errWaiting = errors.New("waiting")

// errRunsHere is Fit's word that somebody has started what it was asked about.
var errRunsHere = errors.New("it runs here")

// outputError carries the tail of what a command printed.
type outputError struct {
	err  error
	tail string // last lines of stdout and stderr, at most 2 KiB
}

func (e *outputError) Error() string {
	if e.tail == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("%v: %s", e.err, lastLine(e.tail))
}
func (e *outputError) Unwrap() error { return e.err }

// lastLine is the last line that is not empty.
func lastLine(s string) string {
	end := len(s)
	for end > 0 && (s[end-1] == '\n' || s[end-1] == ' ' || s[end-1] == '\r') {
		end--
	}
	start := end
	for start > 0 && s[start-1] != '\n' {
		start--
	}
	return s[start:end]
}

// resourceEnv is what a resource may use of its surroundings.
type resourceEnv struct {
	Group  string
	RunDir string // /run/ha: pid files, marks; emptied by a reboot
	Log    *slog.Logger
	Gates  *gates // nil: there are none
}

// newResource makes the agent for a configuration that config_check.go has passed.
func newResource(c ResourceConfig, env resourceEnv) (resource, error) {
	switch c.Type {
	case "vip":
		return newVIP(c, env)
	case "httpd":
		return newHTTPD(c, env)
	case "systemd":
		return newUnitResource(c, env)
	case "filesystem":
		return newFilesystem(c, env)
	case "drbd":
		return newDRBD(c, env)
	case "exec":
		return newExec(c, env)
	}
	return nil, fmt.Errorf("resource %s: no type %q", c.Name, c.Type)
}
