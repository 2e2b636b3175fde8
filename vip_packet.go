// How do frames get onto an interface and off it? Packet sockets bound to one interface, on which the kernel lets through
// only what claims one address. Whole frames, so that nothing depends on routes, on addresses of the interface, or on
// the address that is to be asked about. What the frames mean is in arp.go.

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// packetSocket sends and receives whole frames on one interface. It belongs to the network namespace of the thread that
// opened it, and may be used from any.
type packetSocket struct {
	file  *os.File
	raw   syscall.RawConn
	index int
}

// openSender opens a socket that receives nothing.
func openSender(index int) (*packetSocket, error) { return openPacket(index, 0, nil) }

// openListener opens a socket that receives what claims the address.
func openListener(index int, a netip.Addr) (*packetSocket, error) {
	if a.Is4() {
		return openPacket(index, unix.ETH_P_ARP, claimFilter(a))
	}
	return openPacket(index, unix.ETH_P_IPV6, claimFilter(a))
}

func openPacket(index int, protocol uint16, filter []unix.SockFilter) (*packetSocket, error) {
	// Protocol 0 until bind: nothing arrives before the filter is in place.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket (needs CAP_NET_RAW): %w", err)
	}
	if len(filter) > 0 {
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("attach filter to packet socket: %w", err)
		}
	}
	network := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	p := &packetSocket{file: os.NewFile(uintptr(fd), "packet"), index: index}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("poll packet socket: %w", err)
	}
	return p, nil
}

// close does not wait: the kernel takes milliseconds to be sure that no frame is under way to a packet socket.
func (p *packetSocket) close() { go p.file.Close() }

func (p *packetSocket) send(frame []byte) error {
	if _, err := p.file.Write(frame); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// maxFrame is enough for every frame that parseClaim understands.
const maxFrame = 512

// listen calls got for each claim until it returns false, ctx ends or the deadline passes; neither of these is an error.
// A zero deadline is none.
func (p *packetSocket) listen(ctx context.Context, deadline time.Time, got func(claim) bool) error {
	if err := p.file.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("set deadline of packet socket: %w", err)
	}
	defer context.AfterFunc(ctx, func() { p.file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, maxFrame)
	for {
		var n int
		var recvErr error
		err := p.raw.Read(func(fd uintptr) bool {
			n, recvErr = p.receive(int(fd), buf)
			return recvErr != unix.EAGAIN
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return p.drain(buf, got)
		}
		if err = errors.Join(err, recvErr); err != nil {
			return fmt.Errorf("receive frame: %w", err)
		}
		if c, ok := parseClaim(buf[:n]); ok && !got(c) {
			return nil
		}
	}
}

// drain reads what has arrived by the deadline. A starved process may come here late, with the answer in the queue.
func (p *packetSocket) drain(buf []byte, got func(claim) bool) error {
	const most = 64
	return p.raw.Control(func(fd uintptr) {
		for range most {
			n, err := p.receive(int(fd), buf)
			if err != nil {
				return
			}
			if c, ok := parseClaim(buf[:n]); ok && !got(c) {
				return
			}
		}
	})
}

// receive hands out a frame of length 0 for one that came in by another interface, such as a VLAN on top of this one.
func (p *packetSocket) receive(fd int, buf []byte) (int, error) {
	n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if ll, ok := from.(*unix.SockaddrLinklayer); err == nil && (!ok || ll.Ifindex != p.index) {
		return 0, nil
	}
	return n, err
}

// claimFilter is a classic BPF program that passes ARP packets and neighbour advertisements which name the address, so
// that a busy network does not wake the daemon. parseClaim checks the rest.
func claimFilter(a netip.Addr) []unix.SockFilter {
	const (
		loadByte = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	)
	type match struct {
		load  uint16
		at    uint32
		value uint32
	}
	var all []match
	if a.Is4() {
		ip := a.As4()
		all = []match{{loadWord, offsetARPSender, binary.BigEndian.Uint32(ip[:])}}
	} else {
		all = []match{{loadByte, offsetNextHeader, ipProtoICMPv6}, {loadByte, offsetND, ndAdvertisement}}
		ip := a.As16()
		for i := 0; i < len(ip); i += 4 {
			all = append(all, match{loadWord, uint32(offsetNDTarget + i), binary.BigEndian.Uint32(ip[i:])})
		}
	}
	var prog []unix.SockFilter
	for i, m := range all {
		toReject := uint8(2*(len(all)-i-1) + 1)
		prog = append(prog,
			unix.SockFilter{Code: m.load, K: m.at},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: toReject, K: m.value})
	}
	return append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: maxFrame},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0})
}
