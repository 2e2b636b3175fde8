// hactl as an operator installs it: its unit under a real systemd, with apache2 as Debian ships it. Three hosts each, which
// see nothing of this machine's own systemd, if it has one.

package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSystemdReadme goes the README's way to a cluster, and on to what its operator does with the web server.
func TestSystemdReadme(t *testing.T) {
	l := newSystemdLab(t, "alice", "bob", "carol")
	l.install(readmeConfig(t))
	for _, host := range []string{"alice", "bob"} {
		l.must(host, "systemctl", "disable", "--now", "apache2")
	}
	for _, host := range []string{"alice", "bob", "carol"} {
		l.must(host, "hactl", "config", "check", "--host", "--strict")
	}
	// The first one alone: the command returns, the unit is up, and both say what is waited for.
	l.must("alice", "systemctl", "daemon-reload")
	l.must("alice", "systemctl", "enable", "--now", "ha")
	l.sees("alice", "it waits for the others", func(s *Status) bool { return !s.Quorum })
	if state := l.property("alice", "ha", "ActiveState"); state != "active" {
		t.Errorf("ha is %s while it waits for the others", state)
	}
	l.await("systemctl says what it waits for", func() bool { return strings.Contains(l.property("alice", "ha", "StatusText"), "bob") })
	for _, host := range []string{"bob", "carol"} {
		l.must(host, "systemctl", "enable", "--now", "ha")
	}
	l.runsOn("web", "alice", "alice", "bob", "carol")
	p := l.client()
	p.answeredBy("alice serves")

	t.Log("the cluster owns the unit")
	if restart := l.property("alice", "apache2", "Restart"); restart != "no" {
		t.Errorf("systemd would restart apache2 (Restart=%s) although the cluster owns it", restart)
	}
	if restart := l.property("bob", "apache2", "Restart"); restart == "no" {
		t.Error("bob's apache2 has Restart=no although it does not run there")
	}
	before := l.mainPID("alice", "apache2")
	l.must("alice", "kill", "-9", before)
	l.await("apache2 runs again", func() bool { now := l.mainPID("alice", "apache2"); return now != before && now != "0" })
	l.runsOn("web", "alice", "alice", "bob", "carol")
	if n := l.property("alice", "apache2", "NRestarts"); n != "0" {
		t.Errorf("systemd has restarted apache2 %s times", n)
	}
	if out := l.must("bob", "hactl", "history"); !strings.Contains(out, "apache2.service") {
		t.Errorf("the history does not tell of the crash:\n%s", out)
	}
	l.must("alice", "hactl", "cleanup", "web")

	t.Log("a move gives it back")
	reloads := func() int { return strings.Count(l.must("bob", "journalctl", "--no-pager", "_PID=1"), "Reloading.") }
	known := reloads()
	l.must("alice", "hactl", "move", "web", "bob")
	if n := reloads() - known; n != 0 {
		t.Errorf("to take over, bob's systemd had to read its files anew %d times", n)
	}
	p.answeredBy("bob serves")
	if state := l.property("alice", "apache2", "ActiveState"); state != "inactive" {
		t.Errorf("apache2 is %s on alice, which gave it away", state)
	}
	l.await("the drop-in of the cluster is no longer in force on alice", func() bool { return l.property("alice", "apache2", "Restart") != "no" })
	l.must("alice", "hactl", "unmove", "web")
	l.journalTells("alice")
}

// TestSystemdStart: what an operator who has made a mistake sees of `systemctl start ha`, and that its mending is enough.
func TestSystemdStart(t *testing.T) {
	l := newSystemdLab(t, "alice")
	good := readmeConfig(t)
	l.install(strings.Replace(good, "interface", "interfaze", 1))
	if out, code := l.run("alice", "systemctl", "start", "ha"); code == 0 || !strings.Contains(out, "journalctl -xeu ha.service") {
		t.Errorf("with a bad file systemctl start says (exit %d): %s", code, out)
	}
	l.await("the journal names the mistake", func() bool {
		out := l.must("alice", "journalctl", "-u", "ha", "--no-pager")
		return strings.Contains(out, "interfaze") && strings.Contains(out, "did you mean")
	})

	t.Log("an address that is not there yet is waited for, and nobody else waits")
	l.must("alice", "ip", "address", "del", "192.168.10.11/24", "dev", "eth0")
	l.put("alice", "/etc/ha.toml", good, 0o644)
	l.await("the mended file is found by itself", func() bool {
		return strings.Contains(l.property("alice", "ha", "StatusText"), "192.168.10.11")
	})
	l.awaitProperty("alice", "ha", "ActiveState", "active")
	l.must("alice", "systemctl", "stop", "ha")
	if state := l.property("alice", "ha", "ActiveState"); state != "inactive" {
		t.Errorf("ha is %s after a stop in order", state)
	}
	l.must("alice", "systemctl", "start", "ha")
	daemon := l.mainPID("alice", "ha")
	l.must("alice", "ip", "address", "add", "192.168.10.11/24", "dev", "eth0")
	l.sees("alice", "it knows who it is", func(s *Status) bool { return s.Node == "alice" })
	if now := l.mainPID("alice", "ha"); now != daemon {
		t.Errorf("the daemon that waited for its address was process %s and is %s", daemon, now)
	}
}

