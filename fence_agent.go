// How is a fence device called? By the programs of the field, /usr/sbin/fence_*: options as name=value lines on stdin,
// the answer in the exit status; or by the operator's own commands. Each call ends in time, with all that it started. It
// decides nothing, and what it says of a failure never holds a secret.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	fenceExitOff     = 2 // of a status call: the power is off; 0 is on, every other one says nothing
	fenceAgentFolder = "/usr/sbin"
	fenceSecretMax   = 4 << 10
	fenceReasonMax   = 200 // what goes into the state
)

// fenceAgents is the fencer of the daemon.
type fenceAgents struct {
	log   *slog.Logger
	event func(any) // takes fenceDone; may block until the loop takes it

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

func newFenceAgents(log *slog.Logger, event func(any)) *fenceAgents {
	f := &fenceAgents{log: log, event: event, running: map[uint64]context.CancelFunc{}}
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

// Fence begins a call.
func (f *fenceAgents) Fence(s fenceStep) {
	ctx, cancel := context.WithTimeout(f.ctx, s.Timeout)
	f.mu.Lock()
	f.running[s.ID] = cancel
	f.mu.Unlock()
	f.wg.Go(func() {
		begin := time.Now()
		d := fenceDone{fenceStep: s}
		var err error
		d.Power, err = callFence(ctx, s)
		d.Took = time.Since(begin)
		if err != nil {
			d.Err = shortReason(err.Error())
			f.log.Debug("fence call failed", "device", s.Device.Name, "action", s.Action, "node", s.Node, "err", d.Err)
		}
		cancel()
		f.mu.Lock()
		delete(f.running, s.ID)
		f.mu.Unlock()
		f.event(d)
	})
}

// CancelFence asks a running call to end early.
func (f *fenceAgents) CancelFence(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cancel := f.running[id]; cancel != nil {
		cancel()
	}
}

// Close ends what runs.
func (f *fenceAgents) Close() {
	f.stop()
	f.wg.Wait()
}

// shortReason is one line that fits into the state and a status.
func shortReason(s string) string {
	s = oneLine(s)
	if len(s) > fenceReasonMax {
		cut := fenceReasonMax
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

// callFence makes one call. Power is on or off after a status that says so, and else "".
func callFence(ctx context.Context, s fenceStep) (power string, err error) {
	c, secrets, err := fenceCall(s)
	if err != nil {
		return "", err
	}
	_, err = c.run(ctx)
	var exit *exec.ExitError
	switch {
	case err == nil && s.asksPower():
		return "on", nil
	case err == nil:
		return "", nil
	case ctx.Err() == nil && s.asksPower() && errors.As(err, &exit) && exit.ExitCode() == fenceExitOff:
		return "off", nil
	}
	return "", errors.New(hideSecrets(err.Error(), secrets))
}

// asksPower: the answer is on or off, and off is no failure. A monitor that is not written is the status of a node: does the
// device answer at all?
func (s *fenceStep) asksPower() bool {
	return s.Action == fenceStatus || s.Action == fenceMonitor && s.Device.Agent == agentExec && s.Device.Monitor.Command == ""
}

// hideSecrets takes out what an agent may have repeated.
func hideSecrets(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, "***")
	}
	return text
}

// fenceCall is the program to run.
func fenceCall(s fenceStep) (c command, secrets []string, err error) {
	d := &s.Device
	c = command{Name: "fence." + d.Name + "." + s.Action, Env: childEnv()}
	if d.Agent == agentExec {
		if s.asksPower() && s.Action == fenceMonitor {
			s.Action, s.Node = fenceStatus, d.targets()[0]
		}
		line := map[string]string{fenceOff: d.Off, fenceStatus: d.Status, fenceMonitor: d.Monitor.Command}[s.Action]
		c.Argv = []string{"/bin/sh", "-c", line}
		c.Env = append(c.Env, "HA_FENCE_ACTION="+s.Action, "HA_FENCE_NODE="+s.Node, "HA_FENCE_PLUG="+d.plug(s.Node))
		return c, nil, nil
	}
	program, err := findAgent(d.Agent)
	if err != nil {
		return c, nil, err
	}
	c.Argv = []string{program}
	c.Stdin, secrets, err = fenceInput(s)
	return c, secrets, err
}

// findAgent is where an agent lies.
func findAgent(agent string) (string, error) {
	path := agent
	if !filepath.IsAbs(agent) {
		path = filepath.Join(fenceAgentFolder, agent)
	}
	info, err := os.Stat(path)
	if err == nil && (info.IsDir() || info.Mode().Perm()&0o111 == 0) {
		err = fmt.Errorf("%s is no program", path)
	}
	if err != nil && path != agent {
		if found, lookErr := exec.LookPath(agent); lookErr == nil {
			return found, nil
		}
	}
	return path, err
}

// fenceInput is what the agent reads. Options of the file come last, so that an agent which takes the last of two values
// hears the operator; what hactl says itself cannot be an option (checkOption).
func fenceInput(s fenceStep) (text string, secrets []string, err error) {
	d := &s.Device
	lines := []string{"action=" + s.Action}
	if plug := d.plug(s.Node); plug != "" {
		lines = append(lines, "plug="+plug)
	}
	files := d.Secrets
	if d.PasswordFile != "" {
		files = append(files[:len(files):len(files)], Option{optionPassword, d.PasswordFile})
	}
	for _, o := range files {
		secret, err := readSecret(o.Value)
		if err != nil {
			return "", nil, err
		}
		secrets = append(secrets, secret)
		lines = append(lines, o.Name+"="+secret)
	}
	for _, o := range d.Options {
		lines = append(lines, o.Name+"="+o.Value)
	}
	return strings.Join(lines, "\n") + "\n", secrets, nil
}

// askAgents asks the agents of the devices that a node may need what they know, for `config check --host`.
func askAgents(ctx context.Context, c *Config, node string) []agentReport {
	var reports []agentReport
	if c.isWitness(node) {
		return nil
	}
	for i := range c.Fences {
		f := &c.Fences[i]
		if !f.neededBy(node) {
			continue
		}
		r := agentReport{Device: f.Name}
		_, _, err := fenceInput(fenceStep{Device: *f})
		if err != nil {
			r.Secrets = append(r.Secrets, err.Error())
		}
		if f.Agent != agentExec {
			r.ask(ctx, f.Agent)
		}
		reports = append(reports, r)
	}
	return reports
}

const metadataTime = 20 * time.Second

func (r *agentReport) ask(ctx context.Context, agent string) {
	program, err := findAgent(agent)
	if err != nil {
		r.Missing = err.Error()
		found, _ := filepath.Glob(filepath.Join(fenceAgentFolder, "fence_*")) // the pattern is well formed
		for _, path := range found {
			r.Others = append(r.Others, filepath.Base(path))
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTime)
	defer cancel()
	out := &bounded{most: fenceMetadataMax + 1}
	if _, err = (command{Name: agent, Argv: []string{program}, Stdin: "action=metadata\n", Stdout: out}).run(ctx); err == nil {
		r.Meta, err = parseFenceMetadata(out.b)
	}
	if err != nil {
		r.Err = shortReason(err.Error())
	}
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	b    []byte
	most int
}

func (w *bounded) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), w.most-len(w.b))]...)
	return len(p), nil
}

// readSecret reads a file that holds one line, which only its owner may read.
func readSecret(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is no file", name)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("others than its owner can read %s (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
	case info.Size() > fenceSecretMax:
		return "", fmt.Errorf("%s has %d bytes, which is no password", name, info.Size())
	}
	b := make([]byte, fenceSecretMax+1)
	n, err := f.Read(b)
	secret := strings.TrimRight(string(b[:n]), "\r\n")
	switch {
	case secret == "":
		return "", fmt.Errorf("%s is empty (%v)", name, err)
	case strings.ContainsAny(secret, "\r\n\x00"):
		return "", fmt.Errorf("%s holds more than one line", name)
	}
	return secret, nil
}
