// How do commands reach the daemon? HTTP over a unix socket: what may be asked, by whom, and in which form. It decides
// nothing about the cluster: it checks who asks and whether the question makes sense, and hands it to a controller.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// controller is what the daemon offers to the commands. Its methods may be called from any goroutine.
type controller interface {
	Status() *Status          // never nil, current; not changed after it was returned
	Changed() <-chan struct{} // closed at the next change of Status or History
	History(n int) []Event    // the last n, oldest first
	Config() (generation uint64, hash string, text []byte, effective *Config)
	Generations() ([]generation, error)  // kept on this node, oldest first
	Generation(n uint64) ([]byte, error) // its text; fs.ErrNotExist: not kept here
	State() ([]byte, error)              // JSON, for simulate and support
	// Command carries out c and returns when it is done, or, with NoWait, when it is on its way. Progress is called on
	// the calling goroutine. When ctx ends only the waiting ends: what was decided stands.
	Command(ctx context.Context, c Command, progress func(Progress)) error
}

// Names of commands.
const (
	commandMove        = "move"         // Group, Node, For (0: until unmove), NoWait
	commandUnmove      = "unmove"       // Group, NoWait
	commandStandby     = "standby"      // Node, On, NoWait
	commandMaintenance = "maintenance"  // On
	commandCleanup     = "cleanup"      // Group, Resource ("": all), Node ("": all)
	commandConfirmDead = "confirm-dead" // Node, Force
	commandQuorum      = "quorum"       // Force
	commandFence       = "fence"        // Node, Force
	commandFenceTest   = "fence-test"   // Node ("": all that this node may have to fence)
	commandEdit        = "edit"         // Text, Base
	commandFencePeer   = "fence-peer"   // Resource (DRBD's name), Node (DRBD's name; "": the only other one)
	commandUnfencePeer = "unfence-peer" // Resource (DRBD's name)
	commandUnmark      = "unmark"       // Resource (DRBD's name), Node, Force
	commandResolve     = "resolve"      // Resource (DRBD's name), Node (whose copy is good), Text (whose is not; "": the only other one), Force
)

// Command is the body of POST /v1/command.
type Command struct {
	Name     string   `json:"name"`
	Group    string   `json:"group,omitempty"`
	Resource string   `json:"resource,omitempty"`
	Node     string   `json:"node,omitempty"`
	For      Duration `json:"for,omitempty"`
	On       bool     `json:"on,omitempty"`
	NoWait   bool     `json:"no_wait,omitempty"`
	// Force says that the operator has confirmed. Without it confirm-dead, fence and quorum change nothing: they tell as
	// Progress when the node was last heard and what may be lost, or refuse.
	Force bool   `json:"force,omitempty"`
	Text  string `json:"text,omitempty"` // a whole configuration
	Base  uint64 `json:"base,omitempty"` // the generation that it was made from
	// By is user@node, set by the server from the peer's credentials; what a client sends is overwritten.
	By string `json:"by,omitempty"`
}

// Progress is one line of the answer to a command, and the body of every error.
type Progress struct {
	Text string `json:"text,omitempty"`
	Done bool   `json:"done,omitempty"`
	Err  string `json:"err,omitempty"`
	Hint string `json:"hint,omitempty"`
	Code int    `json:"code,omitempty"` // exit status of the client
}

// ConfigAnswer is the answer to GET /v1/config, and with ?generation=N to that of a past one, without its effective form.
type ConfigAnswer struct {
	Generation uint64  `json:"generation"`
	Hash       string  `json:"hash"`
	Text       string  `json:"text"`
	Effective  *Config `json:"effective"`
}

const (
	controlBodyMax   = 1 << 20
	controlReadTime  = 5 * time.Second        // for a request to arrive
	controlWriteTime = 10 * time.Second       // for a client to take one piece of an answer
	watchGap         = 100 * time.Millisecond // between two answers of a watch: many changes come as one
)

type controlServer struct {
	c   controller
	log *slog.Logger
}

