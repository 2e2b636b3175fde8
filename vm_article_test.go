// The stack that the project exists for, on two machines with kernels of their own: DRBD, a file system on it, the address
// and the web server, and a client who remembers every write that it was told is done.

package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// vmDRBD is an ordinary resource file, but for timeouts that notice a dead peer within deadtime, and a resync that does not
// creep up from 250 kB/s. Its handlers are hactl's; where that was put the laboratory says.
const vmDRBD = `resource r0 {
	device /dev/drbd0;
	disk /dev/vg/r0;
	meta-disk internal;
	disk { c-plan-ahead 0; resync-rate 400M; fencing resource-and-stonith; }
	handlers { fence-peer "HACTL drbd fence-peer"; unfence-peer "HACTL drbd unfence-peer"; }
	net { protocol C; ping-int 2; connect-int 2; timeout 15; ping-timeout 10; }
	on alice { address 10.0.0.11:7788; }
	on bob { address 10.0.0.12:7788; }
}
`

const vmStack = `
[[group.resource]]
type = "drbd"
resource = "r0"
[[group.resource]]
type = "filesystem"
device = "/dev/drbd0"
directory = "/var/www"
fstype = "ext4"
[[group.resource]]
type = "vip"
address = "192.168.10.100"
interface = "eth0"
[[group.resource]]
type = "httpd"
`

// vmWrite is a page that each visit writes to: it answers when the disks have it.
const vmWrite = `#!/bin/sh -e
read -r token </proc/sys/kernel/random/uuid
echo "$token" >>/var/www/log
sync /var/www/log
printf 'Content-Type: text/plain\n\n%s %s\n' "$(hostname)" "$token"
`

func TestVMArticle(t *testing.T) {
	l := newVMLab(t)
	l.up("alice", "bob")
	config, _, _ := strings.Cut(vmConfig, "[[group.resource]]")
	head, rest, _ := strings.Cut(config, "[watchdog]") // DRBD's guard alone has to prove that a silent node writes no more
	_, rest, _ = strings.Cut(rest, "[[link]]")
	l.install(head + "[[link]]" + rest + vmStack)
	l.makeDRBD()
	for _, host := range []string{"alice", "bob"} {
		l.put(host, "/usr/lib/cgi-bin/write", vmWrite, 0o755)
		l.sh(host, "a2enmod -q cgid; sync")
		if out, code := l.run(host, "hactl", "config", "check", "--host", "--strict"); code != 0 {
			t.Errorf("config check on %s: %s", host, out)
		}
		l.must(host, "systemctl", "--no-block", "start", "ha")
	}
	l.up("carol")
	l.runsOn("web", "alice", "carol", "alice", "bob")
	l.copied("bob has the data too")
	l.guarded("alice")
	l.pace = time.Second // a visit takes the emulated processor 0.2 s
	p := l.visitor("/cgi-bin/write")
	p.writes("alice")

	began := time.Now()
	l.must("bob", "hactl", "move", "web", "bob")
	l.runsOn("web", "bob", "carol", "alice", "bob")
	p.writes("bob")
	t.Logf("measured: the stack moved to bob within %s", ms(time.Since(began)))
	l.keeps("bob", p)
	l.must("bob", "hactl", "move", "web", "alice")
	l.runsOn("web", "alice", "carol", "alice", "bob")
	l.must("bob", "hactl", "unmove", "web")
	p.writes("alice")

	l.backUp(p)

	l.goesOnAlone(p)
	l.guarded("alice")

	began = time.Now()
	l.off("alice")
	p.writes("bob")
	t.Logf("measured: power off under write load: written on bob after %s (%s of silence needed)", ms(time.Since(began)), vmLease*5/4)
	n := l.keeps("bob", p)

	l.up("alice")
	l.runsOn("web", "bob", "carol", "alice", "bob")
	l.copied("alice has caught up")
	l.must("bob", "hactl", "move", "web", "alice")
	p.writes("alice")
	t.Logf("measured: %d writes acknowledged before alice was back, %d in all, none lost", n, l.keeps("alice", p))
	l.splitBrain(p)
}

