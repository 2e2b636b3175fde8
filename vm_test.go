// What needs a kernel of its own, shown on two virtual machines: the gate on VLANs and bonds, and real watchdogs, which
// really reset their machine. Everything else of the cluster is shown by the suite in namespaces, which is faster.

package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestVM(t *testing.T) {
	l := newVMLab(t)
	began := time.Now()
	l.up("alice", "bob")
	t.Logf("measured: two machines have booted after %s", time.Since(began).Round(100*time.Millisecond))
	l.step(t, "gate", l.gate)
	l.step(t, "the device is looked at", l.devices)
	l.step(t, "the watchdog of a cluster", l.watchdog)
	l.step(t, "a killed daemon", l.killed)
	l.step(t, "a frozen daemon, hardware", func() { l.frozen("alice", "bob", "i6300ESB timer") })
	l.step(t, "a frozen daemon, softdog", func() { l.frozen("bob", "alice", softDog) })
	l.step(t, "cut off, and it stops", func() { l.cutOff("alice", "bob", false) })
	l.step(t, "cut off, and its stop hangs", func() { l.cutOff("bob", "alice", true) })
	l.step(t, "a failed stop", func() { l.failedStop("alice", "bob") })
	l.step(t, "a clean stop", func() { l.cleanStop("bob", "alice") })
}

// step runs a part of the test whose machines are those of the others.
func (l *vmLab) step(t *testing.T, name string, f func()) {
	whole := l.t
	defer func() { l.t = whole }()
	began := time.Now()
	if !t.Run(name, func(t *testing.T) {
		l.t = t
		f()
	}) {
		t.FailNow() // the machines are in no state for the rest
	}
	t.Logf("measured: %s took %s", name, time.Since(began).Round(100*time.Millisecond))
}

// gate runs this package's own tests of addresses and their gate where the kernel has all kinds of links.
func (l *vmLab) gate() {
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	l.share(self, "hactl.test", 0o755)
	out, code := l.run("alice", "/lab/hactl.test", "-test.v", "-test.timeout", "5m", "-test.run", "^(TestVIPGate|TestGate|TestVIPKinds|TestVIPFilter)")
	if code != 0 {
		l.t.Errorf("exit %d: %s", code, out)
	}
	passed := map[string]bool{}
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "--- SKIP") {
			l.t.Errorf("skipped in the machine too: %s", line)
		}
		if name, ok := strings.CutPrefix(line, "--- PASS: "); ok {
			name, _, _ = strings.Cut(name, " ")
			passed[name] = true
		}
	}
	for _, name := range []string{"TestVIPGateKinds/vlan7", "TestVIPGateKinds/bond0", "TestVIPGateKinds/br1", "TestVIPKinds/vlan7", "TestVIPKinds/bond0"} {
		if !passed[name] {
			l.t.Errorf("%s did not pass: %s", name, out)
		}
	}
	l.t.Logf("measured: %d tests passed on VLAN, bond and bridge", len(passed))
}

const (
	vmLease    = 4 * time.Second
	vmWatchdog = 8 * time.Second
	// 1.25 (L + 2 W): from when a silent owner was last heard to when another may start what it ran.
	vmSilence = (vmLease + 2*vmWatchdog) * 5 / 4
)

// vmConfig is data that must never be in two places, and an address in front of it. Behind that a web server runs on both
// machines, and says which one it is.
const vmConfig = `
[cluster]
name = "vm"
[heartbeat]
interval = "400ms"
deadtime = "4s"
[watchdog]
device = "/dev/watchdog"
timeout = "8s"
[[link]]
name = "lan"
interface = "eth0"
[[link]]
name = "repl"
interface = "eth1"
[[node]]
name = "alice"
address = { lan = "192.168.10.11", repl = "10.0.0.11" }
[[node]]
name = "bob"
address = { lan = "192.168.10.12", repl = "10.0.0.12" }
[[node]]
name = "carol"
role = "witness"
address = { lan = "192.168.10.13", repl = "10.0.0.13" }
[[group]]
name = "web"
prefer = ["alice"]
failback = "never"
[[group.resource]]
type = "exec"
name = "data"
start = { command = "date +%s.%N >/run/data" }
stop = { command = "if [ -e /run/stuck ]; then sleep 600; fi; [ ! -e /run/broken ] && rm -f /run/data", timeout = "20s" }
monitor = { command = "[ -e /run/data ] || exit 7", interval = "5s" }
[[group.resource]]
type = "vip"
address = "192.168.10.100"
interface = "eth0"
`