// serveControl answers on l, which listenControl made, until ctx ends.
func serveControl(ctx context.Context, l net.Listener, c controller, log *slog.Logger) error {
	server := &http.Server{
		Handler:           (&controlServer{c, log}).handler(),
		ReadHeaderTimeout: controlReadTime,
		IdleTimeout:       controlReadTime,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if p, ok := conn.(*peerConn); ok {
				ctx = context.WithValue(ctx, peerKey{}, p.peer)
			}
			return ctx
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		// Streams end with ctx; what is being written has a moment to leave.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	defer stop()
	err := server.Serve(l)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the control socket: %w", err)
}

type peerKey struct{}

func (s *controlServer) handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range []struct {
		path, method string
		answer       func(http.ResponseWriter, *http.Request)
	}{
		{"/v1/status", http.MethodGet, s.status},
		{"/v1/watch", http.MethodGet, s.watch},
		{"/v1/history", http.MethodGet, s.history},
		{"/v1/config", http.MethodGet, s.config},
		{"/v1/generations", http.MethodGet, s.generations},
		{"/v1/state", http.MethodGet, s.state},
		{"/v1/command", http.MethodPost, s.command},
	} {
		mux.HandleFunc(r.path, func(w http.ResponseWriter, req *http.Request) {
			p, known := req.Context().Value(peerKey{}).(caller)
			change := r.method == http.MethodPost
			switch {
			case req.Method != r.method:
				refuse(w, http.StatusMethodNotAllowed, &hintError{req.Method + " is not for " + r.path, "use " + r.method, exitError})
			case !known || !p.reads():
				refuse(w, http.StatusForbidden, &hintError{"permission denied: " + p.String() + " may not read", hintReaders, exitDenied})
			case change && !p.changes():
				refuse(w, http.StatusForbidden, &hintError{"permission denied: only root changes anything, and this is " + p.String(), "sudo hactl …", exitDenied})
			default:
				req.Body = http.MaxBytesReader(w, req.Body, controlBodyMax)
				r.answer(w, req)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, &hintError{"the daemon does not know " + strconv.Quote(r.URL.Path), "are hactl and the daemon of one version? hactl version", exitError})
	})
	return mux
}

func refuse(w http.ResponseWriter, status int, err *hintError) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(Progress{Done: true, Err: err.msg, Hint: err.hint, Code: err.code})
}

// stream writes JSON values one a line, each with its own time limit, so that a client that stops reading is dropped.
type stream struct {
	mu      sync.Mutex
	control *http.ResponseController
	encoder *json.Encoder
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &stream{control: http.NewResponseController(w), encoder: json.NewEncoder(w)}
}

func (s *stream) send(v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Writers that know no deadlines are tests' recorders.
	if err := s.control.SetWriteDeadline(time.Now().Add(controlWriteTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if err := s.encoder.Encode(v); err != nil {
		return err
	}
	return s.control.Flush()
}

func (s *controlServer) status(w http.ResponseWriter, r *http.Request) {
	s.answer(w, s.c.Status())
}

// answer writes one value whole.
func (s *controlServer) answer(w http.ResponseWriter, v any) {
	st := newStream(w)
	w.Header().Set("Content-Type", "application/json")
	if err := st.send(v); err != nil {
		s.log.Debug("control: answer", "error", err)
	}
}

// watch sends the status at once, at each change, and with ?every=SECONDS also when nothing changes.
func (s *controlServer) watch(w http.ResponseWriter, r *http.Request) {
	every, err := number(r, "every", 0, 3600)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	out := newStream(w)
	for {
		changed := s.c.Changed() // before Status, so that no change falls between
		if out.send(s.c.Status()) != nil || !pause(r.Context(), watchGap) {
			return
		}
		if !s.await(r.Context(), changed, time.Duration(every)*time.Second) {
			return
		}
	}
}

// await waits for a change, or for as long as every says; it is false when ctx has ended.
func (s *controlServer) await(ctx context.Context, changed <-chan struct{}, every time.Duration) bool {
	var tick <-chan time.Time
	if every > 0 {
		t := time.NewTimer(every)
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-changed:
	case <-tick:
	case <-ctx.Done():
		return false
	}
	return true
}

// history sends the last ?n events, oldest first: as one array, or with ?follow=1 one a line with all that come later.
func (s *controlServer) history(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "n", historyMax, historyMax)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if r.FormValue("follow") == "" {
		events := s.c.History(n)
		if events == nil {
			events = []Event{}
		}
		s.answer(w, events)
		return
	}
	changed := s.c.Changed()
	out := newStream(w)
	var last Event
	for events := s.c.History(n); ; events = eventsAfter(s.c.History(historyMax), last) {
		for _, e := range events {
			if out.send(e) != nil {
				return
			}
			last = e
		}
		if len(events) == 0 && out.control.Flush() != nil { // the header, so that the client knows it is connected
			return
		}
		if !s.await(r.Context(), changed, 0) {
			return
		}
		changed = s.c.Changed()
	}
}

// eventsAfter are the events that follow last; all of them when last is not among them, since then the history was
// replaced (this node has yielded to another incarnation) or has run on by more than it holds.
func eventsAfter(events []Event, last Event) []Event {
	for i := len(events) - 1; i >= 0; i-- {
		if events[i] == last {
			return events[i+1:]
		}
	}
	return events
}

// number reads a query parameter from 0 to most.
func number(r *http.Request, name string, otherwise, most int) (int, *hintError) {
	text := r.FormValue(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, &hintError{fmt.Sprintf("%s=%q is no number from 0 to %d", name, text, most), "", exitUsage}
	}
	return n, nil
}

func (s *controlServer) config(w http.ResponseWriter, r *http.Request) {
	generation, hash, text, effective := s.c.Config()
	n, wrong := number(r, "generation", 0, math.MaxInt32)
	if wrong != nil {
		refuse(w, http.StatusBadRequest, wrong)
		return
	}
	if past := uint64(n); past != 0 && past != generation {
		var err error
		if text, err = s.c.Generation(past); errors.Is(err, fs.ErrNotExist) {
			err = &hintError{fmt.Sprintf("config generation %d is not kept on this node", n), "hactl config history lists those that are; another node may have it", exitError}
		}
		if err != nil {
			refuse(w, http.StatusNotFound, toHint(err))
			return
		}
		generation, hash, effective = past, configHash(text), nil
	}
	s.answer(w, ConfigAnswer{generation, hash, string(text), effective})
}

func (s *controlServer) generations(w http.ResponseWriter, r *http.Request) {
	all, err := s.c.Generations()
	if err != nil {
		refuse(w, http.StatusInternalServerError, toHint(err))
		return
	}
	s.answer(w, all)
}

func (s *controlServer) state(w http.ResponseWriter, r *http.Request) {
	b, err := s.c.State()
	if err != nil {
		refuse(w, http.StatusInternalServerError, toHint(err))
		return
	}
	s.answer(w, json.RawMessage(b))
}

func (s *controlServer) command(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(controlReadTime)) // a recorder in tests knows none
	c, err := decodeCommand(r.Body)
	control.SetReadDeadline(time.Time{})
	if err != nil {
		refuse(w, http.StatusBadRequest, toHint(err))
		return
	}
	st := s.c.Status()
	if err := c.check(st); err != nil {
		refuse(w, http.StatusBadRequest, toHint(err))
		return
	}
	p, _ := r.Context().Value(peerKey{}).(caller)
	c.By = p.name() + "@" + st.Node
	out := newStream(w)
	err = s.c.Command(r.Context(), c, func(p Progress) { out.send(p) }) // a client that is gone ends r.Context()
	end := Progress{Done: true}
	if err != nil {
		h := toHint(err)
		end.Err, end.Hint, end.Code = h.msg, h.hint, h.code
	}
	out.send(end)
}

