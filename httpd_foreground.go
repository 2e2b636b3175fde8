// How does the web server run where no systemd unit does it? In the foreground, as a service of the daemon, with the
// environment that apache2ctl would give it. One that somebody else started with this configuration is found and
// taken into care, so that it can be stopped.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type foreground struct {
	c   ResourceConfig
	svc *service
	log *slog.Logger

	mu  sync.Mutex
	pid pidFileCache
}

// pidFileCache remembers what a run of the server's own configuration dump said, for as long as the file is the same.
type pidFileCache struct {
	path     string
	modified time.Time
}

func newForeground(c ResourceConfig, env resourceEnv) *foreground {
	return &foreground{c: c, svc: newService(env, c.Name), log: env.Log}
}

func (f *foreground) fit(context.Context) error {
	_, err := f.program()
	return err
}

// program is the server's binary, links resolved, as /proc/PID/exe has it.
func (f *foreground) program() (string, error) {
	if f.c.Program != "" {
		path, err := exec.LookPath(f.c.Program)
		if err != nil {
			return "", fmt.Errorf("program %s cannot be run: %w", f.c.Program, err)
		}
		return filepath.EvalSymlinks(path)
	}
	for _, name := range []string{"apache2", "httpd", "httpd2"} {
		for _, dir := range filepath.SplitList(defaultPath) {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return filepath.EvalSymlinks(path)
			}
		}
	}
	return "", errors.New("neither apache2 nor httpd is installed on this host: install it, or set program")
}

// config is the configuration file; by default that of the distribution.
func (f *foreground) config() string {
	if f.c.ConfigFile != "" {
		return f.c.ConfigFile
	}
	for _, d := range distributionUnits {
		if _, err := os.Stat(d.config); err == nil {
			return d.config
		}
	}
	return distributionUnits[0].config
}

// environment is the daemon's, as changed by Debian's envvars where that lies beside the configuration, and by the
// resource's `environment`.
func (f *foreground) environment(ctx context.Context) ([]string, error) {
	env := childEnv()
	dir := filepath.Dir(f.config())
	vars := filepath.Join(dir, "envvars")
	if _, err := os.Stat(vars); err == nil {
		var out strings.Builder
		c := command{
			Name:   f.svc.name + ".envvars",
			Argv:   []string{"/bin/sh", "-c", `. "$1" && exec env -0`, "sh", vars},
			Env:    append(env, "APACHE_CONFDIR="+dir),
			Stdout: &out,
		}
		if _, err := c.run(ctx); err != nil {
			return nil, fmt.Errorf("read %s: %w", vars, err)
		}
		env = strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00")
	}
	return append(env, f.c.Environment...), nil
}

// variable is the last value of a name in an environment.
func variable(env []string, name string) string {
	for _, v := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

func (f *foreground) start(ctx context.Context) error {
	program, err := f.program()
	if err != nil {
		return fmt.Errorf("%w (%w)", err, errHopeless)
	}
	env, err := f.environment(ctx)
	if err != nil {
		return err
	}
	if err := makeServerDirs(env); err != nil {
		return err
	}
	argv := []string{program, "-f", f.config(), "-D", "FOREGROUND"}
	return f.svc.start(append(argv, strings.Fields(variable(env, "APACHE_ARGUMENTS"))...), env)
}

// makeServerDirs makes what lies below /run and is gone after a boot, with the owners that apache2ctl gives it.
func makeServerDirs(env []string) error {
	run, lock, owner := variable(env, "APACHE_RUN_DIR"), variable(env, "APACHE_LOCK_DIR"), variable(env, "APACHE_RUN_USER")
	if run != "" {
		if err := makeServerDir(run, ""); err != nil {
			return err
		}
		if err := makeServerDir(filepath.Join(run, "socks"), owner); err != nil {
			return err
		}
	}
	if lock != "" {
		return makeServerDir(lock, owner)
	}
	return nil
}

func makeServerDir(dir, owner string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for the web server: %w", err)
	}
	if owner == "" || os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(owner)
	if err != nil {
		return fmt.Errorf("make folder %s for the web server: %w", dir, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("make folder %s for the web server: %w", dir, err)
	}
	return os.Chown(dir, uid, -1)
}

func (f *foreground) probe(ctx context.Context) (int, condition, error) {
	f.svc.trimLog()
	run, _ := f.svc.current()
	if run == nil {
		id, err := f.find(ctx)
		if err != nil {
			return 0, conditionUnknown, err
		}
		if id.PID == 0 {
			return 0, conditionStopped, nil
		}
		if held, err := f.svc.adopt(id); err != nil {
			return id.PID, conditionUnknown, err
		} else if !held {
			return 0, conditionStopped, nil
		}
		f.log.Info("the web server runs, started by somebody else: taken into care", "event", "httpd-adopted",
			"service", f.svc.name, "pid", id.PID)
		return id.PID, conditionRunning, nil
	}
	if run.proc.alive() {
		return run.proc.PID, conditionRunning, nil
	}
	err := errors.New(run.proc.ending())
	if left := run.family.members(); len(left) > 0 {
		err = fmt.Errorf("%w and left behind %s", err, describe(left))
	}
	return 0, conditionFailed, err
}

// find looks for a server that this daemon knows nothing of: one that was started with `-f` and this configuration,
// or that this configuration's PidFile names.
func (f *foreground) find(ctx context.Context) (processID, error) {
	program, err := f.program()
	if err != nil {
		return processID{}, nil // not even installed
	}
	mains := serverMains(program)
	for _, id := range mains {
		if config, ok := configArgument(id.PID); ok && config == f.config() {
			return id, nil
		}
	}
	if len(mains) == 0 {
		return processID{}, nil
	}
	path, err := f.pidFile(ctx, program)
	if err != nil {
		return processID{}, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return processID{}, nil // none: it runs by another configuration
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return processID{}, nil
	}
	for _, id := range mains {
		if id.PID == pid {
			return id, nil
		}
	}
	return processID{}, nil
}

// serverMains are the running parents of the program on this host. What is in another network namespace is in a
// container or on another host of a lab.
func serverMains(program string) []processID {
	net, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil
	}
	servers := map[int]processStat{}
	for _, s := range processes() {
		if exeOf(s.PID) != program {
			continue
		}
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", s.PID)); err == nil && theirs == net {
			servers[s.PID] = s
		}
	}
	var mains []processID
	for _, s := range servers {
		if _, child := servers[s.Parent]; !child {
			mains = append(mains, s.processID)
		}
	}
	slices.SortFunc(mains, func(a, b processID) int { return a.PID - b.PID })
	return mains
}

