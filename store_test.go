package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"
)

// storeBench runs a store and waits for its events.
type storeBench struct {
	t            testing.TB
	dir          string
	s            *diskStore
	openedFolder openedFolder
	events       chan saved
	mu           sync.Mutex
	fault        func(step, path string) error
	next         uint64
}

func openBench(t testing.TB, dir string) *storeBench {
	t.Helper()
	b := &storeBench{t: t, dir: dir}
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.s != nil {
			b.setFault(nil)
			_ = b.s.Close() // ends the goroutine; what it wrote was checked before
		}
	})
	return b
}

func (b *storeBench) open() error {
	b.events = make(chan saved, 10000)
	s := newDiskStore(b.dir, slog.New(slog.DiscardHandler), func(e saved) { b.events <- e })
	s.delay.first, s.delay.longest, s.delay.lazy = time.Millisecond, 2*time.Millisecond, time.Hour
	s.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	s.fault = func(step, path string) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.fault == nil {
			return nil
		}
		return b.fault(step, path)
	}
	s, out, err := s.start("alice")
	b.s, b.openedFolder = s, out
	return err
}

func (b *storeBench) setFault(f func(step, path string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f
}

func (b *storeBench) reopen() openedFolder {
	b.t.Helper()
	b.close()
	if err := b.open(); err != nil {
		b.t.Fatal(err)
	}
	return b.openedFolder
}

func (b *storeBench) close() {
	b.t.Helper()
	if err := b.s.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.s = nil
}

// save waits until a write is saved and returns what failed before.
func (b *storeBench) save(w write) (failures []string) {
	b.t.Helper()
	b.next++
	w.Done = b.next
	b.s.Save(w)
	return b.await(w.Done)
}

func (b *storeBench) await(done uint64) (failures []string) {
	b.t.Helper()
	for e := range b.events {
		if e.Done != done {
			b.t.Fatalf("event of %d, want %d", e.Done, done)
		}
		if e.Err == "" {
			return failures
		}
		failures = append(failures, e.Err)
	}
	return failures
}

// failer is a *testing.T or a *rapid.T.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func testEntries(t failer, term uint64, from, to uint64) [][]byte {
	var out [][]byte
	for i := from; i <= to; i++ {
		data, err := proto.Marshal(&raftpb.Entry{Index: new(i), Term: new(term), Data: fmt.Appendf(nil, "entry %d of %d", i, term)})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, data)
	}
	return out
}

func testHard(term, vote, commit uint64) []byte {
	data, err := proto.Marshal(&raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)})
	if err != nil {
		panic(err)
	}
	return data
}

func testSnapshot(index, term uint64, data string) []byte {
	out, err := proto.Marshal(&raftpb.Snapshot{Data: []byte(data), Metadata: &raftpb.SnapshotMetadata{Index: new(index), Term: new(term),
		ConfState: &raftpb.ConfState{Voters: []uint64{7}, AutoLeave: new(false)}}})
	if err != nil {
		panic(err)
	}
	return out
}

func sameRestored(t failer, got, want *restored) {
	t.Helper()
	if got == nil {
		got = &restored{}
	}
	if diff := cmp.Diff(*want, *got, protocmp.Transform(), cmp.AllowUnexported(restored{})); diff != "" {
		t.Fatalf("restored state differs (-want +got):\n%s", diff)
	}
}

func TestStoreBlank(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ha")
	b := openBench(t, dir)
	first := b.openedFolder
	if first.Restored != nil || first.Member.ID == 0 || first.Member.Node != "alice" || first.Aside != "" {
		t.Fatalf("a new folder: %+v", first)
	}
	if _, _, err := openStore(dir, "alice", slog.New(slog.DiscardHandler), func(saved) {}); err == nil ||
		!strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second store on one folder: %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if again := b.reopen(); again.Member != first.Member {
		t.Errorf("member was %+v, is %+v", first.Member, again.Member)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode after opening again: %v, %v", info.Mode(), err)
	}
}

// storeModel makes random writes as raft makes them, and knows what they add up to.
type storeModel struct {
	t      *rapid.T
	state  restored
	term   uint64
	commit uint64
}

