package main

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEchoRequest(t *testing.T) {
	token := [tokenSize]byte{0xde, 0xad, 0xbe, 0xef}
	if got, want := hex.EncodeToString(echoRequest(false, token)), "08005a6200000000deadbeef000000000000000000000000"; got != want {
		t.Errorf("IPv4: %s, want %s", got, want)
	}
	if got, want := hex.EncodeToString(echoRequest(true, token)), "8000000000000000deadbeef000000000000000000000000"; got != want {
		t.Errorf("IPv6: %s, want %s", got, want)
	}
}

func TestIsEchoReply(t *testing.T) {
	token := [tokenSize]byte{1, 2, 3}
	reply := func(kind byte) []byte { return append([]byte{kind, 0, 0, 0, 9, 9, 0, 1}, token[:]...) }
	header := append([]byte{0x46}, make([]byte, 23)...) // of 24 bytes, with an option
	for _, c := range []struct {
		name string
		b    []byte
		six  bool
		want bool
	}{
		{"from a ping socket", reply(echoReply4), false, true},
		{"from a raw socket", append(header, reply(echoReply4)...), false, true},
		{"IPv6", reply(echoReply6), true, true},
		{"a request", reply(echoAsk4), false, false},
		{"of the other family", reply(echoReply4), true, false},
		{"to another echo", append([]byte{0, 0, 0, 0, 9, 9, 0, 1}, make([]byte, tokenSize)...), false, false},
		{"cut short", reply(echoReply4)[:20], false, false},
		{"nothing", nil, false, false},
		{"a header alone", header[:20], false, false},
	} {
		if got := isEchoReply(c.b, c.six, token); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func FuzzEchoReply(f *testing.F) {
	f.Add([]byte{0x45}, false)
	f.Add(make([]byte, 40), true)
	f.Fuzz(func(t *testing.T, b []byte, six bool) {
		if isEchoReply(b, six, [tokenSize]byte{1}) && len(b) < echoHeader+tokenSize {
			t.Errorf("%x is taken for a reply", b)
		}
	})
}

func TestPingLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := l.Addr().String()
	closed := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	defer l.Close()
	for _, c := range []struct {
		p    ping
		want string // within the failure
	}{
		{ping{Address: "127.0.0.1"}, ""},
		{ping{Address: "::1"}, ""},
		{ping{TCP: open}, ""},
		{ping{TCP: closed}, "connection refused"},
	} {
		c.p.Timeout = 10 * time.Second
		ctx, cancel := context.WithTimeout(context.Background(), c.p.Timeout)
		err := sendPing(ctx, c.p)
		cancel()
		if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
			t.Logf("%+v: %v", c.p, err) // no root here, and the kernel's ping sockets are off
			continue
		}
		got := ""
		if err != nil {
			got = pingFailure(err, c.p.Timeout)
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
}

func TestPingEndsWithItsTime(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range []ping{{Address: "127.0.0.1"}, {TCP: "127.0.0.1:1"}} {
		if err := sendPing(ctx, p); err == nil {
			t.Errorf("%+v: answered after its time", p)
		}
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "no answer within 1.5s"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "no answer within 1.5s"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "no route to host"},
		{errors.New("something else"), "something else"},
	} {
		if got := pingFailure(c.err, 1500*time.Millisecond); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
