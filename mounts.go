// What is mounted where, and who uses it? Reads /proc/self/mountinfo and finds the processes that hold one very mount.
// It compares device numbers and mount ids, never names; it changes nothing and ends nobody.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	drbdMajor = 147 // Documentation/admin-guide/devices.txt
	loopMajor = 7
)

// mountEntry is one line of mountinfo; see proc_pid_mountinfo(5).
type mountEntry struct {
	ID, Parent   int
	Major, Minor uint32
	Root         string // of the mount within its file system; "/" unless it is a bind mount
	Dir          string
	Options      string // of this mount
	Shared       int    // peer group that it propagates to; 0: none
	Master       int    // peer group that it receives from; 0: none
	FSType       string
	Source       string
	Super        string // options of the file system
}

// parseMountinfo reads /proc/PID/mountinfo.
func parseMountinfo(text string) ([]mountEntry, error) {
	var list []mountEntry
	for n, line := range strings.Split(text, "\n") {
		if line == "" {
			continue
		}
		m, err := parseMountLine(line)
		if err != nil {
			return nil, fmt.Errorf("read mountinfo, line %d: %w", n+1, err)
		}
		list = append(list, m)
	}
	return list, nil
}

func parseMountLine(line string) (mountEntry, error) {
	var m mountEntry
	f := strings.Split(line, " ")
	dash := -1
	for i := 6; i < len(f); i++ {
		if f[i] == "-" {
			dash = i
			break
		}
	}
	if dash < 0 || len(f) < dash+4 {
		return m, fmt.Errorf("expected at least ten fields and a dash, got %.120q", line)
	}
	var err error
	if m.ID, err = strconv.Atoi(f[0]); err != nil {
		return m, fmt.Errorf("mount id: %w", err)
	}
	if m.Parent, err = strconv.Atoi(f[1]); err != nil {
		return m, fmt.Errorf("parent id: %w", err)
	}
	if m.Major, m.Minor, err = parseDevice(f[2]); err != nil {
		return m, err
	}
	m.Root, m.Dir, m.Options = unescapeMount(f[3]), unescapeMount(f[4]), f[5]
	for _, tag := range f[6:dash] {
		k, v, _ := strings.Cut(tag, ":")
		n, err := strconv.Atoi(v)
		switch {
		case k == "shared" && err == nil:
			m.Shared = n
		case k == "master" && err == nil:
			m.Master = n
		}
	}
	m.FSType, m.Source, m.Super = f[dash+1], unescapeMount(f[dash+2]), f[dash+3]
	return m, nil
}

// parseDevice reads "147:0".
func parseDevice(s string) (major, minor uint32, err error) {
	a, b, _ := strings.Cut(s, ":")
	x, err := strconv.ParseUint(a, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("device number %q: %w", s, err)
	}
	y, err := strconv.ParseUint(b, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("device number %q: %w", s, err)
	}
	return uint32(x), uint32(y), nil
}

// unescapeMount undoes the kernel's \040 for a space, and the like.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readMounts is the mount table of a process, "self" for this one.
func readMounts(proc, pid string) ([]mountEntry, error) {
	b, err := os.ReadFile(filepath.Join(proc, pid, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	return parseMountinfo(string(b))
}

// mountAt is what one sees at a directory: of several mounts over one another, the topmost.
func mountAt(list []mountEntry, dir string) *mountEntry {
	var top *mountEntry
	for i := range list {
		if m := &list[i]; m.Dir == dir && (top == nil || m.Parent == top.ID || !below(list, top, m.ID)) {
			top = m
		}
	}
	return top
}

// below says whether m lies, over any number of mounts, on the mount with this id.
func below(list []mountEntry, m *mountEntry, id int) bool {
	for range list { // the table has no cycles, but what is read need not be true
		if m.Parent == id {
			return true
		}
		var up *mountEntry
		for i := range list {
			if list[i].ID == m.Parent {
				up = &list[i]
			}
		}
		if up == nil || up == m {
			return false
		}
		m = up
	}
	return false
}

// nestedMounts are the mounts on top of one, by directory.
func nestedMounts(list []mountEntry, m *mountEntry) []string {
	var dirs []string
	for i := range list {
		if list[i].ID != m.ID && below(list, &list[i], m.ID) {
			dirs = append(dirs, list[i].Dir)
		}
	}
	sort.Strings(dirs)
	return dirs
}

func (m *mountEntry) option(name string) bool {
	for _, o := range strings.Split(m.Options+","+m.Super, ",") {
		if o == name {
			return true
		}
	}
	return false
}

func (m *mountEntry) device() uint64 { return unix.Mkdev(m.Major, m.Minor) }

// mountSource is what shall be mounted, found out so that it can be compared with what is.
type mountSource struct {
	spec string // as configured
	path string // without links; "" if it is no path
	kind sourceKind
	dev  uint64 // block: its number; directory: of the file system that it lies on
	ino  uint64 // directory, file
}

type sourceKind int

const (
	sourceBlock     sourceKind = iota
	sourceFile                 // an image, mounted through a loop device
	sourceDirectory            // a bind mount
	sourceName                 // no local device: tmpfs, nfs
	sourceLost                 // a device that is not there any more
)

// tags are the ways to name a device by what is on it.
var sourceTags = map[string]string{"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}

// findSource looks a configured device up. fs.ErrNotExist: there is none such.
func findSource(spec, fstype string) (mountSource, error) {
	s := mountSource{spec: spec, path: spec}
	if tag, value, ok := strings.Cut(spec, "="); ok && sourceTags[tag] != "" {
		s.path = filepath.Join("/dev/disk", sourceTags[tag], udevEscape(strings.Trim(value, `"`)))
	} else if !strings.HasPrefix(spec, "/") || strings.HasPrefix(spec, "//") || virtualFS(fstype) {
		s.kind, s.path = sourceName, ""
		return s, nil
	}
	path, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return s, fmt.Errorf("device %s: %w", spec, err)
	}
	s.path = path
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return s, fmt.Errorf("device %s: %w", spec, err)
	}
	s.ino = st.Ino
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		s.kind, s.dev = sourceBlock, st.Rdev
	case unix.S_IFREG:
		s.kind, s.dev = sourceFile, st.Dev
	case unix.S_IFDIR:
		s.kind, s.dev = sourceDirectory, st.Dev
	default:
		return s, fmt.Errorf("device %s is neither a block device, a file nor a directory", spec)
	}
	return s, nil
}