// journalTells looks at what the tests before have left in the journal.
func (l *systemdLab) journalTells(host string) {
	l.t.Helper()
	priorities := map[string]string{}
	for _, line := range l.journal(host, "-u", "ha") {
		if line.Program != "hactl" {
			continue
		}
		if line.Event == "" || line.Unit != "ha.service" {
			l.t.Errorf("a line without an event, or not of ha.service: %+v", line)
		}
		priorities[line.Event] = line.Priority
	}
	for event, want := range map[string]string{"daemon-started": "6", "group-started": "6", "resource-failed": "4"} {
		if priorities[event] != want {
			l.t.Errorf("the priority of %s is %q, want %s; all: %v", event, priorities[event], want, priorities)
		}
	}
}

// TestSystemdEndsOfTheDaemon ends it in each way there is. What it runs goes on, but for a stop. The deadtime is long, so
// that no other node takes over however slow this machine is.
func TestSystemdEndsOfTheDaemon(t *testing.T) {
	l := newSystemdLab(t, "alice", "bob", "carol")
	// A second web server in the foreground, in the daemon's own care, and something that stops slowly.
	config := "[heartbeat]\ninterval = \"200ms\"\ndeadtime = \"10s\"\n" + readmeConfig(t) + `
[[group]]
name = "plain"
prefer = ["alice"]
[[group.resource]]
type = "httpd"
unit = "none"
config_file = "/etc/apache2/plain.conf"
status_url = "http://127.0.0.1:81/server-status?auto"
[[group.resource]]
type = "exec"
start = { command = "/usr/local/sbin/slow start" }
stop = { command = "/usr/local/sbin/slow stop" }
monitor = { command = "/usr/local/sbin/slow status" }
`
	l.install(config)
	const slow = `#!/bin/sh
case $1 in
  start) touch /run/slow ;;
  stop) [ ! -e /run/slow ] || sleep 4; rm -f /run/slow ;;
  status) while [ -e /run/hold ]; do sleep 0.1; done; [ -e /run/slow ] || exit 3 ;;
esac
`
	plain := "Listen 81\nPidFile /run/plain.pid\nServerName plain\nUser www-data\nGroup www-data\nDocumentRoot /var/www/html\nErrorLog /var/log/plain.log\n"
	for _, m := range []string{"mpm_event", "authz_core", "authz_host", "status"} {
		plain += "LoadModule " + m + "_module /usr/lib/apache2/modules/mod_" + m + ".so\n"
	}
	plain += "<Location /server-status>\nSetHandler server-status\nRequire local\n</Location>\n"
	for _, host := range []string{"alice", "bob"} {
		l.put(host, "/etc/apache2/plain.conf", plain, 0o644)
		l.put(host, "/usr/local/sbin/slow", slow, 0o755)
		l.must(host, "systemctl", "disable", "--now", "apache2")
	}
	l.put("alice", "/etc/systemd/system/ha.service.d/quick.conf", "[Service]\nWatchdogSec=2s\nTimeoutStopSec=2s\n", 0o644)
	for _, host := range []string{"alice", "bob", "carol"} {
		l.must(host, "systemctl", "enable", "--now", "ha")
	}
	l.runsOn("web", "alice", "alice", "bob", "carol")
	l.runsOn("plain", "alice", "alice", "bob", "carol")
	p := l.client()
	p.answeredBy("alice serves")
	webPID := func() string { return l.mainPID("alice", "apache2") }
	plainPID := func() string { return l.must("alice", "cat", "/run/plain.pid") }
	web, other, daemon := webPID(), plainPID(), l.mainPID("alice", "ha")

	score := func(pid string) string { return l.must("alice", "cat", "/proc/"+pid+"/oom_score_adj") }
	if score(daemon) != "-900" {
		t.Log("the unit's OOMScoreAdjust is not looked at: this machine's root may not lower it")
	} else if score(other) != "0" {
		t.Errorf("what the daemon runs has its oom_score_adj: %s", score(other))
	}
	nices := func(pid string) string { // of all threads
		return l.must("alice", "sh", "-c", "cut -d' ' -f19 /proc/"+pid+"/task/*/stat | sort -u")
	}
	if nices(daemon) != "-20" || nices(other) != "0" {
		t.Errorf("nice values: %q of the daemon, %q of what it runs", nices(daemon), nices(other))
	}
	if group := l.must("alice", "cat", "/proc/"+other+"/cgroup"); !strings.Contains(group, "/ha.service/"+cgroupPrefix) {
		t.Errorf("what the daemon runs has no control group of its own: %s", group)
	}
	if locked := l.must("alice", "grep", "VmLck", "/proc/"+daemon+"/status"); strings.Contains(locked, "\t       0 kB") {
		t.Errorf("the daemon's memory is not locked: %s", locked)
	}

	// goesOn does it and waits for the next daemon, which must have found everything as it was.
	goesOn := func(what string, end func(daemon string)) {
		t.Helper()
		begun, epoch := time.Now(), l.status("bob").testGroup("web").Epoch
		before := l.mainPID("alice", "ha")
		end(before)
		l.await("another daemon runs after "+what, func() bool { now := l.mainPID("alice", "ha"); return now != "0" && now != before })
		l.awaitProperty("alice", "ha", "ActiveState", "active")
		l.runsOn("web", "alice", "alice", "bob", "carol")
		l.runsOn("plain", "alice", "alice", "bob", "carol")
		if now := l.status("bob").testGroup("web").Epoch; now != epoch {
			t.Errorf("%s: the epoch was %d and is %d", what, epoch, now)
		}
		if now := webPID(); now != web {
			t.Errorf("%s: the unit's apache was process %s and is %s", what, web, now)
		}
		if now := plainPID(); now != other {
			t.Errorf("%s: the apache in the foreground was process %s and is %s", what, other, now)
		}
		longest := p.neverRefused(what, begun)
		t.Logf("measured: %s: longest silence of the site %d ms", what, longest.Milliseconds())
	}
	l.await("systemctl status says it in a line", func() bool {
		return strings.Contains(l.property("alice", "ha", "StatusText"), "web is up on alice (here); plain is up on alice (here); 3 of 3 voters")
	})
	goesOn("kill -9", func(daemon string) { l.must("alice", "kill", "-9", daemon) })
	goesOn("systemctl restart", func(string) { l.must("alice", "systemctl", "restart", "ha") })
	goesOn("systemctl try-restart", func(string) { l.must("alice", "systemctl", "try-restart", "ha") })
	goesOn("SIGSTOP", func(daemon string) { l.must("alice", "kill", "-STOP", daemon) })
	goesOn("a restart that is ready when it has looked at all that runs", func(before string) {
		l.must("alice", "touch", "/run/hold")
		l.must("alice", "systemctl", "restart", "--no-block", "ha")
		l.sees("alice", "the next daemon answers", func(*Status) bool { now := l.mainPID("alice", "ha"); return now != "0" && now != before })
		if state := l.property("alice", "ha", "ActiveState"); state != "activating" {
			t.Errorf("ha is %s before it has looked at what it runs", state)
		}
		l.must("alice", "rm", "/run/hold")
	})
	goesOn("a planned restart that takes longer than deadtime", func(string) {
		l.put("alice", "/run/systemd/system/ha.service.d/late.conf", "[Service]\nExecStartPre=sleep 12\n", 0o644)
		l.must("alice", "systemctl", "daemon-reload")
		l.must("alice", "systemctl", "restart", "ha")
		l.must("alice", "rm", "/run/systemd/system/ha.service.d/late.conf")
		l.must("alice", "systemctl", "daemon-reload")
	})
	l.sees("bob", "alice was never lost", func(s *Status) bool { return s.testProblem("node-lost") == nil })
	goesOn("a stop in maintenance", func(string) {
		l.must("bob", "hactl", "maintenance", "on")
		l.sees("alice", "it is on", func(s *Status) bool { return s.Maintenance != nil })
		l.must("alice", "systemctl", "stop", "ha")
		if state := l.property("alice", "ha", "ActiveState"); state != "inactive" {
			t.Errorf("ha is %s after its stop", state)
		}
		l.must("alice", "systemctl", "start", "ha")
		l.sees("alice", "it has joined", func(s *Status) bool { return s.testNode("alice").State == "online" })
		l.must("alice", "hactl", "maintenance", "off")
	})

	l.must("alice", "systemctl", "stop", "ha")
	l.runsOn("web", "bob", "bob", "carol")
	l.runsOn("plain", "bob", "bob", "carol")
	p.answeredBy("bob serves")
	if state, result := l.property("alice", "ha", "ActiveState"), l.property("alice", "ha", "Result"); state != "inactive" || result != "success" {
		t.Errorf("ha is %s (%s) after a stop that took longer than TimeoutStopSec", state, result)
	}
	if state := l.property("alice", "apache2", "ActiveState"); state != "inactive" {
		t.Errorf("apache2 is %s on alice after the stop", state)
	}
	if out, code := l.run("alice", "kill", "-0", other); code == 0 {
		t.Errorf("the stop left the apache in the foreground: %s", out)
	}
	l.must("alice", "systemctl", "start", "ha")
	l.runsOn("web", "bob", "alice", "bob", "carol")
}

