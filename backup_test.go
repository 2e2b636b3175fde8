// Is a backup whole or refused, and is nothing left of it? LVM and mount are scripted here; the machines have real ones.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeLVM has one volume group with the disks of two DRBD volumes.
type fakeLVM struct {
	snapshots []string
	mounted   []string
	calls     []string
	fails     string // a command that begins so does
	attr      string // of a snapshot: 5th letter I when it was full
}

func (f *fakeLVM) run(_ context.Context, name string, args ...string) (string, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	f.calls = append(f.calls, line)
	if f.fails != "" && strings.HasPrefix(line, f.fails) {
		return "", errors.New("it does not work")
	}
	last := args[len(args)-1]
	switch {
	case strings.HasPrefix(line, "lvs") && strings.Contains(line, "--select"):
		_, want, _ := strings.Cut(args[slices.Index(args, "--select")+1], "=")
		if slices.Contains(f.snapshots, "vg/"+want) {
			return "  " + want + "\n", nil
		}
		return "", nil
	case strings.HasPrefix(line, "lvs") && strings.Contains(line, "snap_percent"):
		return "  " + f.attr + "|12.50\n", nil
	case strings.HasPrefix(line, "lvs"):
		return fmt.Sprintf("  vg|%s|104857600|41943040|owi-aos---\n", filepath.Base(last)), nil
	case name == "lvcreate":
		f.snapshots = append(f.snapshots, "vg/"+args[slices.Index(args, "--name")+1])
	case name == "lvremove":
		f.snapshots = slices.DeleteFunc(f.snapshots, func(s string) bool { return s == last })
	case name == "mount":
		f.mounted = append(f.mounted, last)
	case name == "umount":
		f.mounted = slices.DeleteFunc(f.mounted, func(s string) bool { return s == last })
	case name == "mountpoint":
		if !slices.Contains(f.mounted, last) {
			return "", errors.New("it is none")
		}
	default:
		return "", fmt.Errorf("not scripted: %s", line)
	}
	return "", nil
}

func testBackup(t *testing.T, f *fakeLVM) *backupRun {
	fs := &ResourceConfig{Type: "filesystem", Device: "/dev/drbd0", Directory: "/var/www", FSType: "xfs"}
	return &backupRun{run: f.run, say: t.Logf, backupPlan: &backupPlan{group: "web", root: filepath.Join(t.TempDir(), "web"), fraction: 0.2,
		disks: []backupDisk{{resource: "r0", path: "/dev/vg/r0", vg: "vg", lv: "r0", bytes: 100 << 20, free: 40 << 20, fs: fs},
			{resource: "r0", volume: 1, minor: 1, path: "/dev/vg/r1", vg: "vg", lv: "r1", bytes: 10 << 20, free: 40 << 20}}}}
}

func TestBackupLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name, fails, attr string
		left              []string // of a backup that was killed
		use               error
		wrong             string // "": it is good
		used              bool
	}{
		{name: "all goes well", used: true},
		{name: "after one that was killed", left: []string{"vg/hactl-backup-web-r0-0"}, used: true},
		{name: "the command fails", use: errors.New("tar: no"), wrong: "tar: no", used: true},
		{name: "the second snapshot cannot be made", fails: "lvcreate --snapshot --name hactl-backup-web-r0-1", wrong: "make a snapshot of /dev/vg/r1"},
		{name: "it cannot be mounted", fails: "mount -t", wrong: "mount the snapshot"},
		{name: "it was full", attr: "swi-I-s---", wrong: "not good", used: true},
		{name: "whether it was full cannot be seen", attr: "?", wrong: "read lvs", used: true},
	} {
		f := &fakeLVM{fails: c.fails, attr: "swi-aos---", snapshots: c.left}
		if c.attr != "" {
			f.attr = c.attr
		}
		b := testBackup(t, f)
		used := false
		err := b.take(t.Context(), true, func(context.Context) error {
			used = true
			if want := []string{filepath.Join(b.root, "var/www")}; !slices.Equal(f.mounted, want) || len(f.snapshots) != 2 {
				t.Errorf("%s: mounted %v of %v", c.name, f.mounted, f.snapshots)
			}
			return c.use
		})
		if used != c.used || (c.wrong == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: used %v, %v", c.name, used, err)
		}
		if len(f.snapshots)+len(f.mounted) > 0 {
			t.Errorf("%s: left behind: %v %v", c.name, f.snapshots, f.mounted)
		}
		if line := "lvcreate --snapshot --name hactl-backup-web-r0-0 --size 20971520b vg/r0"; !slices.Contains(f.calls, line) {
			t.Errorf("%s: not called: %s; but %q", c.name, line, f.calls)
		}
		if line := "mount -t xfs -o ro,nouuid /dev/vg/hactl-backup-web-r0-0 " + filepath.Join(b.root, "var/www"); c.used && !slices.Contains(f.calls, line) {
			t.Errorf("%s: not called: %s", c.name, line)
		}
	}
	// What cannot be let go is said, after an interrupt too.
	f := &fakeLVM{attr: "swi-aos---"}
	ctx, cancel := context.WithCancel(t.Context())
	err := testBackup(t, f).take(ctx, true, func(ctx context.Context) error {
		f.fails = "umount"
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "cannot be removed, and fills up") || len(f.snapshots) == 0 {
		t.Errorf("umount fails: %v, %v", err, f.snapshots)
	}
}

