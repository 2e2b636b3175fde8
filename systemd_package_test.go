// hactl as a package: installed, upgraded under load, removed and purged on hosts with a real systemd.

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// packages are the Debian packages of two versions, the same program but for its version.
var packages = sync.OnceValues(func() (map[string]string, error) {
	made := map[string]string{}
	for _, version := range []string{"0.9.0", "0.9.1"} {
		out, err := exec.Command("make", "deb", "VERSION="+version).CombinedOutput()
		if err != nil {
			return nil, &outputError{err: err, tail: string(out)}
		}
		found, err := filepath.Glob("build/hactl_" + version + "_*.deb")
		if err != nil || len(found) != 1 {
			return nil, &outputError{err: os.ErrNotExist, tail: string(out)}
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			return nil, err
		}
		made[version] = string(b)
		if err := os.Remove(found[0]); err != nil {
			return nil, err
		}
	}
	return made, nil
})

// TestSystemdPackage: apt install, edit, start is the whole installation; an upgrade of all nodes is noticed by no client; a
// removal hands over first; a purge leaves nothing but the key.
func TestSystemdPackage(t *testing.T) {
	l := newSystemdLab(t, "alice", "bob", "carol")
	made, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"alice", "bob", "carol"}
	example, err := os.ReadFile("ha.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	const handWritten = "# written by hand before\n"
	l.put("bob", "/etc/ha.toml", handWritten, 0o600)
	for _, host := range all {
		for version, text := range made {
			l.put(host, "/root/hactl_"+version+".deb", text, 0o644)
		}
		l.must(host, "apt-get", "install", "-qy", "/root/hactl_0.9.0.deb")
		if state, enabled := l.property(host, "ha", "ActiveState"), l.property(host, "ha", "UnitFileState"); state != "inactive" || enabled != "disabled" {
			t.Errorf("after the installation ha is %s and %s on %s", state, enabled, host)
		}
		if out := l.must(host, "hactl", "version"); !strings.Contains(out, "0.9.0") {
			t.Errorf("hactl version on %s: %s", host, out)
		}
		want := string(example)
		if host == "bob" {
			want = handWritten
		}
		if got := l.must(host, "cat", "/etc/ha.toml"); got != strings.TrimSpace(want) {
			t.Errorf("/etc/ha.toml on %s after the installation: %.200s", host, got)
		}
		l.must(host, "getent", "group", "haclient")
	}

	t.Log("edit, start")
	l.must("alice", "hactl", "keygen", "/etc/ha.key")
	key := l.must("alice", "cat", "/etc/ha.key") + "\n"
	config := "[heartbeat]\ninterval = \"200ms\"\ndeadtime = \"10s\"\n" + readmeConfig(t)
	for _, host := range all {
		l.put(host, "/etc/ha.key", key, 0o600)
		l.put(host, "/etc/ha.toml", config, 0o644)
		l.put(host, "/var/www/html/index.html", host+" serves\n", 0o644)
	}
	for _, host := range []string{"alice", "bob"} {
		l.must(host, "systemctl", "disable", "--now", "apache2")
	}
	for _, host := range all {
		l.must(host, "systemctl", "enable", "--now", "ha")
	}
	l.runsOn("web", "alice", all...)
	p := l.client()
	p.answeredBy("alice serves")

	t.Log("reload")
	l.must("alice", "systemctl", "reload", "ha")
	l.await("the daemon has looked", func() bool { return len(l.journal("alice", "-u", "ha", "HA_EVENT=config-reload")) > 0 })
	l.put("alice", "/etc/ha.toml", strings.Replace(config, "interface", "interfaze", 1), 0o644)
	if out, code := l.run("alice", "systemctl", "reload", "ha"); code == 0 {
		t.Errorf("the reload of a bad file succeeds: %s", out)
	}
	l.await("the journal names the mistake", func() bool {
		return strings.Contains(l.must("alice", "journalctl", "-u", "ha", "--no-pager"), "interfaze")
	})
	l.put("alice", "/etc/ha.toml", config, 0o644)
	l.must("alice", "systemctl", "reload", "ha")
	l.sees("alice", "the file is good again", func(s *Status) bool { return s.testProblem("config-bad") == nil })

	t.Log("upgrade of all, one after the other")
	begun, epoch := time.Now(), l.status("bob").testGroup("web").Epoch
	for _, host := range all {
		before := l.mainPID(host, "ha")
		l.must(host, "dpkg", "-i", "/root/hactl_0.9.1.deb")
		l.await("the new daemon runs on "+host, func() bool { now := l.mainPID(host, "ha"); return now != "0" && now != before })
		l.sees(host, "the new version answers", func(s *Status) bool { return strings.Contains(s.Version, "0.9.1") })
		l.runsOn("web", "alice", all...)
	}
	if now := l.status("bob").testGroup("web").Epoch; now != epoch {
		t.Errorf("the epoch was %d and is %d after the upgrade", epoch, now)
	}
	t.Logf("measured: upgrade of three nodes: longest silence of the site %d ms", p.neverRefused("upgrade", begun).Milliseconds())
	if got := l.must("alice", "cat", "/etc/ha.toml"); got != strings.TrimSpace(config) {
		t.Errorf("the upgrade has changed /etc/ha.toml: %.200s", got)
	}

	t.Log("a removal hands over first")
	l.must("alice", "apt-get", "remove", "-qy", "hactl")
	l.runsOn("web", "bob", "bob", "carol")
	p.answeredBy("bob serves")
	if state := l.property("alice", "apache2", "ActiveState"); state != "inactive" {
		t.Errorf("apache2 is %s on alice after the removal", state)
	}
	if out, code := l.run("alice", "systemctl", "cat", "ha"); code == 0 {
		t.Errorf("the unit is still there: %s", out)
	}
	if got := l.must("alice", "cat", "/etc/ha.toml"); got != strings.TrimSpace(config) {
		t.Errorf("the removal has changed /etc/ha.toml: %.200s", got)
	}

	t.Log("what was removed comes back as it was")
	l.must("alice", "apt-get", "install", "-qy", "/root/hactl_0.9.1.deb")
	l.must("alice", "systemctl", "enable", "--now", "ha")
	l.runsOn("web", "bob", all...)

	t.Log("a purge leaves the key alone")
	l.must("alice", "apt-get", "purge", "-qy", "hactl")
	if out := l.must("alice", "find", "/etc", "/var/lib", "/usr", "/run", "-name", "ha.toml*", "-o", "-name", "ha.key", "-o", "-name", "ha.service*", "-o", "-name", "hactl*"); out != "/etc/ha.key" {
		t.Errorf("left behind: %s", out)
	}
	l.runsOn("web", "bob", "bob", "carol")
	p.answeredBy("bob serves")
}

