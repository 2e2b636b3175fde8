// What may stand in the raft folder after a crash? Opening, setting aside and replacing it. The folder holds the log, the
// snapshot and the member id together, so that one rename moves all: a voter that lost its memory must never vote under
// its old name, so whenever the memory goes, the name goes with it. Nothing here is ever deleted that was once in use.

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/raft/v3"
	"golang.org/x/sys/unix"
)

const lockRetry = 25 * time.Millisecond

const (
	raftName    = "raft"
	raftNewName = "raft.new" // a folder being made, or after the exchange the old one
	raftOldName = "raft.old" // the old one, where the file system cannot exchange
	memberName  = "member"
)

// member is who this node is in raft. Serial counts the folders: it tells which of two is the newer one.
type member struct {
	Node   string `json:"node"`
	ID     uint64 `json:"member"`
	Serial uint64 `json:"serial"`
}

// newMember draws a member id that nobody ever had.
func newMember(node string) member {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		if id := binary.LittleEndian.Uint64(b[:]); id != raft.None && !raft.IsLocalMsgTarget(id) {
			return member{Node: node, ID: id}
		}
	}
}

func (m member) encode() ([]byte, error) {
	line, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode member: %w", err)
	}
	return fmt.Appendf(nil, "%s\n%08x\n", line, crc32.Checksum(line, castagnoli)), nil
}

func readMember(dir string) (m member, err error) {
	data, err := os.ReadFile(filepath.Join(dir, memberName))
	if err != nil {
		return m, err
	}
	line, sum, _ := bytes.Cut(data, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(line, castagnoli)) {
		return m, fmt.Errorf("read %s: wrong checksum", memberName)
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", memberName, err)
	}
	if m.ID == raft.None || raft.IsLocalMsgTarget(m.ID) {
		return m, fmt.Errorf("read %s: member id %x is not possible", memberName, m.ID)
	}
	return m, nil
}

// openedFolder is what a state folder held.
type openedFolder struct {
	Member   member
	Restored *restored // nil: blank
	Torn     int64     // bytes of an unfinished write that were cut off
	Aside    string    // what was corrupt is kept in this folder; "": nothing was
	Why      string    // it was set aside
}

// openFolder reads the raft folder, sets it aside if it is corrupt, and makes a blank one where there is none.
func (s *diskStore) openFolder(node string) (openedFolder, error) {
	var out openedFolder
	if err := s.settle(); err != nil {
		return out, err
	}
	raftDir := filepath.Join(s.dir, raftName)
	_, err := os.Lstat(raftDir)
	if errors.Is(err, fs.ErrNotExist) {
		return s.openBlank(newMember(node))
	}
	if err != nil {
		return out, err
	}
	m, l, err := readFolder(raftDir)
	if err != nil && !isCorrupt(err) {
		return out, err
	}
	if err != nil {
		aside, asideErr := s.setAside(raftDir, "corrupt")
		if asideErr != nil {
			return out, fmt.Errorf("keep corrupt %s aside (%w): %w", raftDir, err, asideErr)
		}
		why := err.Error()
		s.log.Error("raft state is corrupt: kept aside, this node comes back as a new member", "event", "store-corrupt", "aside", aside, "why", why)
		out, err = s.openBlank(newMember(node))
		out.Aside, out.Why = aside, why
		return out, err
	}
	if l.torn > 0 {
		s.log.Warn("cut off an unfinished write at the end of the raft log", "event", "store-torn", "bytes", l.torn, "segment", l.number)
	}
	s.member, s.number, s.length, s.newest, s.broken = m, l.number, l.valid, max(l.newest, l.number), l.torn > 0
	out.Member, out.Torn = m, l.torn
	if l.state.Snapshot != nil || l.state.HardState != nil || len(l.state.Entries) > 0 {
		out.Restored = &l.state
	}
	return out, nil
}

func readFolder(dir string) (member, *loaded, error) {
	m, err := readMember(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it has no member id") // somebody removed it: what it voted under is not known
	}
	if err != nil {
		return m, nil, err
	}
	l, err := loadFolder(dir)
	return m, l, err
}

// isCorrupt: a file that cannot be openedFolder is the operator's to mend; one that reads wrong, or not at all, is corrupt.
func isCorrupt(err error) bool {
	var path *fs.PathError
	return !errors.As(err, &path) || errors.Is(err, unix.EIO)
}

func (s *diskStore) openBlank(m member) (openedFolder, error) {
	if err := s.makeFolder(raftNewName, m, write{}); err != nil {
		return openedFolder{}, err
	}
	if err := s.rename(raftNewName, raftName); err != nil {
		return openedFolder{}, err
	}
	s.enter(m)
	return openedFolder{Member: m}, s.syncDir(s.dir)
}

// enter makes a folder that makeFolder has made the current one.
func (s *diskStore) enter(m member) {
	s.closeSegment()
	s.member, s.number, s.newest, s.broken = m, 1, 1, false
	s.length = s.fresh
}

