// Is the key file safe to keep, and can it be rolled?

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func anyKey(string, []secret) error { return nil }

func TestKeyFileRoll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ha.key")
	first, err := keygen(path, false)
	if err != nil {
		t.Fatal(err)
	}
	checkKeys(t, path, first)
	second, err := keygenAdd(path)
	if err != nil {
		t.Fatal(err)
	}
	checkKeys(t, path, first, second)
	if _, err := keygenAdd(path); err == nil || !strings.Contains(err.Error(), "hactl keygen --drop") {
		t.Errorf("a third key: %v", err)
	}
	dropped, err := keygenDrop(path, "", anyKey)
	if err != nil || dropped != first {
		t.Fatalf("dropped %s, %v; want the older, %s", dropped, err, first)
	}
	checkKeys(t, path, second)
	if _, err := keygenDrop(path, "", anyKey); err == nil || !strings.Contains(err.Error(), "hactl keygen --add") {
		t.Errorf("dropping the only key: %v", err)
	}

	// A roll that is given up: the new key goes by its name.
	third, err := keygenAdd(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keygenDrop(path, "00000000", anyKey); err == nil || !strings.Contains(err.Error(), second+" and "+third) {
		t.Errorf("dropping a key that is not there: %v", err)
	}
	if dropped, err := keygenDrop(path, third, anyKey); err != nil || dropped != third {
		t.Fatalf("dropped %s, %v; want %s", dropped, err, third)
	}
	checkKeys(t, path, second)

	if _, err := keygen(path, false); err == nil || !strings.Contains(err.Error(), "keygen --add") {
		t.Errorf("a file is overwritten without force: %v", err)
	}
	checkKeys(t, path, second)
	forced, err := keygen(path, true)
	if err != nil || forced == second {
		t.Fatalf("forced: %s, %v", forced, err)
	}
	checkKeys(t, path, forced)
	if names := folder(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("left behind beside the key file: %v", names)
	}
}

func checkKeys(t *testing.T, path string, want ...string) {
	t.Helper()
	keys, err := loadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := keyNames(keys); got != strings.Join(want, " and ") {
		t.Fatalf("keys %s, want %v", got, want)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
}

func folder(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestKeyFileIsRefused(t *testing.T) {
	good := "key " + strings.Repeat("0a", 32) + "\n"
	other := "key " + strings.Repeat("0b", 32) + "\n"
	third := "key " + strings.Repeat("0c", 32) + "\n"
	write := func(mode os.FileMode, text string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path string)
		want string // in the error, PATH for the file
	}{
		{"missing", func(*testing.T, string) {}, "make one with: hactl keygen PATH"},
		{"readable by the group", write(0o640, good), "its mode is 0640, so others may have read it; only its owner may: chmod 0600 PATH"},
		{"writable by all", write(0o666, good), "chmod 0600 PATH"},
		{"read-only", write(0o400, good), "chmod 0600 PATH"},
		{"set-uid", write(0o600|os.ModeSetuid, good), "its mode is 4600"},
		{"a folder", func(t *testing.T, path string) { os.Mkdir(path, 0o600) }, "no regular file"},
		{"a pipe", func(t *testing.T, path string) { unix.Mkfifo(path, 0o600) }, "no regular file"},
		{"somebody else's", func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			write(0o600, good)(t, path)
			os.Chown(path, 1, 1)
		}, "it belongs to user 1, who could change it; make it yours with: chown 0 PATH"},
		{"empty", write(0o600, "# nothing\n\n"), "no key in it"},
		{"too short", write(0o600, "key 0a0b\n"), "line 1: the key must be exactly 64 hexadecimal digits"},
		{"no hex", write(0o600, good+"key "+strings.Repeat("zz", 32)), "line 2: the key must be exactly 64 hexadecimal digits"},
		{"another word", write(0o600, "secret 0a\n"), "line 1: expected the word key"},
		{"three words", write(0o600, strings.TrimSpace(good)+" x\n"), "line 1: expected the word key"},
		{"twice", write(0o600, good+good), "is there twice"},
		{"three keys", write(0o600, good+other+third), "3 keys, at most 2"},
		{"huge", write(0o600, strings.Repeat("#", maxKeyBytes+1)), "no key file"},
		{"one huge line", write(0o600, strings.Repeat("#", maxKeyBytes)), "no key in it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ha.key")
			tc.make(t, path)
			_, err := loadKeys(path)
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), path, "PATH"), tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "0a0a") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func TestKeyFileThroughALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "ha.key")
	if _, err := keygen(real, false); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if _, err := keygenAdd(link); err != nil {
		t.Fatal(err)
	}
	if keys, err := loadKeys(real); err != nil || len(keys) != 2 {
		t.Errorf("the file behind the link has %d keys, %v", len(keys), err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", st, err)
	}
}

func TestKeygenInAMissingFolder(t *testing.T) {
	if _, err := keygen(filepath.Join(t.TempDir(), "none", "ha.key"), false); err == nil {
		t.Error("no error for a folder that is not there")
	}
}

func TestKeygenAppearingMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ha.key")
	id, err := keygen(path, false)
	if err != nil {
		t.Fatal(err)
	}
	// What keygen does after its first look, when somebody else was faster.
	if err := writeKeys(path, []secret{newSecret()}, false); err == nil {
		t.Error("a file that appeared meanwhile is overwritten")
	}
	checkKeys(t, path, id)
}

// What the system refuses is said of the file that was asked for, not of the one that is written beside it first.
func TestKeygenErrorNamesTheFile(t *testing.T) {
	for _, c := range []struct {
		err        error
		text, hint string
	}{
		{&fs.PathError{Op: "open", Path: "/etc/.ha.key.17", Err: syscall.EACCES}, "/etc/ha.key: permission denied", "run it as root"},
		{&os.LinkError{Op: "rename", Old: "/etc/.ha.key.17", New: "/etc/ha.key", Err: syscall.EROFS}, "/etc/ha.key: read-only file system", "hactl help keygen"},
		{errors.New("it has only one"), "it has only one", "hactl help keygen"},
	} {
		got := toHint(keygenError("/etc/ha.key", fmt.Errorf("make key file: %w", c.err)))
		if !strings.HasSuffix(got.msg, c.text) || strings.Contains(got.msg, ".17") || got.hint != c.hint {
			t.Errorf("%v: %q, hint %q", c.err, got.msg, got.hint)
		}
	}
}
