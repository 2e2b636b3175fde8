// When is it on the disk? The store of the daemon: a writer goroutine makes what the raft adapter hands out durable, in
// order, many writes with one fsync, and says so. It must not decide anything, and must not report what is not durable.
//
// A failed write (full disk, read-only file system, I/O error) is repeated until it succeeds; each failure is reported
// with Err, and the writes behind it wait. After a failure nothing that the kernel may have kept of it counts: the next
// try goes to a new segment, which begins by saying how much of the last one is durable. (After a failed fsync Linux may
// call pages clean that never reached the disk; a second fsync would then succeed and mean nothing.)

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	retryFirst   = 50 * time.Millisecond
	retryLongest = time.Second
	lazyDelay    = time.Second // how long a write without Sync may wait for one to go along with
)

// diskStore is the state folder's raft part. Save and Replace may be called from any goroutine and do not block.
type diskStore struct {
	dir   string
	log   *slog.Logger
	saved func(saved)
	now   func() time.Time // for names of what is set aside
	fault func(step, path string) error
	delay struct{ first, longest, lazy time.Duration }
	lock  *os.File

	mu     sync.Mutex
	queue  []job
	closed bool
	wake   chan struct{} // holds one token when the queue or closed has changed
	quit   chan struct{} // closed by Close
	done   chan struct{} // closed by the writer at its end

	// The rest is the writer's own.
	member member
	file   *os.File // the last segment, openedFolder at the first write
	number uint64   // of the last segment
	length int64    // of what is durable in it
	newest uint64   // number used last, also by a failed try
	broken bool     // behind length there may be anything: go on in a new segment
	fresh  int64    // length of the segment that makeFolder wrote
	held   []write  // without Sync: reported, and written with the next that must be durable
}

type job struct {
	write   write
	replace *replacement
}

// replacement is a whole new raft folder.
type replacement struct {
	member  member
	why     string // begins the name under which the old one is kept
	swapped bool
}

// openStore opens the state folder and starts the writer. Saved is called from the writer's goroutine, in the order of
// the writes, and must not block for long.
func openStore(dir, node string, log *slog.Logger, report func(saved)) (*diskStore, openedFolder, error) {
	return newDiskStore(dir, log, report).start(node)
}

func newDiskStore(dir string, log *slog.Logger, report func(saved)) *diskStore {
	s := &diskStore{dir: dir, log: log, saved: report, now: time.Now,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	s.delay.first, s.delay.longest, s.delay.lazy = retryFirst, retryLongest, lazyDelay
	return s
}

func (s *diskStore) start(node string) (*diskStore, openedFolder, error) {
	var err error
	if s.lock, err = prepareDir(s.dir); err != nil {
		return nil, openedFolder{}, fmt.Errorf("open state folder %s: %w", s.dir, hint(err))
	}
	out, err := s.openFolder(node)
	if err != nil {
		_ = s.lock.Close() // only gives the lock back
		return nil, openedFolder{}, fmt.Errorf("open state folder %s: %w", s.dir, hint(err))
	}
	go s.run()
	return s, out, nil
}

// hint adds what to do.
func hint(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: free some space there", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: make it writable (was it remounted after an error? see the kernel's log)", err)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: the disk fails, replace it", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: it must belong to root", err)
	}
	return err
}

// Save queues a write. Its saved event comes when it is durable, and at each failure before.
func (s *diskStore) Save(w write) { s.push(job{write: w}) }

// Replace queues a change of the whole folder to this member with this write (a forged snapshot; empty for a blank
// start), in one rename. The old folder is kept, its name begins with why. Writes that are queued before and fail are
// given up, they were for the old folder; their saved event has Err.
func (s *diskStore) Replace(why string, m member, w write) {
	s.push(job{write: w, replace: &replacement{member: m, why: why}})
}

func (s *diskStore) push(j job) {
	s.mu.Lock()
	s.queue = append(s.queue, j)
	s.mu.Unlock()
	s.poke()
}

func (s *diskStore) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close writes what is queued, tries once only, and ends the writer.
func (s *diskStore) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if !already {
		close(s.quit)
	}
	<-s.done
	return s.lock.Close()
}

