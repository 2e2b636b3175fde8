package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ownMetadata has the form of what the agents of the field print.
const ownMetadata = `<?xml version="1.0" ?>
<resource-agent name="fence_own" shortdesc="Fence agent of a test" >
<longdesc>It fences nothing &amp; nobody.</longdesc>
<parameters>
	<parameter name="action" unique="0" required="1">
		<getopt mixed="-o, --action=[action]" />
		<content type="string" default="reboot"  />
		<shortdesc lang="en">Fencing action</shortdesc>
	</parameter>
	<parameter name="ip" unique="0" required="1" obsoletes="ipaddr">
		<content type="string"  />
	</parameter>
	<parameter name="ipaddr" unique="0" required="1" deprecated="1">
		<content type="string"  />
	</parameter>
	<parameter name="auth" unique="0" required="0">
		<content type="select"  ><option value="md5" /></content>
	</parameter>
	<parameter name="username" unique="0" required="0" />
	<parameter name="password" unique="0" required="0" />
	<parameter name="plug" unique="0" required="1" obsoletes="port" />
	<parameter name="port" unique="0" required="1" deprecated="1" />
</parameters>
<actions>
	<action name="on" automatic="0"/>
	<action name="off" />
	<action name="status" />
	<action name="monitor" />
</actions>
</resource-agent>
`

func TestParseFenceMetadata(t *testing.T) {
	m, err := parseFenceMetadata([]byte(ownMetadata))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.names(), " "); got != "ip auth username password plug" {
		t.Errorf("options %q", got)
	}
	if got := strings.Join(m.Actions, " "); got != "on off status monitor" {
		t.Errorf("actions %q", got)
	}
	if p := m.parameter("plug"); p == nil || !p.Required || p.Deprecated || !m.parameter("port").Deprecated {
		t.Errorf("plug %+v", p)
	}
	for name, text := range map[string]string{
		"nothing": "", "no XML": "Traceback (most recent call last):", "another document": "<html></html>", "cut": ownMetadata[:400],
		"no actions": "<resource-agent><parameters/></resource-agent>", "too long": strings.Repeat(" ", fenceMetadataMax+1),
		"too many": "<resource-agent><actions>" + strings.Repeat(`<action name="x"/>`, fenceParametersMax+1) + "</actions></resource-agent>",
	} {
		if m, err := parseFenceMetadata([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func FuzzFenceMetadata(f *testing.F) {
	f.Add([]byte(ownMetadata))
	f.Add([]byte("<resource-agent><actions><action name=\"off\"/></actions></resource-agent>"))
	f.Add([]byte("<!DOCTYPE x [<!ENTITY a \"b\">]><resource-agent>&a;</resource-agent>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseFenceMetadata(b)
		if err == nil && (len(m.Actions) == 0 || len(m.Parameters) > fenceParametersMax) {
			t.Errorf("%+v", m)
		}
	})
}

const fencedConfig = `[cluster]
name = "web"
two_node = "fence"
[[link]]
name = "lan"
interface = "eth0"
[[node]]
name = "alice"
address = { lan = "192.168.10.11" }
[[node]]
name = "bob"
address = { lan = "192.168.10.12" }
[[fence]]
name = "own"
agent = "AGENT"
node = "bob"
options = { ipp = "10.9.0.1", usernam = "ha", nonsense = 1 }
password_file = "PASSWORD"
[[fence]]
name = "mine"
agent = "AGENT"
plugs = { alice = "1" }
`

// What this host has of the agents that the file names, as `config check --host` tells it: only of devices that it may need.
func TestCheckFenceAgents(t *testing.T) {
	agent := ownAgent(t, `[ "$action" = metadata ] && cat "$here/metadata"; exit 0`)
	dir := filepath.Dir(agent)
	password := secretFile(t, "x", 0o644)
	check := func(text, metadata string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "metadata"), []byte(metadata), 0o644); err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(strings.ReplaceAll(text, "AGENT", agent), "PASSWORD", password)
		c, problems := parseConfig([]byte(text))
		if c == nil {
			t.Fatal(renderProblems("f", problems))
		}
		report := renderProblems("f", checkFenceAgents(c, []byte(text), askAgents(context.Background(), c, "alice")))
		return strings.ReplaceAll(strings.ReplaceAll(report, agent, "AGENT"), password, "PASSWORD")
	}
	want := `f:13:1: error: [[fence]] own: others than its owner can read PASSWORD (mode 0644): chmod 600 PASSWORD; expected a file of mode 0600 with the secret in one line
    hint: until it is there this node cannot use the device
f:13:1: warning: [[fence]] own: AGENT requires the option ip; expected it among the options
    hint: AGENT -o metadata lists them
f:13:1: warning: [[fence]] own: AGENT requires the option plug; expected it among the options
    hint: write plugs = { bob = "…" }, with what the device calls it
f:17:13: error: [[fence]] own: AGENT does not know the option ipp; expected one of its options
    hint: did you mean "ip"?
f:17:31: error: [[fence]] own: AGENT does not know the option usernam; expected one of its options
    hint: did you mean "username"?
f:17:47: error: [[fence]] own: AGENT does not know the option nonsense; expected one of its options
    hint: AGENT -o metadata lists them
`
	if got := check(fencedConfig, ownMetadata); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := check(fencedConfig, "Traceback"); !strings.Contains(got, "f:15:9: warning: [[fence]] own agent \"AGENT\": its options are not checked: read metadata") {
		t.Errorf("without metadata:\n%s", got)
	}
	if got := check(fencedConfig, strings.ReplaceAll(ownMetadata, `<action name="status" />`, "")); !strings.Contains(got, `does not know the action "status"`) {
		t.Errorf("without status:\n%s", got)
	}
	single := strings.NewReplacer(`name="plug"`, `name="x"`, `name="port"`, `name="y"`).Replace(ownMetadata)
	if got := check(strings.Replace(fencedConfig, `node = "bob"`, `plugs = { bob = "2" }`, 1), single); !strings.Contains(got, "fences one node only") {
		t.Errorf("a plug for an agent that has none:\n%s", got)
	}
	missing := strings.ReplaceAll(fencedConfig, "AGENT", "fence_nonexistent_ipmilan")
	if got := check(missing, ownMetadata); !strings.Contains(got, `agent "fence_nonexistent_ipmilan": stat /usr/sbin/fence_nonexistent_ipmilan: no such file or directory; expected a program of this host`) || !strings.Contains(got, "hint: ") {
		t.Errorf("an agent that is not there:\n%s", got)
	}
}

// The agents that are installed here are understood, every one that can be run at all.
func TestMetadataOfInstalledAgents(t *testing.T) {
	found, _ := filepath.Glob("/usr/sbin/fence_*") // the pattern is well formed
	read := 0
	for _, agent := range found {
		r := agentReport{}
		r.ask(t.Context(), filepath.Base(agent))
		switch {
		case r.Meta != nil:
			read++
		case strings.Contains(r.Err, "read metadata: ") && !strings.Contains(r.Err, "EOF"):
			t.Errorf("%s: %s", agent, r.Err)
		}
	}
	if read == 0 {
		t.Skip("no fence agents are installed that can be run (Debian: fence-agents)")
	}
	t.Logf("%d of %d agents understood", read, len(found))
}
