package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testReader = 4711 // stands for the gid of haclient

func rootPeer() caller { return caller{uid: 0, reader: noGroup} }

// ask sends one request through the handler as p would, with no socket between.
func ask(f *fakeController, p *caller, method, target, body string) *httptest.ResponseRecorder {
	s := &controlServer{f, slog.New(slog.DiscardHandler)}
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if p != nil {
		r = r.WithContext(context.WithValue(r.Context(), peerKey{}, *p))
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, r)
	return w
}

// lastProgress is the last line of an answer to a command.
func lastProgress(t *testing.T, w *httptest.ResponseRecorder) Progress {
	t.Helper()
	var p Progress
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &p); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	return p
}

func TestControlPermissions(t *testing.T) {
	reads := []string{"/v1/status", "/v1/history", "/v1/config", "/v1/state"}
	for _, c := range []struct {
		name            string
		peer            *caller
		reads, changes  bool
		whoInTheMessage string
	}{
		{"root", &caller{uid: 0, reader: testReader}, true, true, ""},
		{"root without the group on the host", &caller{uid: 0, reader: noGroup}, true, true, ""},
		{"reader", &caller{uid: 61234, groups: []uint32{5, testReader}, reader: testReader}, true, false, "uid 61234"},
		{"stranger", &caller{uid: 61234, groups: []uint32{5, 6}, reader: testReader}, false, false, "uid 61234"},
		{"stranger without groups", &caller{uid: 61234, reader: testReader}, false, false, "uid 61234"},
		{"stranger, no such group on the host", &caller{uid: 61234, groups: []uint32{noGroup}, reader: noGroup}, false, false, "uid 61234"},
		{"member of group 0 is not root", &caller{uid: 61234, groups: []uint32{0}, reader: testReader}, false, false, "uid 61234"},
		{"unknown", nil, false, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(sampleStatus())
			for _, route := range reads {
				w := ask(f, c.peer, http.MethodGet, route, "")
				if got := w.Code == http.StatusOK; got != c.reads {
					t.Errorf("GET %s: %d %s", route, w.Code, w.Body)
				}
				if !c.reads {
					p := lastProgress(t, w)
					if w.Code != http.StatusForbidden || p.Hint == "" || !strings.Contains(p.Err, c.whoInTheMessage) {
						t.Errorf("GET %s: %d %+v", route, w.Code, p)
					}
				}
			}
			w := ask(f, c.peer, http.MethodPost, "/v1/command", `{"name":"unmove","group":"web","by":"forged@nowhere"}`)
			if c.changes {
				if len(f.asked) != 1 || f.asked[0].By != userName(0)+"@alice" && c.peer.pid == 0 {
					t.Errorf("asked %+v", f.asked)
				}
				return
			}
			if p := lastProgress(t, w); w.Code != http.StatusForbidden || !p.Done || p.Hint == "" || p.Code != exitDenied || len(f.asked) != 0 {
				t.Errorf("POST: %d %+v, asked %v", w.Code, p, f.asked)
			}
		})
	}
}