// devices: what the config check says of a watchdog that is at rest, in use, or a timer of the kernel itself. In the end
// alice has the hardware and bob softdog.
func (l *vmLab) devices() {
	l.install(vmConfig)
	for _, host := range []string{"alice", "bob"} {
		// systemd would replace a frozen daemon within 5 to 10 s, and so be as often first as the watchdog.
		l.put(host, "/etc/systemd/system/ha.service.d/lab.conf", "[Service]\nWatchdogSec=0\n", 0o644)
		l.sh(host, "systemctl daemon-reload; sync")
		l.must(host, "systemctl", "-q", "enable", "--now", "apache2")
	}
	check := func(host string, code int, want string) {
		l.t.Helper()
		out, got := l.run(host, "hactl", "config", "check", "--host", "--strict")
		if got != code || !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			l.t.Errorf("config check --host on %s: exit %d, want %d and %q:\n%s", host, got, code, want, out)
		}
	}
	if identity := l.dog("alice", "identity"); identity != "i6300ESB timer" {
		l.t.Fatalf("alice's watchdog is %q", identity)
	}
	check("alice", 0, "")
	l.holdDog("bob")
	check("bob", exitBadConfig, "/dev/watchdog is in use by another program")
	l.releaseDog("bob")
	check("bob", 0, "")
	l.must("bob", "modprobe", "-r", "i6300esb")
	check("bob", exitBadConfig, "there is no /dev/watchdog: load the driver of this host's watchdog, or modprobe softdog")
	l.must("bob", "modprobe", "softdog")
	check("bob", 1, "/dev/watchdog is softdog, a timer of the very kernel that it watches")
}

// holdDog starts what a watchdog daemon is, or systemd: it holds the device and pets it.
func (l *vmLab) holdDog(host string) {
	l.t.Helper()
	l.must(host, "systemd-run", "--collect", "--unit", "holder", "sh", "-c", "exec 3>/dev/watchdog; trap 'printf V >&3; exit 0' TERM; while :; do echo >&3; sleep 0.2; done")
	l.await("the watchdog is held", func() bool { return l.dog(host, "state") == "active" })
}

func (l *vmLab) releaseDog(host string) {
	l.t.Helper()
	l.must(host, "systemctl", "stop", "holder")
	l.await("the watchdog rests", func() bool { return l.dog(host, "state") == "inactive" })
}

// watchdog: a cluster whose data is on alice, whose watchdog runs and is petted. bob's is in use by another at first.
func (l *vmLab) watchdog() {
	l.holdDog("bob")
	for _, host := range []string{"alice", "bob"} {
		l.must(host, "systemctl", "--no-block", "start", "ha")
	}
	l.up("carol")
	l.runsOn("web", "alice", "carol", "alice", "bob")
	armed := time.Now()
	if state, timeout := l.dog("alice", "state"), l.dog("alice", "timeout"); state != "active" || timeout != fmt.Sprint(vmWatchdog.Seconds()) {
		l.t.Errorf("alice's watchdog is %s with %s s, want active with %s", state, timeout, vmWatchdog)
	}
	l.sees("carol", "bob's watchdog is in use", func(s *Status) bool {
		e := s.testNode("bob").Enforce
		return e != nil && strings.Contains(e.Fault, "/dev/watchdog is in use by another program")
	})
	if out, code := l.run("alice", "hactl", "check"); code != 2 || !strings.Contains(out, "in use by another program") {
		l.t.Errorf("check, exit %d, does not complain of bob's watchdog:\n%s", code, out)
	}
	if out, _ := l.run("bob", "hactl", "move", "web", "bob"); !strings.Contains(out, "watchdog") {
		l.t.Errorf("the data may move to a host whose watchdog cannot be used:\n%s", out)
	}
	l.releaseDog("bob")
	l.sees("carol", "both watchdogs can be used", func(s *Status) bool {
		a, b := s.testNode("alice").Enforce, s.testNode("bob").Enforce
		return a != nil && a.Fault == "" && !a.Soft && a.Device == "i6300ESB timer" && b != nil && b.Fault == "" && b.Soft
	})
	out, _ := l.run("alice", "hactl", "check")
	for _, want := range []string{"watchdog of alice: i6300ESB timer", "watchdog of bob: " + softDog + ", a timer of the very kernel"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			l.t.Errorf("check does not say %q:\n%s", want, out)
		}
	}
	if out, code := l.run("alice", "hactl", "config", "check", "--host", "--strict"); code != 0 {
		l.t.Errorf("the daemon's own watchdog: config check --host, exit %d: %s", code, out)
	}
	l.notReset("alice", armed, vmWatchdog)
	if state := l.dog("bob", "state"); state != "inactive" {
		l.t.Errorf("bob's watchdog is %s though nothing runs there", state)
	}
}

