package main

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal of that size: what a program writes to tty is read from screen.
func openTerminal(t *testing.T, columns, rows uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipped: no terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// readUntil reads from a terminal until part has come.
func readUntil(t *testing.T, screen *os.File, part string) string {
	t.Helper()
	var all bytes.Buffer
	b := make([]byte, 4096)
	for !strings.Contains(all.String(), part) {
		n, err := screen.Read(b)
		if err != nil {
			t.Fatalf("%v before %q came: %q", err, part, all.String())
		}
		all.Write(b[:n])
	}
	return all.String()
}

func TestStatusOnTerminal(t *testing.T) {
	path, _ := served(t, newFake(sampleStatus()))
	for _, c := range []struct {
		noColor, term string
		args          []string
		colored       bool
	}{
		{"", "xterm", nil, true},
		{"1", "xterm", nil, false},
		{"", "dumb", nil, false},
		{"", "xterm", []string{"--color=never"}, false},
		{"1", "dumb", []string{"--color=always"}, true},
	} {
		t.Setenv("NO_COLOR", c.noColor)
		t.Setenv("TERM", c.term)
		screen, tty := openTerminal(t, 200, 50)
		code := run(t.Context(), append([]string{"status", "--socket", path}, c.args...), nil, tty, tty)
		text := readUntil(t, screen, "Never two")
		if colored := strings.Contains(text, "\x1b["); code != 0 || colored != c.colored {
			t.Errorf("%+v: exit status %d, %q", c, code, text)
		}
		if !strings.Contains(text, "config 7 · 15:09:26") {
			t.Errorf("wrapped although the terminal is wide: %q", text)
		}
	}
}

// On a terminal --watch draws one screen over the other, cut to its height.
func TestWatchOnTerminal(t *testing.T) {
	f := newFake(sampleStatus())
	path, _ := served(t, f)
	screen, tty := openTerminal(t, 80, 10)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"status", "--watch", "--color=never", "--socket", path}, nil, tty, tty)
	}()
	first := readUntil(t, screen, "\x1b[J")
	if !strings.HasPrefix(first, "\x1b[Hweb is up on alice") || strings.Count(first, "\n") != 9 || !strings.Contains(first, "more lines: hactl status") {
		t.Errorf("first screen: %q", first)
	}
	f.change(situations()["blocked"])
	second := readUntil(t, screen, "web is BLOCKED")
	if !strings.Contains(second, "\x1b[Hweb is BLOCKED") {
		t.Errorf("second screen: %q", second)
	}
	cancel()
	if c := <-code; c != 0 {
		t.Errorf("exit status %d", c)
	}
}
