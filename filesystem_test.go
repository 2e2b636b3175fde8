package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const fsNamespaceMark = "HACTL_TEST_MOUNT_NAMESPACE"

// inMountNamespace runs the test that calls it once more, alone in a process with a mount namespace of its own, and
// says whether this is that process. Nothing that it mounts is seen by anybody else.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(fsNamespaceMark) == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatalf("make mounts private: %v", err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a loop device in a mount namespace of its own")
	}
	for _, tool := range []string{"mkfs.ext4", "losetup", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "10m")
	cmd.Env = append(os.Environ(), fsNamespaceMark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip("may not make a mount namespace here")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

// fsImage makes an ext4 on a loop device over a file of the test's own.
func fsImage(t *testing.T) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	out, err := exec.Command("losetup", "-f", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device to be had: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v: %s", device, err, out)
		}
	})
	return device
}

// fsUnder makes a file system resource on a new device, unmounted at the end of the test.
func fsUnder(t *testing.T, c ResourceConfig) *filesystem {
	t.Helper()
	if c.Device == "" {
		c.Device = fsImage(t)
	}
	if c.Directory == "" {
		c.Directory = filepath.Join(t.TempDir(), "a directory")
		if err := os.Mkdir(c.Directory, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.Name, c.Type = "filesystem", "filesystem"
	if c.FSType == "" {
		c.FSType = "ext4"
	}
	r, err := newFilesystem(c, resourceEnv{Group: "web", Log: slog.New(slog.NewTextHandler(fsTestLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for unix.Unmount(c.Directory, unix.MNT_DETACH) == nil {
		}
	})
	return r.(*filesystem)
}

type fsTestLog struct{ t *testing.T }

func (l fsTestLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func fsMustStart(t *testing.T, f *filesystem) {
	t.Helper()
	if err := f.Start(testContext(t, generous), startHint{}); err != nil {
		t.Fatalf("start: %v", err)
	}
}

func fsMonitor(t *testing.T, f *filesystem, want condition, text string) {
	t.Helper()
	got, err := f.Monitor(testContext(t, generous))
	if got != want || (err != nil) != (text != "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("monitor: %v, %v; want %v, %q", got, err, want, text)
	}
}

func fsWantError(t *testing.T, what string, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %v, want one with %q", what, err, text)
		}
	}
}

func TestFilesystemLife(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	for _, probe := range []string{"", "read", "write"} {
		f := fsUnder(t, ResourceConfig{Probe: probe})
		fsMonitor(t, f, conditionStopped, "")
		if err := f.Stop(testContext(t, generous)); err != nil {
			t.Errorf("stop of what is stopped: %v", err)
		}
		if err := f.Fit(testContext(t, generous)); err != nil {
			t.Errorf("fit: %v", err)
		}
		fsMustStart(t, f)
		fsMustStart(t, f) // adopts
		fsMonitor(t, f, conditionRunning, "")
		_, err := os.Stat(filepath.Join(f.dir, probeFile))
		if (err == nil) != (probe == "write") {
			t.Errorf("probe %q: file: %v", probe, err)
		}
		// The same under another name is adopted too: it is the device that counts.
		link := filepath.Join(t.TempDir(), "alias")
		if err := os.Symlink(f.c.Device, link); err != nil {
			t.Fatal(err)
		}
		fsMonitor(t, fsUnder(t, ResourceConfig{Device: link, Directory: f.dir + "/", Probe: probe}), conditionRunning, "")
		if err := f.Stop(testContext(t, generous)); err != nil {
			t.Errorf("stop: %v", err)
		}
		fsMonitor(t, f, conditionStopped, "")
	}
}

func TestFilesystemRefuses(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	ctx := testContext(t, generous)
	a := fsUnder(t, ResourceConfig{})
	fsMustStart(t, a)

	elsewhere := fsUnder(t, ResourceConfig{Device: a.c.Device})
	fsWantError(t, "mounted elsewhere", elsewhere.Start(ctx, startHint{}), a.dir, "umount")
	fsMonitor(t, elsewhere, conditionFailed, "is mounted on "+a.dir)
	fsWantError(t, "stop of what is mounted elsewhere", elsewhere.Stop(ctx), "still mounted on "+a.dir)

	taken := fsUnder(t, ResourceConfig{Directory: a.dir})
	fsWantError(t, "directory taken", taken.Start(ctx, startHint{}), "already holds another mount: "+a.c.Device)
	fsMonitor(t, taken, conditionStopped, "")

	none := fsUnder(t, ResourceConfig{Device: "/dev/drbd-that-is-not"})
	err := none.Start(ctx, startHint{})
	fsWantError(t, "no device", err, "does not exist", "drbdadm status")
	if !errors.Is(err, errHopeless) {
		t.Errorf("no device: %v is not hopeless", err)
	}
	if err := none.Fit(ctx); err != nil {
		t.Errorf("the device of DRBD comes later, and fit says %v", err)
	}
	fsMonitor(t, none, conditionStopped, "")
	fsWantError(t, "fit without device", fsUnder(t, ResourceConfig{Device: "UUID=not there"}).Fit(ctx), "UUID=not there does not exist")

	missing := fsUnder(t, ResourceConfig{Directory: filepath.Join(t.TempDir(), "not")})
	fsWantError(t, "no directory", missing.Start(ctx, startHint{}), "mkdir -p "+missing.dir)
	fsWantError(t, "fit without directory", missing.Fit(ctx), "mkdir -p "+missing.dir)
	fsWantError(t, "file system of another world", fsUnder(t, ResourceConfig{FSType: "ext47"}).Fit(ctx), "does not know the file system ext47")

	wrong := fsUnder(t, ResourceConfig{FSType: "xfs"})
	fsWantError(t, "wrong type", wrong.Start(ctx, startHint{}), "mount "+wrong.c.Device)
	fsMonitor(t, wrong, conditionStopped, "")

	claimed := fsUnder(t, ResourceConfig{})
	fd, err := unix.Open(claimed.c.Device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	fsWantError(t, "device in use", claimed.Start(ctx, startHint{}), "is in use by", fmt.Sprintf("(pid %d)", os.Getpid()))
	unix.Close(fd)
	fsMustStart(t, claimed)
}

func TestFilesystemReadOnly(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	f := fsUnder(t, ResourceConfig{})
	fsMustStart(t, f)
	noticed := make(chan string, 16)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); f.Watch(ctx, func(r string) { noticed <- r }) }()
	if out, err := exec.Command("mount", "-o", "remount,ro", f.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	fsMonitor(t, f, conditionFailed, "has become read-only")
	fsWantError(t, "start", f.Start(testContext(t, generous), startHint{}), "read-only: it must be stopped first")
	if err := f.Stop(testContext(t, generous)); err != nil {
		t.Errorf("stop: %v", err)
	}
	for reason := ""; !strings.Contains(reason, "not mounted any more"); {
		select {
		case reason = <-noticed:
			t.Log("noticed: ", reason)
		case <-time.After(generous):
			t.Fatal("the watcher did not notice that it is gone")
		}
	}
	cancel()
	<-ended

	ro := fsUnder(t, ResourceConfig{Device: f.c.Device, Directory: f.dir, Options: "noatime,ro"})
	fsMustStart(t, ro)
	fsMonitor(t, ro, conditionRunning, "")
}

// holder runs a program in the background until the end of the test.
func fsHolder(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait() })
	if _, err := out.Read(make([]byte, 16)); err != nil { // it says when it is where it should be
		t.Fatalf("%s: %v", cmd, err)
	}
	return cmd
}

func fsAlive(cmd *exec.Cmd) bool {
	var w unix.Siginfo
	err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &w, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && w.Signo == 0
}

func TestFilesystemStopEndsOnlyItsUsers(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	f, neighbour := fsUnder(t, ResourceConfig{}), fsUnder(t, ResourceConfig{})
	fsMustStart(t, f)
	fsMustStart(t, neighbour)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "program"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	sh := func(dir, script string, args ...string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
		cmd.Dir = dir
		return fsHolder(t, cmd)
	}
	users := map[string]*exec.Cmd{
		"works in it":        sh(f.dir, "echo; exec sleep 600"),
		"ignores SIGTERM":    sh(f.dir, `trap "" TERM; echo; exec sleep 600`),
		"has a file open":    sh("/", `exec 3>"$1/open"; echo; exec sleep 600`, f.dir),
		"runs a program":     sh("/", `echo; exec "$1/program" 600`, f.dir),
		"runs on another fd": sh("/", `exec 7<"$1"; echo; exec sleep 600`, f.dir),
	}
	others := map[string]*exec.Cmd{
		"works in the neighbour": sh(neighbour.dir, "echo; exec sleep 600"),
		"works above it":         sh(filepath.Dir(f.dir), "echo; exec sleep 600"),
		"only names it":          sh("/", "echo; exec sleep 600", f.dir),
	}
	m, err := f.read()
	if err != nil || m.ours == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	var found []mountUser
	for deadline := time.Now().Add(generous); len(found) != len(users); { // until each shell has become its program
		if found, err = mountUsers("/proc", m.ours); err != nil || time.Now().After(deadline) {
			t.Fatalf("users %v, %v", found, err)
		}
	}
	if err := f.Stop(testContext(t, generous)); err != nil {
		t.Fatalf("stop: %v", err)
	}
	fsMonitor(t, f, conditionStopped, "")
	for name, cmd := range users {
		if fsAlive(cmd) {
			t.Errorf("the process that %s lives", name)
		}
	}
	for name, cmd := range others {
		if !fsAlive(cmd) {
			t.Errorf("the process that %s was ended", name)
		}
	}
	fsMonitor(t, neighbour, conditionRunning, "")
}

// Another mount of the same device is another mount: who uses only that one is left alone. The stop then says that the
// device is still mounted there.
func TestFilesystemStopSparesUsersOfABind(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	f := fsUnder(t, ResourceConfig{})
	fsMustStart(t, f)
	bind := t.TempDir()
	if err := unix.Mount(f.dir, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(bind, unix.MNT_DETACH)
	cmd := exec.Command("/bin/sh", "-c", "echo; exec sleep 600")
	cmd.Dir = bind
	fsHolder(t, cmd)
	fsMonitor(t, f, conditionRunning, "")
	fsWantError(t, "stop", f.Stop(testContext(t, generous)), "still mounted on "+bind, "umount "+bind)
	if !fsAlive(cmd) {
		t.Error("a process on another mount of the device was ended")
	}
	fsMonitor(t, f, conditionFailed, "is mounted on "+bind)
}

// A service with a mount namespace of its own (PrivateTmp) keeps the propagated copy busy, and with it the mount.
func TestFilesystemStopEndsUsersOfACopy(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip(err)
	}
	f := fsUnder(t, ResourceConfig{})
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	fsMustStart(t, f)
	cmd := exec.Command("unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", `cd "$1" && echo && exec sleep 600`, "sh", f.dir)
	fsHolder(t, cmd)
	if err := f.Stop(testContext(t, generous)); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if fsAlive(cmd) {
		t.Error("the process in the other namespace lives, and so does its mount")
	}
}

// It ends neither itself nor what it cannot reach, and names who holds the mount when its time is over.
func TestFilesystemStopNamesHolders(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	f := fsUnder(t, ResourceConfig{})
	fsMustStart(t, f)
	file, err := os.Create(filepath.Join(f.dir, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	fsWantError(t, "stop", f.Stop(testContext(t, 300*time.Millisecond)), "still held by", fmt.Sprintf("(pid %d), which has open it", os.Getpid()))
	fsMonitor(t, f, conditionRunning, "")
	file.Close()

	inner := filepath.Join(f.dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", inner, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	fsWantError(t, "stop with a mount below", f.Stop(testContext(t, generous)), "umount "+inner)
	if err := unix.Unmount(inner, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", f.dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	fsMonitor(t, f, conditionFailed, "mounted over it")
	fsWantError(t, "stop of what is covered", f.Stop(testContext(t, generous)), "mounted over it")
	if err := unix.Unmount(f.dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Stop(testContext(t, generous)); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A frozen file system is a disk that does not answer: the probe's caller is not held up, one probe waits, and when the
// disk comes back so does the monitor.
func TestFilesystemProbeOfAStalledDisk(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	if _, err := exec.LookPath("fsfreeze"); err != nil {
		t.Skip(err)
	}
	f := fsUnder(t, ResourceConfig{Probe: "write"})
	fsMustStart(t, f)
	fsMonitor(t, f, conditionRunning, "")
	if out, err := exec.Command("fsfreeze", "-f", f.dir).CombinedOutput(); err != nil {
		t.Skipf("fsfreeze: %v: %s", err, out)
	}
	var first chan error
	for i := range 3 {
		c, err := f.Monitor(testContext(t, 200*time.Millisecond))
		if c != conditionFailed || err == nil || !strings.Contains(err.Error(), "no answer for") {
			t.Errorf("frozen: %v, %v", c, err)
		}
		if i == 0 {
			first = f.probes.pending
		} else if f.probes.pending != first {
			t.Error("a second probe was sent after one that has not come back")
		}
	}
	if out, err := exec.Command("fsfreeze", "-u", f.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	fsMonitor(t, f, conditionRunning, "")
	if err := f.Stop(testContext(t, generous)); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// The write probe follows no link that somebody with a right to write there has put in its place.
func TestFilesystemProbeFollowsNoLink(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	f := fsUnder(t, ResourceConfig{Probe: "write"})
	fsMustStart(t, f)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(f.dir, probeFile)); err != nil {
		t.Fatal(err)
	}
	fsMonitor(t, f, conditionFailed, "write probe")
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the probe wrote through a link: %q, %v", b, err)
	}
	if err := os.Remove(filepath.Join(f.dir, probeFile)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(f.dir, probeFile), 0o600); err != nil {
		t.Fatal(err)
	}
	fsMonitor(t, f, conditionFailed, "write probe")
}

// An image file mounted by mount itself, a directory bound to another, and a file system without a device.
func TestFilesystemOtherSources(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	image := filepath.Join(t.TempDir(), "image file")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	source := t.TempDir()
	for name, c := range map[string]ResourceConfig{
		"image": {Device: image, Options: "loop", Probe: "write"},
		"bind":  {Device: source, FSType: "none", Options: "bind", Probe: "read"},
		"tmpfs": {Device: "scratch", FSType: "tmpfs", Options: "size=1m", Probe: "write"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fsUnder(t, c)
			fsMonitor(t, f, conditionStopped, "")
			if err := f.Fit(testContext(t, generous)); err != nil {
				t.Errorf("fit: %v", err)
			}
			fsMustStart(t, f)
			fsMonitor(t, f, conditionRunning, "")
			if err := f.Stop(testContext(t, generous)); err != nil {
				t.Errorf("stop: %v", err)
			}
			fsMonitor(t, f, conditionStopped, "")
		})
	}
}

// umount2 that does not come back holds up nobody, and is not sent twice.
func TestUmountSlotDoesNotHang(t *testing.T) {
	var s umountSlot
	s.pending, s.dir = make(chan error, 1), "/srv" // one that is in the kernel
	err := s.run(testContext(t, 50*time.Millisecond), "/srv")
	fsWantError(t, "stuck", err, "does not come back from unmounting /srv")
	s.pending <- unix.EBUSY
	if err := s.run(testContext(t, generous), "/srv"); !errors.Is(err, unix.EBUSY) || s.pending != nil {
		t.Errorf("late answer: %v, pending %v", err, s.pending)
	}
}
