package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test program is also the clients and a service of the integration tests: see cluster_client_test.go, cluster_writer_test.go.
func TestMain(m *testing.M) {
	testscript.Main(cleanUpAfter{m}, map[string]func(){
		"hactl": main, probeCommand: probeMain, writerCommand: writerMain, writesCommand: writesMain,
	})
}

// cleanUpAfter removes what tests share.
type cleanUpAfter struct{ m *testing.M }

func (c cleanUpAfter) Run() int {
	defer removeBinary()
	return c.m.Run()
}

// The commands as an operator meets them: testdata/script. The verb `daemon SITUATION [UID GID…]` serves a fake daemon
// in that situation, to a peer of these ids (root unless they are given); `daemon stop` ends it. `exits CODE COMMAND`
// runs a command that must end with that exit status. `wrong COMMAND` runs one that must be refused as wrong use: two
// lines on stderr, nothing on stdout, exit status 64.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			// The work folder of a script may be too deep for a socket's path.
			dir, err := os.MkdirTemp("", "ha")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("HACTL_SOCKET", dir+"/ha.sock")
			e.Setenv("TZ", "UTC")
			e.Values[scriptDaemonKey{}] = new(func())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": scriptDaemon,
			"exits":  scriptExits,
			"wrong":  scriptWrong,
		},
	})
}

// scriptDaemonKey finds what stops the script's daemon.
type scriptDaemonKey struct{}

func scriptDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: daemon SITUATION [UID GID...] | daemon stop")
	}
	running := ts.Value(scriptDaemonKey{}).(*func())
	if *running != nil {
		(*running)()
		*running = nil
	}
	if args[0] == "stop" {
		return
	}
	st, ok := situations()[args[0]]
	if !ok {
		ts.Fatalf("no situation %q", args[0])
	}
	p := caller{reader: testReader}
	for i, a := range args[1:] {
		n, err := strconv.ParseUint(a, 10, 32)
		ts.Check(err)
		if i == 0 {
			p.uid = uint32(n)
		} else {
			p.groups = append(p.groups, uint32(n))
		}
	}
	path := ts.Getenv("HACTL_SOCKET")
	l, err := listenControl(path, "")
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveControl(ctx, everyoneIs{l, p}, newFake(st), slog.New(slog.DiscardHandler))
	}()
	*running = func() { cancel(); <-done }
	ts.Defer(*running)
}

// everyoneIs gives every peer the same credentials.
type everyoneIs struct {
	net.Listener
	as caller
}

func (l everyoneIs) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if p, ok := conn.(*peerConn); ok {
		p.peer = l.as
	}
	return conn, err
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func scriptWrong(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! wrong")
	}
	scriptExits(ts, false, append([]string{strconv.Itoa(exitUsage)}, args...))
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout: %q", out)
	}
	lines := strings.Split(ts.ReadFile("stderr"), "\n")
	if len(lines) != 3 || lines[2] != "" || !strings.HasPrefix(lines[0], "hactl: ") || !strings.HasPrefix(lines[1], "hint: ") {
		ts.Fatalf("no error line and hint line: %q", lines)
	}
}

// The whole program with a broken output and with a context that has ended.
func TestRunSurroundings(t *testing.T) {
	path, _ := served(t, newFake(sampleStatus()))
	args := []string{"--socket", path, "status"}
	var errOut bytes.Buffer
	if code := run(t.Context(), args, nil, brokenWriter{}, &errOut); code != exitError || !strings.Contains(errOut.String(), "no space left") {
		t.Errorf("a full disk behind stdout: exit status %d, %q", code, errOut.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	errOut.Reset()
	if code := run(ctx, args, nil, &out, &errOut); code != exitInterrupted || out.Len() > 0 || !strings.Contains(errOut.String(), "interrupted") {
		t.Errorf("interrupted: exit status %d, %q %q", code, out.String(), errOut.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// status --watch prints a block for each change where the output is no terminal, outlives the daemon, and ends well.
func TestWatchCommand(t *testing.T) {
	f := newFake(sampleStatus())
	path, stop := served(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		var errOut bytes.Buffer
		code <- run(ctx, []string{"status", "--watch", "--socket", path}, nil, w, &errOut)
		w.CloseWithError(fmt.Errorf("ended: %s", errOut.String()))
	}()
	lines := bufio.NewScanner(r)
	await := func(part string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), part) {
				return
			}
		}
		t.Fatalf("no line with %q: %v", part, lines.Err())
	}
	await("web is up on alice")
	f.change(situations()["blocked"])
	await("web is BLOCKED")
	go stop()
	await("the daemon of this node is gone")
	cancel()
	go io.Copy(io.Discard, r)
	if c := <-code; c != 0 {
		t.Errorf("exit status %d", c)
	}
}

// history --follow and a command that is waited for, interrupted.
func TestInterruptedCommands(t *testing.T) {
	f := newFake(sampleStatus())
	f.obey = func(ctx context.Context, c Command, progress func(Progress)) error {
		progress(Progress{Text: "stopping web on alice"})
		<-ctx.Done()
		return ctx.Err()
	}
	path, _ := served(t, f)
	for _, c := range []struct {
		args        []string
		await, says string
		code        int
	}{
		{[]string{"history", "--follow"}, "carol votes", "", 0},
		{[]string{"move", "web", "bob"}, "stopping web on alice", "hactl unmove web takes it back", exitInterrupted},
		{[]string{"standby", "bob"}, "stopping web on alice", "hactl online bob takes it back", exitInterrupted},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var errOut bytes.Buffer
		out := &awaited{part: c.await, found: cancel}
		code := run(ctx, append(c.args, "--socket", path), nil, out, &errOut)
		if code != c.code || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("%v: exit status %d, %q", c.args, code, errOut.String())
		}
		cancel()
	}
}

// awaited calls found once part was written to it.
type awaited struct {
	text, part string
	found      func()
}

func (a *awaited) Write(b []byte) (int, error) {
	if a.text += string(b); strings.Contains(a.text, a.part) {
		a.found()
	}
	return len(b), nil
}