func (m *storeModel) draw() write {
	last, base := m.state.last(), m.state.Snapshot.GetMetadata().GetIndex()
	w := write{Sync: true}
	switch kind := rapid.IntRange(0, 9).Draw(m.t, "kind"); {
	case kind < 5: // entries, perhaps over older ones that are not committed
		from := rapid.Uint64Range(max(m.commit, base)+1, last+1).Draw(m.t, "from")
		if from <= last {
			m.term++
		}
		m.term = max(m.term, 1)
		w.Entries = testEntries(m.t, m.term, from, from+rapid.Uint64Range(0, 3).Draw(m.t, "more"))
		w.HardState = testHard(m.term, 7, m.commit)
	case kind < 7:
		m.term++
		w.HardState = testHard(m.term, rapid.Uint64Range(0, 9).Draw(m.t, "vote"), m.commit)
	case kind < 8 && last > m.commit:
		m.commit = rapid.Uint64Range(m.commit, last).Draw(m.t, "commit")
		w.HardState = testHard(m.term, m.state.HardState.GetVote(), m.commit)
		w.Sync = false
	case kind < 9 && m.commit > base: // of Compact: with all that follows
		w.Snapshot = testSnapshot(m.commit, m.state.Entries[m.commit-base-1].GetTerm(), fmt.Sprint("state at ", m.commit))
		w.HardState = testHard(m.term, m.state.HardState.GetVote(), m.commit)
		for _, e := range m.state.Entries[m.commit-base:] {
			data, err := proto.Marshal(e)
			if err != nil {
				m.t.Fatal(err)
			}
			w.Entries = append(w.Entries, data)
		}
	default: // of the leader
		m.term++
		m.commit = last + 5
		w.Snapshot = testSnapshot(m.commit, m.term, "from the leader")
		w.HardState = testHard(m.term, 0, m.commit)
	}
	if err := m.state.apply(w); err != nil {
		m.t.Fatalf("the model's own write: %v", err)
	}
	return w
}

// TestStoreModel: after any writes, a crash that tears what was not durable, and writing that fails now and then,
// a store holds exactly what it has reported as saved, or whole writes more.
func TestStoreModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "s")
		if err != nil {
			rt.Fatal(err)
		}
		b := openBench(t, dir)
		defer func() {
			if b.s != nil {
				b.setFault(nil)
				_ = b.s.Close() // a failed check left it open
				b.s = nil
			}
		}()
		m := &storeModel{t: rt}
		member := b.openedFolder.Member
		for range rapid.IntRange(1, 25).Draw(rt, "writes") {
			if rapid.IntRange(0, 6).Draw(rt, "fault") == 0 {
				left := rapid.IntRange(1, 3).Draw(rt, "failures")
				step := rapid.SampledFrom([]string{"write", "sync", "create", "syncdir", "rename"}).Draw(rt, "step")
				b.setFault(func(s, _ string) error {
					if s == step && left > 0 {
						left--
						return unix.EIO
					}
					return nil
				})
			}
			b.save(m.draw())
			b.setFault(nil)
			if rapid.IntRange(0, 4).Draw(rt, "restart") == 0 {
				b.close()
				if rapid.Bool().Draw(rt, "torn") {
					tearLog(rt, filepath.Join(dir, raftName))
				}
				if err := b.open(); err != nil {
					rt.Fatal(err)
				}
				if b.openedFolder.Aside != "" || b.openedFolder.Member != member {
					rt.Fatalf("set aside: %s", b.openedFolder.Why)
				}
				sameRestored(rt, b.openedFolder.Restored, &m.state)
			}
		}
		b.close()
		if err := b.open(); err != nil {
			rt.Fatal(err)
		}
		sameRestored(rt, b.openedFolder.Restored, &m.state)
		b.close()
	})
}

