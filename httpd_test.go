// A real apache2 on loopback: started, adopted, crashed, misconfigured, and stopped with all of its processes.

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const apacheModules = "/usr/lib/apache2/modules"

// apache is the configuration of a server of the test's own.
type apache struct {
	t         *testing.T
	dir       string
	port      int
	directive []string // appended
	status    string   // what is said about server-status
	tls       bool
	env       resourceEnv
	prefork   bool
}

func newApache(t *testing.T) *apache {
	t.Helper()
	if _, err := (&foreground{}).program(); err != nil {
		t.Skip(err)
	}
	if _, err := os.Stat(apacheModules); err != nil {
		t.Skipf("no modules: %v", err)
	}
	dir, err := os.MkdirTemp("", "hactl-apache")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // its workers read it as another user
		t.Fatal(err)
	}
	a := &apache{t: t, dir: dir, port: freeHTTPPort(t), env: testEnv(t),
		status: "SetHandler server-status\nRequire local"}
	a.file("www/index.html", "<h1>It works!</h1>")
	return a
}

// freePort is a port that nobody had a moment ago.
func freeHTTPPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (a *apache) file(name, text string) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *apache) write() string {
	mpm := "event"
	if a.prefork {
		mpm = "prefork"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ServerRoot %s\nPidFile run/httpd.pid\nErrorLog %s/error.log\nServerName localhost\nListen 127.0.0.1:%d\n", a.dir, a.dir, a.port)
	fmt.Fprintf(&b, "Mutex file:%s/run default\nDocumentRoot %s/www\n", a.dir, a.dir)
	modules := []string{"mpm_" + mpm, "authz_core", "authz_host", "dir"}
	if a.tls {
		modules = append(modules, "socache_shmcb", "ssl")
	}
	if a.status != "" {
		modules = append(modules, "status")
	}
	for _, m := range modules {
		fmt.Fprintf(&b, "LoadModule %s_module %s/mod_%s.so\n", m, apacheModules, m)
	}
	if os.Geteuid() == 0 {
		b.WriteString("User nobody\n")
	}
	if a.status != "" {
		fmt.Fprintf(&b, "<Location /server-status>\n%s\n</Location>\n", a.status)
	}
	for _, d := range a.directive {
		b.WriteString(d + "\n")
	}
	a.file("run/made", "")
	return a.file("apache.conf", b.String())
}

func (a *apache) config() ResourceConfig {
	scheme := "http"
	if a.tls {
		scheme = "https"
	}
	return ResourceConfig{
		Type: "httpd", Name: "site", Unit: "none", ConfigFile: a.write(),
		StatusURL: fmt.Sprintf("%s://127.0.0.1:%d/server-status?auto", scheme, a.port),
	}
}

// resource is a new agent, as a restarted daemon would make one. What it left running is stopped at the end.
func (a *apache) resource(change ...func(*ResourceConfig)) *httpd {
	a.t.Helper()
	c := a.config()
	for _, f := range change {
		f(&c)
	}
	r, err := newHTTPD(c, a.env)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			a.t.Errorf("stop at the end: %v", err)
		}
	})
	return r.(*httpd)
}

func (a *apache) want(h *httpd, want condition, sentence string) {
	a.t.Helper()
	c, err := h.Monitor(patient(a.t))
	if c != want || (err == nil) != (sentence == "") || err != nil && !strings.Contains(err.Error(), sentence) {
		a.t.Fatalf("monitor: %s, %v; want %s, %q", c, err, want, sentence)
	}
}

func (a *apache) start(h *httpd) {
	a.t.Helper()
	began := time.Now()
	if err := h.Start(patient(a.t), startHint{}); err != nil {
		log, _ := os.ReadFile(filepath.Join(a.dir, "error.log"))
		a.t.Fatalf("start: %v\n%s", err, log)
	}
	a.t.Logf("started and answering after %s", time.Since(began))
}

func (h *httpd) main(t *testing.T) processID {
	t.Helper()
	run, _ := h.runner.(*foreground).svc.current()
	if run == nil {
		t.Fatal("no process")
	}
	return run.proc.processID
}