// splitBrain is what an operator's hand can make: bob's copy is written to behind the cluster's back while it is cut off, with
// DRBD's fencing taken away. It is shown when the two meet, and ended by a word, on both.
func (l *vmLab) splitBrain(p *prober) {
	l.tell("cut", "alice", "repl")
	l.stale("bob's copy is stale", true)
	p.writes("alice")
	l.sh("bob", "sed -i 's,fencing resource-and-stonith,fencing dont-care,' /etc/drbd.d/r0.res; drbdadm adjust r0")
	l.await("bob's copy is written to", func() bool { // the daemon there undoes it as soon as it sees it
		_, code := l.run("bob", "sh", "-c", "drbdadm primary r0 && head -c 4096 /dev/urandom | dd of=/dev/drbd0 bs=4096 seek=1000 oflag=direct status=none; s=$?; drbdadm secondary r0; exit $s")
		return code == 0
	})
	l.put("bob", "/etc/drbd.d/r0.res", l.resource(), 0o644)
	l.tell("heal", "alice", "repl")
	l.await("alice sees the split brain", func() bool {
		s := l.status("alice")
		if s == nil {
			return false
		}
		p := s.testProblem("drbd-apart")
		return p != nil && strings.Contains(p.What, "split brain") && p.Command == "hactl drbd resolve r0 --keep alice"
	})
	if out, code := l.run("bob", "hactl", "drbd", "resolve", "r0", "--keep", "bob", "--yes"); code == 0 || !strings.Contains(out, "alice owns web") {
		l.t.Errorf("the copy that is in use is given up: exit status %d, %s", code, out)
	}
	began := time.Now()
	l.must("bob", "hactl", "drbd", "resolve", "r0", "--keep", "alice", "--yes")
	l.must("bob", "drbdadm", "adjust", "r0")
	l.copied("bob has alice's data")
	for _, host := range []string{"alice", "bob"} {
		l.await("nothing of it is left on "+host, func() bool {
			s := l.status(host)
			return s != nil && s.testProblem("drbd-apart") == nil
		})
	}
	p.writes("alice")
	l.t.Logf("measured: a split brain is over %s after the word", ms(time.Since(began)))
	l.keeps("alice", p)
}

// backUp takes a copy on the standby while alice is written to. What was acknowledged before it began is in it, and nothing is
// left of it, also when the command fails.
func (l *vmLab) backUp(p *prober) {
	l.t.Helper()
	before := strings.Fields(l.must("alice", "cat", "/var/www/log"))
	began := time.Now()
	has := l.must("bob", "hactl", "backup", "web", "--", "cat", "var/www/log")
	l.t.Logf("measured: a backup beside the owner took %s", ms(time.Since(began)))
	for _, token := range before {
		if !strings.Contains(has, token) {
			l.t.Errorf("the backup lacks %s, written before", token)
		}
	}
	if out, code := l.run("alice", "hactl", "backup", "web", "--", "true"); code != 1 || !strings.Contains(out, "--on-owner") {
		l.t.Errorf("on the owner: exit status %d, %s", code, out)
	}
	if out, code := l.run("bob", "hactl", "backup", "web", "--size", "1G", "--", "true"); code != 1 || !strings.Contains(out, "volume group vg has") {
		l.t.Errorf("more room than there is: exit status %d, %s", code, out)
	}
	if out, code := l.run("bob", "hactl", "backup", "web", "--", "false"); code != 1 {
		l.t.Errorf("a command that fails: exit status %d, %s", code, out)
	}
	l.must("bob", "sh", "-c", "hactl backup web --image /root/r0.img && cmp -n 1024 /root/r0.img /dev/vg/r0 && rm /root/r0.img")
	if left := l.must("bob", "sh", "-c", "lvs --noheadings -o lv_name; ls -A /run/ha/backup 2>/dev/null; grep backup /proc/mounts || true"); strings.TrimSpace(left) != "r0" {
		l.t.Errorf("left behind: %q", left)
	}
	p.writes("alice")
}

// goesOnAlone cuts the replication alone. Alice writes on as soon as it is recorded that bob has less than she, and nothing
// starts on bob before he has it all: also when his daemon is asked to, and when the daemon of alice, not her handler, has to
// thaw what is frozen.
func (l *vmLab) goesOnAlone(p *prober) {
	for _, daemon := range []bool{true, false} {
		if !daemon {
			l.sh("alice", `sed -i 's,fence-peer "[^"]*",fence-peer "/bin/false",' /etc/drbd.d/r0.res`)
		}
		began := time.Now()
		l.tell("cut", "alice", "repl")
		l.stale("bob's copy is stale", true)
		p.writes("alice")
		l.t.Logf("measured: replication cut (asked by the handler: %v): written on alice alone after %s", daemon, ms(time.Since(began)))
		if out, code := l.run("bob", "hactl", "move", "web", "bob"); code == 0 || !strings.Contains(out, "stale") {
			l.t.Errorf("a move to stale data: exit status %d, %s", code, out)
		}
		l.tell("heal", "alice", "repl")
		l.copied("bob has all of it again")
	}
	l.put("alice", "/etc/drbd.d/r0.res", l.resource(), 0o644)
	l.sh("alice", "sync") // her power goes next
	l.keeps("alice", p)
}

