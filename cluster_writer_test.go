// Is anything lost, and did ever two write? A service that appends to a log which all hosts share, as a disk that moves
// with its group, and a client that writes through the group's address and remembers what was acknowledged.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program is the service and its client, too; see TestMain.
const (
	writerCommand = "cluster-writer"
	writesCommand = "cluster-writes"
)

const (
	writesAddress = "10.77.0.102"
	writesPort    = "8080"
	writesEvery   = 5 * time.Millisecond
	writesTimeout = 500 * time.Millisecond
)

// writerScript is the service as an operator's: it begins and ends the writer of its host. What it finds in its pid file
// must be a writer, or the number is another process's by now.
const writerScript = `#!/bin/sh
dir=$(dirname "$0") pid=
[ ! -s "$dir/etc/writer.pid" ] || read -r pid <"$dir/etc/writer.pid"
lives() { [ -n "$pid" ] && grep -qs ` + writerCommand + ` "/proc/$pid/cmdline"; }
case $1 in
start) lives && exit; %s "$dir" </dev/null & ;;
stop) ! lives || kill -9 "$pid"; while lives; do sleep 0.01; done ;;
status) lives || exit 7 ;;
esac
`

const writerGroup = `
[[group]]
name = "data"
prefer = ["bob"]
[[group.resource]]
name = "writer"
type = "exec"
start = { command = "$DIR/service start" }
stop = { command = "$DIR/service stop" }
monitor = { command = "$DIR/service status", interval = "1s" }
[[group.resource]]
type = "vip"
address = "` + writesAddress + `"
interface = "eth0"
`

// writerSetup puts the service there; it comes before up.
func (c *cluster) writerSetup() {
	c.t.Helper()
	program, err := exec.LookPath(writerCommand)
	if err == nil {
		err = os.Mkdir(filepath.Join(c.dir, "shared"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "service"), fmt.Appendf(nil, writerScript, program), 0o755)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	for _, h := range c.hosts {
		h.write("etc/name", h.name)
	}
}

// writerRecord is one line of the log; all are equally long, so that one who writes where another has written leaves no
// torn lines but takes the other's away.
func writerRecord(id uint64, host string, instance int64) string {
	return fmt.Sprintf("%012d %-12.12s %020d\n", id, host, instance)
}

// writerMain serves appends to the log, and does what an honest program on a disk of its own does: it reads the log once,
// when it starts, and then believes that nobody else writes. The lock keeps no second one away, it only tells of it.
func writerMain() {
	if err := writerServe(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func writerServe(dir string) error {
	name, err := os.ReadFile(filepath.Join(dir, "etc", "name"))
	if err != nil {
		return err
	}
	file := func(name string, flags int) (*os.File, error) {
		return os.OpenFile(filepath.Join(dir, "shared", name), flags|os.O_CREATE, 0o644)
	}
	lock, err := file("lock", os.O_RDWR)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		other, _ := io.ReadAll(lock) // a name for people
		v, err := file("violations", os.O_WRONLY|os.O_APPEND)
		if err != nil {
			return err
		}
		fmt.Fprintf(v, "%s: %s begins to write while %s does\n", time.Now().UTC().Format("15:04:05.000"), name, other)
		v.Close()
	} else if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt(name, 0)
	}
	log, err := file("log", os.O_RDWR)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(log)
	if err != nil {
		return err
	}
	w := &writer{log: log, host: string(name), instance: time.Now().UnixNano(), has: map[uint64]bool{}}
	for _, r := range parseLog(text) {
		w.has[r.id] = true
	}
	w.end = int64(len(text))
	l, err := net.Listen("tcp", ":"+writesPort)
	if err != nil {
		return err
	}
	pid := filepath.Join(dir, "etc", "writer.pid")
	if err := os.WriteFile(pid+".new", []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.Rename(pid+".new", pid); err != nil {
		return err
	}
	return http.Serve(l, w)
}

type writer struct {
	mu       sync.Mutex
	log      *os.File
	end      int64
	host     string
	instance int64
	has      map[uint64]bool
}

// ServeHTTP appends ?id, if it has ?after, which the client knows to be acknowledged.
func (w *writer) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, err := strconv.ParseUint(r.FormValue("id"), 10, 64)
	after, err2 := strconv.ParseUint(r.FormValue("after"), 10, 64)
	if err != nil || err2 != nil {
		http.Error(out, "?id=N&after=M", http.StatusBadRequest)
		return
	}
	if after > 0 && !w.has[after] {
		http.Error(out, w.host, http.StatusConflict)
		return
	}
	text := writerRecord(id, w.host, w.instance)
	if _, err = w.log.WriteAt([]byte(text), w.end); err == nil {
		err = unix.Fdatasync(int(w.log.Fd()))
	}
	if err != nil {
		http.Error(out, err.Error(), http.StatusInternalServerError)
		return
	}
	w.end += int64(len(text))
	w.has[id] = true
	fmt.Fprint(out, w.host)
}

type logRecord struct {
	id       uint64
	host     string
	instance int64
}

func parseLog(text []byte) (all []logRecord) {
	for _, line := range strings.Split(string(text), "\n") {
		var r logRecord
		if n, _ := fmt.Sscanf(line, "%d %s %d", &r.id, &r.host, &r.instance); n == 3 {
			all = append(all, r)
		}
	}
	return all
}

// written is what became of one write. Times are Unix nanoseconds.
type written struct {
	Start, End int64
	ID         uint64
	Err        string `json:",omitempty"`
	Missing    uint64 `json:",omitempty"` // what was acknowledged and is not there any more
}

// writesMain is the client: one write after the other, until its input is closed.
func writesMain() {
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	out := json.NewEncoder(os.Stdout)
	tick := time.NewTicker(writesEvery)
	var after uint64
	for id := uint64(1); ; id++ {
		x := written{Start: time.Now().UnixNano(), ID: id}
		code, err := writeOnce(client, os.Args[1], id, after)
		x.End = time.Now().UnixNano()
		switch {
		case err != nil:
			x.Err = err.Error()
		case code == http.StatusConflict:
			x.Err, x.Missing = "refused", after
		case code != http.StatusOK:
			x.Err = http.StatusText(code)
		default:
			after = id
		}
		if out.Encode(x) != nil {
			return // the test is gone
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

func writeOnce(client *http.Client, url string, id, after uint64) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), writesTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s?id=%d&after=%d", url, id, after), nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// writes is a running client.
type writes struct {
	c  *cluster
	mu sync.Mutex

	acked   []uint64
	recent  []int64 // when the acknowledged ones ended, since forget
	lost    []string
	refused int
}

func (c *cluster) writes() *writes {
	c.t.Helper()
	w := &writes{c: c}
	cmd := exec.Command("ip", "netns", "exec", c.ns("client"), writesCommand, "http://"+writesAddress+":"+writesPort+"/")
	c.listen(cmd, func(line []byte) {
		var x written
		if json.Unmarshal(line, &x) == nil {
			w.note(x)
		}
	})
	return w
}

func (w *writes) note(x written) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case x.Missing > 0:
		w.lost = append(w.lost, fmt.Sprintf("write %d was acknowledged, and at %s who answered did not have it", x.Missing, time.Unix(0, x.End).UTC().Format("15:04:05.000")))
	case x.Err != "":
		w.refused++
	default:
		w.acked = append(w.acked, x.ID)
		w.recent = append(w.recent, x.End)
	}
}

// acknowledged waits until a write is acknowledged from now on.
func (w *writes) acknowledged() {
	w.c.t.Helper()
	since := time.Now().UnixNano()
	w.c.await("a write is acknowledged", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.recent) > 0 && w.recent[len(w.recent)-1] > since
	})
}

