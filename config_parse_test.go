// Is each mistake told, at its place and in words that help? The goldens beside testdata/config/*.toml are the whole
// reports, as the operator reads them.

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateConfig = flag.Bool("update-config", false, "rewrite the goldens of testdata/config")

func configFiles(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "config", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *updateConfig {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(readFile(t, name)), got); diff != "" {
		t.Errorf("%s (rewrite with -update-config):\n%s", name, diff)
	}
}

func TestConfigBad(t *testing.T) {
	files := configFiles(t, "bad-*.toml")
	if len(files) < 65 {
		t.Errorf("%d faulty files, want at least 65", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text := readFile(t, file)
			report, exit := checkText(filepath.Base(file), text, false)
			if exit != 2 {
				t.Errorf("exit %d, want 2:\n%s", exit, report)
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".err", report)
		})
	}
}

func TestConfigWarn(t *testing.T) {
	for _, file := range configFiles(t, "warn-*.toml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text := readFile(t, file)
			if report, exit := checkText(filepath.Base(file), text, false); exit != 0 {
				t.Errorf("exit %d without --strict, want 0:\n%s", exit, report)
			}
			report, exit := checkText(filepath.Base(file), text, true)
			if exit != 1 {
				t.Errorf("exit %d with --strict, want 1:\n%s", exit, report)
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".err", report)
		})
	}
}

// TestConfigGood shows what each good file means: its goldens are the effective configuration.
func TestConfigGood(t *testing.T) {
	for _, file := range append(configFiles(t, "good-*.toml"), "ha.toml.example") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text := readFile(t, file)
			if report, exit := checkText(filepath.Base(file), text, true); exit != 0 || strings.Count(report, "\n") != 1 {
				t.Fatalf("exit %d, want 0 and one line:\n%s", exit, report)
			}
			c, _ := parseConfig(text)
			base := strings.TrimSuffix(filepath.Base(file), ".toml")
			golden(t, filepath.Join("testdata", "config", base+".shown"), configShow(c))
			golden(t, filepath.Join("testdata", "config", base+".explained"), configExplain(c))
		})
	}
}

func TestConfigTooLong(t *testing.T) {
	good := string(readFile(t, "ha.toml.example"))
	fill := func(size int) []byte { return []byte(good + "#" + strings.Repeat("x", size-len(good)-1)) }
	if report, exit := checkText("x", fill(textMax), false); exit != 0 {
		t.Errorf("a file of the greatest size: exit %d\n%s", exit, report)
	}
	report, exit := checkText("x", fill(textMax+1), false)
	if want := "x:1:1: error: the file has 262145 bytes; expected at most 262144\n    hint: is this an ha.toml?\nx: 1 error and 0 warnings\n"; exit != 2 || report != want {
		t.Errorf("exit %d, %s", exit, report)
	}
}

// A mark that Windows editors put first, and their line ends, move no column.
func TestConfigByteOrderMark(t *testing.T) {
	_, plain := parseConfig([]byte("[cluster]\nnmae = 1\n"))
	_, marked := parseConfig([]byte("\ufeff[cluster]\r\nnmae = 1\r\n"))
	if diff := cmp.Diff(plain, marked); diff != "" {
		t.Error(diff)
	}
}

// Columns count characters, not bytes.
func TestConfigColumns(t *testing.T) {
	_, problems := parseConfig([]byte("[cluster]\n\"ü€😀\" = 1\n\tkey_file = 5\nname = [\"ü\", 7]"))
	got := map[string][2]int{}
	for _, p := range problems {
		got[p.What] = [2]int{p.Line, p.Col}
	}
	for what, at := range map[string][2]int{
		"[cluster] \"ü€😀\": unknown key": {2, 1},
		"[cluster] key_file is 5":        {3, 13},
		"[cluster] name is an array":     {4, 8},
	} {
		if got[what] != at {
			t.Errorf("%s at %v, want %v", what, got[what], at)
		}
	}
}

func TestConfigVoters(t *testing.T) {
	c, problems := parseConfig(readFile(t, "ha.toml.example"))
	if c == nil {
		t.Fatal(problems)
	}
	if diff := cmp.Diff([]string{"alice", "bob", "carol"}, c.voters()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"alice", "bob"}, c.fullNodes()); diff != "" {
		t.Error(diff)
	}
}

