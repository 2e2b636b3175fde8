// Is /etc/ha.toml the config in force? It watches the file, offers a good edit to the cluster, keeps a bad or stale one
// from doing anything, and writes what the cluster has decided. It never overwrites a file that it did not write.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// configFile is the file on this node and what is known of it.
type configFile struct {
	d       *daemon
	path    string
	log     *slog.Logger
	inForce *Config // at the start
	mended  *Config // what the file held then, nil if it was not good
	wake    chan struct{}

	mu       sync.Mutex
	text     []byte // of the file, for the founding
	hash     string
	current  ConfigState // in force; generation 0: not known yet
	accepted []ConfigState
	offered  []string // hashes of the edits of this file that were offered and are not settled; newest last
	told     string   // the text whose fault was told last, by hash
}

func newConfigFile(d *daemon, text []byte, cfg *Config, report string) *configFile {
	f := &configFile{d: d, path: d.o.Config, log: d.log, text: text, mended: cfg, wake: make(chan struct{}, 1)}
	f.hash = configHash(text)
	if cfg == nil {
		d.log.Error("the config file is not used: "+strings.TrimSpace(report), "event", "config-bad")
	}
	return f
}

// loadConfigFile reads and checks; without a config the report says why.
func loadConfigFile(path string) (text []byte, cfg *Config, report string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Sprintf("read the config: %v", err)
	}
	cfg, problems := parseConfig(text)
	if errs, _ := countProblems(problems); errs > 0 || cfg == nil {
		return text, nil, renderProblems(path, problems)
	}
	return text, cfg, ""
}

// accept is told each generation that comes into force; the writing is done by watch.
func (f *configFile) accept(c ConfigState) {
	f.mu.Lock()
	f.accepted = append(f.accepted, c)
	f.current = c
	f.mu.Unlock()
	f.poke()
}

// founding is the text that a cluster would be founded with.
func (f *configFile) founding() (hash string, text []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hash, f.text
}

func (f *configFile) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

const (
	editSettle    = 50 * time.Millisecond // editors write in several steps
	missingSettle = time.Second           // and some move the old file away first
)

// watch follows the file and the generations until ctx ends; a word on reload asks it to look now.
func (f *configFile) watch(ctx context.Context, reload <-chan os.Signal) {
	events := watchFolder(ctx, f.path, f.log)
	f.poke()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			if !pause(ctx, editSettle) {
				return
			}
		case <-reload:
			f.log.Info("the config file is looked at, as asked", "event", "config-reload")
		case <-f.wake:
		}
		f.keepGenerations()
		f.compare(ctx)
	}
}

// watchFolder tells of changes to one file: its folder is watched, since editors rename, and that of the file which it is
// a symlink to. Where that is not possible the file is looked at every second.
func watchFolder(ctx context.Context, path string, log *slog.Logger) <-chan struct{} {
	out := make(chan struct{}, 1)
	tell := func() {
		select {
		case out <- struct{}{}:
		default:
		}
	}
	watched := []string{path}
	if target, err := filepath.EvalSymlinks(path); err == nil && target != filepath.Clean(path) {
		watched = append(watched, target)
	}
	w, err := fsnotify.NewWatcher()
	for _, p := range watched {
		if err == nil {
			err = w.Add(filepath.Dir(p))
		}
	}
	if err != nil {
		log.Warn("changes of a file are looked for every second", "event", "watch-failed", "file", path, "err", err)
		go func() {
			for pause(ctx, time.Second) {
				tell()
			}
		}()
		return out
	}
	go func() {
		defer w.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-w.Events:
				if slices.ContainsFunc(watched, func(p string) bool { return filepath.Base(p) == filepath.Base(e.Name) }) {
					tell()
				}
			case <-w.Errors:
				tell() // events were lost: look
			}
		}
	}()
	return out
}

// keepGenerations writes each new generation to the state folder.
func (f *configFile) keepGenerations() {
	f.mu.Lock()
	list := f.accepted
	f.accepted = nil
	f.mu.Unlock()
	for _, c := range list {
		f.noteBase(c)
		text, err := decompress(c.Text)
		if err == nil {
			err = f.d.folder.SaveGeneration(generation{c.Generation, c.Hash, c.By, c.Wall}, text)
		}
		if err != nil {
			f.log.Error("cannot keep a config generation", "event", "store-failed", "generation", c.Generation, "err", err)
		}
	}
}

// noteBase: a generation that was made of an edit of this file is what a later edit of it was made from, even if the
// file has changed again by now.
func (f *configFile) noteBase(c ConfigState) {
	f.mu.Lock()
	i := slices.Index(f.offered, c.Hash)
	if i >= 0 {
		f.offered = slices.Delete(f.offered, 0, i+1)
	}
	f.mu.Unlock()
	if i < 0 {
		return
	}
	if err := f.d.folder.SaveBase(configBase{Generation: c.Generation, Hash: c.Hash}); err != nil {
		f.log.Error("cannot note the base of the config", "event", "store-failed", "err", err)
	}
}