func (w *writes) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recent = w.recent[max(0, len(w.recent)-1):]
}

// lull is the longest time in which nothing was acknowledged since forget.
func (w *writes) lull() (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.recent {
		if i > 0 {
			longest = max(longest, time.Duration(w.recent[i]-w.recent[i-1]))
		}
	}
	return longest
}

// judge looks for what must never be: two who write, an acknowledged write that is gone, a writer who goes on after
// another has written.
func (w *writes) judge(t testing.TB, when string) {
	t.Helper()
	shared := filepath.Join(w.c.dir, "shared")
	w.mu.Lock()
	acked, lost := slices.Clone(w.acked), w.lost
	w.lost = nil
	w.mu.Unlock()
	for _, x := range lost {
		t.Errorf("%s: %s", when, x)
	}
	if b, err := os.ReadFile(filepath.Join(shared, "violations")); err == nil {
		t.Errorf("%s: two writers: %s", when, b)
		os.Remove(filepath.Join(shared, "violations"))
	}
	text, err := os.ReadFile(filepath.Join(shared, "log"))
	if err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	has, over, last := map[uint64]bool{}, map[int64]bool{}, int64(0)
	for _, r := range parseLog(text) {
		has[r.id] = true
		if r.instance == last {
			continue
		}
		if over[r.instance] {
			t.Errorf("%s: two writers: %s has written %d after another had written since", when, r.host, r.id)
		}
		over[last], last = true, r.instance
	}
	gone := 0
	for _, id := range acked {
		if !has[id] {
			if gone++; gone == 1 {
				t.Errorf("%s: write %d was acknowledged and is not in the log", when, id)
			}
		}
	}
	if gone > 1 {
		t.Errorf("%s: %d acknowledged writes are not in the log", when, gone)
	}
}

// TestWriterJudge: two writers on one log are found, and so is what one of them took from the other.
func TestWriterJudge(t *testing.T) {
	for name, x := range map[string]struct {
		log        []logRecord
		acked      []uint64
		violations string
		want       int
	}{
		"one after the other": {log: []logRecord{{1, "a", 1}, {2, "a", 1}, {3, "b", 2}}, acked: []uint64{1, 2, 3}},
		"by turns":            {log: []logRecord{{1, "a", 1}, {2, "b", 2}, {3, "a", 1}}, acked: []uint64{1, 2, 3}, want: 1},
		"overwritten":         {log: []logRecord{{1, "a", 1}, {3, "b", 2}}, acked: []uint64{1, 2, 3}, want: 1},
		"locked":              {log: []logRecord{{1, "a", 1}}, violations: "b begins", want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "shared"), 0o755); err != nil {
				t.Fatal(err)
			}
			var text string
			for _, r := range x.log {
				text += writerRecord(r.id, r.host, r.instance)
			}
			if err := os.WriteFile(filepath.Join(dir, "shared", "log"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if x.violations != "" {
				if err := os.WriteFile(filepath.Join(dir, "shared", "violations"), []byte(x.violations), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			found := &faultCounter{TB: t}
			w := &writes{c: &cluster{dir: dir}, acked: x.acked}
			w.judge(found, name)
			if found.n != x.want {
				t.Errorf("%d faults found, want %d", found.n, x.want)
			}
		})
	}
}

// faultCounter counts what would fail a test.
type faultCounter struct {
	testing.TB
	n int
}

func (f *faultCounter) Errorf(string, ...any) { f.n++ }