// guarded waits until that owner says that DRBD guards its data, and demands that it says so to who asks it.
func (l *vmLab) guarded(host string) {
	l.t.Helper()
	l.await("DRBD guards what runs on "+host, func() bool {
		s := l.status("carol")
		return s != nil && slices.ContainsFunc(s.Nodes, func(n NodeStatus) bool {
			return n.Name == host && n.Enforce != nil && slices.Contains(n.Enforce.Guarded, "r0")
		})
	})
	if out, _ := l.run(host, "hactl", "check"); !strings.Contains(strings.Join(strings.Fields(out), " "), "freezes what loses its peer until that is recorded, so web is taken over") {
		l.t.Errorf("hactl check on %s: %s", host, out)
	}
}

// makeDRBD makes the resource on two new disks, which need no sync, and a file system on it; then it is down: the cluster
// brings it up.
func (l *vmLab) makeDRBD() {
	l.t.Helper()
	for _, host := range []string{"alice", "bob"} {
		l.put(host, "/etc/drbd.d/r0.res", l.resource(), 0o644)
		l.sh(host, "vgcreate -q vg /dev/vdb && lvcreate -q -n r0 -L 180M vg && drbdadm create-md --force r0 && drbdadm up r0")
	}
	l.await("DRBD is connected", func() bool {
		out, _ := l.run("alice", "drbdadm", "cstate", "r0")
		return strings.TrimSpace(out) == "Connected"
	})
	l.sh("alice", `drbdadm -- --clear-bitmap new-current-uuid r0/0
drbdadm primary r0
mkfs.ext4 -q /dev/drbd0
mount /dev/drbd0 /data
mkdir /data/html
install -o www-data -m 644 /dev/null /data/log
umount /data
drbdadm secondary r0`)
	for _, host := range []string{"alice", "bob"} {
		l.must(host, "drbdadm", "down", "r0")
	}
}

func (l *vmLab) resource() string {
	return strings.ReplaceAll(vmDRBD, "HACTL", strings.TrimSpace(l.must("alice", "sh", "-c", "command -v hactl")))
}

// stale waits until the cluster has it on record, or no more, that a copy is stale.
func (l *vmLab) stale(what string, is bool) {
	l.t.Helper()
	l.await(what, func() bool {
		s := l.status("carol")
		return s != nil && (s.testProblem(eventStale) != nil) == is
	})
}

// copied waits until both disks have all data, and the cluster knows that: it has brought DRBD up on both.
func (l *vmLab) copied(what string) {
	l.t.Helper()
	l.await(what, func() bool {
		out, code := l.run("bob", "drbdadm", "dstate", "r0")
		return code == 0 && strings.TrimSpace(out) == "UpToDate/UpToDate"
	})
	l.stale(what, false)
}

// visitor is a client at the switch.
func (l *vmLab) visitor(page string) *prober {
	l.t.Helper()
	return l.probeFrom(strings.TrimSuffix(systemdSite, "/")+page, l.atSwitch()...)
}

// writes waits for a write that is asked for from now on and acknowledged by that host.
func (p *prober) writes(host string) {
	p.c.t.Helper()
	p.answered(host, func(who string) bool { return strings.HasPrefix(who, host+" ") })
}

// keeps demands that the host has each write that the client was told is done, and counts them.
func (l *vmLab) keeps(host string, p *prober) (n int) {
	l.t.Helper()
	p.mu.Lock() // first: what is acknowledged from now on may not be in what is read
	seen := append([]probed(nil), p.seen...)
	p.mu.Unlock()
	has := map[string]bool{}
	for _, token := range strings.Fields(l.must(host, "cat", "/var/www/log")) {
		has[token] = true
	}
	for _, x := range seen {
		if x.Err != "" {
			continue
		}
		n++
		if _, token, ok := strings.Cut(x.Who, " "); !ok || !has[token] {
			l.t.Errorf("lost on %s: a write that was acknowledged: %q", host, x.Who)
		}
	}
	if n == 0 {
		l.t.Error("nothing was written")
	}
	return n
}