// tearLog adds what a crash in the middle of the next write can leave: a cut frame, or one with sectors of zeros.
func tearLog(t *rapid.T, dir string) {
	l, err := loadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, segmentName(l.number))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // the write below is checked
	next := batchFrame([]write{{HardState: testHard(1000, 1000, l.state.HardState.GetCommit()), Entries: [][]byte{bytes.Repeat([]byte("x"), 3000)}}})
	keep := rapid.IntRange(1, len(next)-1).Draw(t, "keep")
	if rapid.Bool().Draw(t, "zeros") {
		clear(next[keep:])
		if !tornAt(append(make([]byte, l.valid), next...), int(l.valid)) {
			next = next[:keep] // the zeros end within one sector: not something that a crash leaves
		}
	} else {
		next = next[:keep]
	}
	if _, err := f.WriteAt(next, l.valid); err != nil {
		t.Fatal(err)
	}
}

// TestStoreCorrupt flips each byte of each file in turn: nothing of it may go unnoticed.
func TestStoreCorrupt(t *testing.T) {
	dir := t.TempDir()
	b := openBench(t, dir)
	b.save(write{Sync: true, HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)})
	b.save(write{Sync: true, Snapshot: testSnapshot(2, 1, "two"), HardState: testHard(1, 7, 2), Entries: testEntries(t, 1, 3, 3)})
	fail := true
	b.setFault(func(step, _ string) error {
		if step == "sync" && fail {
			fail = false
			return unix.EIO
		}
		return nil
	})
	b.save(write{Sync: true, Entries: testEntries(t, 1, 4, 6)}) // goes on in a third segment
	b.save(write{Sync: true, HardState: testHard(2, 3, 4)})
	member := b.openedFolder.Member
	b.close()
	files, err := os.ReadDir(filepath.Join(dir, raftName))
	if err != nil || len(files) != 4 {
		t.Fatalf("want member, snapshot and two segments, got %v, %v", files, err)
	}
	for _, file := range files {
		path := filepath.Join(dir, raftName, file.Name())
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := range good {
			bad := slices.Clone(good)
			bad[at] ^= 0x10
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := readFolder(filepath.Join(dir, raftName)); err == nil || !isCorrupt(err) {
				t.Fatalf("%s with byte %d of %d changed: %v", file.Name(), at, len(good), err)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// One of them through the whole way: kept, named, and a new member.
	path := filepath.Join(dir, raftName, segmentName(2))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-20] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	o := b.openedFolder
	if o.Restored != nil || o.Member.ID == member.ID || filepath.Base(o.Aside) != "corrupt-20260102T030405Z" || !strings.Contains(o.Why, "checksum") {
		t.Fatalf("after corruption: %+v", o)
	}
	if kept, err := os.ReadFile(filepath.Join(o.Aside, segmentName(2))); err != nil || !bytes.Equal(kept, data) {
		t.Errorf("the corrupt segment was not kept as it was: %v", err)
	}
	b.save(write{Sync: true, HardState: testHard(9, 0, 0)})
	if again := b.reopen(); again.Member != o.Member || again.Restored.HardState.GetTerm() != 9 {
		t.Errorf("the new folder does not work: %+v", again)
	}
	// A second time in the same second gets another name.
	if err := os.Remove(filepath.Join(dir, raftName, memberName)); err != nil {
		t.Fatal(err)
	}
	if again := b.reopen(); filepath.Base(again.Aside) != "corrupt-20260102T030405Z-2" || !strings.Contains(again.Why, "no member id") {
		t.Errorf("without a member id: %+v", again)
	}
}

func TestStoreMissingFiles(t *testing.T) {
	for _, name := range []string{snapshotName, segmentName(2)} {
		t.Run(name, func(t *testing.T) {
			b := openBench(t, t.TempDir())
			b.save(write{Sync: true, HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)})
			b.save(write{Sync: true, Snapshot: testSnapshot(2, 1, "two"), HardState: testHard(1, 7, 2), Entries: testEntries(t, 1, 3, 3)})
			b.close()
			if err := os.Remove(filepath.Join(b.dir, raftName, name)); err != nil {
				t.Fatal(err)
			}
			if err := b.open(); err != nil {
				t.Fatal(err)
			}
			if b.openedFolder.Aside == "" || b.openedFolder.Restored != nil {
				t.Errorf("%+v", b.openedFolder)
			}
		})
	}
}