func TestHTTPDForeground(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		a := newApache(t)
		h := a.resource()
		if err := h.Fit(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.want(h, conditionStopped, "")
		for range 2 { // running already is no error
			a.start(h)
			a.want(h, conditionRunning, "")
		}
		if line, err := h.Status(patient(t)); err != nil || !strings.Contains(line, "Apache/2.") || !strings.Contains(line, " busy and ") {
			t.Errorf("status %q, %v", line, err)
		}
		members := treeOf(t, h)
		if len(members) < 2 {
			t.Errorf("processes %v", members)
		}
		began := time.Now()
		for range 2 {
			if err := h.Stop(patient(t)); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("stopped after %s", time.Since(began))
		for _, id := range members {
			if lives(id) {
				t.Errorf("process %d still runs", id.PID)
			}
		}
		if holder := whoListens(a.port); holder != "" {
			t.Errorf("the port is held by %s", holder)
		}
		a.want(h, conditionStopped, "")
	})
}

func treeOf(t *testing.T, h *httpd) []processID {
	t.Helper()
	ids, _ := processTree(h.main(t), processes())
	return ids
}

// A restarted daemon goes on with the very same process, and sees its crash.
func TestHTTPDAdoptedAfterDaemonRestart(t *testing.T) {
	a := newApache(t)
	first := a.resource()
	a.start(first)
	main := first.main(t)
	h := a.resource()
	a.want(h, conditionRunning, "")
	if got := h.main(t); got != main {
		t.Fatalf("adopted %v, want %v", got, main)
	}
	a.start(h) // changes nothing
	if !lives(main) {
		t.Fatal("it was restarted")
	}
	if err := h.Stop(patient(t)); err != nil {
		t.Fatal(err)
	}
	if lives(main) {
		t.Error("it still runs")
	}
}

func TestHTTPDCrash(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		a := newApache(t)
		h := a.resource()
		a.start(h)
		reasons := make(chan string, 10)
		ctx, cancel := context.WithCancel(t.Context())
		watched := make(chan struct{})
		go func() { defer close(watched); h.Watch(ctx, func(r string) { reasons <- r }) }()
		main := h.main(t)
		members := treeOf(t, h)
		killed := time.Now()
		if err := signalProcess(main, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		reason := <-reasons
		t.Logf("crash noticed after %s: %s", time.Since(killed), reason)
		if want := fmt.Sprintf("process %d was killed by SIGKILL", main.PID); reason != want {
			t.Errorf("reason %q, want %q", reason, want)
		}
		a.want(h, conditionFailed, "was killed by SIGKILL and left behind process ")
		// Its workers hold the port, so a start has to clear them away first.
		a.start(h)
		a.want(h, conditionRunning, "")
		for _, id := range members {
			if lives(id) {
				t.Errorf("process %d of the crashed server still runs", id.PID)
			}
		}
		cancel()
		<-watched
	})
}