// TestSystemdUpgradeInterrupted: dpkg is killed while it waits for the new daemon, the old daemon dies between unpacking and
// configuring, and the owner loses its power while the taker is upgraded. No client notices the first two, and each package
// is whole in the end.
func TestSystemdUpgradeInterrupted(t *testing.T) {
	l := newSystemdLab(t, "alice", "bob", "carol")
	made, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"alice", "bob", "carol"}
	key := ""
	for _, host := range all {
		for version, text := range made {
			l.put(host, "/root/hactl_"+version+".deb", text, 0o644)
		}
		l.must(host, "dpkg", "-i", "/root/hactl_0.9.0.deb")
		if key == "" {
			l.must(host, "hactl", "keygen", "/etc/ha.key")
			key = l.must(host, "cat", "/etc/ha.key") + "\n"
		}
		l.put(host, "/etc/ha.key", key, 0o600)
		l.put(host, "/etc/ha.toml", "[heartbeat]\ninterval = \"200ms\"\ndeadtime = \"10s\"\n"+readmeConfig(t), 0o644)
		l.put(host, "/var/www/html/index.html", host+" serves\n", 0o644)
		if host != "carol" {
			l.must(host, "systemctl", "disable", "--now", "apache2")
		}
	}
	for _, host := range all {
		l.must(host, "systemctl", "enable", "--now", "ha")
	}
	l.runsOn("web", "alice", all...)
	p := l.client()
	p.answeredBy("alice serves")
	begun, epoch := time.Now(), l.status("bob").testGroup("web").Epoch
	state := func(host string) string {
		return l.must(host, "dpkg-query", "-W", "-f", "${db:Status-Status}", "hactl")
	}
	upgraded := func(host string) {
		t.Helper()
		l.sees(host, "the new version answers", func(s *Status) bool { return strings.Contains(s.Version, "0.9.1") })
		l.must(host, "dpkg", "--configure", "-a")
		if s := state(host); s != "installed" {
			t.Errorf("the package is %s on %s", s, host)
		}
	}

	t.Log("dpkg is killed while the new daemon starts")
	l.put("alice", "/run/systemd/system/ha.service.d/hold.conf", "[Service]\nExecStartPre=sh -c 'while [ -e /run/hold ]; do sleep 0.1; done'\n", 0o644)
	l.must("alice", "touch", "/run/hold")
	l.must("alice", "systemd-run", "-q", "--unit=upgrade", "-p", "SendSIGKILL=yes", "dpkg", "-i", "/root/hactl_0.9.1.deb")
	l.awaitProperty("alice", "ha", "ActiveState", "activating")
	l.must("alice", "systemctl", "kill", "--signal=KILL", "upgrade")
	l.awaitProperty("alice", "upgrade", "ActiveState", "failed")
	if s := state("alice"); s != "half-configured" {
		t.Errorf("the package is %s after dpkg was killed", s)
	}
	l.must("alice", "rm", "/run/hold")
	l.runsOn("web", "alice", all...)
	upgraded("alice")

	t.Log("the old daemon dies when its program is another one already")
	l.must("carol", "dpkg", "--unpack", "/root/hactl_0.9.1.deb")
	l.must("carol", "kill", "-9", l.mainPID("carol", "ha"))
	l.runsOn("web", "alice", all...)
	upgraded("carol")
	if now := l.status("bob").testGroup("web").Epoch; now != epoch {
		t.Errorf("the epoch was %d and is %d", epoch, now)
	}
	p.neverRefused("interrupted upgrades", begun)

	t.Log("the owner loses its power while the taker is upgraded")
	l.off("alice")
	l.must("bob", "dpkg", "-i", "/root/hactl_0.9.1.deb")
	l.runsOn("web", "bob", "bob", "carol")
	p.answeredBy("bob serves")
	upgraded("bob")
}