// makeFolder writes a complete raft folder under another name; its snapshot may be nil for a blank one.
func (s *diskStore) makeFolder(name string, m member, w write) error {
	dir := filepath.Join(s.dir, name)
	if err := s.check("clear", dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := s.check("mkdir", dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, stateFolderMode); err != nil {
		return err
	}
	line, err := m.encode()
	if err != nil {
		return err
	}
	log := segmentHeader{Number: 1}.frame()
	if w.HardState != nil || len(w.Entries) > 0 {
		log = append(log, batchFrame([]write{w})...)
	}
	files := []struct {
		name string
		data []byte
	}{{memberName, line}, {segmentName(1), log}, {snapshotName, snapshotFrame(1, w.Snapshot)}}
	for _, f := range files {
		if f.name == snapshotName && w.Snapshot == nil {
			continue
		}
		file, err := s.create(filepath.Join(dir, f.name), f.data)
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	s.fresh = int64(len(log))
	return s.syncDir(dir)
}

// swap puts raft.new in the place of the raft folder. At every moment of it one of the two is there, or settle finds
// raft.old and finishes.
func (s *diskStore) swap() error {
	if !s.has(raftName) && s.has(raftOldName) {
		return s.rename(raftNewName, raftName) // an earlier try got half way
	}
	err := s.check("exchange", raftName)
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, filepath.Join(s.dir, raftNewName),
			unix.AT_FDCWD, filepath.Join(s.dir, raftName), unix.RENAME_EXCHANGE)
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("exchange %s and %s: %w", raftNewName, raftName, err)
	}
	if err := s.rename(raftName, raftOldName); err != nil {
		return err
	}
	return s.rename(raftNewName, raftName)
}

func (s *diskStore) has(name string) bool {
	_, err := os.Lstat(filepath.Join(s.dir, name))
	return err == nil
}

// settle finishes or undoes what a crash interrupted. A complete raft.new counts only when the raft folder has left for
// raft.old. Of two folders the one with the higher serial is the newer: as raft.new it was never in use and goes; the
// older one is what was replaced and is kept.
func (s *diskStore) settle() error {
	if s.has(raftOldName) && !s.has(raftName) {
		from := raftNewName
		if !s.has(raftNewName) {
			from = raftOldName
		}
		if err := s.rename(from, raftName); err != nil {
			return err
		}
	}
	for _, name := range []string{raftOldName, raftNewName} {
		if !s.has(name) {
			continue
		}
		dir := filepath.Join(s.dir, name)
		if name == raftOldName || !s.unused(dir) {
			if _, err := s.setAside(dir, "replaced"); err != nil {
				return err
			}
			continue
		}
		if err := s.check("clear", dir); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// unused says that a raft.new was never the raft folder. In doubt it was.
func (s *diskStore) unused(dir string) bool {
	if !s.has(raftName) {
		return true // it was to be the first, or to follow on a corrupt one
	}
	m, err := readMember(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true // not even its first file
	}
	current, currentErr := readMember(filepath.Join(s.dir, raftName))
	return err == nil && currentErr == nil && m.Serial > current.Serial
}

// asideTime ends the name of what is set aside.
const asideTime = "20060102T150405Z"

// keptAside lists what was ever set aside in a state folder; nothing of it is ever deleted.
func keptAside(dir string) []string {
	all, _ := filepath.Glob(filepath.Join(dir, "*-????????T??????Z*")) // the pattern is well formed
	return all
}

// setAside renames a folder to a name with the time in it and returns that path.
func (s *diskStore) setAside(dir, why string) (string, error) {
	base := filepath.Join(s.dir, why+"-"+s.now().UTC().Format(asideTime))
	target := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		target = fmt.Sprintf("%s-%d", base, n)
	}
	if err := s.check("rename", dir); err != nil {
		return "", err
	}
	if err := os.Rename(dir, target); err != nil {
		return "", err
	}
	return target, s.syncDir(s.dir)
}

func (s *diskStore) rename(from, to string) error {
	if err := s.check("rename", from); err != nil {
		return err
	}
	return os.Rename(filepath.Join(s.dir, from), filepath.Join(s.dir, to))
}

// create writes a new file and makes its content durable; its name is durable after a sync of the folder.
func (s *diskStore) create(path string, data []byte) (*os.File, error) {
	if err := s.check("create", path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, stateFileMode)
	if err != nil {
		return nil, err
	}
	if err = s.check("write", path); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = s.syncFile(f)
	}
	if err != nil {
		_ = f.Close() // the error that matters is err
		_ = os.Remove(path)
		return nil, err
	}
	return f, nil
}

func (s *diskStore) syncFile(f *os.File) error {
	if err := s.check("sync", f.Name()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return nil
}

func (s *diskStore) syncDir(dir string) error {
	if err := s.check("syncdir", dir); err != nil {
		return err
	}
	return syncFolder(dir)
}

// check lets tests fail or crash any step.
func (s *diskStore) check(step, path string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(step, path)
}

// prepareDir makes the state folder, closes it to others, and takes it for this process alone.
func prepareDir(dir string) (lock *os.File, err error) {
	if err := os.MkdirAll(dir, stateFolderMode); err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if info.Mode().Perm() != stateFolderMode {
		if err := os.Chmod(dir, stateFolderMode); err != nil {
			return nil, err
		}
	}
	lock, err = os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := takeLock(int(lock.Fd())); err != nil {
		_ = lock.Close() // nothing was written through it
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another daemon uses it: stop that one first")
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return lock, nil
}

// takeLock waits a moment: a daemon that was killed and is started again at once may meet its own last breath.
func takeLock(fd int) (err error) {
	for range 40 {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(lockRetry)
	}
	return err
}

// retryDelay grows from the first to the longest wait.
func retryDelay(last, first, longest time.Duration) time.Duration {
	return min(max(2*last, first), longest)
}