// One that the system or a person started with this configuration is the cluster's to stop.
func TestHTTPDStartedBySomebodyElse(t *testing.T) {
	for name, options := range map[string]func(a *apache) []string{
		"with -f": func(a *apache) []string { return []string{"-f", filepath.Join(a.dir, "apache.conf"), "-k", "start"} },
		"told by its pid file": func(a *apache) []string { // another path to the file, as with a built-in default
			if err := os.Symlink("apache.conf", filepath.Join(a.dir, "other.conf")); err != nil {
				t.Fatal(err)
			}
			return []string{"-f", filepath.Join(a.dir, "other.conf")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApache(t)
			h := a.resource()
			program, err := (&foreground{}).program()
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(program, options(a)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			main := pidIn(t, filepath.Join(a.dir, "run/httpd.pid"))
			endLater(t, main)
			until(t, "the foreign server to answer", func() bool { c, _ := h.Monitor(patient(t)); return c == conditionRunning })
			if got := h.main(t); got != main {
				t.Fatalf("adopted %v, want %v", got, main)
			}
			again := a.resource() // the state file names it too
			if err := again.Stop(patient(t)); err != nil {
				t.Fatal(err)
			}
			if lives(main) {
				t.Error("it still runs")
			}
		})
	}
}

// Another server on this host is none of ours, even of the same program.
func TestHTTPDLeavesOtherServersAlone(t *testing.T) {
	other, a := newApache(t), newApache(t)
	o := other.resource()
	other.start(o)
	h := a.resource()
	a.want(h, conditionStopped, "")
	if err := h.Stop(patient(t)); err != nil {
		t.Fatal(err)
	}
	other.want(o, conditionRunning, "")
}

func TestHTTPDPortIsTaken(t *testing.T) {
	a := newApache(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", a.port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := a.resource()
	err = h.Start(patient(t), startHint{})
	if err == nil {
		t.Fatal("started on a port that is taken")
	}
	for _, want := range []string{"exited with status 1", "could not bind to address", fmt.Sprintf("port %d is held by process %d (", a.port, os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	var out *outputError
	if !errors.As(err, &out) || !strings.Contains(out.tail, "no listening sockets available") {
		t.Errorf("tail %+v", out)
	}
}

func TestHTTPDStartErrors(t *testing.T) {
	tests := []struct {
		name   string
		broken func(*apache)
		change func(*ResourceConfig)
		want   string
		tail   string
	}{
		{"syntax", func(a *apache) { a.directive = []string{"Lisen 80"} }, nil, "apache.conf has an error: Invalid command 'Lisen'", "Syntax error on line"},
		{"no configuration", nil, func(c *ResourceConfig) { c.ConfigFile += ".missing" }, "apache.conf.missing has an error: ", "No such file or directory"},
		{"no program", nil, func(c *ResourceConfig) { c.Program = "/nonexistent/httpd" }, "program /nonexistent/httpd cannot be run: ", ""},
		{"server-status is off", func(a *apache) { a.status = "" }, nil, "answers 404 (Not Found): server-status is off or denied: enable it with `a2enmod status`", ""},
		{"server-status is denied", func(a *apache) { a.status = "SetHandler server-status\nRequire all denied" }, nil, "answers 403 (Forbidden): server-status is off or denied", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := newApache(t)
			if test.broken != nil {
				test.broken(a)
			}
			var changes []func(*ResourceConfig)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			h := a.resource(changes...)
			err := h.Start(patient(t), startHint{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
			var out *outputError
			if errors.As(err, &out); test.tail != "" && (out == nil || !strings.Contains(out.tail, test.tail)) {
				t.Errorf("tail %+v, want %q", out, test.tail)
			}
		})
	}
}

// Whoever may read /proc/PID/fd of its own processes only, as any user, can do it too.
func TestHTTPDStatusTurnedOffWhileRunning(t *testing.T) {
	a := newApache(t)
	a.directive = []string{"IncludeOptional " + a.dir + "/more*.conf"}
	h := a.resource()
	a.start(h)
	a.file("more.conf", "<Location /server-status>\nRequire all denied\n</Location>\n")
	if err := signalProcess(h.main(t), unix.SIGUSR1); err != nil { // graceful
		t.Fatal(err)
	}
	until(t, "the status page to be denied", func() bool { c, _ := h.Monitor(patient(t)); return c == conditionFailed })
	a.want(h, conditionFailed, fmt.Sprintf("process %d runs, but server-status: http://127.0.0.1:%d/server-status?auto answers 403 (Forbidden): server-status is off or denied", h.main(t).PID, a.port))
}

// A stopped (SIGSTOP) server runs and does not answer.
func TestHTTPDHangs(t *testing.T) {
	a := newApache(t)
	a.prefork = true
	a.directive = []string{"ServerLimit 1", "StartServers 1"}
	h := a.resource()
	a.start(h)
	members := treeOf(t, h)
	for _, id := range members {
		if err := signalProcess(id, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c, err := h.Monitor(ctx)
	if c != conditionFailed || !strings.Contains(err.Error(), "timed out after ") || !strings.Contains(err.Error(), "takes the connection and does not answer") {
		t.Errorf("monitor: %s, %v", c, err)
	}
	if c, err := h.Monitor(ctx); c == conditionRunning { // no time at all
		t.Errorf("monitor: %s, %v", c, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := h.Stop(short); err != nil { // SIGTERM does not reach it, SIGKILL does
		t.Error(err)
	}
	for _, id := range members {
		if lives(id) {
			t.Errorf("process %d still runs", id.PID)
		}
	}
}

func TestHTTPDOverTLSAndExpect(t *testing.T) {
	a := newApache(t)
	a.tls = true
	a.directive = []string{"SSLEngine on", "SSLCertificateFile " + a.dir + "/cert.pem", "SSLCertificateKeyFile " + a.dir + "/key.pem", "SSLSessionCache none"}
	a.certificate()
	page := fmt.Sprintf("https://127.0.0.1:%d/", a.port)
	h := a.resource(func(c *ResourceConfig) {
		c.TLSInsecure = true
		c.Expect = &Expect{URL: page, Contains: "It works!", Status: 200}
	})
	a.start(h)
	a.want(h, conditionRunning, "")
	a.file("www/index.html", "<h1>Under repair</h1>")
	a.want(h, conditionFailed, "runs, but expect: "+page+` does not contain "It works!"`)
	a.want(a.resource(), conditionFailed, "the certificate is not good for 127.0.0.1 (")
	plain := a.resource(func(c *ResourceConfig) { c.StatusURL = strings.Replace(c.StatusURL, "https:", "http:", 1) })
	a.want(plain, conditionFailed, "the port speaks TLS: write https:// in status_url")
}

// certificate makes a self-signed one.
func (a *apache) certificate() {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.file("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	a.file("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// Debian's envvars, beside the configuration, set what the configuration refers to.
func TestHTTPDEnvvars(t *testing.T) {
	a := newApache(t)
	a.directive = []string{"Define root ${APACHE_RUN_DIR}", "DefaultRuntimeDir ${APACHE_RUN_DIR}", "<IfDefine !EXTRA>", "Broken", "</IfDefine>", "Define who ${SITE}"}
	a.file("envvars", "unset HOME\nexport APACHE_RUN_DIR="+a.dir+"/run-dir$SUFFIX\nexport APACHE_LOCK_DIR="+a.dir+"/lock-dir\nexport APACHE_RUN_USER=nobody\nexport APACHE_ARGUMENTS='-D EXTRA'\n")
	h := a.resource(func(c *ResourceConfig) { c.Environment = []string{"SITE=web"} })
	a.start(h)
	env, err := h.runner.(*foreground).environment(t.Context())
	if err != nil || variable(env, "HOME") != "" || variable(env, "SITE") != "web" || variable(env, "PATH") == "" {
		t.Errorf("environment %q, %v", env, err)
	}
	for _, dir := range []string{"run-dir", "run-dir/socks", "lock-dir"} {
		if info, err := os.Stat(filepath.Join(a.dir, dir)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", dir, err)
		}
	}
	a.file("envvars", "exit 3\n")
	if _, err := h.runner.(*foreground).environment(t.Context()); err == nil || !strings.Contains(err.Error(), "envvars: ") {
		t.Errorf("error %v", err)
	}
	os.Remove(filepath.Join(a.dir, "envvars"))
}

// The same as any user, with what that user may see of /proc and without control groups.
func TestHTTPDAsAnotherUser(t *testing.T) {
	if os.Getenv("HACTL_TEST_AS_USER") != "" {
		t.Run("foreground", TestHTTPDForeground)
		t.Run("crash", TestHTTPDCrash)
		t.Run("port", TestHTTPDPortIsTaken)
		t.Run("errors", TestHTTPDStartErrors)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: the other tests run as a user already")
	}
	dir, err := os.MkdirTemp("", "hactl-user")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const nobody = 65534
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o700), os.Chown(filepath.Join(dir, "tmp"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestHTTPDAsAnotherUser$", "-test.v")
	cmd.Dir = filepath.Join(dir, "tmp")
	cmd.Env = append(os.Environ(), "HACTL_TEST_AS_USER=1", "TMPDIR="+cmd.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS"); n < 5 {
		t.Errorf("only %d tests passed:\n%s", n, out)
	}
}

func TestParseRunConfig(t *testing.T) {
	const dump = "ServerRoot: \"/etc/apache2\"\nMain DocumentRoot: \"/var/www/html\"\nMutex default: dir=\"/var/run/apache2/\" mechanism=default \n" +
		"PidFile: \"/var/run/apache2/apache2.pid\"\nDefine: DUMP_RUN_CFG\nUser: name=\"www-data\" id=33\n"
	for in, want := range map[string][2]string{
		dump: {"/var/run/apache2/apache2.pid", "/etc/apache2"}, "": {}, "PidFile\nServerRoot:\n": {}, `PidFile: "logs/httpd.pid"`: {"logs/httpd.pid", ""},
	} {
		if pid, root := parseRunConfig(in); pid != want[0] || root != want[1] {
			t.Errorf("%q: %q %q", in, pid, root)
		}
	}
}
