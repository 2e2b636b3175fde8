// Hosts with a real systemd, for systemd_host_test.go: lab/systemd boots them from the image that lab/image builds, and
// takes everything away when its input ends, which it does however the test ends.

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// systemdLab is one set of hosts and the switch between them.
type systemdLab struct {
	*cluster // for its patience and its client alone
	in       io.WriteCloser
	out      *bufio.Scanner
	pids     map[string]int                            // host that is up → its systemd; and the switch
	rest     time.Duration                             // between two looks; 0: a tenth of a second
	folder   string                                    // where the disks are, if the lab says so
	enter    func(host string, argv []string) []string // the command that runs another one in a host
}

const (
	systemdSite  = "http://192.168.10.100/"
	hostPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	hostBounding = "-sys_time,-sys_module,-sys_rawio" // as lab/systemd: the clock is the machine's
)

// systemdImage builds the image, once for all runs.
var systemdImage = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("lab/image").CombinedOutput()
	return strings.TrimSpace(string(out)), err
})

// newSystemdLab boots hosts on which nothing of hactl is yet.
func newSystemdLab(t *testing.T, names ...string) *systemdLab {
	t.Helper()
	mayCluster(t)
	if out, err := systemdImage(); err != nil {
		t.Skipf("no image of a host with systemd can be built here: %s", out)
	}
	t.Parallel()
	clusterSlots <- struct{}{}
	t.Cleanup(func() { <-clusterSlots })
	l := startLab(t, "lab/systemd")
	l.enter = l.namespaces
	l.up(names...)
	return l
}

// startLab runs one of the scripts that make hosts and take commands.
func startLab(t *testing.T, script string) *systemdLab {
	t.Helper()
	l := &systemdLab{cluster: &cluster{t: t}, pids: map[string]int{}}
	cmd := exec.Command(script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // where it gets a share of the processor of its own
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.in, l.out = in, bufio.NewScanner(out)
	t.Cleanup(func() {
		if t.Failed() {
			l.dump()
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v: %s", script, err, &said)
		}
	})
	l.number(l.answer())
	return l
}

// tell gives lab/systemd a command.
func (l *systemdLab) tell(words ...string) []string {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.in, strings.Join(words, " ")); err != nil {
		l.t.Fatalf("the lab takes no command: %v", err)
	}
	return l.answer()
}

func (l *systemdLab) answer() (lines []string) {
	l.t.Helper()
	for l.out.Scan() {
		if l.out.Text() == "ok" {
			return lines
		}
		lines = append(lines, l.out.Text())
	}
	l.t.Fatal("the lab has ended")
	return nil
}

func (l *systemdLab) up(names ...string) {
	l.t.Helper()
	l.number(l.tell(append([]string{"up"}, names...)...))
}

// number takes down what is up, and as which process.
func (l *systemdLab) number(lines []string) {
	l.t.Helper()
	for _, line := range lines {
		name, number, _ := strings.Cut(line, " ")
		if name == "folder" {
			l.folder = number
			continue
		}
		pid, err := strconv.Atoi(number)
		if err != nil {
			l.t.Fatalf("the lab says %q", line)
		}
		l.pids[name] = pid
	}
}

func (l *systemdLab) off(names ...string) {
	l.t.Helper()
	for _, name := range names {
		delete(l.pids, name)
	}
	l.tell(append([]string{"off"}, names...)...)
}

// await polls more slowly than a cluster's: each look starts a few programs.
func (l *systemdLab) await(what string, ok func() bool) {
	l.t.Helper()
	l.cluster.await(what, func() bool {
		if ok() {
			return true
		}
		time.Sleep(cmp.Or(l.rest, 100*time.Millisecond))
		return false
	})
}

// namespaces runs a command within all that a host's systemd may do.
func (l *systemdLab) namespaces(host string, argv []string) []string {
	enter := []string{"nsenter", "-t", strconv.Itoa(l.pids[host]), "-m", "-n", "-u", "-i", "-p", "-C", "--", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8",
		"PATH=" + hostPath, "setpriv", "--bounding-set=" + hostBounding, "--"}
	return append(enter, argv...)
}

// inside is the command that runs another one in a host.
func (l *systemdLab) inside(ctx context.Context, host string, argv ...string) *exec.Cmd {
	l.t.Helper()
	if l.pids[host] == 0 {
		l.t.Fatalf("%s is off", host)
	}
	argv = l.enter(host, argv)
	return exec.CommandContext(ctx, argv[0], argv[1:]...)
}

func (l *systemdLab) run(host string, argv ...string) (string, int) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*clusterPatience)
	defer cancel()
	cmd := l.inside(ctx, host, argv...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		l.t.Fatalf("%s on %s hangs: %s", strings.Join(argv, " "), host, out)
	}
	if cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is for commands that succeed.
func (l *systemdLab) must(host string, argv ...string) string {
	l.t.Helper()
	out, code := l.run(host, argv...)
	if code != 0 {
		l.t.Fatalf("%s on %s: exit %d: %s", strings.Join(argv, " "), host, code, out)
	}
	return strings.TrimSpace(out)
}

