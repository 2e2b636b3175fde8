package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestArrange(t *testing.T) {
	app := newApp(nil, io.Discard, io.Discard)
	for _, c := range []struct {
		in, want []string
		help     bool
	}{
		{[]string{"status"}, []string{"hactl", "status", "--"}, false},
		{[]string{"move", "web", "--for", "30m", "bob", "--socket", "s"}, []string{"hactl", "--socket=s", "move", "--for=30m", "--", "web", "bob"}, false},
		{[]string{"move", "--for=-1s", "web", "bob"}, []string{"hactl", "move", "--for=-1s", "--", "web", "bob"}, false},
		{[]string{"move", "--", "--for", "-h"}, []string{"hactl", "move", "--", "--for", "-h"}, false},
		{[]string{"-color=never", "config", "check", "-", "--strict"}, []string{"hactl", "--color=never", "config", "check", "-strict", "--", "-"}, false},
		{[]string{"history", "-n", "-5"}, []string{"hactl", "history", "--n=-5", "--"}, false},
		{[]string{"move", "-h"}, nil, true},
		{[]string{"--help", "move", "nonsense", "and", "more"}, nil, true},
	} {
		for i, a := range c.want { // a flag without a value passes as it was written
			if a == "-strict" {
				c.want[i] = "--strict"
			}
		}
		l, err := arrange(app, c.in)
		if err != nil || l.help != c.help || !cmp.Equal(l.args, c.want) {
			t.Errorf("%q: %q help %v, %v; want %q", c.in, l.args, l.help, err, c.want)
		}
	}
}

// Every error ends as at most two lines, whatever is in it, with an exit status that is not 0.
func TestReport(t *testing.T) {
	app := newApp(nil, io.Discard, io.Discard)
	path := []*cli.Command{lookUp(app.Commands, "config"), lookUp(app.Commands, "config").Subcommands[0]}
	for _, c := range []struct {
		path []*cli.Command
		err  error
		want string
		code int
	}{
		{nil, nil, "", 0},
		{path, exitStatus(2), "", 2},
		{nil, errors.New("a"), "hactl: a\n", 1},
		{path, errors.New("a\nb\x1b[31m\tc"), "hactl: config check: a b [31m c\n", 1},
		{path, &hintError{"a", "b\nc", 3}, "hactl: config check: a\nhint: b c\n", 3},
		{path, &hintError{msg: "a", hint: "b"}, "hactl: config check: a\nhint: b\n", 1},
		{nil, fmt.Errorf("outer: %w", wrongUse("h", "%q", "x\ny")), "hactl: outer: \"x\\ny\"\nhint: h\n", 64},
	} {
		var b bytes.Buffer
		if code := report(&b, c.path, c.err); code != c.code || b.String() != c.want {
			t.Errorf("%v: %d %q, want %d %q", c.err, code, b.String(), c.code, c.want)
		}
	}
}

// The help of every command fits a plain terminal, belongs to a part of the day and shows each flag.
func TestHelp(t *testing.T) {
	app := newApp(nil, io.Discard, io.Discard)
	categories := []string{categoryLook, categorySteer, categoryGone, categorySetUp}
	var visit func(path []*cli.Command)
	check := func(name string, path []*cli.Command) {
		var b bytes.Buffer
		if err := printHelp(&b, app, path); err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(b.String()) {
			if utf8.RuneCountInString(l) > plainWidth+1 {
				t.Errorf("%s: wider than %d: %q", name, plainWidth, l)
			}
		}
		if len(path) == 0 {
			return
		}
		for _, f := range path[len(path)-1].Flags {
			if !strings.Contains(b.String(), "  "+dashed(f.Names()[0])) {
				t.Errorf("%s: no word of the flag %s", name, f.Names()[0])
			}
		}
	}
	visit = func(path []*cli.Command) {
		c := path[len(path)-1]
		name := commandName(path)
		if c.Usage == "" || c.Action == nil && len(c.Subcommands) == 0 {
			t.Errorf("%s: no usage or nothing to do", name)
		}
		check(name, path)
		for _, s := range c.Subcommands {
			visit(append(path[:len(path):len(path)], s))
		}
	}
	check("hactl", nil)
	last := 0
	for _, c := range app.Commands {
		at := -1
		for i, category := range categories {
			if c.Category == category {
				at = i
			}
		}
		if at < last && !c.Hidden {
			t.Errorf("%s: category %q is out of order", c.Name, c.Category)
		}
		last = at
		visit([]*cli.Command{c})
	}
}