func TestControlRefusals(t *testing.T) {
	root := rootPeer()
	for _, c := range []struct {
		method, target, body string
		status, code         int
		err, hint            string // parts
	}{
		{"GET", "/", "", 404, 1, `does not know "/"`, "hactl version"},
		{"GET", "/v1/nothing", "", 404, 1, "does not know", "version"},
		{"POST", "/v1/status", "", 405, 1, "POST is not for", "use GET"},
		{"GET", "/v1/command", "", 405, 1, "GET is not for", "use POST"},
		{"GET", "/v1/history?n=x", "", 400, 64, `n="x"`, ""},
		{"GET", "/v1/history?n=-1", "", 400, 64, "no number from 0", ""},
		{"GET", "/v1/history?n=501", "", 400, 64, "to 500", ""},
		{"GET", "/v1/watch?every=1e3", "", 400, 64, "every=", ""},
		{"POST", "/v1/command", "", 400, 1, "EOF", "version"},
		{"POST", "/v1/command", "[]", 400, 1, "cannot unmarshal", "version"},
		{"POST", "/v1/command", `{"name":"move"} {}`, 400, 1, "something follows", "version"},
		{"POST", "/v1/command", `{"name":"move","colour":"red"}`, 400, 1, `unknown field "colour"`, "version"},
		{"POST", "/v1/command", `{"name":"move","for":"soon"}`, 400, 1, "invalid duration", ""},
		{"POST", "/v1/command", `{"name":"` + strings.Repeat("x", controlBodyMax) + `"}`, 400, 1, "too large", ""},
		{"POST", "/v1/command", `{"name":"mvoe"}`, 400, 64, `no command "mvoe"`, ""},
		{"POST", "/v1/command", `{"name":"move"}`, 400, 64, `no group ""`, "groups: web"},
		{"POST", "/v1/command", `{"name":"move","group":"wbe","node":"bob"}`, 400, 64, `no group "wbe"`, `did you mean "web"?`},
		{"POST", "/v1/command", `{"name":"move","group":"web","node":"bbo"}`, 400, 64, `no node "bbo"`, `did you mean "bob"? nodes: alice, bob, carol`},
		{"POST", "/v1/command", `{"name":"move","group":"web","node":"carol"}`, 400, 64, "carol is a witness", "alice, bob"},
		{"POST", "/v1/command", `{"name":"move","group":"web","node":"bob","for":"-1s"}`, 400, 64, "negative", "duration"},
		{"POST", "/v1/command", `{"name":"cleanup","group":"web","resource":"http"}`, 400, 64, `no resource "http"`, `did you mean "httpd"?`},
		{"POST", "/v1/command", `{"name":"cleanup","group":"web","node":"dave"}`, 400, 64, `no node "dave"`, "nodes: "},
		{"POST", "/v1/command", `{"name":"standby"}`, 400, 64, `no node ""`, ""},
		{"POST", "/v1/command", `{"name":"confirm-dead","node":"alice"}`, 400, 64, "alice is this node", ""},
	} {
		f := newFake(sampleStatus())
		w := ask(f, &root, c.method, c.target, c.body)
		p := lastProgress(t, w)
		name := fmt.Sprintf("%s %s %.60s", c.method, c.target, c.body)
		if w.Code != c.status || p.Code != c.code || !strings.Contains(p.Err, c.err) || !strings.Contains(p.Hint, c.hint) || !p.Done {
			t.Errorf("%s: %d %+v", name, w.Code, p)
		}
		if len(f.asked) > 0 {
			t.Errorf("%s: the controller was asked %+v", name, f.asked)
		}
	}
}

func TestControlCommandErrors(t *testing.T) {
	root := rootPeer()
	for _, c := range []struct {
		err  error
		want Progress
	}{
		{nil, Progress{Done: true}},
		{errors.New("plain"), Progress{Done: true, Err: "plain", Code: 1}},
		{&hintError{"no", "do", 64}, Progress{Done: true, Err: "no", Hint: "do", Code: 64}},
		{fmt.Errorf("move web: %w", &hintError{"no", "do", 0}), Progress{Done: true, Err: "move web: no", Hint: "do", Code: 1}},
	} {
		f := newFake(sampleStatus())
		f.obey = func(ctx context.Context, q Command, progress func(Progress)) error {
			progress(Progress{Text: "one"})
			return c.err
		}
		w := ask(f, &root, "POST", "/v1/command", `{"name":"unmove","group":"web"}`)
		if diff := cmp.Diff(c.want, lastProgress(t, w)); diff != "" || !strings.HasPrefix(w.Body.String(), `{"text":"one"}`+"\n") {
			t.Errorf("%v: %s\n%s", c.err, diff, w.Body)
		}
	}
}

// served is a control server on a real socket, for as long as the test runs.
func served(t *testing.T, f *fakeController) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ha") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "ha.sock")
	l, err := listenControl(path, dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveControl(ctx, everyoneIsRoot{l}, f, slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	t.Cleanup(stop)
	return path, stop
}

// everyoneIsRoot lets these tests run as any user: what the kernel says of the peer is tested by TestReadPeer.
type everyoneIsRoot struct{ net.Listener }

func (l everyoneIsRoot) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if p, ok := conn.(*peerConn); ok {
		p.peer.uid, p.peer.pid = 0, 0
	}
	return conn, err
}

func TestReadPeer(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := net.Dial("unix", l.Addr().String()); err == nil {
			defer conn.Close()
			io.Copy(io.Discard, conn)
		}
	}()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p, err := readPeer(conn)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var want []uint32
	for _, g := range append(groups, os.Getegid()) {
		want = append(want, uint32(g))
	}
	if p.uid != uint32(os.Geteuid()) || p.pid != int32(os.Getpid()) || !cmp.Equal(p.groups, want) {
		t.Errorf("got %+v, want uid %d, pid %d, groups %v", p, os.Geteuid(), os.Getpid(), want)
	}
	if p.name() == "" {
		t.Error("no name for the records")
	}
}

