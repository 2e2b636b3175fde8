// Virtual machines with a kernel of their own, for vm_test.go: lab/vm boots them, on the switch that it shares with a witness
// and the client, and ends them when its input ends, however the test does. An emulated processor is many times slower than
// this machine's, so everything here is waited for with much patience.

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// vmLab is one set of machines: alice and bob, and carol, who is a host of namespaces.
type vmLab struct{ *systemdLab }

// vmImage builds the image, once for all runs.
var vmImage = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("lab/vm-image").CombinedOutput()
	return string(out), err
})

func newVMLab(t *testing.T) *vmLab {
	t.Helper()
	mayCluster(t)
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img", "ssh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: make setup-vm", tool)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("a virtual machine has no network here: %v", err)
	}
	if out, err := vmImage(); err != nil {
		t.Skipf("no image of a virtual machine can be built here: %s", out)
	}
	l := &vmLab{startLab(t, "lab/vm")}
	l.patient, l.pace = 3*time.Minute, 50*time.Millisecond
	l.enter, l.rest = l.machine, time.Second/2 // a look costs what is looked at its processor
	return l
}

// machine runs a command in a virtual machine, or at carol's.
func (l *vmLab) machine(host string, argv []string) []string {
	enter := []string{"nsenter", "-t", strconv.Itoa(l.pids["switch"]), "-m", "-n", "-p", "--"}
	if host == "carol" {
		enter = append(enter, "nsenter", "-t", strconv.Itoa(l.pids[host]), "-m", "-n", "-u", "-i", "-p", "--", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8", "PATH="+hostPath)
		return append(enter, argv...)
	}
	enter = append(enter, "ssh", "-n", "-F", filepath.Join(l.folder, "ssh"), host)
	for _, word := range argv {
		enter = append(enter, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	return enter
}

// sh runs a line of shell, which must succeed.
func (l *vmLab) sh(host, line string) string {
	l.t.Helper()
	return l.must(host, "sh", "-ec", line)
}

// share puts a file where each machine has it as /lab/NAME; carol has it among her commands.
func (l *vmLab) share(from, name string, mode os.FileMode) {
	l.t.Helper()
	in, err := os.Open(from)
	if err != nil {
		l.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(l.folder, "bin", name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		l.t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// write makes a file out of a text.
func (l *vmLab) write(path, text string, mode os.FileMode) {
	l.t.Helper()
	path = filepath.Join(l.folder, path)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		l.t.Fatal(err)
	}
}

// install does what the README says up to its step 3, on each host; what is on their disks then is safe from a power cut.
func (l *vmLab) install(config string) {
	l.t.Helper()
	binary, err := clusterBinary()
	if err != nil {
		l.t.Fatal(err)
	}
	l.share(binary, "hactl", 0o755)
	l.share("packaging/ha.service", "ha.service", 0o644)
	key := filepath.Join(l.folder, "bin", "ha.key")
	if _, err := keygen(key, false); err != nil {
		l.t.Fatal(err)
	}
	secret, err := os.ReadFile(key)
	if err != nil {
		l.t.Fatal(err)
	}
	l.write("bin/ha.toml", config, 0o644)
	l.write("carol/etc/ha.key", string(secret), 0o600)
	l.write("carol/etc/ha.toml", config, 0o644)
	for _, host := range []string{"alice", "bob"} {
		l.sh(host, `install -m 755 /lab/hactl /usr/local/sbin/
install -m 600 /lab/ha.key /etc/
install -m 644 /lab/ha.toml /etc/
install -m 644 /lab/ha.service /etc/systemd/system/
echo "$(hostname) serves" >/var/www/html/index.html
systemctl daemon-reload
systemctl -q enable ha
sync`)
	}
}

// put writes a file of a machine.
func (l *vmLab) put(host, path, text string, mode os.FileMode) {
	l.t.Helper()
	l.write("bin/put", text, mode)
	l.must(host, "install", "-D", "-m", strconv.FormatUint(uint64(mode), 8), "/lab/put", path)
}

func (l *vmLab) boot(host string) string {
	l.t.Helper()
	return l.must(host, "cat", "/proc/sys/kernel/random/boot_id")
}

// dog is what a machine's kernel says of its watchdog.
func (l *vmLab) dog(host, attribute string) string {
	l.t.Helper()
	return l.must(host, "cat", "/sys/class/watchdog/watchdog0/"+attribute)
}

// vmEvent is one of those that a machine's QEMU tells: what happened to it, seen from outside.
type vmEvent struct {
	Event     string `json:"event"`
	Timestamp struct {
		Seconds, Microseconds int64
	} `json:"timestamp"`
}

func (e vmEvent) at() time.Time {
	return time.Unix(e.Timestamp.Seconds, e.Timestamp.Microseconds*1000)
}

// happened is the first event of that name since then.
func (l *vmLab) happened(host, name string, since time.Time) (found vmEvent, ok bool) {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.folder, host, "qmp"))
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var e vmEvent
		if json.Unmarshal(line, &e) == nil && e.Event == name && e.at().After(since) {
			return e, true
		}
	}
	return found, false
}

// isReset waits until a machine was reset, by its watchdog (WATCHDOG) or in whatever way (RESET), and tells when.
func (l *vmLab) isReset(host, how string, since time.Time) time.Time {
	l.t.Helper()
	var e vmEvent
	l.await(host+" is reset: "+how, func() (ok bool) {
		e, ok = l.happened(host, how, since)
		return ok
	})
	return e.at()
}

// hold keeps a machine that was reset from booting, as a real one's firmware does for a minute.
func (l *vmLab) hold(host string) {
	l.t.Helper()
	l.tell("qmp", host, `{"execute":"stop"}`)
}

// resume lets it go on, and waits until it has booted.
func (l *vmLab) resume(host string) {
	l.t.Helper()
	l.tell("qmp", host, `{"execute":"cont"}`)
	l.tell("wait", host)
}

// notReset waits for longer than the watchdog does, and demands that the machine has gone on all the time.
func (l *vmLab) notReset(host string, since time.Time, timeout time.Duration) {
	l.t.Helper()
	l.await(host+" goes on", func() bool { return time.Since(since) > timeout+2*time.Second })
	if e, ok := l.happened(host, "RESET", since); ok {
		l.t.Fatalf("%s was reset %s after that", host, e.at().Sub(since))
	}
}