// Many writes that wait for the disk together cost one fsync.
func TestStoreGroupCommit(t *testing.T) {
	b := openBench(t, t.TempDir())
	entered, release := make(chan bool), make(chan bool)
	syncs := 0
	b.setFault(func(step, _ string) error {
		if step == "sync" {
			if syncs++; syncs == 1 {
				entered <- true
				<-release
			}
		}
		return nil
	})
	for i := range uint64(50) {
		b.s.Save(write{Done: i + 1, Sync: true, Entries: testEntries(t, 1, i+1, i+1), HardState: testHard(1, 0, 0)})
		if i == 0 {
			<-entered // the first is under way, the others wait
		}
	}
	release <- true
	for i := range uint64(50) {
		if f := b.await(i + 1); len(f) > 0 {
			t.Fatal(f)
		}
	}
	b.setFault(nil)
	if syncs != 2 {
		t.Errorf("%d fsyncs for 50 writes, want 2", syncs)
	}
	if o := b.reopen(); o.Restored.last() != 50 {
		t.Errorf("%d entries came back", o.Restored.last())
	}
}

// A commit index costs no fsync, and is not lost by closing, or when nothing else is written for a while.
func TestStoreLazy(t *testing.T) {
	b := openBench(t, t.TempDir())
	b.save(write{Sync: true, Entries: testEntries(t, 1, 1, 3), HardState: testHard(1, 0, 0)})
	synced := make(chan bool, 10)
	b.setFault(func(step, _ string) error {
		if step == "sync" {
			synced <- true
		}
		return nil
	})
	b.save(write{HardState: testHard(1, 0, 2)})
	if len(synced) > 0 {
		t.Error("a commit index alone was synced at once")
	}
	if o := b.reopen(); o.Restored.HardState.GetCommit() != 2 {
		t.Errorf("closing lost it: %v", o.Restored.HardState)
	}
	for len(synced) > 0 {
		<-synced
	}
	b.close()
	b.events = make(chan saved, 10)
	s := newDiskStore(b.dir, slog.New(slog.DiscardHandler), func(e saved) { b.events <- e })
	s.delay.lazy = time.Millisecond
	s.fault = func(step, _ string) error {
		if step == "sync" {
			synced <- true
		}
		return nil
	}
	var err error
	if b.s, b.openedFolder, err = s.start("alice"); err != nil {
		t.Fatal(err)
	}
	b.save(write{HardState: testHard(1, 0, 3)})
	<-synced // by itself
}

// Each failure is told, nothing is lost, the order is kept.
func TestStoreFailures(t *testing.T) {
	for _, step := range []string{"write", "sync", "create", "syncdir", "rename"} {
		for _, kind := range []string{"entries", "snapshot"} {
			t.Run(step+" "+kind, func(t *testing.T) {
				b := openBench(t, t.TempDir())
				b.save(write{Sync: true, HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)})
				left := 3
				b.setFault(func(s, _ string) error {
					// To get at the steps of a new segment the write before it must fail.
					if left > 0 && (s == step || kind == "entries" && s == "write" && left == 3) {
						left--
						return unix.ENOSPC
					}
					return nil
				})
				w := write{Sync: true, Entries: testEntries(t, 1, 4, 5)}
				if kind == "snapshot" {
					w = write{Sync: true, Snapshot: testSnapshot(2, 1, "two"), HardState: testHard(1, 7, 2), Entries: testEntries(t, 1, 3, 5)}
				}
				failures := b.save(w)
				if kind == "entries" && step == "rename" {
					left = 0 // no rename in it, one failed write
				} else if len(failures) != 3 || !strings.Contains(failures[0], "free some space") {
					t.Errorf("failures: %q", failures)
				}
				b.save(write{Sync: true, Entries: testEntries(t, 1, 6, 6)})
				o := b.reopen()
				if o.Aside != "" || o.Restored.last() != 6 {
					t.Errorf("came back: %+v", o)
				}
			})
		}
	}
}

var errCrash = errors.New("crash")

// TestStoreReplaceCrash stops a Replace before each of its steps in turn, with and without the exchange of two names:
// what is found then is all of the old or all of the new, and the old is never lost.
func TestStoreReplaceCrash(t *testing.T) {
	for _, exchange := range []bool{true, false} {
		crashed := true
		for stop := 0; crashed; stop++ {
			t.Run(fmt.Sprintf("exchange=%v/%d", exchange, stop), func(t *testing.T) {
				crashed = replaceUntil(t, exchange, stop)
			})
		}
	}
}