func TestListenControl(t *testing.T) {
	dir := t.TempDir()
	runDir := filepath.Join(dir, "run")
	path := filepath.Join(runDir, "ha.sock")
	l, err := listenControl(path, runDir)
	if err != nil {
		t.Fatal(err)
	}
	wantMode := os.FileMode(0o600)
	if readersGID() != noGroup && os.Geteuid() == 0 {
		wantMode = 0o660
	}
	for p, want := range map[string]os.FileMode{path: wantMode, runDir: 0o750} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want mode %o", p, info.Mode(), err, want)
		}
	}
	var hinted *hintError
	if _, err := listenControl(path, runDir); !errors.As(err, &hinted) || !strings.Contains(err.Error(), "another daemon answers") {
		t.Errorf("second listener: %v", err)
	}
	l.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket outlives its listener: %v", err)
	}

	// A killed daemon leaves its socket behind: it is replaced.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if l, err = listenControl(path, runDir); err != nil {
		t.Fatal(err)
	}
	l.Close()

	// A folder that is not ours keeps its mode.
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if l, err = listenControl(filepath.Join(other, "s"), runDir); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if info, err := os.Stat(other); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode of somebody's folder: %v %v", info.Mode(), err)
	}

	long := filepath.Join(dir, strings.Repeat("x", socketMax))
	if _, err := listenControl(long, dir); !errors.As(err, &hinted) || hinted.code != exitUsage {
		t.Errorf("long path: %v", err)
	}
}

// One user cannot use up the connections of another.
func TestConnectionLimit(t *testing.T) {
	l := &peerListener{open: make(map[uint32]int)}
	for i := range connectionsOfUser {
		if !l.enter(1000) {
			t.Fatalf("connection %d is refused", i+1)
		}
	}
	if l.enter(1000) {
		t.Error("no limit")
	}
	if !l.enter(0) {
		t.Error("root is kept out by somebody else")
	}
	l.leave(1000)
	if !l.enter(1000) {
		t.Error("a closed connection still counts")
	}
	l.leave(0)
	if _, ok := l.open[0]; ok {
		t.Error("a user without connections is remembered")
	}
}

func TestConnectionLimitOnSocket(t *testing.T) {
	path, _ := served(t, newFake(sampleStatus()))
	var open []net.Conn
	for range connectionsOfUser {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open = append(open, conn)
	}
	over, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if _, err := over.Read(make([]byte, 1)); err == nil { // connections are accepted in order: by now it was turned away
		t.Error("one too many was served")
	}
	if _, err := io.WriteString(open[0], "GET /v1/status HTTP/1.1\r\nHost: ha\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(open[0]).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("one within the limit: %q %v", line, err)
	}
}

func TestWatchSendsChanges(t *testing.T) {
	f := newFake(sampleStatus())
	path, stop := served(t, f)
	cl := clientAt(path)
	next := situations()["blocked"]
	var seen []string
	err := cl.watch(t.Context(), 0, func(st *Status, _ []byte) error {
		seen = append(seen, st.Groups[0].State)
		if len(seen) == 1 {
			f.change(next)
			return nil
		}
		go stop() // a daemon that stops ends the stream
		return nil
	})
	if err != nil {
		t.Errorf("the end of a stream: %v", err)
	}
	if want := []string{"started", "blocked"}; !cmp.Equal(seen, want) {
		t.Errorf("saw %v, want %v", seen, want)
	}
}

func TestWatchRepeatsWithoutChange(t *testing.T) {
	path, _ := served(t, newFake(sampleStatus()))
	n := 0
	err := clientAt(path).watch(t.Context(), 1, func(*Status, []byte) error {
		if n++; n == 2 {
			return io.ErrShortWrite
		}
		return nil
	})
	if err != io.ErrShortWrite {
		t.Errorf("%v after %d", err, n)
	}
}

