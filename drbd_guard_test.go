package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What DRBD lacks to be a guard, by what `drbdsetup show` prints.
func TestDRBDUnguarded(t *testing.T) {
	fenced := func(show string) string {
		return strings.Replace(show, "c-plan-ahead", "fencing resource-and-stonith;\nc-plan-ahead", 1)
	}
	const fencing, protocol, primaries = "disk { fencing resource-and-stonith; }", "net { protocol C; }", "net { allow-two-primaries no; }"
	short, guarded := captured(t, "connected-uptodate-uptodate/b", "drbdsetup-show"), captured(t, "guarded/a", "drbdsetup-show-defaults")
	for _, c := range []struct {
		name, show string
		want       []string
	}{
		{"as captured", short, []string{fencing}},
		{"as captured, guarded", guarded, nil},
		{"guarded, and its secret is strange", strings.Replace(guarded, `shared-secret   	""`, `shared-secret "};#{"`, 1), nil},
		{"fenced", fenced(short), nil},
		{"another policy", strings.Replace(fenced(short), "resource-and-stonith", "resource-only", 1), []string{fencing}},
		{"one of two volumes", fenced(short) + fenced(short) + strings.Replace(fenced(short), "resource-and-stonith", "dont-care", 1), []string{fencing}},
		{"protocol A", strings.Replace(fenced(short), "timeout ", "protocol A;\ntimeout ", 1), []string{protocol}},
		{"two may be Primary", strings.Replace(fenced(short), "timeout ", "allow-two-primaries yes;\ntimeout ", 1), []string{primaries}},
		{"an overtaken Primary writes on", strings.Replace(fenced(short), "timeout ", "rr-conflict violently;\ntimeout ", 1), []string{"net { rr-conflict disconnect; }"}},
		{"all of it", strings.Replace(short, "timeout ", "protocol B; # like this\nallow-two-primaries;\ntimeout ", 1), []string{fencing, protocol, primaries}},
	} {
		options, err := parseDRBDShow(c.show)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := unguarded(options, "disk"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, bad := range []string{"resource r0 {\n", "timeout 15;\n", "resource r0 {\nwhat\n}\n", "resource r0 {\n;\n}\n", "}\n"} {
		if options, err := parseDRBDShow(bad); err == nil {
			t.Errorf("%q is read as %v", bad, options)
		}
	}
}

// All that is missing is said at once; what cannot be read is as it was, but what is read to be missing counts.
func TestDRBDReadsItsGuard(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hactl")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	bare, guarded := captured(t, "connected-uptodate-uptodate/b", "drbdsetup-show"), captured(t, "guarded/a", "drbdsetup-show-defaults")
	d := &drbd{name: "r0", proc: t.TempDir(), sys: t.TempDir()}
	for _, c := range []struct {
		name, show, handler string // "": cannot be read
		missing             int    // -1: not known
	}{
		{"nothing can be read yet", "", "", -1},
		{"all is missing", bare, "other", 2},
		{"nothing is", guarded, program + " drbd fence-peer", 0},
		{"nothing can be read", "", "", 0},
		{"its file has errors", guarded, "", 0},
		{"its file has errors, and the kernel lacks something", bare, "", 1},
	} {
		d.run = func(_ context.Context, name string, _ ...string) (string, error) {
			out := map[string]string{"drbdsetup": c.show, "drbdadm": c.handler}[name]
			if out == "" {
				return "", errors.New("no")
			}
			return out, nil
		}
		missing, err := d.Unguarded(t.Context())
		if got := len(missing); err != nil && c.missing != -1 || err == nil && got != c.missing {
			t.Errorf("%s: %q, %v", c.name, missing, err)
		}
	}
}

// DRBD's handler must be hactl, and there.
func TestDRBDHandler(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "hactl")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "crm-fence-peer.sh")
	for command, want := range map[string]bool{
		program + ` drbd fence-peer || exit 7`:                                                       false,
		`/bin/sh -c true;\ ` + program + `\ drbd\ fence-peer`:                                        false,
		strings.Replace(captured(t, "guarded/a", "drbdadm-d-fence-peer"), "/usr/local/sbin", dir, 1): true,
		"":                                    false,
		program + `\ drbd\ fence-peer` + "\n": true,
		"/bin/sh -c '" + program + " drbd fence-peer'": true,
		program + ` drbd unfence-peer`:                 false,
		program + `x drbd fence-peer`:                  false,
		other + ` drbd fence-peer`:                     false,
		dir + `/none/hactl drbd fence-peer`:            false,
		`hactl-that-is-nowhere drbd fence-peer`:        false,
	} {
		if got := handledByUs(command); got != want {
			t.Errorf("%q: %v", command, got)
		}
	}
	if err := os.Chmod(program, 0o644); err != nil {
		t.Fatal(err)
	}
	if handledByUs(program + " drbd fence-peer") {
		t.Error("a handler that cannot be run counts")
	}
}

