// A daemon that is older than what its cluster has agreed on refuses in words and leaves its folder alone.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func TestDaemonTooOld(t *testing.T) {
	for _, test := range []struct {
		name           string
		stored, logged int
	}{
		{"in the state", featureLevel + 1, 0},
		{"in the log after it", featureLevel, featureLevel + 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := testDaemonAt(t, test.stored, test.logged)
			before := filesIn(t, d.o.StateDir)
			ctx, end := context.WithCancel(t.Context())
			_, _, err := d.open(ctx)
			var old *tooOld
			if !errors.As(err, &old) {
				t.Fatalf("opened with %v", err)
			}
			if want := max(test.stored, test.logged); old.level != want || !strings.Contains(err.Error(), versionText()) {
				t.Errorf("level %d, want %d: %v", old.level, want, err)
			}
			over := make(chan error)
			go func() { over <- d.refuse(ctx, old) }()
			var s *Status
			until(t, "the status to be answered", func() bool {
				s, err = clientAt(d.o.Socket).status(ctx)
				return err == nil
			})
			if p := s.testProblem("too-old"); p == nil || p.What != old.Error() || s.Exit() != 2 || s.testGroup("web").State == "started" {
				t.Errorf("status: %+v", s)
			}
			if text := renderStatus(s, 80, false); !strings.Contains(text, "too old for its cluster") {
				t.Errorf("status is shown as:\n%s", text)
			}
			end()
			if err := <-over; err != nil {
				t.Error(err)
			}
			if after := filesIn(t, d.o.StateDir); after != before {
				t.Errorf("the folder was touched: before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// The level that this binary has is none to refuse.
func TestDaemonOfTheLevel(t *testing.T) {
	d := testDaemonAt(t, featureLevel, featureLevel)
	if _, _, err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.store.Close(); err != nil {
		t.Error(err)
	}
}

// testDaemonAt has a folder whose state is of one level, and whose log raises it to another; 0: it does not.
func testDaemonAt(t *testing.T, stored, logged int) *daemon {
	t.Helper()
	cfg, problems := parseConfig([]byte(filedText))
	if cfg == nil {
		t.Fatal(renderProblems("ha.toml", problems))
	}
	dir := t.TempDir()
	o := daemonOptions{Config: filepath.Join(dir, "ha.toml"), Node: "alice", StateDir: filepath.Join(dir, "state"), RunDir: dir, Socket: filepath.Join(dir, "ha.sock")}
	if err := os.WriteFile(o.Config, []byte(filedText), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &State{Index: 5, Feature: stored, Config: ConfigState{Generation: 1, Effective: cfg}, Groups: []GroupState{{Name: "web"}}}
	w, err := forge(encodeState(s), 5, 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	if logged != 0 {
		data, err := json.Marshal(&Entry{Kind: entryFeature, Feature: logged})
		if err != nil {
			t.Fatal(err)
		}
		b, err := proto.Marshal(&raftpb.Entry{Index: proto.Uint64(6), Term: proto.Uint64(1), Data: data})
		if err != nil {
			t.Fatal(err)
		}
		w.Entries = [][]byte{b}
	}
	store := openBench(t, o.StateDir)
	if failures := store.save(w); len(failures) > 0 {
		t.Fatal(failures)
	}
	store.close()
	d := &daemon{o: o, log: slog.New(slog.DiscardHandler), folder: stateFolder(o.StateDir), events: make(chan any, eventQueue),
		ended: make(chan struct{}), changed: make(chan struct{})}
	if err := d.folder.SaveNode("alice"); err != nil {
		t.Fatal(err)
	}
	return d
}

// filesIn is what a folder holds, names and bytes.
func filesIn(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all.WriteString(path + "\n" + string(b) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