// forget drops an edit that was not taken.
func (f *configFile) forget(hash string) {
	f.mu.Lock()
	f.offered = slices.DeleteFunc(f.offered, func(h string) bool { return h == hash })
	f.mu.Unlock()
}

// compare looks at the file and does what follows.
func (f *configFile) compare(ctx context.Context) {
	f.mu.Lock()
	current := f.current
	f.mu.Unlock()
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) && current.Generation > 0 {
		// Somebody may be about to put a new one there: writing now could end up on top of it.
		if !pause(ctx, missingSettle) {
			return
		}
		text, err = os.ReadFile(f.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.complain(ctx, "", &Problem{ID: "config-bad", Severity: "error", What: "the config file cannot be read: " + err.Error(), Next: "the config in force goes on"})
		return
	}
	missing := err != nil
	hash := configHash(text)
	base, err := f.d.folder.Base()
	if err != nil {
		f.log.Warn("what this node last wrote to the config file is not known", "event", "base-unknown", "err", err)
	}
	switch {
	case current.Generation == 0:
		f.beforeFounding(ctx, text, hash)
	case hash == current.Hash && !missing:
		f.settle(ctx, current)
	case missing || hash == base.Hash:
		f.write(ctx, current)
	case base.Hash == current.Hash:
		f.offer(ctx, text, hash, current)
	default:
		f.stale(ctx, text, hash, base, current)
	}
}

// settle notes that the file is what is in force.
func (f *configFile) settle(ctx context.Context, c ConfigState) {
	f.mu.Lock()
	waiting := len(f.offered) > 0
	f.offered = nil
	f.mu.Unlock()
	if waiting {
		f.d.post(ctx, func(n *node, _ instant) { // the file was put back before they were recorded
			n.dropEdits()
			if f.d.makeshift {
				f.d.makeshift = false
				f.d.wireBy(c.Effective)
			}
		})
	}
	f.complain(ctx, c.Hash, nil)
	if err := f.d.folder.SaveBase(configBase{Generation: c.Generation, Hash: c.Hash}); err != nil {
		f.log.Error("cannot note the base of the config", "event", "store-failed", "err", err)
	}
}

// write puts what is in force into the file.
func (f *configFile) write(ctx context.Context, c ConfigState) {
	text, err := decompress(c.Text)
	if err == nil {
		err = writeFileAtomic(f.path, text, 0o644)
	}
	if err != nil {
		f.complain(ctx, "", &Problem{ID: "config-unwritten", Severity: "warning", What: fmt.Sprintf("config generation %d cannot be written to %s: %v", c.Generation, f.path, err),
			Next: "it is in force all the same"})
		return
	}
	f.log.Info("config file written", "event", "config-written", "generation", c.Generation, "file", f.path)
	f.settle(ctx, c)
}

// offer proposes a good edit of what is in force.
func (f *configFile) offer(ctx context.Context, text []byte, hash string, current ConfigState) {
	cfg := f.check(ctx, text, hash)
	if cfg == nil {
		return
	}
	if err := sameCluster(current.Effective, cfg); err != nil {
		f.complain(ctx, hash, &Problem{ID: "config-bad", Severity: "error", What: f.path + ": " + err.Error(),
			Next: fmt.Sprintf("generation %d stays in force", current.Generation)})
		return
	}
	host, err := hostInterfaces()
	if err != nil {
		f.log.Warn("whether this host has what an edit asks for is not known", "event", "links-unknown", "err", err)
	} else if faults := newFaults(current.Effective, cfg, text, f.d.name, host); len(faults) > 0 {
		f.complain(ctx, hash, &Problem{ID: "config-bad", Severity: "error", What: fmt.Sprintf("an edit of %s is not taken, this host has not what it asks for: %s", f.path, onOneLine(f.path, faults[0])),
			Next: fmt.Sprintf("generation %d stays in force", current.Generation), Command: "hactl config check --host " + f.path})
		return
	}
	f.mu.Lock()
	underWay := len(f.offered) > 0 && f.offered[len(f.offered)-1] == hash
	if !underWay {
		f.offered = append(f.offered, hash)
	}
	f.mu.Unlock()
	if underWay {
		return
	}
	canBeHeard := err == nil && !cfg.cutOff(f.d.name, host)
	f.complain(ctx, hash, &Problem{ID: "config-pending", Severity: "warning", What: "an edit of " + f.path + " waits to be recorded", Next: "it comes into force as soon as a majority of voters has it"})
	next := ConfigState{Hash: hash, Text: compress(text), Effective: cfg}
	by := "root@" + f.d.name
	f.d.post(ctx, func(n *node, now instant) {
		if canBeHeard && n.Unproven() {
			f.log.Warn("by the config in force nobody is heard: the edited file is used for that", "event", "links-mended")
			f.d.makeshift = true
			f.d.wireBy(cfg)
		}
		n.Edit(now, next, current.Generation, by, func(p Progress) {
			if p.Err != "" {
				f.log.Warn("edit of the config not taken: "+p.Err, "event", "config-refused")
				f.forget(hash)
				if n.state != nil { // else it is looked at again when the cluster's config is known here
					f.poke()
				}
			}
		})
	})
}

