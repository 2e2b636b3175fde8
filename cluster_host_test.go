// What is a host in the integration tests? Namespaces of its own for network, processes, mounts and name, with a boot id
// of its own, a folder that all hosts see under the same path, and a first process that collects orphans. Pulling its
// plug kills that first process, and with it everything on the host at one moment.

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"crypto/rand"

	"golang.org/x/sys/unix"
)

type clusterHost struct {
	c      *cluster
	name   string
	number int
	net    *testHost
	on     bool
	init   *exec.Cmd
	alive  io.Closer // closed: the first process ends
	daemon *exec.Cmd
	ended  chan struct{} // closed when the daemon has ended
	cgroup string
	bound  string // what is mounted over the boot id
}

func (c *cluster) addHost(name string, number int) {
	c.t.Helper()
	h := &clusterHost{c: c, name: name, number: number}
	c.hosts = append(c.hosts, h)
	for _, d := range []string{"", "run", "web", "web/html"} {
		c.must(os.MkdirAll(h.path(d), 0o755))
	}
	c.must(os.Mkdir(h.path("state"), 0o700))
	h.write("ha.toml", c.config)
	h.write("web/html/index.html", name+"\n")
	h.write("web/apache2.conf", apacheConfig(c.here, name, true))
}

// path is a file of the host, as the test sees it.
func (h *clusterHost) path(name string) string { return filepath.Join(h.c.base, h.name, name) }

// write makes a file in the way of a good editor.
func (h *clusterHost) write(name, text string) {
	h.c.t.Helper()
	h.c.must(os.WriteFile(h.path(name)+".new", []byte(text), 0o644))
	h.c.must(os.Rename(h.path(name)+".new", h.path(name)))
}

func (h *clusterHost) read(name string) string {
	h.c.t.Helper()
	b, err := os.ReadFile(h.path(name))
	h.c.must(err)
	return string(b)
}

// apacheConfig is a whole configuration of apache2, small enough for many hosts on one machine.
func apacheConfig(here, name string, status bool) string {
	text := `
ServerRoot "HERE/web"
ServerName NAME
PidFile "HERE/run/apache2.pid"
DefaultRuntimeDir "HERE/run"
ErrorLog "HERE/web/error.log"
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_host_module /usr/lib/apache2/modules/mod_authz_host.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule status_module /usr/lib/apache2/modules/mod_status.so
User www-data
Group www-data
Listen 80
StartServers 1
ThreadsPerChild 16
MaxRequestWorkers 16
MinSpareThreads 4
MaxSpareThreads 16
GracefulShutdownTimeout 2
DocumentRoot "HERE/web/html"
DirectoryIndex index.html
<Directory "HERE/web/html">
  Require all granted
</Directory>
`
	if status {
		text += "<Location /server-status>\n  SetHandler server-status\n  Require local\n</Location>\n"
	}
	return strings.NewReplacer("HERE", here, "NAME", name).Replace(text)
}

// powerOn boots the host and starts its daemon.
func (h *clusterHost) powerOn() {
	h.c.t.Helper()
	h.boot()
	h.startDaemon()
}

// boot makes the host's namespaces with an empty run folder and a new boot id.
func (h *clusterHost) boot() {
	t := h.c.t
	t.Helper()
	if h.on {
		t.Fatalf("%s is on", h.name)
	}
	h.c.must(os.RemoveAll(h.path("run")))
	h.c.must(os.Mkdir(h.path("run"), 0o755))
	h.write("boot_id", bootID()+"\n")
	h.net = newTestHost(t, h.name)
	h.c.wire(h)
	h.cgroup = makeHostCgroup(filepath.Base(h.c.base) + "-" + h.name)

	h.init = exec.Command("/proc/self/exe", h.path(""), h.c.here, h.name, h.cgroup)
	h.init.Args[0] = hostInitCommand
	h.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	h.init.Stderr = os.Stderr
	in, err := h.init.StdinPipe()
	h.c.must(err)
	out, err := h.init.StdoutPipe()
	h.c.must(err)
	h.c.must(h.net.do(h.init.Start))
	h.alive, h.on = in, true
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%s does not boot: %q, %v", h.name, line, err)
	}
	h.c.guard.watch(h)
}