func (s *diskStore) run() {
	defer close(s.done)
	defer s.closeSegment()
	lazy := time.NewTimer(time.Hour)
	defer lazy.Stop()
	for {
		select {
		case <-s.wake:
			s.drain()
			if len(s.held) > 0 {
				lazy.Reset(s.delay.lazy)
			}
		case <-lazy.C:
			s.flushHeld()
		case <-s.quit:
			s.drain()
			s.flushHeld()
			return
		}
	}
}

// drain works off the queue. What is not begun stays in it, where persist sees a Replace coming.
func (s *diskStore) drain() {
	for {
		s.mu.Lock()
		n := 0
		for n < len(s.queue) && s.queue[n].replace == nil && s.queue[n].write.Snapshot == nil {
			n++
		}
		jobs, ordinary := s.queue[:n:n], n > 0
		if !ordinary {
			n = min(1, len(s.queue))
			jobs = s.queue[:n:n]
		}
		s.queue = s.queue[n:]
		s.mu.Unlock()
		switch {
		case len(jobs) == 0:
			return
		case ordinary:
			s.group(jobs)
		default:
			s.alone(jobs[0])
		}
	}
}

// group makes writes durable with one fsync. What needs none is only kept for the next.
func (s *diskStore) group(jobs []job) {
	sync := false
	for _, j := range jobs {
		sync = sync || j.write.Sync
		s.held = append(s.held, j.write)
	}
	if sync {
		s.persist(jobs, func() error {
			if err := s.commit(batchFrame(s.held)); err != nil {
				return err
			}
			s.held = nil
			return nil
		})
		return
	}
	for _, j := range jobs {
		s.saved(saved{Done: j.write.Done})
	}
}

// flushHeld writes what nobody waits for. If that fails it stays held, and the next write with Sync reports it.
func (s *diskStore) flushHeld() {
	if len(s.held) == 0 {
		return
	}
	if err := s.commit(batchFrame(s.held)); err != nil {
		s.log.Warn("write raft state", "event", "store-failed", "err", hint(err))
		return
	}
	s.held = nil
}

// alone does a job that changes which files count.
func (s *diskStore) alone(j job) {
	if j.replace != nil {
		s.persist([]job{j}, func() error { return s.exchange(j) })
		return
	}
	s.persist([]job{j}, func() error { return s.rotate(j.write) })
}

// persist tries until it is done, the store is closed, or a Replace makes it pointless.
func (s *diskStore) persist(jobs []job, try func() error) {
	begin := time.Now()
	for delay := time.Duration(0); ; {
		err := try()
		text := ""
		if err != nil {
			text = "write raft state to " + s.dir + ": " + hint(err).Error()
		}
		for _, j := range jobs {
			s.saved(saved{Done: j.write.Done, Err: text, Took: time.Since(begin)})
		}
		if err == nil {
			return
		}
		delay = retryDelay(delay, s.delay.first, s.delay.longest)
		if jobs[0].replace == nil && s.replaceQueued() || !s.wait(delay, jobs[0].replace == nil) {
			return
		}
	}
}

// wait returns false when the store is closed, or when giveUp is set and a Replace has come.
func (s *diskStore) wait(delay time.Duration, giveUp bool) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	woken := false
	defer func() {
		if woken {
			s.poke() // run has not looked yet
		}
	}()
	for {
		select {
		case <-timer.C:
			return true
		case <-s.quit:
			return false
		case <-s.wake:
			woken = true
			if giveUp && s.replaceQueued() {
				return false
			}
		}
	}
}

func (s *diskStore) replaceQueued() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.queue {
		if j.replace != nil {
			return true
		}
	}
	return false
}

// commit appends one frame to the log and makes it durable.
func (s *diskStore) commit(frame []byte) error {
	if !s.broken {
		err := s.extend(frame)
		if err == nil {
			return nil
		}
		s.broken = true
		if s.file != nil {
			_ = s.file.Truncate(s.length) // best effort: gives space back; PrevLength is what counts
			s.closeSegment()
		}
		return err
	}
	number := s.nextNumber()
	header := segmentHeader{Number: number, Prev: s.number, PrevLength: uint64(s.length)}.frame()
	data := append(header, frame...)
	file, err := s.create(s.segmentPath(number), data)
	if err != nil {
		return err
	}
	if err := s.syncDir(filepath.Join(s.dir, raftName)); err != nil {
		_ = file.Close() // the next try takes another number, and a higher one wins
		return err
	}
	s.adopt(file, number, int64(len(data)))
	return nil
}