func replaceUntil(t *testing.T, exchange bool, stop int) (crashed bool) {
	b := openBench(t, t.TempDir())
	b.save(write{Sync: true, HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)})
	old := b.openedFolder.Member
	steps := 0
	hit := make(chan bool, 1)
	b.setFault(func(step, _ string) error {
		if steps++; steps > stop {
			select {
			case hit <- true:
			default:
			}
			return errCrash // and nothing after it happens
		}
		if step == "exchange" && !exchange {
			return unix.EINVAL
		}
		return nil
	})
	fresh := newMember("alice")
	b.s.Replace("left", fresh, write{Done: 99, Snapshot: testSnapshot(8, 3, "forged"), HardState: testHard(3, 0, 8)})
	e := <-b.events
	crashed = e.Err != ""
	if crashed {
		<-hit
	}
	b.close()
	b.setFault(nil)
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	o := b.openedFolder
	wantOld := &restored{}
	if err := wantOld.apply(write{HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)}); err != nil {
		t.Fatal(err)
	}
	switch {
	case o.Aside != "":
		t.Fatalf("taken for corrupt: %s", o.Why)
	case o.Member.ID == old.ID && crashed:
		sameRestored(t, o.Restored, wantOld)
	case o.Member.ID == fresh.ID:
		if o.Restored.Snapshot.GetMetadata().GetIndex() != 8 || len(o.Restored.Entries) != 0 {
			t.Fatalf("new name, but %+v", o.Restored)
		}
		kept := keptFolders(t, b.dir)
		if len(kept) != 1 {
			t.Fatalf("kept: %v", kept)
		}
		m, l, err := readFolder(filepath.Join(b.dir, kept[0]))
		if err != nil || m.ID != old.ID {
			t.Fatalf("what was kept: %+v, %v", m, err)
		}
		sameRestored(t, &l.state, wantOld)
	default:
		t.Fatalf("crashed=%v, but member is %x; old %x, new %x", crashed, o.Member.ID, old.ID, fresh.ID)
	}
	for _, name := range []string{raftNewName, raftOldName} {
		if _, err := os.Lstat(filepath.Join(b.dir, name)); err == nil {
			t.Errorf("%s was left behind", name)
		}
	}
	b.save(write{Sync: true, HardState: testHard(11, 0, o.Restored.HardState.GetCommit())})
	if again := b.reopen(); again.Restored.HardState.GetTerm() != 11 {
		t.Errorf("the folder does not work on: %+v", again.Restored)
	}
	return crashed
}

func keptFolders(t *testing.T, dir string) (out []string) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.Contains(n.Name(), "-2026") {
			out = append(out, n.Name())
		}
	}
	return out
}

// TestStoreRotateCrash is the same for a snapshot; also when the folder could not be synced after the rename, so that the
// rename may have happened or not, and the next try is interrupted.
func TestStoreRotateCrash(t *testing.T) {
	for _, again := range []bool{false, true} {
		crashed := true
		for stop := 0; crashed; stop++ {
			t.Run(fmt.Sprintf("again=%v/%d", again, stop), func(t *testing.T) {
				crashed = rotateUntil(t, again, stop)
			})
		}
	}
}

func rotateUntil(t *testing.T, again bool, stop int) (crashed bool) {
	b := openBench(t, t.TempDir())
	before := write{Sync: true, HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)}
	after := write{Done: 9, Sync: true, Snapshot: testSnapshot(9, 4, "leader"), HardState: testHard(4, 0, 9)}
	b.save(before)
	steps, renames, refused := 0, 0, !again
	b.setFault(func(step, _ string) error {
		if step == "rename" {
			renames++
		}
		if !refused {
			if refused = step == "syncdir" && renames > 0; refused {
				return unix.EIO
			}
			return nil
		}
		if steps++; steps > stop {
			crashed = true
			return errCrash
		}
		return nil
	})
	b.s.Save(after)
	for e := range b.events {
		if e.Err == "" || strings.Contains(e.Err, errCrash.Error()) {
			break
		}
	}
	b.close()
	b.setFault(nil)
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	if b.openedFolder.Aside != "" {
		t.Fatalf("taken for corrupt: %s", b.openedFolder.Why)
	}
	want := &restored{}
	w := before
	if b.openedFolder.Restored.Snapshot != nil {
		w = after
	} else if !crashed {
		t.Fatal("the snapshot was saved and is not there")
	}
	if err := want.apply(w); err != nil {
		t.Fatal(err)
	}
	sameRestored(t, b.openedFolder.Restored, want)
	return crashed
}

