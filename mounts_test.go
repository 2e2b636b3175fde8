package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mountinfoSample = `21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
22 21 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,mode=755
30 21 147:0 / /var/www rw,noatime shared:7 master:3 - ext4 /dev/drbd0 ro,data=ordered
31 30 147:0 /data /var/www/with\040space\134 rw - ext4 /dev/drbd0 rw
32 30 0:44 / /var/www rw propagate_from:2 unbindable - tmpfs none rw
33 32 0:45 / /var/www/deep rw - tmpfs none rw
`

func TestParseMountinfo(t *testing.T) {
	list, err := parseMountinfo(mountinfoSample)
	if err != nil {
		t.Fatal(err)
	}
	want := mountEntry{ID: 30, Parent: 21, Major: 147, Root: "/", Dir: "/var/www", Options: "rw,noatime", Shared: 7, Master: 3,
		FSType: "ext4", Source: "/dev/drbd0", Super: "ro,data=ordered"}
	if diff := cmp.Diff(want, list[2]); diff != "" {
		t.Error(diff)
	}
	if list[3].Dir != `/var/www/with space\` || list[3].Root != "/data" {
		t.Errorf("escapes: %q", list[3].Dir)
	}
	if !list[2].option("ro") || list[0].option("errors") {
		t.Error("options: ro of the file system counts, a part of a word does not")
	}
	if top := mountAt(list, "/var/www"); top == nil || top.ID != 32 {
		t.Errorf("topmost: %+v", top)
	}
	if top := mountAt([]mountEntry{list[4], list[2]}, "/var/www"); top == nil || top.ID != 32 {
		t.Errorf("topmost in another order: %+v", top)
	}
	if m := mountAt(list, "/srv"); m != nil {
		t.Errorf("nothing: %+v", m)
	}
	if diff := cmp.Diff([]string{"/var/www", "/var/www/deep", `/var/www/with space\`}, nestedMounts(list, &list[2])); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"21 1 8:1 / / rw - ext4 /dev/sda1\n", "x 1 8:1 / / rw - a b c\n", "1 x 8:1 / / rw - a b c\n", "1 1 8 / / rw - a b c\n", "1 1 8:x / / rw - a b c\n"} {
		if _, err := parseMountinfo(bad); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// The parser reads the table of the kernel that runs.
func TestReadMounts(t *testing.T) {
	list, err := readMounts("/proc", "self")
	if err != nil {
		t.Skipf("no mount table here: %v", err)
	}
	if mountAt(list, "/") == nil {
		t.Errorf("no root among %d mounts", len(list))
	}
}

// A table that goes in circles ends the search.
func TestBelowInACircle(t *testing.T) {
	list := []mountEntry{{ID: 1, Parent: 2, Dir: "/a"}, {ID: 2, Parent: 1, Dir: "/a"}, {ID: 3, Parent: 3, Dir: "/b"}}
	if below(list, &list[0], 9) || below(list, &list[2], 9) {
		t.Error("found what is not there")
	}
	if mountAt(list, "/a") == nil {
		t.Error("found nothing")
	}
}

func TestUdevEscape(t *testing.T) {
	for in, want := range map[string]string{"data": "data", "my disk": `my\x20disk`, "a/b": `a\x2fb`, "1-2_3.4": "1-2_3.4", "größe": "größe"} {
		if got := udevEscape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFdinfoMount(t *testing.T) {
	if id, ok := fdinfoMount("pos:\t0\nflags:\t02\nmnt_id:\t29\nino:\t5\n"); id != 29 || !ok {
		t.Errorf("%d, %v", id, ok)
	}
	for _, bad := range []string{"", "pos:\t0\n", "mnt_id:\tx\n"} {
		if _, ok := fdinfoMount(bad); ok {
			t.Errorf("%q is read", bad)
		}
	}
}

// Only a copy of the mount in another namespace counts, not another mount of the device.
func TestCopiesIn(t *testing.T) {
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	table := "90 1 147:0 / /copy rw master:7 - ext4 /dev/drbd0 rw\n91 1 147:0 / /peer rw shared:7 - ext4 /dev/drbd0 rw\n" +
		"92 1 147:0 / /own rw - ext4 /dev/drbd0 rw\n93 1 147:0 / /other rw shared:8 - ext4 /dev/drbd0 rw\n94 1 8:1 / /else rw master:7 - ext4 /dev/sda1 rw\n"
	if err := os.WriteFile(filepath.Join(proc, "7/mountinfo"), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &mountEntry{ID: 30, Major: 147, Shared: 7}
	if diff := cmp.Diff(map[int]bool{90: true, 91: true}, copiesIn(proc, 7, m)); diff != "" {
		t.Error(diff)
	}
	m.Shared = 0
	if got := copiesIn(proc, 7, m); len(got) != 0 {
		t.Errorf("a private mount has copies: %v", got)
	}
}

func TestKernelUsers(t *testing.T) {
	sys := t.TempDir()
	for name, file := range map[string]string{"loop3": "/var/www/images/a.img", "loop4": "/var/wwwother/b.img"} {
		dir := filepath.Join(sys, "block", name, "loop")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "backing_file"), []byte(file+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := kernelUsers(sys, &mountEntry{Dir: "/var/www"})
	if diff := cmp.Diff([]string{"/dev/loop3 on /var/www/images/a.img (losetup -d /dev/loop3)"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(mountinfoSample)
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, in string) {
		list, err := parseMountinfo(in)
		if err != nil || len(list) > 64 {
			return
		}
		for i := range list {
			m := &list[i]
			top := mountAt(list, m.Dir)
			if top == nil || top.Dir != m.Dir {
				t.Errorf("nothing at %q, where there is a mount", m.Dir)
			}
			for _, dir := range nestedMounts(list, m) {
				if mountAt(list, dir) == nil {
					t.Errorf("nested mount %q is not in the table", dir)
				}
			}
		}
	})
}