func TestReflow(t *testing.T) {
	long := strings.Repeat("word ", 30)
	got := reflow("First\nsecond.\n\n" + long + "\n\nList\n  a   b\n  c")
	if !strings.HasPrefix(got, "First second.\n\nword word") || !strings.HasSuffix(got, "\n\nList\n  a   b\n  c\n") {
		t.Errorf("got %q", got)
	}
	if got := reflow(""); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestSplitSteps(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"kill", "alice"}, []string{"kill alice"}},
		{[]string{"kill", "alice,", "cut", "lan"}, []string{"kill alice", "cut lan"}},
		{[]string{"kill", "alice", ",", "cut", "lan", ","}, []string{"kill alice", "cut lan"}},
		{[]string{"kill alice", "cut alice bob"}, []string{"kill alice", "cut alice bob"}},
		{[]string{"kill alice, online  alice", "move", "web", "bob"}, []string{"kill alice", "online alice", "move web bob"}},
		{[]string{"fail", "web", "httpd", "bob,unmove", "web"}, []string{"fail web httpd bob", "unmove web"}},
	} {
		steps, err := splitSteps(c.args)
		if err != nil || !cmp.Equal(stepTexts(steps), c.want) {
			t.Errorf("%q: %q %v, want %q", c.args, stepTexts(steps), err, c.want)
		}
	}
	for _, args := range [][]string{{","}, {" , "}, {"kill"}, {"kill alice bob"}, {"kill", "alice", "kill", "bob"}, {"explode"}, {"standby"}} {
		if steps, err := splitSteps(args); err == nil {
			t.Errorf("%q is taken for %q", args, stepTexts(steps))
		}
	}
}

func TestDaemonOptions(t *testing.T) {
	for _, c := range []struct {
		env  string
		args []string
		want daemonOptions
	}{
		{"", nil, daemonOptions{Config: defaultConfig, StateDir: defaultStateDir, RunDir: defaultRunDir, Socket: defaultSocket, LogFormat: "auto"}},
		{"", []string{"--run-dir", "/r", "--node", "bob", "--bootstrap", "--state-dir=/s", "--config", "/c", "--log-format", "json"},
			daemonOptions{Config: "/c", Node: "bob", StateDir: "/s", RunDir: "/r", Socket: "/r/ha.sock", Bootstrap: true, LogFormat: "json"}},
		{"", []string{"--run-dir", "/r", "--socket", "/x"}, daemonOptions{Config: defaultConfig, StateDir: defaultStateDir, RunDir: "/r", Socket: "/x", LogFormat: "auto"}},
		{"/e", nil, daemonOptions{Config: defaultConfig, StateDir: defaultStateDir, RunDir: defaultRunDir, Socket: "/e", LogFormat: "auto"}},
	} {
		t.Setenv("HACTL_SOCKET", c.env)
		app := newApp(nil, io.Discard, io.Discard)
		var got daemonOptions
		lookUp(app.Commands, "daemon").Action = func(ctx *cli.Context) (err error) {
			got, err = daemonOptionsOf(ctx)
			return err
		}
		l, err := arrange(app, append([]string{"daemon"}, c.args...))
		if err == nil {
			err = app.RunContext(t.Context(), l.args)
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.args, got, err, c.want)
		}
	}
}