func virtualFS(fstype string) bool {
	switch fstype {
	case "tmpfs", "overlay", "nfs", "nfs4", "cifs", "ceph", "glusterfs", "9p", "proc", "sysfs":
		return true
	}
	return strings.HasPrefix(fstype, "fuse.")
}

// udevEscape writes a label as udev names its link: what is not plain becomes \xNN.
func udevEscape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x80 || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("#+-.:=@_", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// isMountedAs says whether a mount shows this source, by whatever name.
func (s *mountSource) isMountedAs(m *mountEntry, sys string) bool {
	switch s.kind {
	case sourceBlock:
		if m.device() == s.dev {
			return true
		}
		return m.Major == 0 && blockNumber(m.Source) == s.dev && s.dev != 0 // btrfs and its like number themselves
	case sourceFile:
		return m.Major == loopMajor && s.isBackingOf(m, sys)
	case sourceDirectory:
		var st unix.Stat_t
		return m.device() == s.dev && unix.Stat(m.Dir, &st) == nil && st.Dev == s.dev && st.Ino == s.ino
	case sourceLost:
		return m.Source == s.spec || strings.HasPrefix(m.Source, "/dev/") && blockNumber(m.Source) == 0
	}
	return m.Source == s.spec
}

func (s *mountSource) isBackingOf(m *mountEntry, sys string) bool {
	b, err := os.ReadFile(filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", m.Major, m.Minor), "loop/backing_file"))
	if err != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(strings.TrimSuffix(string(b), "\n"), &st) == nil && st.Dev == s.dev && st.Ino == s.ino
}

func blockNumber(path string) uint64 {
	var st unix.Stat_t
	if !strings.HasPrefix(path, "/") || unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0
	}
	return st.Rdev
}

// mountUser is a process that holds a mount.
type mountUser struct {
	PID  int
	Name string
	How  string // "works in", "has open", "runs from", "maps", "has as its root"
}

func (u mountUser) String() string { return fmt.Sprintf("%s (pid %d)", u.Name, u.PID) }

// mountUsers finds the processes that hold this very mount, or a copy of it that the kernel unmounts along with it in
// another mount namespace. Another mount of the same device is not this one. proc is /proc.
func mountUsers(proc string, m *mountEntry) ([]mountUser, error) {
	pids, err := processIDs(proc)
	if err != nil {
		return nil, err
	}
	return mountUsersAmong(proc, m, pids)
}

func mountUsersAmong(proc string, m *mountEntry, pids []int) ([]mountUser, error) {
	self, err := os.Readlink(filepath.Join(proc, "self/ns/mnt"))
	if err != nil {
		return nil, fmt.Errorf("read own mount namespace: %w", err)
	}
	ids := map[string]map[int]bool{self: {m.ID: true}} // by mount namespace
	var users []mountUser
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		ns, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		if err != nil {
			continue // gone, or a zombie
		}
		if _, ok := ids[ns]; !ok {
			ids[ns] = copiesIn(proc, pid, m)
		}
		if len(ids[ns]) == 0 {
			continue
		}
		if how := usesMount(dir, m, ids[ns]); how != "" {
			users = append(users, mountUser{PID: pid, Name: processName(dir), How: how})
		}
	}
	return users, nil
}