// TestPackageIsClean: lintian has nothing to say, and an RPM is made too.
func TestPackageIsClean(t *testing.T) {
	mayCluster(t)
	lintian, err := exec.LookPath("lintian")
	if err != nil {
		t.Skip("lintian is not installed")
	}
	if _, err := packages(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("make", "deb", "rpm", "VERSION=0.9.2").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, pattern := range []string{"build/hactl_0.9.2_*.deb", "build/hactl-0.9.2-*.rpm"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v %v", pattern, found, err)
		}
		t.Cleanup(func() { os.Remove(found[0]) })
		if strings.HasSuffix(found[0], ".deb") {
			out, err := exec.Command(lintian, "--allow-root", "--fail-on", "error,warning", found[0]).CombinedOutput()
			if err != nil || strings.Contains(string(out), "hactl: ") {
				t.Errorf("lintian: %v\n%s", err, out)
			}
			continue
		}
		if rpm, err := exec.LookPath("rpm"); err == nil {
			out, err := exec.Command(rpm, "-qp", "--list", "--scripts", found[0]).CombinedOutput()
			for _, want := range []string{"/usr/sbin/hactl", "/usr/lib/systemd/system/ha.service", "/usr/share/doc/hactl/LICENSE", "postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet"} {
				if err != nil || !strings.Contains(string(out), want) {
					t.Errorf("rpm: %v: no %s in\n%s", err, want, out)
				}
			}
		}
	}
}