// configArgument is the file that a server was started with; not ok when it uses its built-in one.
func configArgument(pid int) (string, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "", false
	}
	args := strings.Split(string(b), "\x00")
	for i, a := range args {
		if a == "-f" && i+1 < len(args) {
			return args[i+1], true
		}
	}
	return "", false
}

// pidFile asks the server where it puts its number. Where the configuration cannot be read at present, as when its
// file system is not mounted, it is APACHE_PID_FILE, or nowhere.
func (f *foreground) pidFile(ctx context.Context, program string) (string, error) {
	info, err := os.Stat(f.config())
	if err != nil {
		return "", nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pid.modified.Equal(info.ModTime()) {
		return f.pid.path, nil
	}
	env, err := f.environment(ctx)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	c := command{
		Name:   f.svc.name + ".config",
		Argv:   []string{program, "-f", f.config(), "-t", "-D", "DUMP_RUN_CFG"},
		Env:    env,
		Stdout: &out,
	}
	if _, err := c.run(ctx); ctx.Err() != nil {
		return "", err
	} else if err != nil {
		return variable(env, "APACHE_PID_FILE"), nil
	}
	path, root := parseRunConfig(out.String())
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	f.pid = pidFileCache{path: path, modified: info.ModTime()}
	return path, nil
}

// parseRunConfig reads `apache2 -t -D DUMP_RUN_CFG`: lines such as PidFile: "/var/run/apache2/apache2.pid".
func parseRunConfig(s string) (pidFile, serverRoot string) {
	for line := range strings.Lines(s) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"`)
		switch key {
		case "PidFile":
			pidFile = value
		case "ServerRoot":
			serverRoot = value
		}
	}
	return pidFile, serverRoot
}

func (f *foreground) stop(ctx context.Context) error {
	if run, _ := f.svc.current(); run == nil {
		if _, _, err := f.probe(ctx); err != nil { // takes into care what somebody else started
			return err
		}
	}
	return f.svc.stop(ctx)
}

// explain tests the configuration, since a good one is not worth the time before every start.
func (f *foreground) explain(ctx context.Context, err error) error {
	var out *outputError
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) || errors.As(err, &out) || ctx.Err() != nil {
		return err
	}
	program, perr := f.program()
	env, eerr := f.environment(ctx)
	if perr == nil && eerr == nil {
		c := command{Name: "configuration test", Argv: []string{program, "-f", f.config(), "-t"}, Env: env}
		if tail, terr := c.run(ctx); terr != nil {
			return &outputError{err: fmt.Errorf("%w; %s has an error", err, f.config()), tail: tail}
		}
	}
	tail := f.svc.tail()
	for line := range strings.Lines(tail) {
		if strings.Contains(line, "could not bind") {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(line))
			break
		}
	}
	return &outputError{err: err, tail: tail}
}

func (f *foreground) watch(ctx context.Context, changed func(reason string)) {
	f.svc.watch(ctx, changed)
}
