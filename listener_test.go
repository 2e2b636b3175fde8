// The holder of a port is named, with the oldest process where several share it.

package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4713 1 0
   3: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0000000000000000 100 0 0 10 0
   4: broken
   5: 0100007F 00000000:0000 0A 0 0 0 0 0 4715
   6: 0100007F:1F90F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4716
`
	for port, want := range map[int]map[string]bool{8080: {"4711": true, "4713": true}, 80: {"4714": true}, 81: {}} {
		got := map[string]bool{}
		parseListeners(strings.NewReader(table), port, got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("port %d: %s", port, diff)
		}
	}
}

func TestWhoListens(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s is not tested: %v", address, err)
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		if got, want := whoListens(port), fmt.Sprintf("process %d (", os.Getpid()); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q…", address, got, want)
		}
		if !listensOn(os.Getpid(), port) || listensOn(os.Getppid(), port) {
			t.Errorf("%s: listensOn is wrong", address)
		}
		l.Close()
		if got := whoListens(port); got != "" {
			t.Errorf("%s: still held by %q", address, got)
		}
	}
}
