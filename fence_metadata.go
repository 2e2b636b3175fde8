// Does an agent know what the file tells it? Agents print their options and actions as XML; this reads it and holds a
// device's options against it. Pure: the caller has run the agent.

package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	fenceMetadataMax   = 1 << 20
	fenceParametersMax = 1000
)

// fenceMetadata is what an agent says of itself.
type fenceMetadata struct {
	Parameters []fenceParameter
	Actions    []string
}

type fenceParameter struct {
	Name       string
	Required   bool
	Deprecated bool // an older name of another one
}

// parseFenceMetadata reads what `action=metadata` prints: <resource-agent> with <parameters> and <actions>.
func parseFenceMetadata(b []byte) (*fenceMetadata, error) {
	if len(b) > fenceMetadataMax {
		return nil, fmt.Errorf("read metadata: more than %d bytes", fenceMetadataMax)
	}
	var doc struct {
		XMLName    xml.Name `xml:"resource-agent"`
		Parameters []struct {
			Name       string `xml:"name,attr"`
			Required   string `xml:"required,attr"`
			Deprecated string `xml:"deprecated,attr"`
		} `xml:"parameters>parameter"`
		Actions []struct {
			Name string `xml:"name,attr"`
		} `xml:"actions>action"`
	}
	if err := xml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	if len(doc.Parameters) > fenceParametersMax || len(doc.Actions) > fenceParametersMax {
		return nil, fmt.Errorf("read metadata: more than %d parameters or actions", fenceParametersMax)
	}
	m := &fenceMetadata{}
	for _, p := range doc.Parameters {
		if p.Name != "" {
			m.Parameters = append(m.Parameters, fenceParameter{p.Name, p.Required == "1", p.Deprecated == "1"})
		}
	}
	for _, a := range doc.Actions {
		m.Actions = append(m.Actions, a.Name)
	}
	if len(m.Actions) == 0 {
		return nil, errors.New("read metadata: it names no actions")
	}
	return m, nil
}

func (m *fenceMetadata) parameter(name string) *fenceParameter {
	for i := range m.Parameters {
		if m.Parameters[i].Name == name {
			return &m.Parameters[i]
		}
	}
	return nil
}

// names are those worth writing: no older names of others.
func (m *fenceMetadata) names() []string {
	var names []string
	for _, p := range m.Parameters {
		if !p.Deprecated && p.Name != "action" {
			names = append(names, p.Name)
		}
	}
	return names
}

// agentReport is what this host has of the agent of one device.
type agentReport struct {
	Device  string
	Missing string   // why the agent cannot be run, "" if it can
	Others  []string // agents that are there, where this one is missing
	Err     string   // why its metadata are not known
	Meta    *fenceMetadata
	Secrets []string // of its secret files: why they cannot be used
}

// checkFenceAgents tells what of the fence devices cannot work on this host.
func checkFenceAgents(c *Config, text []byte, reports []agentReport) []configError {
	h := &hostChecker{walker: newWalker(locate(strings.TrimPrefix(string(text), "\ufeff"))), cfg: c}
	for _, r := range reports {
		i := slices.IndexFunc(c.Fences, func(f FenceConfig) bool { return f.Name == r.Device })
		if i < 0 {
			continue
		}
		h.fence(&c.Fences[i], fencePath(i), r)
	}
	return sortProblems(h.problems)
}

func (h *hostChecker) fence(f *FenceConfig, at string, r agentReport) {
	label := "[[fence]] " + f.Name
	for _, s := range r.Secrets {
		h.onKey(at, label+": "+s, "a file of mode 0600 with the secret in one line", "until it is there this node cannot use the device")
	}
	switch {
	case f.Agent == agentExec:
	case r.Missing != "":
		hint := didYouMean(f.Agent, r.Others)
		if hint == "" {
			hint = "apt-get install fence-agents, or dnf install fence-agents-all"
		}
		h.onValue(pathKey(at, "agent"), fmt.Sprintf("%s agent %q: %s", label, f.Agent, r.Missing), "a program of this host", hint)
	case r.Meta == nil:
		h.warn(pathKey(at, "agent"), fmt.Sprintf("%s agent %q: its options are not checked: %s", label, f.Agent, r.Err), "metadata as XML", f.Agent+" -o metadata shows what it says")
	default:
		h.fenceOptions(f, at, label, r.Meta)
	}
}

func (h *hostChecker) fenceOptions(f *FenceConfig, at, label string, m *fenceMetadata) {
	list := f.Agent + " -o metadata lists them"
	for _, action := range []string{fenceOff, fenceStatus} {
		if !slices.Contains(m.Actions, action) {
			h.onValue(pathKey(at, "agent"), fmt.Sprintf("%s agent %q does not know the action %q", label, f.Agent, action), "an agent that turns off and tells whether it is off", "")
		}
	}
	told := map[string]bool{"action": true, "plug": len(f.Plugs) > 0, "port": len(f.Plugs) > 0}
	unknown := func(path, name string) {
		told[name] = true
		if m.parameter(name) != nil {
			return
		}
		hint := didYouMean(name, m.names())
		if hint == "" {
			hint = list
		}
		h.onKey(path, fmt.Sprintf("%s: %s does not know the option %s", label, f.Agent, shownKey(name)), "one of its options", hint)
	}
	for _, o := range f.Options {
		unknown(pathKey(pathKey(at, "options"), o.Name), o.Name)
	}
	for _, o := range f.Secrets {
		unknown(pathKey(pathKey(at, "secret_files"), o.Name), o.Name)
	}
	if f.PasswordFile != "" {
		unknown(pathKey(at, "password_file"), optionPassword)
	}
	if len(f.Plugs) > 0 && m.parameter("plug") == nil {
		h.onKey(pathKey(at, "plugs"), fmt.Sprintf("%s: %s fences one node only: it has no option plug", label, f.Agent), "node = \"…\"", "")
	}
	for _, p := range m.Parameters {
		if p.Required && !p.Deprecated && !told[p.Name] {
			hint := list
			if p.Name == "plug" {
				hint = fmt.Sprintf("write plugs = { %s = \"…\" }, with what the device calls it", strings.Join(f.targets(), " = \"…\", "))
			}
			h.warn(at, fmt.Sprintf("%s: %s requires the option %s", label, f.Agent, p.Name), "it among the options", hint)
		}
	}
}
