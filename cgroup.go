// How can everything that a program started be ended, whatever session or group it moved itself to? By a control
// group of its own under the daemon's (cgroup v2). Where none can be made, newCgroup says why, and process groups have
// to do. It never touches a group that it did not make, and mounts nothing.

package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// cgroup is one control group that holds the processes of one command or service.
type cgroup struct {
	path string // from the root of the hierarchy, as in /proc/PID/cgroup; what is kept across a daemon restart
	dir  string // where it is seen from here
}

const cgroupPrefix = "hactl-"

// leftCgroups are groups that still held a background process when their command was over.
var leftCgroups struct {
	sync.Mutex
	list []*cgroup
}

// leave takes the group away as soon as the last process in it has ended, which is looked at when the next one is made.
func (g *cgroup) leave() {
	leftCgroups.Lock()
	defer leftCgroups.Unlock()
	if g != nil {
		leftCgroups.list = append(leftCgroups.list, g)
	}
	leftCgroups.list = slices.DeleteFunc(leftCgroups.list, func(g *cgroup) bool { return g.remove() == nil })
}

// newCgroup makes an empty group. The name's random end keeps apart what several daemons of one host make.
func newCgroup(name string) (*cgroup, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	own, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	(*cgroup)(nil).leave()
	g := root.at(filepath.Join(own, cgroupPrefix+runFileName(name)+"-"+rand.Text()[:8]))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	return g, nil
}

// openCgroup finds a group that an earlier daemon made; nil when it is gone.
func openCgroup(path string) *cgroup {
	root, err := cgroupRoot()
	if err != nil || !strings.HasPrefix(filepath.Base(path), cgroupPrefix) {
		return nil
	}
	g := root.at(path)
	if _, err := os.Stat(g.dir); err != nil {
		return nil
	}
	return g
}

// pids are the processes in it; zombies are not among them.
func (g *cgroup) pids() []int {
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil // removed: empty
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 { // 0: in a pid namespace that is not visible here
			pids = append(pids, pid)
		}
	}
	return pids
}

// empty is whether all are gone, with what they held open: a process of several threads leaves the list of pids when the
// last of them begins to end, and its sockets are closed after that.
func (g *cgroup) empty() bool {
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	if err != nil {
		return len(g.pids()) == 0 // removed, or no such file
	}
	return !strings.Contains(string(b), "populated 1")
}

// kill sends SIGKILL to all of them at once, forks under way included.
func (g *cgroup) kill() error {
	err := os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill control group: %w", err)
	}
	return g.killEach() // Linux before 5.14, or the group itself is gone
}

// killEach kills one by one. A number that is still listed after its pidfd was opened names the process that the pidfd
// holds, so a number that was used again in between is never hit.
func (g *cgroup) killEach() error {
	var errs []error
	held := map[int]int{}
	for _, pid := range g.pids() {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			held[pid] = fd
		}
	}
	still := g.pids()
	for pid, fd := range held {
		if slices.Contains(still, pid) {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
				errs = append(errs, fmt.Errorf("kill process %d: %w", pid, err))
			}
		}
		unix.Close(fd)
	}
	return errors.Join(errs...)
}

// remove takes the empty group away; one that still holds processes stays.
func (g *cgroup) remove() error {
	err := unix.Rmdir(g.dir)
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// cgroupHierarchy is where the v2 hierarchy is mounted.
type cgroupHierarchy struct {
	mount string // directory
	root  string // the part of the hierarchy that is seen there
}

func (h cgroupHierarchy) at(path string) *cgroup {
	below := path
	if h.root != "/" {
		below = strings.TrimPrefix(path, h.root)
	}
	return &cgroup{path: path, dir: filepath.Join(h.mount, below)}
}

// cgroupRoot looks at the daemon's own mounts, then at those of process 1: a mount namespace made for a network
// namespace often lacks the hierarchy. Mounting it again would reset its options for the whole host.
var cgroupRoot = sync.OnceValues(func() (cgroupHierarchy, error) {
	for _, view := range []struct{ mountinfo, prefix string }{
		{"/proc/self/mountinfo", ""}, {"/proc/1/mountinfo", "/proc/1/root"},
	} {
		f, err := os.Open(view.mountinfo)
		if err != nil {
			continue
		}
		h, ok := findCgroupMount(f)
		f.Close()
		if ok {
			h.mount = view.prefix + h.mount
			return h, nil
		}
	}
	return cgroupHierarchy{}, errors.New("no cgroup v2 hierarchy is mounted")
})

// findCgroupMount reads a mountinfo file (proc(5)): id, parent, device, root, mount point, options, tags, "-", type.
func findCgroupMount(r io.Reader) (cgroupHierarchy, bool) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		f := strings.Fields(before)
		if !ok || len(f) < 6 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		if options := strings.Split(f[5], ","); !slices.Contains(options, "rw") {
			continue
		}
		return cgroupHierarchy{mount: unescapeMount(f[4]), root: unescapeMount(f[3])}, true
	}
	return cgroupHierarchy{}, false
}

// ownCgroup is the daemon's own group, under which it makes others.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			if strings.HasPrefix(path, "/..") {
				return "", fmt.Errorf("own control group %s is outside of this namespace", path)
			}
			return path, nil
		}
	}
	return "", errors.New("/proc/self/cgroup names no v2 group")
}

// runFileName makes one path element of a name, without dots, so that a dot can join two of them.
func runFileName(s string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F", ".", "%2E", "\x00", "%00").Replace(s)
}