func TestStoreFirstOpenCrash(t *testing.T) {
	crashed := true
	for stop := 0; crashed; stop++ {
		b := &storeBench{t: t, dir: t.TempDir()}
		steps := 0
		b.fault = func(string, string) error {
			if steps++; steps > stop {
				return errCrash
			}
			return nil
		}
		err := b.open()
		if crashed = err != nil; !crashed {
			b.close()
			break
		}
		b.setFault(nil)
		if err := b.open(); err != nil {
			t.Fatalf("after a crash at step %d: %v", stop, err)
		}
		if b.openedFolder.Aside != "" || b.openedFolder.Member.ID == 0 || len(keptFolders(t, b.dir)) > 0 {
			t.Errorf("after a crash at step %d: %+v", stop, b.openedFolder)
		}
		b.close()
	}
}

// A Replace does not wait for a write that cannot succeed, which was for the old folder anyway.
func TestStoreReplaceGivesUpFailing(t *testing.T) {
	b := openBench(t, t.TempDir())
	b.setFault(func(step, path string) error {
		if step != "clear" && strings.Contains(path, "/"+raftName+"/") {
			return unix.EIO
		}
		return nil
	})
	b.s.Save(write{Done: 1, Sync: true, HardState: testHard(1, 7, 0)})
	if e := <-b.events; e.Done != 1 || !strings.Contains(e.Err, "disk fails") {
		t.Fatalf("%+v", e)
	}
	m := newMember("alice")
	b.s.Replace("wiped", m, write{Done: 2})
	for e := range b.events {
		if e.Done == 2 && e.Err == "" {
			break
		}
	}
	b.setFault(nil)
	if o := b.reopen(); o.Member.ID != m.ID || o.Restored != nil || !slices.ContainsFunc(keptFolders(t, b.dir), func(n string) bool {
		return strings.HasPrefix(n, "wiped-")
	}) {
		t.Errorf("%+v, kept %v", o, keptFolders(t, b.dir))
	}
}

func TestStoreFullDisk(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	dir := mountSmall(t, "size=64k")
	b := openBench(t, filepath.Join(dir, "ha"))
	b.save(write{Sync: true, HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)})
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	big := write{Done: 77, Sync: true, Entries: [][]byte{testEntries(t, 1, 4, 4)[0]}}
	for i := uint64(5); i < 200; i++ {
		big.Entries = append(big.Entries, testEntries(t, 1, i, i)...)
	}
	b.s.Save(big)
	if e := <-b.events; e.Done != 77 || !strings.Contains(e.Err, "no space left on device: free some space") {
		t.Fatalf("%+v", e)
	}
	if err := errors.Join(filler.Truncate(0), filler.Close()); err != nil {
		t.Fatal(err)
	}
	b.await(77)
	if o := b.reopen(); o.Aside != "" || o.Restored.last() != 199 {
		t.Errorf("%+v", o)
	}
}

func TestStoreReadOnly(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	dir := mountSmall(t, "size=256k")
	state := filepath.Join(dir, "ha")
	b := openBench(t, state)
	b.save(write{Sync: true, HardState: testHard(1, 7, 0), Entries: testEntries(t, 1, 1, 3)})
	b.close()
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "size=256k"); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	if err := b.open(); err != nil { // what there is can be read, and the daemon can say what is wrong
		t.Fatal(err)
	}
	if b.openedFolder.Restored.last() != 3 {
		t.Fatalf("%+v", b.openedFolder)
	}
	b.s.Save(write{Done: 5, Sync: true, Entries: testEntries(t, 1, 4, 4)})
	if e := <-b.events; e.Done != 5 || !strings.Contains(e.Err, "make it writable") {
		t.Fatalf("%+v", e)
	}
	remount(0)
	b.await(5)
	if o := b.reopen(); o.Restored.last() != 4 {
		t.Errorf("%+v", o)
	}
	b.close()
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	remount(unix.MS_RDONLY)
	if err := b.open(); err == nil || !strings.Contains(err.Error(), "make it writable") {
		t.Errorf("a folder that cannot be made: %v", err)
	}
	remount(0)
}