func TestBackupNeedsRoom(t *testing.T) {
	b := testBackup(t, &fakeLVM{})
	if err := b.checkRoom(); err != nil {
		t.Errorf("20 MiB and 16 MiB of 40: %v", err)
	}
	b.size = 21 << 20
	if err := b.checkRoom(); err == nil || !strings.Contains(err.Error(), "vg has 40 MiB free, and the snapshot is to have 42 MiB") {
		t.Errorf("twice 21 MiB of 40: %v", err)
	}
	b.disks[0].thin = true
	if err := b.checkRoom(); err != nil {
		t.Errorf("one of them is thin: %v", err)
	}
}

func TestBackupOnlyOfAWholeCopy(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Replica)
		onOwner bool
		wrong   string
	}{
		{"a standby", func(*Replica) {}, false, ""},
		{"the owner", func(r *Replica) { r.Role = "Primary" }, false, "is written to here"},
		{"the owner, all the same", func(r *Replica) { r.Role = "Primary" }, true, ""},
		{"the owner, alone", func(r *Replica) { r.Role, r.Peers[0].Connection = "Primary", "Connecting" }, true, ""},
		{"out of touch", func(r *Replica) { r.Peers[0].Connection = "Connecting" }, false, "may be old"},
		{"in a resync", func(r *Replica) { r.Volumes[0].Disk = "Inconsistent" }, false, "not complete"},
	} {
		r := &Replica{Resource: "r0", Role: string(drbdSecondary), Volumes: []ReplicaDisk{{0, "UpToDate"}}, Peers: []ReplicaPeer{{Connection: "Connected"}}}
		c.change(r)
		if err := mayBackUp("web", []*Replica{r}, c.onOwner); (c.wrong == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := mayBackUp("web", nil, false); err == nil || !strings.Contains(err.Error(), "has no drbd") {
		t.Errorf("without DRBD: %v", err)
	}
}

func TestBackingDisks(t *testing.T) {
	options, err := parseDRBDShow(captured(t, "guarded/a", "drbdsetup-show-defaults"))
	if err != nil {
		t.Fatal(err)
	}
	if got := backingDisks(options); len(got) != 1 || got[0] != "/dev/vdb" {
		t.Errorf("%v", got)
	}
	g := &GroupConfig{Resources: []ResourceConfig{{Type: "filesystem", Name: "a", Device: "/dev/drbd1"}, {Type: "filesystem", Name: "b", Device: "/dev/drbd/by-res/r0/0"}}}
	if a, b, none := g.mountedOn(1, "r9"), g.mountedOn(0, "r0"), g.mountedOn(7, "r9"); a == nil || a.Name != "a" || b == nil || b.Name != "b" || none != nil {
		t.Errorf("%v %v %v", a, b, none)
	}
}

func TestCopyImage(t *testing.T) {
	disk := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	var out bytes.Buffer
	var said []string
	if err := copyImage(t.Context(), bytes.NewReader(disk), &out, uint64(len(disk)), func(done uint64) { said = append(said, byteText(done)) }); err != nil || !bytes.Equal(out.Bytes(), disk) {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
	if len(said) == 0 || said[len(said)-1] != "3.1 MiB" {
		t.Errorf("said %v", said)
	}
	if err := copyImage(t.Context(), bytes.NewReader(disk[:100]), &out, uint64(len(disk)), func(uint64) {}); err == nil {
		t.Error("a disk that ends early is good")
	}
}

func TestParseRoom(t *testing.T) {
	for text, want := range map[string]string{"20%": "0.2 0", "100%": "1 0", "0.5%": "0.005 0", "512M": "0 536870912", "2G": "0 2147483648",
		"": "no", "0%": "no", "101%": "no", "NaN%": "no", "12": "no", "0G": "no", "-1G": "no", "1P": "no"} {
		f, n, err := parseRoom(text)
		if got := fmt.Sprint(f, n); err == nil && got != want || err != nil && want != "no" {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