func (s *diskStore) extend(frame []byte) error {
	path := s.segmentPath(s.number)
	if s.file == nil {
		file, err := os.OpenFile(path, os.O_RDWR, stateFileMode)
		if err != nil {
			return err
		}
		s.file = file
		if end, err := file.Seek(0, io.SeekEnd); err != nil || end != s.length {
			return fmt.Errorf("segment %d ends at %d instead of %d: %w", s.number, end, s.length, errors.Join(err, unix.EIO))
		}
	}
	if err := s.check("write", path); err != nil {
		return err
	}
	if _, err := s.file.WriteAt(frame, s.length); err != nil {
		return err
	}
	if err := s.check("sync", path); err != nil {
		return err
	}
	// The length is metadata that fdatasync does write: without it the data could not be read back.
	if err := unix.Fdatasync(int(s.file.Fd())); err != nil {
		return fmt.Errorf("fdatasync %s: %w", path, err)
	}
	s.length += int64(len(frame))
	return nil
}

// rotate makes a snapshot durable, and with it a new segment that begins with all that follows on the snapshot. The
// rename of the snapshot file is the moment at which both count.
func (s *diskStore) rotate(w write) error {
	number := s.nextNumber()
	data := append(segmentHeader{Number: number}.frame(), batchFrame([]write{{HardState: w.HardState, Entries: w.Entries}})...)
	file, err := s.create(s.segmentPath(number), data)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, raftName)
	temp, path := filepath.Join(dir, snapshotName+".new"), filepath.Join(dir, snapshotName)
	renamed := false
	err = func() error {
		if err := s.syncDir(dir); err != nil {
			return err
		}
		f, err := s.create(temp, snapshotFrame(number, w.Snapshot))
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := s.check("rename", temp); err != nil {
			return err
		}
		renamed = true // or not: it may be either until the folder is synced, so both segments must stay
		if err := os.Rename(temp, path); err != nil {
			return err
		}
		return s.syncDir(dir)
	}()
	if err != nil {
		_ = file.Close() // nothing of it counts
		if !renamed {
			_ = os.Remove(s.segmentPath(number)) // best effort: it gives the space back
		}
		return err
	}
	s.held = nil // a snapshot's write is complete
	s.adopt(file, number, int64(len(data)))
	s.removeBefore(number)
	return nil
}

// removeBefore is best effort: segments below the snapshot's are not read.
func (s *diskStore) removeBefore(number uint64) {
	dir := filepath.Join(s.dir, raftName)
	names, err := os.ReadDir(dir)
	if err != nil {
		s.log.Warn("list old segments", "event", "store-old", "err", err)
		return
	}
	for _, entry := range names {
		if n, ok := segmentNumber(entry.Name()); ok && n < number && s.check("remove", entry.Name()) == nil {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				s.log.Warn("remove old segment", "event", "store-old", "err", err)
			}
		}
	}
}

// exchange does a Replace; after the swap a repeated try only finishes.
func (s *diskStore) exchange(j job) error {
	r := j.replace
	if !r.swapped {
		m := r.member
		m.Serial = s.member.Serial + 1
		if err := s.makeFolder(raftNewName, m, j.write); err != nil {
			return err
		}
		if err := s.syncDir(s.dir); err != nil {
			return err
		}
		if err := s.swap(); err != nil {
			return err
		}
		r.swapped = true
		s.held = nil // of the old folder
		s.enter(m)
	}
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	for _, name := range []string{raftNewName, raftOldName} {
		old := filepath.Join(s.dir, name)
		if _, err := os.Lstat(old); err != nil {
			continue
		}
		aside, err := s.setAside(old, r.why)
		if err != nil {
			return err
		}
		s.log.Info("replaced the raft state", "event", "store-replaced", "aside", aside)
	}
	return nil
}

func (s *diskStore) adopt(file *os.File, number uint64, length int64) {
	s.closeSegment()
	s.file, s.number, s.length, s.broken = file, number, length, false
}

func (s *diskStore) closeSegment() {
	if s.file != nil {
		_ = s.file.Close() // all that counts was synced
		s.file = nil
	}
}

// nextNumber is never used twice: a failed try may come back after a crash.
func (s *diskStore) nextNumber() uint64 {
	s.newest = max(s.newest, s.number) + 1
	return s.newest
}

func (s *diskStore) segmentPath(number uint64) string {
	return filepath.Join(s.dir, raftName, segmentName(number))
}