// TestSystemdPower pulls plugs and reboots. The web server's unit is enabled as Debian ships it, which the operator is told.
func TestSystemdPower(t *testing.T) {
	l := newSystemdLab(t, "alice", "bob", "carol")
	l.install(readmeConfig(t))
	all := []string{"alice", "bob", "carol"}
	for _, host := range all {
		l.must(host, "systemctl", "enable", "--now", "ha")
	}
	l.runsOn("web", "alice", all...)
	l.awaitProperty("bob", "apache2", "ActiveState", "inactive") // it was started at boot
	for _, host := range []string{"alice", "bob"} {
		l.await(host+" is told to disable the unit", func() bool {
			for _, line := range l.journal(host, "-u", "ha", "HA_EVENT=unit-enabled") {
				if text, _ := line.Message.(string); strings.Contains(text, "systemctl disable apache2.service") {
					return true
				}
			}
			return false
		})
	}
	p := l.client()
	p.answeredBy("alice serves")

	l.off("alice")
	l.runsOn("web", "bob", "bob", "carol")
	p.answeredBy("bob serves")
	l.up("alice")
	l.runsOn("web", "bob", all...)
	l.awaitProperty("alice", "apache2", "ActiveState", "inactive")
	p.answeredBy("bob serves")

	t.Log("a reboot in good order hands over")
	pid := l.pids["bob"]
	l.must("bob", "systemctl", "reboot", "--no-block")
	l.runsOn("web", "alice", "alice", "carol")
	l.await("bob is down", func() bool { _, err := os.Stat("/proc/" + strconv.Itoa(pid)); return err != nil })
	s := l.status("alice")
	if x := s.testNode("bob"); x.State != "left" {
		t.Errorf("bob is %s after its reboot began", x.State)
	}
	l.off("bob")
	l.up("bob")
	l.runsOn("web", "alice", all...)
	p.answeredBy("alice serves")

	t.Log("both at once")
	l.off("alice", "bob")
	l.up("alice", "bob")
	s = l.sees("carol", "web runs", func(s *Status) bool {
		return s.testGroup("web").State == "started" && s.testNode("alice").State == "online" && s.testNode("bob").State == "online"
	})
	p.answeredBy(s.testGroup("web").Owner + " serves")
}

