package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const filedText = `[cluster]
name = "shop"
key_file = "/etc/ha.key"
two_node = "manual"
[[link]]
name = "lan"
interface = "eth0"
[[node]]
name = "alice"
address = { lan = "192.0.2.11" }
[[node]]
name = "bob"
address = { lan = "192.0.2.12" }
[[group]]
name = "web"
[[group.resource]]
type = "vip"
address = "192.0.2.100"
interface = "eth0"
`

// filed is a rig with the config file beside it; both are driven by hand, in turn.
type filed struct {
	*rig
	d    *daemon
	f    *configFile
	kept int
	// steps of 100 ms pass while the two look at each other.
	steps int
}

func newFiled(t *testing.T) *filed {
	t.Helper()
	cfg, problems := parseConfig([]byte(filedText))
	if cfg == nil {
		t.Fatal(renderProblems("ha.toml", problems))
	}
	dir := t.TempDir()
	x := &filed{rig: newRig(t, cfg), steps: 5}
	x.d = &daemon{o: daemonOptions{Config: filepath.Join(dir, "ha.toml")}, log: slog.New(slog.DiscardHandler), name: "alice",
		folder: stateFolder(filepath.Join(dir, "state")), events: make(chan any, eventQueue), ended: make(chan struct{})}
	if err := os.MkdirAll(x.d.folder.configDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	x.f = newConfigFile(x.d, []byte(filedText), cfg, "")
	x.n.opt.FileHash, x.n.opt.FileText = x.f.hash, compress([]byte(filedText))
	x.write(filedText)
	x.started()
	x.look()
	return x
}

func (x *filed) write(text string) {
	x.t.Helper()
	if err := os.WriteFile(x.d.o.Config, []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
}

// look lets the file's side see what there is, and the node what it says, until neither has more to say.
func (x *filed) look() {
	x.t.Helper()
	for range 20 {
		for _, c := range x.rig.kept[x.kept:] {
			x.f.accept(c)
		}
		x.kept = len(x.rig.kept)
		x.f.keepGenerations()
		x.f.compare(context.Background())
		for len(x.d.events) > 0 {
			e := <-x.d.events
			e.(func(*node, instant))(x.n, x.now)
			x.settle()
		}
		for range x.steps {
			x.now = x.now.add(100 * time.Millisecond)
			x.n.Tick(x.now)
			x.settle()
		}
		if len(x.rig.kept) == x.kept && len(x.f.wake) == 0 && len(x.d.events) == 0 {
			return
		}
		for len(x.f.wake) > 0 {
			<-x.f.wake
		}
	}
	x.t.Fatal("file and node never come to rest")
}

func (x *filed) problems() string {
	var ids []string
	for _, p := range x.n.problems {
		ids = append(ids, p.ID)
	}
	return strings.Join(ids, " ")
}

func (x *filed) generation() uint64 { return x.n.state.Config.Generation }

func (x *filed) mustForce(text string, generation uint64) {
	x.t.Helper()
	if got := x.n.state.Config; got.Hash != configHash([]byte(text)) || got.Generation != generation || x.problems() != "" {
		x.t.Fatalf("generation %d (want %d), the text in force is the file's: %v, problems %q", got.Generation, generation, got.Hash == configHash([]byte(text)), x.problems())
	}
}

// silence takes the node's quorum away, or gives it back: what is proposed meanwhile goes nowhere.
func (x *filed) silence(on bool) {
	x.hold = on
	if !on {
		x.settle()
	}
}

func TestEditComesIntoForceAndABadOneDoesNot(t *testing.T) {
	x := newFiled(t)
	x.mustForce(filedText, 1)
	good := filedText + "# a comment\n"
	x.write(good)
	x.look()
	x.mustForce(good, 2)
	x.write(good + "nonsense = 1\n")
	x.look()
	if x.generation() != 2 || x.problems() != "config-bad" {
		t.Fatalf("generation %d, problems %q", x.generation(), x.problems())
	}
	x.write(good)
	x.look()
	x.mustForce(good, 2)
}

func TestSecondEditBeforeTheFirstIsRecordedIsNotStale(t *testing.T) {
	x := newFiled(t)
	x.silence(true)
	first, second := filedText+"# one\n", filedText+"# two\n"
	x.write(first)
	x.look()
	if x.problems() != "config-pending" {
		t.Fatalf("problems %q", x.problems())
	}
	x.write(second)
	x.look()
	x.silence(false)
	x.until("the newest is in force", 10*time.Second, func() bool { x.look(); return x.n.state.Config.Hash == configHash([]byte(second)) })
	x.look()
	x.mustForce(second, x.generation())
	if text, err := os.ReadFile(x.d.o.Config); err != nil || string(text) != second {
		t.Fatalf("the file holds %q, %v", text, err)
	}
}

func TestEditThatIsTakenBackIsNotRecordedLater(t *testing.T) {
	x := newFiled(t)
	x.rig, x.kept, x.steps = x.again(x.n.config, func(*nodeOptions) {}), 0, 0 // no leader yet: nothing can be proposed
	x.n.Tick(x.now)
	x.settle()
	x.write(filedText + "# one\n")
	x.look()
	if len(x.n.waiters) != 1 {
		t.Fatalf("%d edits wait", len(x.n.waiters))
	}
	x.write(filedText)
	x.look()
	if len(x.n.waiters) != 0 || x.problems() != "" {
		t.Fatalf("%d edits wait, problems %q", len(x.n.waiters), x.problems())
	}
}

func TestEditOfANodeWithoutAStateWaits(t *testing.T) {
	x := newFiled(t)
	x.n.setAside(x.now, "a test")
	x.write(filedText + "# one\n")
	x.look() // comes to rest
	if x.n.config.Groups[0].Name != "web" || x.n.opt.FileHash != configHash([]byte(filedText)) {
		t.Fatal("an edit of a running cluster was taken for the founding of another")
	}
}

func TestDeletedFileIsWrittenAgainAndAStaleEditIsKeptBeside(t *testing.T) {
	x := newFiled(t)
	if err := os.Remove(x.d.o.Config); err != nil {
		t.Fatal(err)
	}
	x.look()
	if text, err := os.ReadFile(x.d.o.Config); err != nil || string(text) != filedText {
		t.Fatalf("the file holds %q, %v", text, err)
	}
	// Another node's edit comes into force while this file holds an edit of the generation before.
	stale, theirs := filedText+"# here\n", filedText+"# there\n"
	x.write(stale)
	cfg, _ := parseConfig([]byte(theirs))
	x.n.Edit(x.now, ConfigState{Hash: configHash([]byte(theirs)), Text: compress([]byte(theirs)), Effective: cfg}, 1, "root@bob", func(Progress) {})
	x.settle()
	for _, c := range x.rig.kept[x.kept:] {
		x.f.accept(c)
	}
	x.kept = len(x.rig.kept)
	x.look()
	if x.problems() != "config-stale" || x.generation() != 2 {
		t.Fatalf("problems %q, generation %d", x.problems(), x.generation())
	}
	names, err := filepath.Glob(x.d.o.Config + ".edit-*")
	if err != nil || len(names) != 1 {
		t.Fatalf("kept beside: %v, %v", names, err)
	}
	text, err := os.ReadFile(x.d.o.Config)
	if err != nil || string(text) != stale || !slices.ContainsFunc(x.n.problems, func(p Problem) bool { return strings.Contains(p.Next, names[0]) }) {
		t.Fatalf("the file holds %q, %v; %+v", text, err, x.n.problems)
	}
}

// TestWatchedThroughSymlink: whoever keeps /etc in version control edits the file behind the link.
func TestWatchedThroughSymlink(t *testing.T) {
	link, target := filepath.Join(t.TempDir(), "ha.toml"), filepath.Join(t.TempDir(), "cluster.toml")
	if err := os.WriteFile(target, []byte("a"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	events := watchFolder(t.Context(), link, slog.New(slog.DiscardHandler))
	if err := writeFileAtomic(link, []byte("b"), 0o644); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Fatalf("the link became %v, %v", info, err)
	}
	select {
	case <-events:
	case <-time.After(clusterPatience):
		t.Fatal("a change behind the link was not seen")
	}
}
