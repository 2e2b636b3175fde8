// Where do the small files of the state folder lie? Atomic writing for everybody, and the notes that live beside the
// raft folder: past generations of the config, the base of the next edit, the boot in which this node last joined. None
// of these is needed for safety; what cannot be read is an error or absent, never a guess.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// writeFileAtomic leaves either the old or the new content under that name, whatever happens, and returns when the new
// one is durable. A symbolic link is followed, so that what it points to is replaced. Two writers of one path must not
// run at once.
func writeFileAtomic(path string, data []byte, mode fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask, and whatever a leftover had
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp) // best effort: the next write truncates it
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncFolder makes the names in it durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// stateFolder is /var/lib/ha.
type stateFolder string

const (
	generationsKept = 50
	stateFileMode   = 0o600
	stateFolderMode = 0o700
)

func (d stateFolder) configDir() string { return filepath.Join(string(d), "config") }

// generation says of one what its text does not.
type generation struct {
	Generation uint64 `json:"generation"`
	Hash       string `json:"hash"` // SHA-256 of the text, hex
	By         string `json:"by"`   // user@node
	Wall       int64  `json:"wall"` // Unix ns
}

// SaveGeneration keeps the text of a config generation, and removes the oldest beyond generationsKept.
func (d stateFolder) SaveGeneration(g generation, text []byte) error {
	err := os.MkdirAll(d.configDir(), stateFolderMode)
	if err == nil {
		err = writeFileAtomic(d.generationPath(g.Generation), text, stateFileMode)
	}
	if err == nil {
		err = saveNote(d.generationNote(g.Generation), g)
	}
	if err != nil {
		return fmt.Errorf("keep config generation %d: %w", g.Generation, err)
	}
	all, err := d.Generations()
	if err != nil {
		return err
	}
	for len(all) > generationsKept {
		err := os.Remove(d.generationPath(all[0]))
		if e := os.Remove(d.generationNote(all[0])); err == nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
		if err != nil {
			return fmt.Errorf("remove old config generation %d: %w", all[0], err)
		}
		all = all[1:]
	}
	return nil
}

func (d stateFolder) generationPath(generation uint64) string {
	return filepath.Join(d.configDir(), fmt.Sprintf("gen-%06d.toml", generation))
}

func (d stateFolder) generationNote(generation uint64) string {
	return strings.TrimSuffix(d.generationPath(generation), ".toml") + ".json"
}

// About is what is known of a generation beside its text: its number alone, where nothing was noted.
func (d stateFolder) About(n uint64) generation {
	var g generation
	if readNote(d.generationNote(n), &g) != nil || g.Generation != n {
		return generation{Generation: n}
	}
	return g
}

// Generation reads a text back; fs.ErrNotExist when it is not kept (any more).
func (d stateFolder) Generation(generation uint64) ([]byte, error) {
	data, err := os.ReadFile(d.generationPath(generation))
	if err != nil {
		return nil, fmt.Errorf("read config generation %d: %w", generation, err)
	}
	return data, nil
}

// Generations lists the numbers that are kept, oldest first.
func (d stateFolder) Generations() ([]uint64, error) {
	names, err := os.ReadDir(d.configDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list config generations: %w", err)
	}
	var out []uint64
	for _, entry := range names {
		digits, ok := strings.CutPrefix(entry.Name(), "gen-")
		if !ok {
			continue
		}
		if digits, ok = strings.CutSuffix(digits, ".toml"); !ok {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// configBase says which generation the config file on this node holds, as far as this node knows: what it last wrote
// or accepted there. An edit of the file is an edit of this.
type configBase struct {
	Generation uint64 `json:"generation"`
	Hash       string `json:"hash"` // SHA-256 of the file, hex
}

func (d stateFolder) SaveBase(b configBase) error {
	if err := os.MkdirAll(d.configDir(), stateFolderMode); err != nil {
		return fmt.Errorf("keep the base of the config: %w", err)
	}
	return saveNote(filepath.Join(d.configDir(), "base"), b)
}

// Base is the zero value when nothing was accepted yet.
func (d stateFolder) Base() (b configBase, err error) {
	err = readNote(filepath.Join(d.configDir(), "base"), &b)
	return b, err
}

// bootNote says in which kernel boot this node was last joined; see wait_for_all.
type bootNote struct {
	Boot   string `json:"boot"` // kernel boot id
	Joined bool   `json:"joined"`
}

func (d stateFolder) SaveBoot(b bootNote) error { return saveNote(filepath.Join(string(d), "boot"), b) }

func (d stateFolder) Boot() (b bootNote, err error) {
	err = readNote(filepath.Join(string(d), "boot"), &b)
	return b, err
}

// meeting says which peers were last heard in an incarnation that this node's own yields to.
type meeting struct {
	Incarnation uint64   `json:"incarnation"` // this node's; in another one the note says nothing
	Peers       []string `json:"peers"`
}

func (d stateFolder) SaveMeeting(m meeting) error {
	return saveNote(filepath.Join(string(d), "met"), m)
}

func (d stateFolder) Meeting() (m meeting, err error) {
	err = readNote(filepath.Join(string(d), "met"), &m)
	return m, err
}

// SaveNode keeps the name that this node was recognized by.
func (d stateFolder) SaveNode(name string) error {
	return saveNote(filepath.Join(string(d), "node"), name)
}

// Node is "" while none is known.
func (d stateFolder) Node() (name string, err error) {
	err = readNote(filepath.Join(string(d), "node"), &name)
	return name, err
}

func saveNote(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFileAtomic(path, append(data, '\n'), stateFileMode)
}

func readNote(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w: remove the file, it is made again", path, err)
	}
	return nil
}
