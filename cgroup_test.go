// The control group is found in every layout of mounts, and what is in it ends as one.

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFindCgroupMount(t *testing.T) {
	tests := []struct {
		name, mountinfo string
		want            cgroupHierarchy
		path, dir       string // where a group is then seen
	}{
		{name: "unified", mountinfo: "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			want: cgroupHierarchy{"/sys/fs/cgroup", "/"}, path: "/system.slice/ha.service", dir: "/sys/fs/cgroup/system.slice/ha.service"},
		{name: "hybrid", mountinfo: "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			want: cgroupHierarchy{"/sys/fs/cgroup/unified", "/"}, path: "/a", dir: "/sys/fs/cgroup/unified/a"},
		{name: "a part of the hierarchy", mountinfo: "29 23 0:26 /docker/4711 /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
			want: cgroupHierarchy{"/sys/fs/cgroup", "/docker/4711"}, path: "/docker/4711/x", dir: "/sys/fs/cgroup/x"},
		{name: "escaped", mountinfo: `29 23 0:26 / /mnt/my\040groups rw - cgroup2 none rw` + "\n",
			want: cgroupHierarchy{"/mnt/my groups", "/"}, path: "/", dir: "/mnt/my groups"},
		{name: "read-only is passed over", mountinfo: "29 23 0:26 / /ro ro,nosuid - cgroup2 cgroup rw\n30 23 0:26 / /rw rw - cgroup2 cgroup rw\n",
			want: cgroupHierarchy{"/rw", "/"}, path: "/a", dir: "/rw/a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := findCgroupMount(strings.NewReader(test.mountinfo))
			if !ok || got != test.want {
				t.Fatalf("found %v %+v, want %+v", ok, got, test.want)
			}
			if dir := got.at(test.path).dir; dir != test.dir {
				t.Errorf("%s is seen at %s, want %s", test.path, dir, test.dir)
			}
		})
	}
	for _, none := range []string{"", "\n", "garbage", "29 23 - cgroup2 x rw\n", "29 23 0:26 / /a rw - cgroup cgroup2 rw\n"} {
		if got, ok := findCgroupMount(strings.NewReader(none)); ok {
			t.Errorf("%q: found %+v", none, got)
		}
	}
}

func FuzzFindCgroupMount(f *testing.F) {
	f.Add("41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw\n")
	f.Fuzz(func(t *testing.T, s string) {
		if h, ok := findCgroupMount(strings.NewReader(s)); ok && !strings.Contains(s, " - cgroup2 ") {
			t.Errorf("found %+v in %q", h, s)
		}
	})
}

// killEach is the way of kernels without cgroup.kill, and has to end the same.
func TestCgroupKill(t *testing.T) {
	needCgroups(t)
	for name, kill := range map[string]func(*cgroup) error{"kill": (*cgroup).kill, "each": (*cgroup).killEach} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			env := testEnv(t)
			s := newService(env, "app")
			if err := s.start([]string{"/bin/sh", "-c", `setsid sh -c 'echo $$ > $D/child; sleep 1000' & sleep 1000`}, append(childEnv(), "D="+dir)); err != nil {
				t.Fatal(err)
			}
			child := pidIn(t, filepath.Join(dir, "child"))
			endLater(t, child)
			run, _ := s.current()
			if run.family.group.empty() {
				t.Error("the group is empty while they live")
			}
			if err := kill(run.family.group); err != nil {
				t.Fatal(err)
			}
			until(t, "all to be gone", func() bool { return run.family.ended() && !lives(child) })
			if left := run.family.members(); len(left) > 0 {
				t.Errorf("the group is empty, and in it is %s", describe(left))
			}
			if err := s.stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := unix.Access(run.family.group.dir, unix.F_OK); err != unix.ENOENT {
				t.Errorf("the group is still there: %v", err)
			}
			if err := run.family.group.kill(); err != nil {
				t.Errorf("killing a group that is gone: %v", err)
			}
		})
	}
}

// A state file that was tampered with must not lead to a group that hactl did not make.
func TestOpenCgroupTakesOnlyItsOwn(t *testing.T) {
	needCgroups(t)
	for _, path := range []string{"/", "", "/system.slice", "/../x", "/" + cgroupPrefix + "never-made"} {
		if g := openCgroup(path); g != nil {
			t.Errorf("openCgroup(%q) = %+v", path, g)
		}
	}
}

func TestRunFileName(t *testing.T) {
	seen := map[string]string{}
	for _, pair := range [][2]string{{"a", "b"}, {"a.b", "c"}, {"a", "b.c"}, {"a/b", "c"}, {"a", "b/c"}, {"a%2Eb", "c"}, {"..", ".."}} {
		name := runFileName(pair[0]) + "." + runFileName(pair[1])
		if other, ok := seen[name]; ok || strings.Contains(name, "/") {
			t.Errorf("%q and %s share the name %s", pair, other, name)
		}
		seen[name] = strings.Join(pair[:], " ")
	}
}