// inOwnMounts runs the calling test once more in a process with a mount namespace of its own, so that what it mounts is
// seen by nobody else and ends with it. It returns true in that process, false in the first one when that has passed.
func inOwnMounts(t *testing.T) bool {
	t.Helper()
	const inside = "HACTL_TEST_OWN_MOUNTS"
	if os.Getenv(inside) == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM):
		t.Skip("cannot make a mount namespace here")
	case err != nil:
		t.Fatalf("in its own mount namespace: %v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("in its own mount namespace: %s", out)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Fatalf("it did not run in its own mount namespace:\n%s", out)
	}
	return false
}

// mountSmall gives a small file system.
func mountSmall(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func TestStateFolder(t *testing.T) {
	d := stateFolder(t.TempDir())
	if all, err := d.Generations(); err != nil || len(all) != 0 {
		t.Fatalf("%v, %v", all, err)
	}
	for g := uint64(1); g <= generationsKept+3; g++ {
		if err := d.SaveGeneration(generation{Generation: g, By: "root@alice"}, fmt.Appendf(nil, "# %d\n", g)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := d.Generations()
	if err != nil || len(all) != generationsKept || all[0] != 4 {
		t.Fatalf("%v, %v", all, err)
	}
	if text, err := d.Generation(10); err != nil || string(text) != "# 10\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := d.Generation(2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed generation: %v", err)
	}
	if g := d.About(10); g.By != "root@alice" || g.Generation != 10 {
		t.Errorf("about a generation: %+v", g)
	}
	if left, err := filepath.Glob(filepath.Join(string(d), "config", "gen-*")); err != nil || len(left) != 2*generationsKept {
		t.Errorf("%d files of %d generations, %v", len(left), generationsKept, err)
	}
	base, err := d.Base()
	if err != nil || base != (configBase{}) {
		t.Errorf("%+v, %v", base, err)
	}
	if err := d.SaveBase(configBase{Generation: 7, Hash: "ab"}); err != nil {
		t.Fatal(err)
	}
	if base, err = d.Base(); err != nil || base.Generation != 7 || base.Hash != "ab" {
		t.Errorf("%+v, %v", base, err)
	}
	met := meeting{Incarnation: 7, Peers: []string{"bob"}}
	if err := errors.Join(d.SaveBoot(bootNote{Boot: "b", Joined: true}), d.SaveNode("alice"), d.SaveMeeting(met)); err != nil {
		t.Fatal(err)
	}
	boot, err := d.Boot()
	if name, err2 := d.Node(); err != nil || err2 != nil || !boot.Joined || boot.Boot != "b" || name != "alice" {
		t.Errorf("%+v, %v, %q, %v", boot, err, name, err2)
	}
	if m, err := d.Meeting(); err != nil || m.Incarnation != met.Incarnation || !slices.Equal(m.Peers, met.Peers) {
		t.Errorf("%+v, %v", m, err)
	}
	if err := os.WriteFile(filepath.Join(string(d), "boot"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("a broken note: %v", err)
	}
}

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := writeFileAtomic(path, []byte("one"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte("left by a crash, and longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeFileAtomic(link, []byte("two"), 0o640); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	info, statErr := os.Lstat(path)
	if err != nil || statErr != nil || string(data) != "two" || info.Mode() != 0o640 {
		t.Errorf("%q, %v, %v, %v", data, info.Mode(), err, statErr)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v", err)
	}
	if err := writeFileAtomic(filepath.Join(dir, "none", "file"), nil, 0o600); err == nil {
		t.Error("a missing folder gave no error")
	}
	if _, err := os.Lstat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the temporary file is still there")
	}
}