func bootID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// powerOff pulls the plug. The switch drops the host's frames first: what dying processes say must not get out.
func (h *clusterHost) powerOff() {
	h.c.t.Helper()
	h.c.guard.forget(h)
	h.c.unplug(h)
	h.alive.Close()
	_ = h.init.Process.Kill() // it may have ended already
	_ = h.init.Wait()         // killed: an error is what is expected
	if h.daemon != nil {
		<-h.ended
		h.daemon = nil
	}
	removeHostCgroup(h.cgroup)
	h.on = false
}

// startDaemon runs hactl on the host.
func (h *clusterHost) startDaemon(args ...string) {
	h.c.t.Helper()
	if h.runs() {
		h.c.t.Fatalf("the daemon of %s runs", h.name)
	}
	log, err := os.OpenFile(h.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	h.c.must(err)
	defer log.Close()
	at := h.c.here
	cmd := exec.Command(h.c.binary, append([]string{"daemon", "--config", at + "/ha.toml", "--state-dir", at + "/state", "--run-dir", at + "/run",
		"--log-format", "text"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	h.c.must(h.enter(cmd))
	ended := make(chan struct{})
	h.daemon, h.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(ended)
	}()
}

// runs tells whether the daemon does.
func (h *clusterHost) runs() bool {
	if h.daemon == nil {
		return false
	}
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// signal sends the daemon a signal; SIGKILL and SIGTERM are waited for.
func (h *clusterHost) signal(s syscall.Signal) {
	h.c.t.Helper()
	h.c.must(h.daemon.Process.Signal(s))
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		select {
		case <-h.ended:
		case <-time.After(clusterPatience):
			h.c.t.Fatalf("the daemon of %s does not end", h.name)
		}
	}
}

// enter starts a command on the host.
func (h *clusterHost) enter(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	onThreadOfItsOwn(func() {
		started <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil { // or the mounts could not be changed for one thread
				return fmt.Errorf("unshare: %w", err)
			}
			for _, ns := range []string{"net", "pid", "uts", "ipc", "mnt"} {
				fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", h.init.Process.Pid, ns), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return fmt.Errorf("open namespace %s of %s: %w", ns, h.name, err)
				}
				defer unix.Close(fd)
				if err := unix.Setns(fd, 0); err != nil {
					return fmt.Errorf("enter namespace %s of %s: %w", ns, h.name, err)
				}
			}
			return cmd.Start()
		}()
	})
	return <-started
}

// onThreadOfItsOwn runs f on a thread that ends with it. The first thread of a process is never taken: it stands for
// the process in /proc.
func onThreadOfItsOwn(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done := make(chan struct{})
			onThreadOfItsOwn(func() { f(); close(done) })
			<-done
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
}

// run runs a command on the host to its end.
func (h *clusterHost) run(name string, args ...string) (stdout, stderr string, code int) {
	h.c.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	h.c.must(h.enter(cmd))
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.c.t.Fatalf("%s on %s: %v", name, h.name, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// mustRun runs a command that must succeed.
func (h *clusterHost) mustRun(name string, args ...string) string {
	h.c.t.Helper()
	out, errs, code := h.run(name, args...)
	if code != 0 {
		h.c.t.Fatalf("%s %v on %s: exit status %d\n%s%s", name, args, h.name, code, out, errs)
	}
	return out
}

// ctl is hactl as the host's operator types it.
func (h *clusterHost) ctl(args ...string) (stdout, stderr string, code int) {
	h.c.t.Helper()
	return h.run(h.c.binary, append(args, "--socket", h.c.here+"/run/ha.sock", "--config", h.c.here+"/ha.toml")...)
}

func (h *clusterHost) mustCtl(args ...string) string {
	h.c.t.Helper()
	out, errs, code := h.ctl(args...)
	if code != 0 {
		h.c.t.Fatalf("hactl %s on %s: exit status %d\n%s%s", strings.Join(args, " "), h.name, code, out, errs)
	}
	return out
}

// refused runs a command that must be refused, in words that contain these.
func (h *clusterHost) refused(words string, args ...string) {
	h.c.t.Helper()
	out, errs, code := h.ctl(args...)
	if code == 0 || !strings.Contains(errs, words) {
		h.c.t.Fatalf("hactl %s on %s: exit status %d, want a refusal that says %q\n%s%s", strings.Join(args, " "), h.name, code, words, out, errs)
	}
}

// client speaks to the daemon without starting a program for it.
func (h *clusterHost) client() *client { return clientAt(h.path("run/ha.sock")) }

// log is what the daemons of this host have said.
func (h *clusterHost) log() string {
	b, err := os.ReadFile(h.path("log"))
	if err != nil {
		return ""
	}
	return string(b)
}

func (h *clusterHost) logTail(n int) string {
	lines := strings.Split(strings.TrimSpace(h.log()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// waitLog waits until the daemon has said something.
func (h *clusterHost) waitLog(words string) {
	h.c.t.Helper()
	h.c.wait(fmt.Sprintf("%s logs %q", h.name, words), func() bool { return strings.Contains(h.log(), words) })
}

// apache is the main process of the web server, 0 when none runs.
func (h *clusterHost) apache() int {
	for _, s := range processes() {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", s.PID))
		mine, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.init.Process.Pid))
		if err != nil || err2 != nil || theirs != mine || !strings.HasSuffix(exeOf(s.PID), "/apache2") {
			continue
		}
		if !strings.HasSuffix(exeOf(s.Parent), "/apache2") {
			return s.PID
		}
	}
	return 0
}

// A daemon makes control groups below its own. So that none is left behind, each host gets one to itself.
func makeHostCgroup(name string) string {
	root, err := cgroupRoot()
	if err != nil {
		return ""
	}
	own, err := ownCgroup()
	if err != nil {
		return ""
	}
	g := root.at(filepath.Join(own, "hactl-test-"+name))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return "" // not allowed here; the daemons then do without too
	}
	return g.dir
}

func removeHostCgroup(dir string) {
	if dir == "" {
		return
	}
	remove := func() bool {
		list, err := os.ReadDir(dir)
		if err != nil {
			return true
		}
		for _, e := range list {
			if e.IsDir() {
				_ = unix.Rmdir(filepath.Join(dir, e.Name())) // tried again below
			}
		}
		return unix.Rmdir(dir) == nil
	}
	for end := time.Now().Add(5 * time.Second); !remove() && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		// the dead are taken off the group a moment after they are collected
	}
}

// hostInitCommand is the name under which the test program is a host's first process; see TestMain.
const hostInitCommand = "cluster-host"

// hostMain is a host's first process: it mounts what is the host's own, says so, and collects orphans until its input
// is closed, which also happens when the test program dies.
func hostMain() {
	folder, here, name, group := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	if group != "" {
		hostMust("join control group", os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0))
	}
	hostMust("make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	hostMust("mount /proc", unix.Mount("proc", "/proc", "proc", 0, ""))
	hostMust("bind the boot id", unix.Mount(filepath.Join(folder, "boot_id"), "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""))
	hostMust("bind the folder", unix.Mount(folder, here, "", unix.MS_BIND, ""))
	hostMust("name the host", unix.Sethostname([]byte(name)))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("ready")
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			time.Sleep(20 * time.Millisecond) // none now; the next becomes ours when its parent dies
		}
	}
}

func hostMust(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}