// decodeCommand reads exactly one command and nothing that it does not know.
func decodeCommand(body io.Reader) (Command, error) {
	var c Command
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(&c)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		return Command{}, &hintError{"read the command: " + err.Error(), "are hactl and the daemon of one version? hactl version", exitError}
	}
	return c, nil
}

// toHint keeps message, hint and exit status of an error on its way to the client.
func toHint(err error) *hintError {
	var h *hintError
	if errors.As(err, &h) {
		// err may say more than h: it wraps it.
		return &hintError{err.Error(), h.hint, max(h.code, exitError)}
	}
	return &hintError{err.Error(), "", exitError}
}

func runsNoGroups(witness string, full []string) error {
	return wrongUse("nodes that may: "+strings.Join(full, ", "), "%s is a witness: it runs no groups", witness)
}

// check refuses a command that names what does not exist or leaves out what it needs.
func (c Command) check(st *Status) error {
	var group, node bool // what it needs
	switch c.Name {
	case commandMove:
		group, node = true, true
	case commandUnmove, commandCleanup:
		group = true
	case commandStandby, commandConfirmDead, commandFence:
		node = true
	case commandMaintenance, commandQuorum, commandFenceTest, commandEdit:
	case commandFencePeer, commandUnfencePeer:
		return nil // the names are DRBD's
	case commandUnmark, commandResolve:
		node = true
	default:
		return &hintError{fmt.Sprintf("the daemon knows no command %q", c.Name), "are hactl and the daemon of one version? hactl version", exitUsage}
	}
	if group || c.Group != "" {
		if err := st.checkGroup(c.Group, c.Resource); err != nil {
			return err
		}
	}
	if node || c.Node != "" {
		if err := st.checkNode(c.Node); err != nil {
			return err
		}
	}
	if c.For < 0 {
		return wrongUse(`a duration such as "30m"`, "--for is negative")
	}
	full := st.fullNodes()
	switch {
	case c.Name == commandMove && !slices.Contains(full, c.Node):
		return runsNoGroups(c.Node, full)
	case c.Name == commandConfirmDead && c.Node == st.Node:
		return wrongUse("name the node that is gone", "%s is this node, and it answers", c.Node)
	case c.Name == commandFence && c.Node == st.Node:
		return wrongUse("ask another node: hactl fence there", "%s is this node: it cannot fence itself", c.Node)
	}
	return nil
}

// checkGroup says what is wrong with the name of a group, and of a resource in it unless that is empty.
func (s *Status) checkGroup(group, resource string) error {
	var names []string
	for _, g := range s.Groups {
		names = append(names, g.Name)
		if g.Name != group {
			continue
		}
		var resources []string
		for _, r := range g.Resources {
			resources = append(resources, r.Name)
		}
		if resource != "" && !slices.Contains(resources, resource) {
			return noSuch("resource", resource, resources)
		}
		return nil
	}
	return noSuch("group", group, names)
}

func (s *Status) checkNode(node string) error {
	var names []string
	for _, n := range s.Nodes {
		names = append(names, n.Name)
	}
	if slices.Contains(names, node) {
		return nil
	}
	return noSuch("node", node, names)
}

func (s *Status) fullNodes() []string {
	var names []string
	for _, n := range s.Nodes {
		if n.Role != "witness" {
			names = append(names, n.Name)
		}
	}
	return names
}

// userName is the name of a user id, or the id itself where the host does not know it.
func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return u.Username
	}
	return "uid " + strconv.FormatUint(uint64(uid), 10)
}
