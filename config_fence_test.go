package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func anyFence(t *rapid.T, node string, between func(string, time.Duration, time.Duration) Duration) FenceConfig {
	f := FenceConfig{
		Name: "dev-" + node, Agent: rapid.SampledFrom([]string{"fence_ipmilan", "/opt/fence_own", agentExec}).Draw(t, "agent"),
		Level: rapid.IntRange(1, 9).Draw(t, "level"), Timeout: between("timeout", 100*time.Millisecond, time.Minute),
		Retries: rapid.IntRange(0, 10).Draw(t, "retries"), Delay: between("delay", 0, time.Minute),
		Monitor: OpConfig{Interval: between("interval", time.Second, time.Hour), Timeout: between("timeout", 100*time.Millisecond, time.Minute)},
	}
	if rapid.Bool().Draw(t, "plugs") {
		f.Plugs = []Option{{node, "outlet \"7\""}}
	} else {
		f.Node = node
	}
	if f.Agent == agentExec {
		f.Off, f.Status = anyText(t, "off"), anyText(t, "status")
		return f
	}
	if rapid.Bool().Draw(t, "options") {
		f.Options = []Option{{"ip", "10.9.0.1"}, {"lanplus", "1"}, {"username", "ü \\ ha"}}
	}
	if rapid.Bool().Draw(t, "password") {
		f.PasswordFile, f.Secrets = "/etc/ha.pw", []Option{{"snmp_priv_passwd", "/etc/ha.snmp"}}
	}
	return f
}

// What an operator wrote by mistake in the place of a file's name, or as an option in clear, is never repeated: reports are
// pasted into tickets.
func TestConfigNeverShowsASecret(t *testing.T) {
	text := readFile(t, "testdata/config/bad-fence-secret.toml")
	if strings.Count(string(text), "hunter2") < 7 {
		t.Fatal("the faulty file has no secrets any more")
	}
	report, _ := checkText("f", text, false)
	if strings.Contains(report, "hunter2") {
		t.Errorf("the report shows a secret:\n%s", report)
	}
	for _, file := range configFiles(t, "*fence*.err") {
		if strings.Contains(string(readFile(t, file)), "hunter2") {
			t.Errorf("%s shows a secret", filepath.Base(file))
		}
	}
}

func TestSecretNames(t *testing.T) {
	for name, secret := range map[string]bool{
		"password": true, "passwd": true, "snmp_priv_passwd": true, "community": true, "token": true, "api_secret": true, "ssh_passphrase": true,
		"password_script": false, "identity_file": false, "username": false, "ip": false, "plug": false, "auth": false,
	} {
		if secretName(name) != secret {
			t.Errorf("%s: secret %v, want %v", name, !secret, secret)
		}
	}
}

func TestFenceDevicesOfANode(t *testing.T) {
	c, _ := goodConfig(t, "good-two-fence.toml")
	names := func(node string) string {
		var out []string
		for _, f := range c.fencesOf(node) {
			out = append(out, f.Name)
		}
		return strings.Join(out, " ")
	}
	for node, want := range map[string]string{"alice": "ipmi-alice outlets", "bob": "shell outlets", "carol": ""} {
		if got := names(node); got != want {
			t.Errorf("%s: %q, want %q", node, got, want)
		}
	}
	outlets := c.fence("outlets")
	if outlets.plug("alice") != "3" || outlets.plug("bob") != "4" || c.fence("shell").plug("bob") != "" {
		t.Errorf("plugs %q %q", outlets.plug("alice"), outlets.plug("bob"))
	}
	if c.fence("shell").neededBy("bob") || !c.fence("shell").neededBy("alice") || !outlets.neededBy("bob") {
		t.Error("a node does not need what fences itself alone")
	}
}
