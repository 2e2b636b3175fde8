package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func manOf(t *testing.T, page string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"man", page}, nil, &out, &errOut); code != 0 {
		t.Fatalf("man %s: exit status %d, %s", page, code, errOut.String())
	}
	return out.String()
}

// TestManIsWhole: each command with each of its flags has its place, and so has each line of the example.
func TestManIsWhole(t *testing.T) {
	page := manOf(t, "hactl")
	var each func(path []*cli.Command)
	each = func(path []*cli.Command) {
		c := path[len(path)-1]
		for _, s := range c.Subcommands {
			each(append(path[:len(path):len(path)], s))
		}
		if len(c.Subcommands) > 0 || c.Hidden {
			return
		}
		if head := ".SS " + manText(usageLine(path)) + "\n"; strings.Count(page, head) != 1 {
			t.Errorf("not there once: %q", head)
		}
		for _, f := range c.Flags {
			if name, _ := flagText(f); !strings.Contains(page, "\n.B "+manText(name)+"\n") {
				t.Errorf("%s: no %s", commandName(path), name)
			}
		}
	}
	for _, c := range newApp(nil, nil, nil).Commands {
		each([]*cli.Command{c})
	}
	page = manOf(t, "ha.toml")
	for line := range strings.Lines(exampleConfig) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(page, manText(line)) {
			t.Errorf("not there: %s", line)
		}
	}
}

// TestManFormats: the formatter has nothing to complain about, and loses nothing of the example.
func TestManFormats(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed")
	}
	for _, page := range []string{"hactl", "ha.toml"} {
		cmd := exec.Command(groff, "-man", "-ww", "-Kutf8", "-Tutf8", "-P-cbou", "-rLL=200n")
		cmd.Stdin = strings.NewReader(manOf(t, page))
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := cmd.Run(); err != nil || errOut.Len() > 0 {
			t.Errorf("%s: %v: %s", page, err, errOut.String())
		}
		if page == "ha.toml" && !strings.Contains(out.String(), `two_node = "manual"       # Required with two nodes`) {
			t.Errorf("the example is not shown as it is:\n%.2000s", out.String())
		}
	}
}

// TestCompletionInShells runs each script in its shell, with a hactl of the test's own that answers for it.
func TestCompletionInShells(t *testing.T) {
	dir := t.TempDir()
	answers := "#!/bin/sh\nshift 2\nprintf '%s|' \"$@\" >" + dir + "/asked\n" +
		"case \"$1\" in st*) printf 'standby\\tlet a node run nothing; its groups: away\\nstatus\\tsee\\n';; config) echo :files;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "hactl"), []byte(answers), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ha.toml.new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for shell, ask := range map[string]string{
		"bash": `. ./script
			COMP_WORDS=(hactl st) COMP_CWORD=1; _hactl; echo "words: ${COMPREPLY[*]}"
			compopt() { echo "files: $*"; }
			COMP_WORDS=(hactl config check '') COMP_CWORD=3; _hactl`,
		"zsh": `compdef() { :; }; . ./script
			_describe() { for w in "${found[@]}"; do echo "found: $w"; done; }; _files() { echo "files: here"; }
			words=(hactl st) CURRENT=2; _hactl
			words=(hactl config check '') CURRENT=4; _hactl`,
		"fish": `source ./script; complete -C 'hactl st' | sed 's/^/found: /'; complete -C 'hactl config check ha.toml.n' | sed 's/^/files: /'`,
	} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			if err := os.WriteFile(filepath.Join(dir, "script"), []byte(completionScripts[shell]), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(path, "-c", ask)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range []string{"standby", "status", `(?m)^files: .`} {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("no %q:\n%s", want, out)
				}
			}
			asked, err := os.ReadFile(filepath.Join(dir, "asked"))
			if err != nil || !strings.HasPrefix(string(asked), "config|check|") {
				t.Errorf("asked: %q %v", asked, err)
			}
		})
	}
}

// The README and the manual say the same of exit statuses.
func TestExitStatusesInReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exitTexts {
		if row := fmt.Sprintf("| %d | %s |", e.code, e.text); !strings.Contains(string(b), row) {
			t.Errorf("README.md lacks %s", row)
		}
	}
}