// TestRPMScripts: what the scripts of the RPM do of themselves at each step of a package's life.
func TestRPMScripts(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"run/systemd/system", "etc", "usr/share/hactl"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file, example := filepath.Join(root, "etc/ha.toml"), filepath.Join(root, "usr/share/hactl/ha.toml.example")
	if err := os.WriteFile(example, []byte("example"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ script, argument, calls, file string }{
		{"post", "1", "getent group haclient;systemctl daemon-reload;", "example"}, // installed: neither enabled nor started
		{"", "", "", "mine"}, // somebody writes it
		{"post", "2", "getent group haclient;systemctl daemon-reload;systemctl try-restart ha.service;", "mine"},
		{"preun", "1", "", "mine"},
		{"postun", "1", "", "mine"},
		{"preun", "0", "systemctl stop ha.service;systemctl disable --quiet ha.service;", "mine"},
		{"postun", "0", "systemctl daemon-reload;", "mine"},
	} {
		if step.script == "" {
			if err := os.WriteFile(file, []byte(step.file), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := os.ReadFile("packaging/rpm/" + step.script)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer("/run/", root+"/run/", "/etc/", root+"/etc/", "/usr/", root+"/usr/").Replace(string(b))
		calls := "systemctl() { printf 'systemctl %s;' \"$*\"; }\ngetent() { echo \"getent $*;\" | tr -d '\\n' >&3; }\n"
		out, err := exec.Command("sh", "-c", "exec 3>&1\n"+calls+text, step.script, step.argument).CombinedOutput()
		now, missing := os.ReadFile(file)
		if err != nil || missing != nil || string(out) != step.calls || string(now) != step.file {
			t.Errorf("%s %s: %v, called %q, want %q; the file is %q (%v)", step.script, step.argument, err, out, step.calls, now, missing)
		}
	}
}

// TestPackageLeavesRunning: where a stop has failed, a removal says which groups may still run, and a purge keeps what ends
// them. Both go through.
func TestPackageLeavesRunning(t *testing.T) {
	for _, left := range []string{"", "web\ndb\n"} {
		root := t.TempDir()
		for _, dir := range []string{"run/ha", "run/systemd/system", "etc", "var/lib/ha"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if left != "" {
			if err := os.WriteFile(filepath.Join(root, "run/ha", leftNote), []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		script := func(name, argument string) string {
			t.Helper()
			b, err := os.ReadFile("packaging/" + name)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer("/run/", root+"/run/", "/var/", root+"/var/", "/etc/", root+"/etc/").Replace(string(b))
			out, err := exec.Command("sh", "-c", "systemctl() { :; }\n"+text, name, argument).CombinedOutput()
			if err != nil {
				t.Errorf("%s %s: %v: %s", name, argument, err, out)
			}
			return strings.ReplaceAll(string(out), root, "")
		}
		kept := func() bool {
			_, state := os.Stat(filepath.Join(root, "var/lib/ha"))
			_, run := os.Stat(filepath.Join(root, "run/ha"))
			if (state == nil) != (run == nil) {
				t.Errorf("one of state (%v) and run folder (%v) is kept", state, run)
			}
			return state == nil && run == nil
		}
		removed := script("deb/prerm", "remove")
		if rpm := script("rpm/preun", "0"); rpm != removed {
			t.Errorf("the RPM says %s, not %s", rpm, removed)
		}
		if upgrade := script("deb/prerm", "upgrade") + script("rpm/preun", "1") + script("deb/postrm", "upgrade"); upgrade != "" || !kept() {
			t.Errorf("an upgrade says %s", upgrade)
		}
		purged := script("deb/postrm", "purge")
		if kept() != (left != "") {
			t.Errorf("with %q left running, state and run folder are kept: %v", left, kept())
		}
		if left == "" {
			if removed+purged != "" {
				t.Errorf("without need it says %s%s", removed, purged)
			}
			continue
		}
		if !strings.Contains(removed, "may still run what belongs to: web db\n") || !strings.Contains(purged, "/var/lib/ha and /run/ha are left, since there may still run: web db\n") {
			t.Errorf("removed: %s purged: %s", removed, purged)
		}
	}
}
