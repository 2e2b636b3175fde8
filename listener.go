// Who listens on a TCP port of this host? Read from /proc/net/tcp{,6} and the sockets that processes hold. It only
// looks, and sees what the daemon's network namespace and rights let it see.

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// listenInodes are the sockets that listen on the port.
func listenInodes(port int) map[string]bool {
	inodes := map[string]bool{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue // no IPv6
		}
		parseListeners(f, port, inodes)
		f.Close()
	}
	return inodes
}

// parseListeners reads the table: number, local address:port, remote, state, queues, timer, retransmits, uid, timeout,
// inode, all in hex but the last ones.
func parseListeners(r io.Reader, port int, inodes map[string]bool) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != tcpListen {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
			inodes[f[9]] = true
		}
	}
}

// listensOn says whether the process holds a socket that listens on the port.
func listensOn(pid, port int) bool {
	return holdsSocket(pid, listenInodes(port))
}

func holdsSocket(pid int, inodes map[string]bool) bool {
	if len(inodes) == 0 {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, n := range names {
		target, err := os.Readlink(filepath.Join(dir, n.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok && inodes[strings.TrimSuffix(inode, "]")] {
			return true
		}
	}
	return false
}

// whoListens names the process that has the port: "process 123 (nginx)"; "" when nobody does or it cannot be seen. Of
// several that share a socket it is the oldest, which is the parent.
func whoListens(port int) string {
	inodes := listenInodes(port)
	if len(inodes) == 0 {
		return ""
	}
	var oldest *processStat
	for _, s := range processes() {
		if (oldest == nil || s.Start < oldest.Start) && holdsSocket(s.PID, inodes) {
			oldest = &s
		}
	}
	if oldest == nil {
		return ""
	}
	return fmt.Sprintf("process %d (%s)", oldest.PID, oldest.Comm)
}
