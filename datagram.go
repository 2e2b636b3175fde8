// How does a datagram leave and arrive without waking anybody else? System calls that never wait, made without telling Go's
// scheduler: for each one that it is told of, it wakes a thread to watch for those that do wait, which at the pace of
// heartbeats cost more than all else that an idle daemon does.

package main

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr is an address as the kernel has it.
type sockaddr struct {
	raw  unix.RawSockaddrInet6 // or the IPv4 one, which is shorter
	size uint32
}

// sockaddrOf is told which interface an address that names one is on.
func sockaddrOf(a netip.AddrPort, device int) (s sockaddr) {
	if a.Addr().Is4() {
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		in4.Family, in4.Addr = unix.AF_INET, a.Addr().As4()
		in4.Port, s.size = networkOrder(a.Port()), unix.SizeofSockaddrInet4
		return s
	}
	s.raw.Family, s.raw.Addr = unix.AF_INET6, a.Addr().As16()
	s.raw.Port, s.size = networkOrder(a.Port()), unix.SizeofSockaddrInet6
	if a.Addr().Zone() != "" {
		s.raw.Scope_id = uint32(device)
	}
	return s
}

// addr is the zero Addr where there is no IP address in it.
func (s *sockaddr) addr() netip.Addr {
	switch s.raw.Family {
	case unix.AF_INET:
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw)).Addr)
	case unix.AF_INET6:
		return netip.AddrFrom16(s.raw.Addr).Unmap()
	}
	return netip.Addr{}
}

func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

func bindTo(fd int, at *sockaddr) error {
	if _, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&at.raw)), uintptr(at.size)); e != 0 {
		return e
	}
	return nil
}

// sendDatagram fails with EAGAIN or ENOBUFS where the kernel has no room for b, which is not empty.
func sendDatagram(fd uintptr, b []byte, to *sockaddr) error {
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
			uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
		switch e {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return e
		}
	}
}

// receiveDatagram fails with EAGAIN where there is none.
func receiveDatagram(fd uintptr, b []byte, from *sockaddr) (int, error) {
	for {
		from.size = unix.SizeofSockaddrInet6
		size, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.size)))
		switch e {
		case 0:
			return int(size), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}