// killed: a daemon that dies leaves the watchdog running; the next one pets it in time, and what runs goes on.
func (l *vmLab) killed() {
	before, boot, data := l.mainPID("alice", "ha"), l.boot("alice"), l.must("alice", "cat", "/run/data")
	killed := time.Now()
	l.must("alice", "systemctl", "kill", "-s", "KILL", "--kill-who=main", "ha")
	l.await("the daemon is another", func() bool { now := l.mainPID("alice", "ha"); return now != before && now != "0" })
	l.runsOn("web", "alice", "carol", "alice", "bob")
	l.notReset("alice", killed, vmWatchdog)
	if now := l.boot("alice"); now != boot {
		l.t.Error("alice has booted")
	}
	if state := l.dog("alice", "state"); state != "active" {
		l.t.Errorf("alice's watchdog is %s", state)
	}
	if now := l.must("alice", "cat", "/run/data"); now != data {
		l.t.Error("the data was started anew")
	}
}

// frozen: the active daemon is stopped where it stands. The kernel ends its lease, the watchdog its host, and only then
// the other serves.
func (l *vmLab) frozen(active, other, device string) {
	if identity := l.dog(active, "identity"); identity != device {
		l.t.Fatalf("%s has the watchdog %q", active, identity)
	}
	boot, p := l.boot(active), l.client()
	p.answeredBy(active + " serves")
	began := time.Now()
	l.must(active, "systemctl", "kill", "-s", "STOP", "--kill-who=main", "ha")
	frozen := time.Now()
	how := "RESET"
	if device != softDog {
		how = "WATCHDOG"
	}
	reset := l.isReset(active, how, began)
	l.hold(active) // one that has booted has proved that it runs nothing, and could have it all back
	p.answeredBy(other + " serves")
	l.resume(active)
	if l.boot(active) == boot {
		l.t.Errorf("%s has not booted", active)
	}
	l.runsOn("web", other, "carol", other, active)
	silent, served := p.handedOver(active, other, frozen, vmLease)
	if silent.After(reset) {
		l.t.Errorf("%s fell silent by its reset only, %s after the freeze", active, reset.Sub(began))
	}
	if served.Before(reset) {
		l.t.Errorf("%s served %s before %s was reset", other, ms(reset.Sub(served)), active)
	}
	l.t.Logf("measured: %s frozen (%s): last answer after %s, reset after %s, served by %s after %s (%s of silence needed)", active, device,
		ms(silent.Sub(began)), ms(reset.Sub(began)), other, ms(served.Sub(began)), vmSilence)
	if state := l.dog(other, "state"); state != "active" {
		l.t.Errorf("the watchdog of %s is %s", other, state)
	}
	if state := l.dog(active, "state"); state != "inactive" {
		l.t.Errorf("the watchdog of %s is %s though nothing runs there", active, state)
	}
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// handedOver demands that of the questions asked later than a lease after began none was answered by the one, and none by
// it after the first answer of the other; it tells when the one's last answer and the other's first came.
func (p *prober) handedOver(from, to string, began time.Time, lease time.Duration) (last, first time.Time) {
	p.c.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var lastEnd, firstEnd int64
	for _, x := range p.seen {
		switch {
		case x.Err != "":
		case x.Who == from+" serves":
			lastEnd = max(lastEnd, x.End)
			if x.Start > began.Add(lease).UnixNano() {
				p.c.t.Errorf("%s answered what it was asked %s after the end", from, ms(time.Duration(x.Start-began.UnixNano())))
			}
		case x.Who == to+" serves" && (firstEnd == 0 || x.End < firstEnd):
			firstEnd = x.End
		}
	}
	if lastEnd > firstEnd {
		p.c.t.Errorf("%s answered %s after %s did", from, ms(time.Duration(lastEnd-firstEnd)), to)
	}
	return time.Unix(0, lastEnd), time.Unix(0, firstEnd)
}

// cutOff: both networks of the active one are cut. It stops all that it runs, and rests its watchdog; where its stop
// hangs it is reset, before the other serves.
func (l *vmLab) cutOff(active, other string, hangs bool) {
	boot, p := l.boot(active), l.client()
	p.answeredBy(active + " serves")
	if hangs {
		l.sh(active, ">/run/stuck")
	}
	began := time.Now()
	l.tell("cut", active, "lan", "repl")
	cut := time.Now()
	var ended time.Time
	if hangs {
		ended = l.isReset(active, "RESET", began)
	} else {
		l.await("all has stopped on "+active, func() bool {
			_, code := l.run(active, "sh", "-c", "[ ! -e /run/data ] && [ $(cat /sys/class/watchdog/watchdog0/state) = inactive ]")
			return code == 0
		})
		ended = time.Now()
	}
	p.answeredBy(other + " serves")
	silent, served := p.handedOver(active, other, cut, vmLease)
	if served.Before(ended) {
		l.t.Errorf("%s served %s before all had ended on %s", other, ms(ended.Sub(served)), active)
	}
	l.t.Logf("measured: %s cut off (its stop hangs: %v): last answer after %s, ended after %s, served by %s after %s", active, hangs,
		ms(silent.Sub(began)), ms(ended.Sub(began)), other, ms(served.Sub(began)))
	l.tell("heal", active, "lan", "repl")
	if hangs {
		l.tell("wait", active)
	}
	if again := l.boot(active) != boot; again != hangs {
		l.t.Errorf("%s has booted: %v", active, again)
	}
	l.runsOn("web", other, "carol", other, active)
	if out, code := l.run(active, "sh", "-c", "test -e /run/data"); code == 0 {
		l.t.Errorf("%s still has its data: %s", active, out)
	}
}

// failedStop: data that cannot be let go takes its host with it, so that the other can have it.
func (l *vmLab) failedStop(active, other string) {
	boot, p := l.boot(active), l.client()
	p.answeredBy(active + " serves")
	l.sh(active, ">/run/broken")
	began := time.Now()
	out, _ := l.run(other, "hactl", "move", "web", other)
	reset := l.isReset(active, "RESET", began)
	p.answeredBy(other + " serves")
	_, served := p.handedOver(active, other, reset, 0)
	if served.Before(reset) {
		l.t.Errorf("%s served %s before %s was reset", other, ms(reset.Sub(served)), active)
	}
	l.t.Logf("measured: the stop fails on %s: reset after %s, served by %s after %s; the move said: %s", active, ms(reset.Sub(began)), other, ms(served.Sub(began)), out)
	l.tell("wait", active)
	if l.boot(active) == boot {
		l.t.Errorf("%s has not booted", active)
	}
	l.runsOn("web", other, "carol", other, active)
	l.must(other, "hactl", "unmove", "web")
}

// cleanStop: a daemon that is stopped hands over and lets its watchdog rest, so that its host goes on.
func (l *vmLab) cleanStop(active, other string) {
	boot, p := l.boot(active), l.client()
	p.answeredBy(active + " serves")
	l.must(active, "systemctl", "stop", "ha")
	stopped := time.Now()
	if state := l.dog(active, "state"); state != "inactive" {
		l.t.Errorf("the watchdog of %s is %s", active, state)
	}
	l.runsOn("web", other, "carol", other)
	p.answeredBy(other + " serves")
	l.notReset(active, stopped, vmWatchdog)
	if l.boot(active) != boot {
		l.t.Errorf("%s has booted", active)
	}
	for _, host := range []string{other, "carol"} {
		l.sees(host, "it runs on", func(s *Status) bool { return s.Quorum })
	}
}
