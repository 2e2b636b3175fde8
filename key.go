// Which secrets does this cluster share? The key file: reading, making and rolling it. The daemon only reads it; nothing
// here ever prints a secret or leaves a half-written file.
//
// The file has one secret a line, the oldest first, at most two. It is a regular file, mode 0600, owned by the user that
// the daemon runs as:
//
//	# comment
//	key 1f0c…  (64 hexadecimal digits)
//
// Every key opens. Every datagram is sent once for each key in the file, so while there are two, a node that has either
// of them understands all others, and nobody needs to know what the others have. That makes a roll without an outage
// simple, and leaves its order free:
//
//  1. `hactl keygen --add` on one node puts a second key into its file. Nothing changes for the others: they open the
//     copy under the old key (and count the other as unknown, until they have it).
//  2. Copy the file to every other node, in any order, whenever. A node that is down meanwhile can be served later.
//  3. When all have both (`hactl check` shows the keys that each peer seals with), `hactl keygen --drop` on each node,
//     in any order: it removes the older key. A node that still has both is understood by its newer one.
//
// The running daemon takes up the file when it changes. The price is twice the datagrams during a roll. `--drop` must
// wait for all: a node that has only the old key does not understand one that has only the new.

package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const maxKeyBytes = 64 << 10 // of the file: what is larger is no key file

// loadKeys reads a key file, the oldest secret first.
func loadKeys(path string) ([]secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // not blocking: it may be a pipe
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read key file %s: there is none; make one with: hactl keygen %s, "+
			"or copy that of another node", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	if err := checkKeyFile(path, f); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	return keys, nil
}

// checkKeyFile looks at the open file, so that what is checked is what is read.
func checkKeyFile(path string, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("read key file %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("read key file %s: it is no regular file; remove it and make one with: hactl keygen %s", path, path)
	}
	if uid := uint32(os.Geteuid()); st.Uid != uid {
		return fmt.Errorf("read key file %s: it belongs to user %d, who could change it; make it yours with: "+
			"chown %d %s", path, st.Uid, uid, path)
	}
	if mode := st.Mode & 0o7777; mode != 0o600 {
		return fmt.Errorf("read key file %s: its mode is %04o, so others may have read it; only its owner may: "+
			"chmod 0600 %s", path, mode, path)
	}
	return nil
}

// parseKeys reads the text of a key file. An error never quotes a line: it may hold a secret.
func parseKeys(text []byte) ([]secret, error) {
	if len(text) > maxKeyBytes {
		return nil, fmt.Errorf("it is larger than %d bytes: this is no key file", maxKeyBytes)
	}
	var keys []secret
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxKeyBytes+1)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) != 2 || words[0] != "key" {
			return nil, fmt.Errorf("line %d: expected the word key and %d hexadecimal digits", n, 2*secretSize)
		}
		b, err := hex.DecodeString(words[1])
		if err != nil || len(b) != secretSize {
			return nil, fmt.Errorf("line %d: the key must be exactly %d hexadecimal digits", n, 2*secretSize)
		}
		k := secret(b)
		for _, other := range keys {
			if other.id() == k.id() {
				return nil, fmt.Errorf("line %d: key %s is there twice; remove one of the lines", n, keyName(k.id()))
			}
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it; make one with: hactl keygen --force FILE")
	}
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d are allowed; remove the line of one that no node needs any more", len(keys), maxKeys)
	}
	return keys, nil
}

func formatKeys(keys []secret) []byte {
	var b bytes.Buffer
	b.WriteString("# Shared by all nodes of the cluster: whoever has it can command them. Oldest key first.\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "# id %s\nkey %s\n", keyName(k.id()), hex.EncodeToString(k[:]))
	}
	return b.Bytes()
}

func newSecret() secret {
	var s secret
	rand.Read(s[:]) // never fails: crypto/rand ends the program instead
	return s
}

// keygen makes a key file with one new key and returns that key's id. It replaces a file only by force: without its
// key the other nodes are not understood.
func keygen(path string, force bool) (id string, err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return "", fmt.Errorf("make key file %s: it is a folder; name the file: hactl keygen %s", path, filepath.Join(path, "ha.key"))
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return "", fmt.Errorf("make key file %s: it exists; to replace its key without an outage: hactl keygen --add %s "+
			"(or --force, which cuts this node off until all others have the file)", path, path)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("make key file: %w", err)
	}
	k := newSecret()
	if err := writeKeys(path, []secret{k}, force); err != nil {
		return "", fmt.Errorf("make key file: %w", err)
	}
	return keyName(k.id()), nil
}

// keygenAdd is step 1 of a roll; it returns the new key's id.
func keygenAdd(path string) (id string, err error) {
	keys, err := loadKeys(path)
	if err != nil {
		return "", err
	}
	if len(keys) >= maxKeys {
		return "", fmt.Errorf("add a key to %s: it has %d already (%s); end the roll that is under way with: "+
			"hactl keygen --drop %s", path, len(keys), keyNames(keys), path)
	}
	k := newSecret()
	if err := writeKeys(path, append(keys, k), true); err != nil {
		return "", fmt.Errorf("add a key: %w", err)
	}
	return keyName(k.id()), nil
}

// keygenDrop is step 3 of a roll: it removes the older key, or the one that is named (to give a roll up), and returns
// the removed key's id. allowed has the last word, before anything is written.
func keygenDrop(path, id string, allowed func(dropped string, kept []secret) error) (dropped string, err error) {
	keys, err := loadKeys(path)
	if err != nil {
		return "", err
	}
	if len(keys) < 2 {
		return "", fmt.Errorf("drop a key from %s: it has only one (%s); add the new one first: hactl keygen --add %s",
			path, keyNames(keys), path)
	}
	if id == "" {
		id = keyName(keys[0].id())
	}
	var kept []secret
	for _, k := range keys {
		if keyName(k.id()) != id {
			kept = append(kept, k)
		}
	}
	if len(kept) == len(keys) {
		return "", fmt.Errorf("drop key %s from %s: it has no such key, only %s", id, path, keyNames(keys))
	}
	if err := allowed(id, kept); err != nil {
		return "", err
	}
	if err := writeKeys(path, kept, true); err != nil {
		return "", fmt.Errorf("drop a key: %w", err)
	}
	return id, nil
}

func keyNames(keys []secret) string {
	var names []string
	for _, k := range keys {
		names = append(names, keyName(k.id()))
	}
	return strings.Join(names, " and ")
}

// writeKeys puts a whole new file in the old one's place, or leaves all as it was. Without replace it never overwrites,
// even if the file appears meanwhile.
func writeKeys(path string, keys []secret, replace bool) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the rename would replace the link itself
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(formatKeys(keys))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if replace {
		err = os.Rename(f.Name(), path)
	} else {
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncFolder(dir)
}
