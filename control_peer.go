// Who is at the other end of the control socket? Makes the socket with its modes, and asks the kernel, once for each
// connection, for the peer's user and groups. Root may change things, members of the group haclient may read.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readersGroup = "haclient"
	hintReaders  = "run it as root, or to read only: groupadd -rf " + readersGroup + "; usermod -aG " + readersGroup + " USER; systemctl restart ha; log in again"
	socketMax    = 107 // sun_path without its zero

	// Connections at once of one user: a reader that leaks them cannot keep root out.
	connectionsOfUser = 32
)

// caller is what the kernel says of the process that connected, as of its connect; what it does to its ids later, and who
// gets its process id after it, plays no part.
type caller struct {
	uid    uint32
	pid    int32
	groups []uint32
	reader uint32 // gid of haclient, noGroup if this host has none
}

const noGroup = ^uint32(0)

func (p caller) reads() bool {
	return p.uid == 0 || p.reader != noGroup && slices.Contains(p.groups, p.reader)
}

func (p caller) changes() bool { return p.uid == 0 }

func (p caller) String() string { return "user " + userName(p.uid) }

// name is who asked, for the records. With sudo the peer is root and the login user says more; the kernel keeps it for
// each session, and no process can set it twice. Should the process be gone already, its user has to do.
func (p caller) name() string {
	if p.pid > 0 {
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(int(p.pid)) + "/loginuid"); err == nil {
			if uid, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil && uint32(uid) != noGroup {
				return userName(uint32(uid))
			}
		}
	}
	return userName(p.uid)
}

// peerConn is a connection whose peer is known.
type peerConn struct {
	net.Conn
	peer    caller
	release func()
}

func (c *peerConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// peerListener hands out peerConns, and turns away those whose user has too many.
type peerListener struct {
	*net.UnixListener
	path string

	mu   sync.Mutex
	open map[uint32]int // by uid; only looked up, never ranged over
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p, err := readPeer(conn)
		if err != nil || !l.enter(p.uid) {
			conn.Close()
			continue
		}
		return &peerConn{conn, p, sync.OnceFunc(func() { l.leave(p.uid) })}, nil
	}
}

func (l *peerListener) enter(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid] >= connectionsOfUser {
		return false
	}
	l.open[uid]++
	return true
}

func (l *peerListener) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

// Close also removes the socket's file, so that clients see at once that nobody is there.
func (l *peerListener) Close() error {
	return errors.Join(ignoreMissing(os.Remove(l.path)), l.UnixListener.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readPeer asks the kernel; not /proc, where the process id may belong to somebody else by now.
func readPeer(conn *net.UnixConn) (caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return caller{}, fmt.Errorf("read the peer's credentials: %w", err)
	}
	p := caller{reader: readersGID()}
	var failed error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed != nil {
			return
		}
		p.uid, p.pid = cred.Uid, cred.Pid
		// Without its list of groups (a kernel before 4.13) a peer has its primary one alone.
		p.groups = append(peerGroups(fd), cred.Gid)
	})
	if err := errors.Join(err, failed); err != nil {
		return caller{}, fmt.Errorf("read the peer's credentials: %w", err)
	}
	return p, nil
}

// peerGroups reads SO_PEERGROUPS, which x/sys has no wrapper for.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for range 2 {
		size := uint32(4 * len(groups))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4]
		case errno != unix.ERANGE || size > 4<<16: // 65,536 groups is the kernel's limit
			return nil
		}
		groups = make([]uint32, size/4) // the size that it needs
	}
	return nil
}

func readersGID() uint32 {
	g, err := user.LookupGroup(readersGroup)
	if err != nil {
		return noGroup
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		return noGroup
	}
	return uint32(gid)
}

// listenControl makes the socket at path and its folder: for root, and for the group haclient where the host has it.
// It takes the place of a socket that nobody answers on, and refuses when somebody does. A folder other than runDir is
// somebody else's, /tmp perhaps, and keeps its mode.
func listenControl(path, runDir string) (net.Listener, error) {
	const makeFresh = ".new" // made under this name and renamed: nobody meets a socket whose mode is not set yet
	if len(path)+len(makeFresh) > socketMax {
		return nil, &hintError{fmt.Sprintf("listen on %s: the path is longer than %d bytes", path, socketMax-len(makeFresh)), "choose a shorter --run-dir or --socket", exitUsage}
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, &hintError{fmt.Sprintf("listen on %s: another daemon answers there", path), "systemctl status ha", exitError}
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	fresh := path + makeFresh
	if err := ignoreMissing(os.Remove(fresh)); err != nil {
		return nil, fmt.Errorf("remove an old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	shared := []string{fresh}
	if filepath.Clean(runDir) == folder {
		shared = append(shared, folder)
	}
	if err = share(shared); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		os.Remove(fresh)
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	return &peerListener{UnixListener: l, path: path, open: make(map[uint32]int)}, nil
}

// share lets the group haclient in, and nobody but root where there is no such group.
func share(paths []string) error {
	gid := readersGID()
	given := gid != noGroup && os.Geteuid() == 0
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		switch {
		case info.IsDir():
			mode = 0o750
		case given:
			mode = 0o660
		}
		if given {
			if err := os.Chown(path, 0, int(gid)); err != nil {
				return err
			}
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	return nil
}
