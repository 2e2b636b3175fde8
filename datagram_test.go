package main

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// boundSocket is one at a port of its own.
func boundSocket(t *testing.T, at string) (uintptr, netip.AddrPort) {
	t.Helper()
	family := unix.AF_INET6
	if netip.MustParseAddr(at).Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no socket of this family: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	a := sockaddrOf(netip.AddrPortFrom(netip.MustParseAddr(at), 0), 0)
	if err := bindTo(fd, &a); err != nil {
		t.Skipf("no %s on this host: %v", at, err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		return uintptr(fd), netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port))
	case *unix.SockaddrInet6:
		return uintptr(fd), netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port))
	}
	t.Fatalf("bound to %v", own)
	return 0, netip.AddrPort{}
}

func TestDatagramsArriveAndSayFromWhom(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			from, _ := boundSocket(t, host)
			to, port := boundSocket(t, host)
			buf := make([]byte, 2048)
			var sender sockaddr
			if _, err := receiveDatagram(to, buf, &sender); err != unix.EAGAIN {
				t.Fatalf("nothing was sent: %v", err)
			}
			sent, addr := bytes.Repeat([]byte{7}, maxDatagram), sockaddrOf(port, 0)
			if err := sendDatagram(from, sent, &addr); err != nil {
				t.Fatal(err)
			}
			size, err := receiveDatagram(to, buf, &sender)
			if err != nil || !bytes.Equal(buf[:size], sent) || sender.addr() != netip.MustParseAddr(host) {
				t.Errorf("%d bytes from %s, %v", size, sender.addr(), err)
			}
		})
	}
	from, _ := boundSocket(t, "127.0.0.1")
	refused := sockaddrOf(netip.MustParseAddrPort("255.255.255.255:9"), 0)
	if err := sendDatagram(from, []byte{7}, &refused); err != unix.EACCES {
		t.Errorf("a broadcast that is not allowed: %v", err)
	}
}

func TestSockaddrNamesTheInterfaceWhereTheAddressDoes(t *testing.T) {
	for text, scope := range map[string]uint32{"[fe80::1%eth0]:694": 3, "[2001:db8::1]:694": 0} {
		if a := sockaddrOf(netip.MustParseAddrPort(text), 3); a.raw.Scope_id != scope {
			t.Errorf("%s: scope %d", text, a.raw.Scope_id)
		}
	}
	mapped := sockaddr{raw: unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: [16]byte(net.ParseIP("192.0.2.1").To16())}}
	if got := mapped.addr(); got != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("mapped address is %s", got)
	}
	if got := new(sockaddr).addr(); got.IsValid() {
		t.Errorf("no address is %s", got)
	}
}