// copiesIn are the ids of the mounts in another namespace that go when m goes.
func copiesIn(proc string, pid int, m *mountEntry) map[int]bool {
	ids := map[int]bool{}
	if m.Shared == 0 {
		return ids
	}
	list, err := readMounts(proc, strconv.Itoa(pid))
	if err != nil {
		return ids
	}
	for _, c := range list {
		if c.device() == m.device() && (c.Shared == m.Shared || c.Master == m.Shared) {
			ids[c.ID] = true
		}
	}
	return ids
}

func processIDs(proc string) ([]int, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	return pids, nil
}

func processName(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "a process"
	}
	return strings.TrimSpace(string(b))
}

// usesMount says how a process holds one of these mounts; "": not at all.
func usesMount(dir string, m *mountEntry, ids map[int]bool) string {
	for _, link := range []struct{ name, how string }{{"cwd", "works in"}, {"root", "has as its root"}, {"exe", "runs from"}} {
		if id, ok := mountIDOf(filepath.Join(dir, link.name)); ok && ids[id] {
			return link.how
		}
	}
	fds, _ := os.ReadDir(filepath.Join(dir, "fdinfo"))
	for _, fd := range fds {
		b, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
		if err != nil {
			continue
		}
		if id, ok := fdinfoMount(string(b)); ok && ids[id] {
			return "has open"
		}
	}
	if mapsMount(dir, m, ids) {
		return "maps"
	}
	return ""
}

// fdinfoMount finds the mount id in /proc/PID/fdinfo/N.
func fdinfoMount(text string) (int, bool) {
	for _, line := range strings.Split(text, "\n") {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id, err := strconv.Atoi(strings.TrimSpace(v))
			return id, err == nil
		}
	}
	return 0, false
}

// mountIDOf is the mount that a link in /proc leads to. It opens the place itself (O_PATH), which no file system hears
// of, so it does not hang on a dead one.
func mountIDOf(link string) (int, bool) {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, false
	}
	return fdinfoMount(string(b))
}

// mapsMount looks at mapped files whose descriptor is closed already, such as libraries.
func mapsMount(dir string, m *mountEntry, ids map[int]bool) bool {
	b, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return false
	}
	seen := map[string]bool{}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 6 || f[4] == "0" || seen[f[3]+f[4]] {
			continue
		}
		major, minor, ok := strings.Cut(f[3], ":")
		x, err1 := strconv.ParseUint(major, 16, 32)
		y, err2 := strconv.ParseUint(minor, 16, 32)
		if !ok || err1 != nil || err2 != nil || m.Major != 0 && (uint32(x) != m.Major || uint32(y) != m.Minor) {
			continue
		}
		seen[f[3]+f[4]] = true
		if id, ok := mountIDOf(filepath.Join(dir, "map_files", f[0])); ok && ids[id] {
			return true
		}
	}
	return false
}

// kernelUsers names what holds a mount without a process: image files in it that back loop devices.
func kernelUsers(sys string, m *mountEntry) []string {
	var users []string
	files, _ := filepath.Glob(filepath.Join(sys, "block/loop*/loop/backing_file"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if path := strings.TrimSuffix(string(b), "\n"); err == nil && strings.HasPrefix(path, m.Dir+"/") {
			loop := filepath.Base(filepath.Dir(filepath.Dir(f)))
			users = append(users, fmt.Sprintf("/dev/%s on %s (losetup -d /dev/%s)", loop, path, loop))
		}
	}
	return users
}

// deviceHolders names who has a block device open: mounts in any namespace, other block devices on top, processes.
func deviceHolders(proc, sys string, major, minor uint32) []string {
	var holders []string
	on, _ := os.ReadDir(filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", major, minor), "holders"))
	for _, h := range on {
		holders = append(holders, "/dev/"+h.Name()+" on top of it")
	}
	pids, _ := processIDs(proc)
	namespaces := map[string]bool{}
	dev := unix.Mkdev(major, minor)
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if ns, err := os.Readlink(filepath.Join(dir, "ns/mnt")); err == nil && !namespaces[ns] {
			namespaces[ns] = true
			holders = append(holders, mountsOf(proc, pid, dev)...)
		}
		fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
		for _, fd := range fds {
			if blockNumberAt(filepath.Join(dir, "fd", fd.Name())) == dev {
				holders = append(holders, mountUser{PID: pid, Name: processName(dir)}.String())
				break
			}
		}
	}
	return unique(holders)
}

// blockNumberAt is the device that a descriptor in /proc leads to; 0: it leads to none. It takes what the kernel
// remembers, so a dead network file system does not hold it up.
func blockNumberAt(link string) uint64 {
	to, err := os.Readlink(link)
	if err != nil || !strings.HasPrefix(to, "/") {
		return 0
	}
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0
	}
	return unix.Mkdev(st.Rdev_major, st.Rdev_minor)
}

func mountsOf(proc string, pid int, dev uint64) []string {
	list, err := readMounts(proc, strconv.Itoa(pid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var dirs []string
	for i := range list {
		if list[i].device() == dev {
			dirs = append(dirs, "the mount on "+list[i].Dir)
		}
	}
	return dirs
}

func unique(list []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