// However many warnings come before it, an error is told and refuses the file.
func TestConfigErrorAmongWarnings(t *testing.T) {
	text := strings.Replace(string(readFile(t, "testdata/config/good-three.toml")), "prefer", "failure_timeout = \"1s\"\nprefer", 1)
	for g := range 9 {
		text += fmt.Sprintf("[[group]]\nname = \"g%d\"\nfailure_timeout = \"1s\"\n", g)
		for r := range resourcesMax - 1 {
			text += fmt.Sprintf("[[group.resource]]\ntype = \"drbd\"\nresource = \"r%d-%d\"\n", g, r)
		}
	}
	if c, problems := parseConfig([]byte(text)); c == nil || len(problems) != problemsMax {
		t.Fatalf("%d warnings", len(problems))
	}
	c, problems := parseConfig([]byte(text + "[[group.resource]]\ntype = \"drbd\"\nresource = \"r0-0\"\n"))
	if c != nil || len(problems) != 1 { // the resource of another group
		t.Errorf("%v, %d problems", c != nil, len(problems))
	}
}

func TestConfigHash(t *testing.T) {
	if got, want := configHash([]byte("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; got != want { // FIPS 180-2, appendix B.1
		t.Errorf("%s, want %s", got, want)
	}
}

func TestConfigManyProblems(t *testing.T) {
	text := "[cluster]\n"
	for i := range 5000 {
		text += "k" + strings.Repeat("x", i%30) + "-" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + " = 1\n"
	}
	if _, problems := parseConfig([]byte(text)); len(problems) != problemsMax {
		t.Errorf("%d problems, want %d", len(problems), problemsMax)
	}
}

func TestNameResources(t *testing.T) {
	resources := []ResourceConfig{{Type: "vip"}, {Type: "vip", Name: "vip-2"}, {Type: "vip"}, {Type: "exec", Name: "drbd"}, {Type: "drbd"}, {Type: ""}}
	nameResources(resources)
	var names []string
	for _, r := range resources {
		names = append(names, r.Name)
	}
	if diff := cmp.Diff([]string{"vip", "vip-2", "vip-3", "drbd", "drbd-2", ""}, names); diff != "" {
		t.Error(diff)
	}
}

// What the operator wrote is in force to the letter; what is not written has the schema's default.
func TestConfigDefaults(t *testing.T) {
	c, problems := parseConfig(readFile(t, "testdata/config/good-three.toml"))
	if c == nil {
		t.Fatal(problems)
	}
	second := func(n int64) Duration { return Duration(n * 1e9) }
	want := &Config{
		Cluster:   ClusterConfig{Name: "web", KeyFile: "/etc/ha.key", WaitForAll: true, NoQuorum: "stop", LogLevel: "info"},
		Heartbeat: HeartbeatConfig{Interval: second(1) / 10, Deadtime: second(1), Port: 694},
		Watchdog:  WatchdogConfig{Device: "none", Timeout: second(10)},
		Links:     []LinkConfig{{"lan", "eth0", ""}, {"repl", "eth1", ""}},
		Nodes: []NodeConfig{
			{"alice", "full", []LinkAddress{{"lan", "192.168.10.11"}, {"repl", "10.0.0.11"}}},
			{"bob", "full", []LinkAddress{{"lan", "192.168.10.12"}, {"repl", "10.0.0.12"}}},
			{"carol", "witness", []LinkAddress{{"lan", "192.168.10.13"}}},
		},
		Groups: []GroupConfig{{
			Name: "web", Prefer: []string{"alice"}, Failback: "never", MigrationThreshold: 3, FailureTimeout: second(600),
			Resources: []ResourceConfig{{
				Type: "vip", Name: "vip", OnFail: "restart", Address: "192.168.10.100", Interface: "eth0",
				ProbeWait: second(1) / 100, ProbeTimeout: second(10),
				Start: OpConfig{Timeout: second(20)}, Stop: OpConfig{Timeout: second(20)},
				Monitor: OpConfig{Interval: second(1), Timeout: second(20)},
			}},
		}},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}