func TestHistoryFollows(t *testing.T) {
	f := newFake(sampleStatus())
	path, _ := served(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []string
	err := clientAt(path).lines(ctx, http.MethodGet, "/v1/history?n=2&follow=1", nil, func(b []byte) error {
		var e Event
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		seen = append(seen, e.Text)
		switch len(seen) {
		case 2:
			f.change(nil, Event{Index: 10, Text: "three"}, Event{Index: 10, Text: "four"})
		case 4:
			f.change(sampleStatus()) // no event: nothing to send
			f.change(nil, Event{Index: 11, Text: "five"})
		case 5:
			cancel()
		}
		return nil
	})
	want := []string{"web runs on alice", "carol votes", "three", "four", "five"}
	if diff := cmp.Diff(want, seen); diff != "" || !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestEventsAfter(t *testing.T) {
	a, b, c := Event{Index: 1, Text: "a"}, Event{Index: 2, Text: "b"}, Event{Index: 2, Text: "c"}
	for _, k := range []struct {
		events []Event
		last   Event
		want   int
	}{
		{[]Event{a, b, c}, a, 2}, {[]Event{a, b, c}, b, 1}, {[]Event{a, b, c}, c, 0}, {[]Event{b, c}, a, 2}, {nil, a, 0}, {[]Event{a, b}, Event{}, 2},
	} {
		if got := eventsAfter(k.events, k.last); len(got) != k.want {
			t.Errorf("after %v of %v: %v", k.last, k.events, got)
		}
	}
}

// A command that waits ends with its client.
func TestCommandEndsWithClient(t *testing.T) {
	f := newFake(sampleStatus())
	ended := make(chan error, 1)
	f.obey = func(ctx context.Context, c Command, progress func(Progress)) error {
		progress(Progress{Text: "waiting"})
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	path, _ := served(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	err := clientAt(path).command(ctx, Command{Name: commandUnmove, Group: "web"}, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the client says %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the controller saw %v", err)
	}
}

// A daemon that stops in the middle of a command is no success.
func TestCommandBrokenOff(t *testing.T) {
	f := newFake(sampleStatus())
	path, stop := served(t, f)
	started := make(chan struct{})
	f.obey = func(ctx context.Context, c Command, progress func(Progress)) error {
		close(started)
		<-ctx.Done()
		panic(http.ErrAbortHandler)
	}
	go func() { <-started; stop() }()
	err := clientAt(path).command(t.Context(), Command{Name: commandUnmove, Group: "web"}, func(string) {})
	var h *hintError
	if !errors.As(err, &h) || h.code != exitNoDaemon || h.hint == "" {
		t.Errorf("got %#v", err)
	}
}

func TestClientUnreached(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: file, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	mute, err := net.Listen("unix", filepath.Join(dir, "mute"))
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		for c, err := mute.Accept(); err == nil; c, err = mute.Accept() {
			c.Close()
		}
	}()
	for _, c := range []struct {
		path string
		code int
		hint string
	}{
		{filepath.Join(dir, "none"), exitNoDaemon, hintStart},
		{file, exitNoDaemon, hintStart},
		{mute.Addr().String(), exitNoDaemon, "journalctl"},
		{filepath.Join(dir, strings.Repeat("x", 200)), exitUsage, "shorter"},
	} {
		_, err := clientAt(c.path).status(t.Context())
		var h *hintError
		if !errors.As(err, &h) || h.code != c.code || !strings.Contains(h.hint, c.hint) {
			t.Errorf("%s: %#v", c.path, err)
		}
	}
}

// What answers but speaks no HTTP, or another version of ours, is an error in words.
func TestClientStrangeAnswers(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{"", "closed the connection"},
		{"hello\r\n\r\n", "ask the daemon"},
		{"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nnope", "500 Oops"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope", "read the daemon's answer"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{", "went away"},
	} {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, c.answer)
				conn.Close()
			}
		}()
		_, err = clientAt(l.Addr().String()).status(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.answer, err)
		}
		l.Close()
	}
}

// FuzzControl feeds bytes to the one route that reads them. Whatever comes, the answer is JSON lines that end with
// done, and the controller is only asked what makes sense.
func FuzzControl(f *testing.F) {
	for _, seed := range []string{
		`{"name":"move","group":"web","node":"bob","for":"30m"}`, `{"name":"quorum","force":true}`, `{"name":"maintenance","on":true}`,
		`{"name":"cleanup","group":"web","resource":"httpd","node":"bob"}`, `{"name":"standby","node":"carol","on":true}`,
		`{"name":"move","for":"-9223372036854775808ns"}`, `[]`, `{"name":1}`, "{", "\x00\xff", `{"name":"move","name":"unmove","group":"web"}`,
	} {
		f.Add([]byte(seed))
	}
	root := rootPeer()
	f.Fuzz(func(t *testing.T, body []byte) {
		fake := newFake(sampleStatus())
		w := ask(fake, &root, http.MethodPost, "/v1/command", string(body))
		p := lastProgress(t, w)
		if !p.Done || (w.Code != http.StatusOK) != (len(fake.asked) == 0) {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
		for _, c := range fake.asked {
			if c.check(fake.st) != nil || c.By != "root@alice" || c.For < 0 {
				t.Errorf("%q reached the controller as %+v", body, c)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	if !pause(t.Context(), time.Nanosecond) {
		t.Error("a pause that nobody ended")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if pause(ctx, time.Hour) {
		t.Error("a pause outlived its context")
	}
}