// beforeFounding: the file is what the cluster will be founded with.
func (f *configFile) beforeFounding(ctx context.Context, text []byte, hash string) {
	if hash == f.hash {
		return
	}
	if cfg := f.check(ctx, text, hash); cfg != nil {
		f.mu.Lock()
		f.hash, f.text = hash, text
		f.mu.Unlock()
		c := ConfigState{Hash: hash, Text: compress(text), Effective: cfg}
		f.complain(ctx, hash, nil)
		f.d.post(ctx, func(n *node, now instant) {
			if n.state != nil {
				return // there is a cluster: the edit is looked at again when this node has joined it
			}
			f.d.wired = cfg
			f.d.rewire()
			n.Edit(now, c, 0, f.d.name, func(Progress) {})
		})
	}
}

// check parses an edit; a bad one changes nothing and is shown until it is mended.
func (f *configFile) check(ctx context.Context, text []byte, hash string) *Config {
	cfg, problems := parseConfig(text)
	errs, _ := countProblems(problems)
	if errs == 0 && cfg != nil {
		return cfg
	}
	first := problems[0]
	for _, p := range problems {
		if p.Severity == severityError {
			first = p
			break
		}
	}
	f.complain(ctx, hash, &Problem{ID: "config-bad", Severity: "error", What: fmt.Sprintf("an edit of %s is not taken, it has %s: %s", f.path, count(errs, "error"), onOneLine(f.path, first)),
		Next: "the config before it stays in force", Command: "hactl config check " + f.path})
	return nil
}

func onOneLine(path string, p configError) string {
	return strings.ReplaceAll(strings.TrimSpace(p.render(path)), "\n", "; ")
}

// stale keeps an edit that was made from an older generation beside the file. It is never applied by itself, and the
// file is left as it is: hactl did not write it.
func (f *configFile) stale(ctx context.Context, text []byte, hash string, base configBase, current ConfigState) {
	beside := f.path + ".edit-" + hash[:8]
	if _, err := os.Lstat(beside); errors.Is(err, fs.ErrNotExist) {
		if err := writeFileAtomic(beside, text, 0o600); err != nil {
			f.log.Error("cannot keep a stale edit beside the file", "event", "store-failed", "err", err)
		}
	}
	in := filepath.Join(f.d.folder.configDir(), filepath.Base(f.d.folder.generationPath(current.Generation)))
	from := "was not made from what is in force"
	if base.Generation != 0 {
		from = fmt.Sprintf("was made from generation %d", base.Generation)
	}
	f.complain(ctx, hash, &Problem{ID: "config-stale", Severity: "error",
		What: fmt.Sprintf("the edit of %s on %s %s; generation %d is in force", f.path, f.d.name, from, current.Generation),
		Why:  "the file was also changed elsewhere", Next: fmt.Sprintf("it is not applied, and kept in %s; take what is in force, then make the edit again", beside),
		Command: fmt.Sprintf("cp %s %s", in, f.path)})
}

// complain shows a problem with the file, or none, and logs it once.
func (f *configFile) complain(ctx context.Context, hash string, p *Problem) {
	var list []Problem
	if p != nil {
		list = []Problem{*p}
		key := hash + p.ID
		if f.told != key {
			f.told = key
			level := slog.LevelWarn
			if p.ID == "config-pending" {
				level = slog.LevelInfo
			}
			f.log.Log(ctx, level, p.What, "event", p.ID)
		}
	} else {
		f.told = ""
	}
	f.d.post(ctx, func(n *node, now instant) { n.Problems(now, list) })
}

// watchKeys takes a changed key file into use.
func (d *daemon) watchKeys(ctx context.Context) {
	path := d.files.inForce.Cluster.KeyFile
	events := watchFolder(ctx, path, d.log)
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
		}
		if !pause(ctx, editSettle) {
			return
		}
		keys, err := loadKeys(path)
		if err == nil {
			err = d.net.setKeys(keys)
		}
		if err != nil {
			d.log.Error("the changed key file is not used; the keys before it stay in use", "event", "keys-refused", "err", err)
			continue
		}
		d.log.Info("keys loaded", "event", "keys-loaded", "keys", keyNames(keys))
	}
}
