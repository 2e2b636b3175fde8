// Does DRBD freeze what it writes when it loses its peer, and ask hactl? What the kernel runs with, as `drbdsetup show` prints
// it, and the handler in the resource file, which the kernel has drbdadm look up at each call.

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// drbdOption is one line of `drbdsetup show`.
type drbdOption struct{ key, value string }

// drbdOptionLine is a key and its value, which may be quoted, and may be missing. What follows is a comment.
var drbdOptionLine = regexp.MustCompile(`^([^\s;"]+)\s*("[^"]*"|[^";]*)\s*;\s*(#.*)?$`)

// parseDRBDShow reads `drbdsetup show --show-defaults RESOURCE` of 8.4 and 9. Its errors quote no value: one is a secret.
func parseDRBDShow(out string) ([]drbdOption, error) {
	var all []drbdOption
	var sections []string
	s := bufio.NewScanner(strings.NewReader(out))
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		option := drbdOptionLine.FindStringSubmatch(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasSuffix(line, "{"):
			name, _, _ := strings.Cut(strings.TrimSpace(strings.TrimSuffix(line, "{")), " ")
			sections = append(sections, name)
		case line == "}" && len(sections) > 0:
			sections = sections[:len(sections)-1]
		case option != nil && len(sections) > 0:
			all = append(all, drbdOption{key: option[1], value: strings.Trim(strings.TrimSpace(option[2]), `"`)})
		default:
			return nil, fmt.Errorf("read drbdsetup show, line %d: neither a section nor an option", n)
		}
	}
	if len(sections) > 0 {
		return nil, fmt.Errorf("read drbdsetup show: section %q has no end", sections[len(sections)-1])
	}
	return all, s.Err()
}

// unguarded lists the lines that what runs lacks, as a resource file would have them. A resource that has lost its
// connection still has the options of it; one that has none (StandAlone) shows none, and nothing is lacking there.
func unguarded(options []drbdOption, fencing string) []string {
	values := func(key string) (all []string) {
		for _, o := range options {
			if o.key == key {
				all = append(all, o.value)
			}
		}
		return all
	}
	other := func(than string) func(string) bool { return func(v string) bool { return v != than } }
	var out []string
	if v := values("fencing"); len(v) == 0 || slices.ContainsFunc(v, other("resource-and-stonith")) {
		out = append(out, fencing+" { fencing resource-and-stonith; }")
	}
	if slices.ContainsFunc(values("protocol"), other("C")) {
		out = append(out, "net { protocol C; }")
	}
	if slices.ContainsFunc(values("allow-two-primaries"), other("no")) {
		out = append(out, "net { allow-two-primaries no; }")
	}
	if slices.Contains(values("rr-conflict"), "violently") { // a Primary that was overtaken would write on over the newer data
		out = append(out, "net { rr-conflict disconnect; }")
	}
	return out
}

// Unguarded reads what the guard lacks. What cannot be read now is as it was.
func (d *drbd) Unguarded(ctx context.Context) ([]string, error) {
	missing, err := d.readGuard(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil && d.unguarded != nil {
		return *d.unguarded, nil
	}
	if err == nil {
		d.unguarded = &missing
	}
	return missing, err
}

func (d *drbd) options(ctx context.Context) ([]drbdOption, error) {
	out, err := d.run(ctx, "drbdsetup", "show", "--show-defaults", d.name)
	if err != nil {
		return nil, fmt.Errorf("read options of %s: %w", d.name, err)
	}
	options, err := parseDRBDShow(out)
	if err != nil {
		return nil, fmt.Errorf("read options of %s: %w", d.name, err)
	}
	return options, nil
}

// Advice is for a person who asks.
func (d *drbd) Advice(ctx context.Context, deadtime time.Duration) []drbdAdvice {
	options, err := d.options(ctx)
	if err != nil {
		return nil // Unguarded has said so
	}
	return adviceFor(options, deadtime)
}

func (d *drbd) readGuard(ctx context.Context) ([]string, error) {
	options, err := d.options(ctx)
	if err != nil {
		return nil, err
	}
	fencing := "net"
	if d.version84() {
		fencing = "disk"
	}
	missing := unguarded(options, fencing)
	out, err := d.run(ctx, "drbdadm", "-d", "fence-peer", d.name)
	if err != nil && len(missing) == 0 {
		return nil, fmt.Errorf("read handler of %s: %w", d.name, err)
	}
	if err == nil && !handledByUs(out) {
		missing = append(missing, fmt.Sprintf("handlers { fence-peer %q; }", handlerProgram()+" drbd fence-peer"))
	}
	return missing, nil
}

// handlerProgram is this program by a path that DRBD finds it at.
func handlerProgram() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return "/usr/sbin/hactl"
}

// handledByUs tells whether the command that drbdadm would run is hactl's handler and nothing else, whose status would be
// another's, and can be run. Blanks come escaped.
func handledByUs(command string) bool {
	words := strings.Fields(strings.NewReplacer(`\ `, " ", `"`, " ", "'", " ").Replace(command))
	if len(words) > 2 && filepath.Base(words[0]) == "sh" && words[1] == "-c" {
		words = words[2:]
	}
	return len(words) == 3 && filepath.Base(words[0]) == "hactl" && words[1] == "drbd" && words[2] == "fence-peer" && runnable(words[0])
}

// runnable looks where DRBD looks: it calls its handlers with a PATH of its own.
func runnable(program string) bool {
	dirs := []string{""}
	if !strings.Contains(program, "/") {
		dirs = []string{"/sbin", "/usr/sbin", "/bin", "/usr/bin", "/lib/drbd"}
	}
	return slices.ContainsFunc(dirs, func(dir string) bool {
		i, err := os.Stat(filepath.Join(dir, program))
		return err == nil && i.Mode().IsRegular() && i.Mode()&0o111 != 0
	})
}
