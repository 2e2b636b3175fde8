package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestJudgeSync(t *testing.T) {
	const d = time.Second
	times := func(usual, worst time.Duration) []time.Duration {
		took := []time.Duration{worst}
		for range 19 {
			took = append(took, usual)
		}
		return took
	}
	for _, c := range []struct {
		usual, worst time.Duration
		level, says  string
	}{
		{time.Millisecond, 5 * time.Millisecond, levelOK, "20 fsyncs took 1ms in the middle, 5ms at most; deadtime is 1s"},
		{time.Millisecond, 100 * time.Millisecond, levelOK, ""},
		{time.Millisecond, 101 * time.Millisecond, levelWarn, "takeovers wait for the disk"},
		{400 * time.Millisecond, 400 * time.Millisecond, levelWarn, ""},
		{401 * time.Millisecond, 2 * time.Second, levelFail, "no election can end in time"},
		{10 * time.Microsecond, 12 * time.Microsecond, levelOK, "10µs in the middle"},
	} {
		f := judgeSync(times(c.usual, c.worst), d)
		if f.Level != c.level || !strings.Contains(f.What, c.says) || (f.Hint == "") != (c.level == levelOK) {
			t.Errorf("%s, %s: %+v", c.usual, c.worst, f)
		}
	}
	// The same disk is too slow for a deadtime that is short enough.
	if f := judgeSync(times(20*time.Millisecond, 20*time.Millisecond), 30*time.Millisecond); f.Level != levelFail {
		t.Errorf("20 ms at a deadtime of 30 ms: %+v", f)
	}
}