func FuzzDRBDShow(f *testing.F) {
	f.Add("resource r0 {\n net {\n protocol C; # default\n shared-secret \"a;#{\";\n }\n}\n")
	f.Add("resource r0 {\n}\n}\n")
	f.Fuzz(func(t *testing.T, out string) {
		options, err := parseDRBDShow(out)
		if err != nil && len(options) > 0 {
			t.Errorf("an error, %v, and yet %v", err, options)
		}
		for _, o := range options {
			if o.key == "" || strings.ContainsAny(o.key, " \t") {
				t.Errorf("%+v", o)
			}
		}
	})
}

func TestDRBDAdvice(t *testing.T) {
	guarded := captured(t, "guarded/a", "drbdsetup-show-defaults")
	nine := "resource r0 {\n options {\n auto-promote yes;\n quorum majority;\n on-no-quorum io-error;\n }\n}\n"
	for _, c := range []struct {
		name, show string
		deadtime   time.Duration
		want       []string // the lines that would be better
	}{
		{"as captured", guarded, 2 * time.Second, nil},
		{"writes wait for longer than deadtime", guarded, time.Second, []string{"net { timeout 10; ping-int 2; connect-int 2; }"}},
		{"no node is faster than a second", guarded, 30 * time.Millisecond, []string{"net { timeout 10; ping-int 2; connect-int 2; }"}},
		{"DRBD's own timeout", strings.Replace(guarded, "timeout         	15;", "timeout 60; # default", 1), 2500 * time.Millisecond, []string{"net { timeout 25; ping-int 3; connect-int 3; }"}},
		{"split brain is mended by itself", strings.NewReplacer("after-sb-0pri   	disconnect", "after-sb-0pri discard-younger-primary",
			"after-sb-1pri   	disconnect", "after-sb-1pri discard-secondary", "after-sb-2pri   	disconnect", "after-sb-2pri call-pri-lost-after-sb").Replace(guarded), 2 * time.Second,
			[]string{"net { after-sb-0pri disconnect; }", "net { after-sb-1pri disconnect; }", "net { after-sb-2pri disconnect; }"}},
		{"split brain without a write", strings.NewReplacer("after-sb-0pri   	disconnect", "after-sb-0pri discard-zero-changes",
			"after-sb-1pri   	disconnect", "after-sb-1pri consensus").Replace(guarded), 2 * time.Second, nil},
		{"a dead peer is waited for", strings.Replace(guarded, "ping-timeout    	10", "ping-timeout 300", 1), 2 * time.Second, []string{"net { ping-timeout 5; }"}},
		{"9 by itself", nine, time.Second, []string{"options { auto-promote no; }", "options { on-no-quorum suspend-io; }"}},
		{"9 without a quorum of its own", strings.Replace(nine, "majority", "off", 1), time.Second, []string{"options { auto-promote no; }"}},
	} {
		options, err := parseDRBDShow(c.show)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var got []string
		for _, a := range adviceFor(options, c.deadtime) {
			got = append(got, a.line)
			if harm := strings.HasPrefix(a.line, "net { after-sb"); a.harm != harm {
				t.Errorf("%s: %q may lose data: %v", c.name, a.what, a.harm)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	d := &drbd{name: "r0", run: func(context.Context, string, ...string) (string, error) { return guarded, nil }}
	all := adviceFindings("r0", d.Advice(t.Context(), time.Second))
	if len(all) != 1 || all[0].Level != levelNote || !strings.Contains(all[0].What, "DRBD r0: when the other node dies, writes wait 1.5s") {
		t.Errorf("findings: %+v", all)
	}
}