// put writes a file of a host.
func (l *systemdLab) put(host, path, text string, mode os.FileMode) {
	l.t.Helper()
	seen := filepath.Join(fmt.Sprintf("/proc/%d/root", l.pids[host]), path)
	if err := os.MkdirAll(filepath.Dir(seen), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(seen, []byte(text), mode); err != nil {
		l.t.Fatal(err)
	}
}

// property is one of a unit's properties.
func (l *systemdLab) property(host, unit, name string) string {
	l.t.Helper()
	return l.must(host, "systemctl", "show", "--value", "-p", name, unit)
}

func (l *systemdLab) mainPID(host, unit string) string {
	l.t.Helper()
	return l.property(host, unit, "MainPID")
}

func (l *systemdLab) awaitProperty(host, unit, name, want string) {
	l.t.Helper()
	l.await(fmt.Sprintf("%s of %s on %s is %s", name, unit, host, want), func() bool { return l.property(host, unit, name) == want })
}

func (l *systemdLab) status(host string) *Status {
	out, code := l.run(host, "hactl", "status", "--json")
	s := &Status{}
	if code == exitNoDaemon || json.Unmarshal([]byte(out), s) != nil {
		return nil
	}
	return s
}

// sees waits until a host's status is as wanted.
func (l *systemdLab) sees(host, what string, ok func(*Status) bool) *Status {
	l.t.Helper()
	var last *Status
	l.await(host+" sees: "+what, func() bool {
		last = l.status(host)
		return last != nil && ok(last)
	})
	return last
}

// runsOn waits until a group runs on a node and all named nodes are online voters.
func (l *systemdLab) runsOn(group, node string, online ...string) GroupStatus {
	l.t.Helper()
	return l.sees(online[0], fmt.Sprintf("%s runs on %s, and %v are online", group, node, online), func(s *Status) bool {
		for _, n := range online {
			if x := s.testNode(n); x.State != "online" || !x.Voter {
				return false
			}
		}
		g := s.testGroup(group)
		return g.State == "started" && g.Owner == node && s.Quorum
	}).testGroup(group)
}

// client asks for the site, from the switch.
func (l *systemdLab) client() *prober {
	l.t.Helper()
	return l.probeFrom(systemdSite, l.atSwitch()...)
}

// atSwitch is the command that runs another one in the switch's network.
func (l *systemdLab) atSwitch() []string {
	return []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", l.pids["switch"])}
}

// neverRefused fails the test if the client was told since then that nobody is there. That it was told nothing in time
// may be this machine's doing; for how long at most is returned.
func (p *prober) neverRefused(what string, since time.Time) (longest time.Duration) {
	p.c.t.Helper()
	longest, _ = p.outage(since)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.seen {
		for _, word := range []string{"refused", "reset", "no route", "unreachable"} {
			if x.Start >= since.UnixNano() && strings.Contains(x.Err, word) {
				p.c.t.Fatalf("%s: the site was gone: %s", what, x.Err)
			}
		}
	}
	return longest
}

// journalLine is what is looked at of `journalctl -o json`.
type journalLine struct {
	Message  any    `json:"MESSAGE"` // bytes when it is not plain text
	Priority string `json:"PRIORITY"`
	Program  string `json:"SYSLOG_IDENTIFIER"`
	Unit     string `json:"_SYSTEMD_UNIT"`
	Event    string `json:"HA_EVENT"`
	Group    string `json:"HA_GROUP"`
}

func (l *systemdLab) journal(host string, match ...string) (lines []journalLine) {
	l.t.Helper()
	out := l.must(host, append([]string{"journalctl", "-o", "json", "--no-pager"}, match...)...)
	for line := range strings.Lines(out) {
		var j journalLine
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			l.t.Fatalf("journal of %s: %v: %s", host, err, line)
		}
		lines = append(lines, j)
	}
	return lines
}

func (l *systemdLab) dump() {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", l.pids["switch"])); err != nil {
		return
	}
	for name := range l.pids {
		if name == "switch" {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		journal := l.said(ctx, name)
		status, _ := l.inside(ctx, name, "hactl", "status").CombinedOutput()
		cancel()
		l.t.Logf("== %s\n%s\n%s", name, journal, status)
	}
}

// said is the end of what a host has logged.
func (l *systemdLab) said(ctx context.Context, host string) []byte {
	if l.folder == "" {
		out, _ := l.inside(ctx, host, "journalctl", "--no-pager", "-n", "60", "-o", "short-precise").CombinedOutput()
		return out
	}
	out, err := os.ReadFile(filepath.Join(l.folder, host, "console"))
	if err != nil { // it is no machine
		out, _ = os.ReadFile(filepath.Join(l.folder, host, "log"))
	}
	return out[max(0, len(out)-12000):]
}

// readmeConfig is the file that the README shows.
func readmeConfig(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)this is enough for a site:\n\n(.*?)\n   Then `).FindStringSubmatch(string(b))
	if m == nil {
		t.Fatal("README.md shows no config")
	}
	return strings.ReplaceAll(m[1], "\n       ", "\n")
}

// install does what the README says up to its step 3, on each host.
func (l *systemdLab) install(config string) {
	l.t.Helper()
	path, err := clusterBinary()
	if err != nil {
		l.t.Fatal(err)
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	unit, err := os.ReadFile("packaging/ha.service")
	if err != nil {
		l.t.Fatal(err)
	}
	key := ""
	for _, host := range slices.Sorted(maps.Keys(l.pids)) {
		if host == "switch" {
			continue
		}
		l.put(host, "/usr/local/sbin/hactl", string(binary), 0o755)
		if key == "" {
			l.must(host, "hactl", "keygen", "/etc/ha.key")
			key = l.must(host, "cat", "/etc/ha.key") + "\n"
		} else {
			l.put(host, "/etc/ha.key", key, 0o600)
		}
		l.put(host, "/etc/ha.toml", config, 0o644)
		l.put(host, "/etc/systemd/system/ha.service", string(unit), 0o644)
		l.put(host, "/var/www/html/index.html", host+" serves\n", 0o644)
	}
}