func TestMeasureSync(t *testing.T) {
	dir := t.TempDir()
	took, err := measureSync(dir)
	if err != nil || len(took) != 20 {
		t.Fatalf("%v %v", took, err)
	}
	for _, d := range took {
		if d <= 0 {
			t.Errorf("an fsync in no time: %v", took)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if all := diskFindings(filepath.Join(dir, "none"), time.Second); len(all) != 1 || all[0].Level != levelWarn || all[0].Hint == "" {
		t.Errorf("a folder that is not there: %+v", all)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(dir, "corrupt-20260102T030405Z-2")
	for _, sub := range []string{kept, filepath.Join(dir, "raft")} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if all := diskFindings(dir, time.Second); len(all) != 2 || all[0].Level != levelNote || !strings.Contains(all[0].What, kept) {
		t.Errorf("with a state that was set aside: %+v", all)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if all := diskFindings(dir, time.Second); len(all) != 2 || all[0].Level != levelFail || all[0].Hint != "chmod 700 "+dir {
		t.Errorf("a folder that others read: %+v", all)
	}
}

func TestKeyFinding(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ha.key")
	if f := keyFinding(file); f.Level != levelFail || f.Hint != "hactl keygen "+file+", or copy it from another node" {
		t.Errorf("missing: %+v", f)
	}
	if f := keyFinding(dir); f.Level != levelFail {
		t.Errorf("a folder: %+v", f)
	}
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, level := range map[os.FileMode]string{0o600: levelOK, 0o400: levelOK, 0o640: levelFail, 0o604: levelFail, 0o610: levelFail} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		f := keyFinding(file)
		if f.Level != level || strings.Contains(f.What, "secret") {
			t.Errorf("mode %o: %+v", mode, f)
		}
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Log("skipped: only root can give the file to somebody else")
		return
	}
	if err := os.Chown(file, 61234, 61234); err != nil {
		t.Fatal(err)
	}
	if f := keyFinding(file); f.Level != levelFail || !strings.Contains(f.What, "belongs to uid 61234") {
		t.Errorf("somebody else's: %+v", f)
	}
}

// levels is the first word of each finding's text with its level.
func levels(all []finding) string {
	var words []string
	for _, f := range all {
		word, _, _ := strings.Cut(f.What, " ")
		words = append(words, strings.TrimSuffix(word, ":")+" "+f.Level)
	}
	return strings.Join(words, ", ")
}

func TestConfigFindings(t *testing.T) {
	three := sampleConfig()
	if got, want := levels(configFindings(three)), "voters ok, group warn, group warn, links ok"; got != want {
		t.Errorf("three voters, and nothing resets a host: %s, want %s", got, want)
	}
	three.Watchdog = WatchdogConfig{Device: "/dev/watchdog", Timeout: Duration(10 * time.Second)}
	if got, want := levels(configFindings(three)), "voters ok, group ok, group ok, links ok"; got != want {
		t.Errorf("three voters with watchdogs: %s, want %s", got, want)
	}
	two := sampleConfig()
	two.Nodes, two.Links = two.Nodes[:2], two.Links[:1]
	for mode, says := range map[string]string{"manual": "only after you have said", "ignore": "both run everything",
		"ignore with needs_ping": "and both reach gateway, both run everything"} {
		two.Cluster.NeedsPing = nil
		if two.Cluster.TwoNode = strings.TrimSuffix(mode, " with needs_ping"); two.Cluster.TwoNode != mode {
			two.Cluster.NeedsPing = []string{"gateway"}
		}
		all := configFindings(two)
		if got, want := levels(all), "two note, fencing note, links warn"; got != want || !strings.Contains(all[0].What, says) || !strings.Contains(all[0].Hint, "witness") {
			t.Errorf("%s: %s, want %s: %+v", mode, got, want, all)
		}
	}
}

func TestStatusFindings(t *testing.T) {
	for name, want := range map[string]string{
		"well":      "keys ok, link ok, link ok, clocks ok, never note",
		"link-down": "keys warn, link ok, link fail, clocks warn, never note, status warn",
		"node-lost": "keys ok, link ok, link warn, clocks ok, never note, status warn",
		"blocked":   "keys ok, link ok, link ok, clocks ok, never note, status fail",
	} {
		if got := levels(statusFindings(situations()[name])); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	silent := sampleStatus()
	silent.Links[1].Silent = []string{"bob"}
	if f := linkFindings(silent)[1]; f.Level != levelWarn || !strings.Contains(f.What, "bob") {
		t.Errorf("silent link: %+v", f)
	}
	alone := sampleStatus()
	for i := range alone.Nodes[1:] {
		alone.Nodes[i+1].Links, alone.Nodes[i+1].Heard = nil, false
	}
	for _, f := range linkFindings(alone) {
		if f.Level != levelWarn || !strings.Contains(f.What, "nobody is heard") {
			t.Errorf("a link on which nobody is heard: %+v", f)
		}
	}
	if f := keysFinding(&Status{}); f.Level != levelWarn {
		t.Errorf("no keys: %+v", f)
	}
}

func TestServerFindings(t *testing.T) {
	for _, k := range []struct{ load, file, level, hint string }{
		{"loaded", "disabled", levelOK, ""},
		{"loaded", "enabled", levelWarn, "systemctl disable " + testUnit},
		{"not-found", "", levelFail, ""},
		{"masked", "masked", levelFail, ""},
	} {
		f := newFakeSystemd("inactive")
		f.state.Load, f.state.UnitFile = k.load, k.file
		got := serverFindings(t.Context(), "web/httpd", newUnit(testUnit, testEnv(t), f.dial), nil)
		if len(got) != 1 || got[0].Level != k.level || got[0].Hint != k.hint {
			t.Errorf("%s, %s: %+v", k.load, k.file, got)
		}
	}
}

// Where nothing can be stored there is nothing to measure. /proc takes no files.
func TestFullStateDisk(t *testing.T) {
	if got := diskFindings("/proc", time.Second); got[len(got)-1].Level != levelFail {
		t.Errorf("%+v", got)
	}
}

// A file that is good is not what the cluster runs before there is one.
func TestFileFindingUnfounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ha.toml")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := fileFinding(name, &ConfigAnswer{}); f.Level != levelOK || !strings.Contains(f.What, "not founded") {
		t.Errorf("%+v", f)
	}
}

func TestFindingExit(t *testing.T) {
	for level, want := range map[string]int{levelOK: 0, levelNote: 0, levelWarn: 1, levelFail: 2} {
		if got := (finding{Level: level}).exit(); got != want {
			t.Errorf("%s: %d, want %d", level, got, want)
		}
	}
}

// What each way of two nodes does not protect from is said, and who cannot be cut off.
func TestFenceFindings(t *testing.T) {
	pair, _ := goodConfig(t, "good-two-fence.toml")
	says := func(all []finding, level, part string) {
		t.Helper()
		for _, f := range all {
			if f.Level == level && strings.Contains(f.What, part) {
				return
			}
		}
		t.Errorf("no %s with %q in %+v", level, part, all)
	}
	says(configFindings(pair), levelNote, `two_node = "fence"`)
	says(configFindings(pair), levelNote, "takes over 3s after")
	says(configFindings(pair), levelOK, "fencing: alice and bob")
	three := fenceState(t).Config.Effective
	says(configFindings(three), levelOK, "fencing: alice, bob and dave")
	says(configFindings(three), levelOK, "group web: stateful, taken over when its node is confirmed to be fenced")
	three.Fences = three.Fences[:1]
	says(configFindings(three), levelWarn, "is stateful, and neither a watchdog nor a fence device ends bob or dave")
	three.Fences, three.Groups[0].Resources[0].Type = nil, "vip"
	if all := resetFindings(three); len(all) > 0 {
		t.Errorf("addresses alone need no fence: %+v", all)
	}
}

// TestWatchdogFinding: whether the file's watchdog is here, and nobody else has it. With a real one: vm_test.go.
func TestWatchdogFinding(t *testing.T) {
	c, _ := goodConfig(t, "good-three.toml")
	c.Watchdog = WatchdogConfig{Device: "/dev/no-such-watchdog", Timeout: Duration(10 * time.Second)}
	dir := t.TempDir()
	says := func(node, level, want string) {
		t.Helper()
		got := watchdogFinding(c, node, dir)
		if len(got) != 1 || got[0].Level != level || !strings.Contains(got[0].What, want) {
			t.Errorf("%+v, want %s %q", got, level, want)
		}
	}
	says("alice", levelFail, "[watchdog] device: there is no /dev/no-such-watchdog: load the driver of this host's watchdog, or modprobe softdog")
	if err := os.WriteFile(filepath.Join(dir, dogNote), []byte(c.Watchdog.Device), 0o600); err != nil {
		t.Fatal(err)
	}
	says("alice", levelOK, "/dev/no-such-watchdog") // the daemon has it
	c.Watchdog.Device = "/dev/null"
	says("alice", levelOK, "/dev/null (null)") // nothing is known of it, and nobody has it
	if c.Nodes[2].Role = "witness"; watchdogFinding(c, c.Nodes[2].Name, dir) != nil {
		t.Error("a witness needs none")
	}
	if c.Watchdog.Device = watchdogNone; watchdogFinding(c, "alice", dir) != nil {
		t.Error("none is configured")
	}
}

// TestLacksProgram: the shell says which programs a command would miss.
func TestLacksProgram(t *testing.T) {
	for command, want := range map[string]string{
		"true": "", "test -e /x": "", "/bin/sh -c x": "", "": "", "if true; then x; fi": "", `"$HOME/x" start`: "", "HA=1 no-such-thing": "",
		"/srv/data/bin/queue start": "", // what the group mounts there has it
		"no-such-thing start":       "this host has no program no-such-thing, which `no-such-thing start` runs",
		"/srv/database/queue stop":  "this host has no program /srv/database/queue, which `/srv/database/queue stop` runs",
	} {
		got := ""
		if err := lacksProgram(t.Context(), []string{"/srv/data"}, "true", command); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// TestHostLacks: the example's DRBD, disk, commands and fence devices are not here, and both checks say so.
func TestHostLacks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root is told of services")
	}
	text := readFile(t, "ha.toml.example")
	cfg, problems := parseConfig(text)
	if cfg == nil {
		t.Fatal(renderProblems("ha.toml.example", problems))
	}
	t.Setenv("PATH", t.TempDir())
	all := append(hostFindings(t.Context(), cfg, "alice"), agentFindings(t.Context(), cfg, "bob")...)
	for _, want := range []string{
		"web/drbd: drbdadm is not installed on this host: install drbd-utils",
		"this host has no program /usr/local/sbin/queue, which `/usr/local/sbin/queue start` runs",
		"[[fence]] outlets: this host has no program /usr/local/sbin/outlet, which `/usr/local/sbin/outlet off` runs",
		"[[fence]] ipmi-alice agent \"fence_ipmilan\": ",
	} {
		found := false
		for _, f := range all {
			found = found || f.Level == levelFail && strings.Contains(f.What, want)
		}
		if !found {
			t.Errorf("no failure with %q in %+v", want, all)
		}
	}
	// A disk that is not there, and one that DRBD makes.
	disk := cfg.Groups[0].Resources[1]
	disk.Device, disk.Directory = "/dev/no-such-disk", t.TempDir()
	cfg.Groups = []GroupConfig{{Name: "g", Resources: []ResourceConfig{disk}}}
	if f := hostFindings(t.Context(), cfg, "alice")[1]; f.Level != levelFail || !strings.HasPrefix(f.What, "g/"+disk.Name+": device /dev/no-such-disk does not exist") {
		t.Errorf("%+v", f)
	}
	cfg.Groups[0].Resources[0].Device, cfg.Groups[0].Resources[0].FSType = "/dev/drbd0", ""
	if f := hostFindings(t.Context(), cfg, "alice")[1]; f.Level != levelOK {
		t.Errorf("%+v", f)
	}
}
