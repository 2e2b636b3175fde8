// Does a target outside the cluster answer? One echo by ICMP, or one connection, with a timeout: the packets and sockets
// behind reach.go, which decides when to ask and what the answers mean. An ICMP echo goes through the kernel's unprivileged
// ping socket where net.ipv4.ping_group_range allows it, else through a raw socket.

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ping sends an echo, away from the loop.
func (h *host) Ping(p ping) {
	h.wg.Go(func() {
		ctx, cancel := context.WithTimeout(h.ctx, p.Timeout)
		defer cancel()
		done := pinged{ID: p.ID}
		if err := sendPing(ctx, p); err != nil {
			done.Failure = pingFailure(err, p.Timeout)
		}
		h.event(done)
	})
}

func sendPing(ctx context.Context, p ping) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.TCP != "" {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.TCP)
		if err != nil {
			return err
		}
		return c.Close()
	}
	to, err := netip.ParseAddr(p.Address)
	if err != nil {
		return err
	}
	return echoTo(ctx, to)
}

// pingFailure says in the operator's words what kept the answer away.
func pingFailure(err error, timeout time.Duration) string {
	var no syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return fmt.Sprintf("no answer within %s", shortDuration(timeout))
	case errors.As(err, &no):
		return no.Error() // without Go's own "dial tcp …"
	}
	return err.Error()
}

// tokenSize is how many random bytes tell the answer to one echo from all others.
const tokenSize = 16

// echoTo sends one echo request and waits for its reply.
func echoTo(ctx context.Context, to netip.Addr) error {
	c, err := openEcho(to)
	if err != nil {
		return err
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return err
		}
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	var token [tokenSize]byte
	rand.Read(token[:]) // never fails: crypto/rand ends the program instead
	if _, err := c.Write(echoRequest(to.Is6(), token)); err != nil {
		return err
	}
	for buf := make([]byte, 1500); ; {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if isEchoReply(buf[:n], to.Is6(), token) {
			return nil
		}
	}
}

// openEcho opens a socket that hears only what the target sends.
func openEcho(to netip.Addr) (net.Conn, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	var target unix.Sockaddr
	if to.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		target = &unix.SockaddrInet6{Addr: to.As16()}
	} else {
		target = &unix.SockaddrInet4{Addr: to.As4()}
	}
	var fd int
	var err error
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_RAW} {
		if fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open a socket for echoes (CAP_NET_RAW, or net.ipv4.ping_group_range): %w", err)
	}
	if err := unix.Connect(fd, target); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "echo")
	defer f.Close() // FileConn has its own
	return net.FileConn(f)
}

const (
	echoHeader  = 8 // type, code, checksum, identifier, sequence (RFC 792, RFC 4443)
	echoAsk4    = 8
	echoReply4  = 0
	echoAsk6    = 128
	echoReply6  = 129
	ipv4Minimum = 20
)

// echoRequest is an echo with the token as its data. A ping socket puts its own identifier in, and for IPv6 the kernel
// computes the checksum.
func echoRequest(six bool, token [tokenSize]byte) []byte {
	b := make([]byte, echoHeader, echoHeader+tokenSize)
	b = append(b, token[:]...)
	b[0] = echoAsk4
	if six {
		b[0] = echoAsk6
		return b
	}
	var sum uint32 // RFC 1071
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// isEchoReply finds the token in an answer; a raw IPv4 socket delivers the IP header too.
func isEchoReply(b []byte, six bool, token [tokenSize]byte) bool {
	want := byte(echoReply4)
	if six {
		want = echoReply6
	} else if len(b) >= ipv4Minimum && b[0]>>4 == 4 {
		b = b[min(len(b), int(b[0]&0x0f)*4):]
	}
	return len(b) >= echoHeader+tokenSize && b[0] == want && bytes.Equal(b[echoHeader:echoHeader+tokenSize], token[:])
}