// TestSystemdUnit: a unit of the operator's own as a resource, with all that people do to units.
func TestSystemdUnit(t *testing.T) {
	l := newSystemdLab(t, "alice", "bob", "carol")
	// The monitor comes too late for whatever this test looks at: what is seen is seen by signal.
	l.install(strings.Replace(readmeConfig(t), "type = \"httpd\"", "type = \"systemd\"\nunit = \"queue.service\"\nmonitor = { interval = \"24h\" }", 1))
	all := []string{"alice", "bob", "carol"}
	for _, host := range all {
		l.put(host, "/etc/systemd/system/queue.service", "[Service]\nExecStart=sleep infinity\nRestart=always\nRestartSec=0\n[Install]\nWantedBy=multi-user.target\n", 0o644)
		l.must(host, "systemctl", "daemon-reload")
	}
	l.must("bob", "systemctl", "enable", "--now", "queue")
	for _, host := range all {
		l.must(host, "systemctl", "enable", "--now", "ha")
	}
	l.runsOn("web", "alice", all...)
	active := func(host, want string) { t.Helper(); l.awaitProperty(host, "queue", "ActiveState", want) }
	active("bob", "inactive") // it ran there before the cluster did
	if out, code := l.run("bob", "hactl", "check"); code == 0 || !strings.Contains(out, "systemctl disable queue.service") {
		t.Errorf("check on bob says nothing of the enabled unit (exit %d):\n%s", code, out)
	}

	t.Log("killed, it is the cluster that notices and restarts it")
	if restart := l.property("alice", "queue", "Restart"); restart != "no" {
		t.Errorf("Restart=%s while the cluster owns it", restart)
	}
	failures := func() (n int) {
		for _, line := range l.journal("alice", "-u", "ha", "HA_EVENT=resource-failed") {
			if line.Group == "web" {
				n++
			}
		}
		return n
	}
	before := l.mainPID("alice", "queue")
	l.must("alice", "kill", "-9", before)
	l.await("it runs again", func() bool { now := l.mainPID("alice", "queue"); return now != before && now != "0" })
	l.await("its failure is told", func() bool { return failures() == 1 })
	if n := l.property("alice", "queue", "NRestarts"); n != "0" {
		t.Errorf("systemd has restarted it %s times", n)
	}
	t.Logf("measured: from the end of the process to the event %s", l.noticed("alice", "queue"))
	l.must("alice", "systemctl", "stop", "queue")
	active("alice", "active")
	l.await("that it was stopped is told", func() bool { return failures() == 2 })
	l.must("alice", "hactl", "cleanup", "web")

	t.Log("started by hand where the cluster does not want it")
	l.must("bob", "systemctl", "start", "queue")
	active("bob", "inactive")

	t.Log("masked, and gone, on the node that should take it")
	l.must("bob", "mv", "/etc/systemd/system/queue.service", "/root/queue.service")
	l.must("bob", "systemctl", "daemon-reload")
	unfit := func(word string) {
		t.Helper()
		l.sees("alice", "bob cannot: "+word, func(s *Status) bool {
			return slices.ContainsFunc(s.Problems, func(p Problem) bool { return strings.Contains(p.What, word) })
		})
	}
	unfit("systemd knows no unit queue.service")
	l.must("bob", "systemctl", "mask", "queue")
	unfit("systemctl unmask queue.service")
	l.must("bob", "systemctl", "unmask", "queue")
	unfit("systemd knows no unit queue.service")
	l.must("bob", "mv", "/root/queue.service", "/etc/systemd/system/queue.service")
	l.must("bob", "systemctl", "daemon-reload")

	t.Log("moved, it is given back on one host and owned on the other")
	l.await("bob may take it", func() bool { _, code := l.run("alice", "hactl", "move", "web", "bob"); return code == 0 })
	l.runsOn("web", "bob", all...)
	active("bob", "active")
	active("alice", "inactive")
	l.awaitProperty("alice", "queue", "Restart", "always")
	if restart := l.property("bob", "queue", "Restart"); restart != "no" {
		t.Errorf("Restart=%s on bob, where the cluster owns it", restart)
	}

	t.Log("one that fails at once moves the group away")
	l.must("bob", "hactl", "unmove", "web")
	l.put("alice", "/etc/systemd/system/queue.service", "[Service]\nExecStart=false\n", 0o644)
	l.must("alice", "systemctl", "daemon-reload")
	l.run("bob", "hactl", "move", "web", "alice")
	l.runsOn("web", "bob", all...)
	if out := l.must("bob", "hactl", "history"); !strings.Contains(out, "unit queue.service is failed (exit-code): see `journalctl -u queue.service`") {
		t.Errorf("the history does not say why it did not start on alice:\n%s", out)
	}
}

// noticed is how long after the end of a unit's process, by systemd's word, the daemon told of its failure.
func (l *systemdLab) noticed(host, unit string) time.Duration {
	l.t.Helper()
	at := func(match ...string) time.Time {
		out := l.must(host, append([]string{"journalctl", "--no-pager", "-o", "short-unix", "-q"}, match...)...)
		first, _, _ := strings.Cut(out, " ")
		seconds, err := strconv.ParseFloat(first, 64)
		if err != nil {
			l.t.Fatalf("the journal of %s has no %v: %s", host, match, out)
		}
		return time.UnixMicro(int64(seconds * 1e6))
	}
	return at("-u", "ha", "HA_EVENT=resource-failed").Sub(at("_PID=1", "-u", unit, "--grep", "Main process exited"))
}
