// Each failed check says what was seen and what to do; every form of server-status that Apache ever had is read.

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseServerStatus(t *testing.T) {
	tests := map[string]struct {
		want serverStatus
		line string
	}{
		"auto-2.4-event.txt": {
			serverStatus{Server: "Apache/2.4.71 (Debian)", Busy: 1, Idle: 74, Accesses: 1, Rate: -1},
			"Apache/2.4.71 (Debian), 1 busy and 74 idle workers"},
		"auto-2.4-extended-off.txt": {
			serverStatus{Server: "Apache/2.4.71 (Debian)", Busy: 1, Idle: 74, Accesses: -1, Rate: -1},
			"Apache/2.4.71 (Debian), 1 busy and 74 idle workers"},
		"auto-2.4-prefork.txt": {
			serverStatus{Server: "Apache/2.4.71 (Debian)", Busy: 1, Idle: 4, Accesses: 4, Rate: -1},
			"Apache/2.4.71 (Debian), 1 busy and 4 idle workers"},
		"auto-2.2.txt": {
			serverStatus{Uptime: 7770 * time.Second, Busy: 2, Idle: 5, Accesses: 62, Rate: .00797941},
			"up 2h9m30s, 0.0 requests/s, 2 busy and 5 idle workers"},
		"auto-2.2-extended-off.txt": {
			serverStatus{Busy: 1, Idle: 7, Accesses: -1, Rate: -1}, "1 busy and 7 idle workers"},
		"auto-1.3.txt": {
			serverStatus{Uptime: 91 * time.Second, Busy: 1, Idle: 4, Accesses: 11, Rate: .120879},
			"up 1m31s, 0.1 requests/s, 1 busy and 4 idle workers"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", "httpd", name))
			if err != nil {
				t.Fatal(err)
			}
			for form, body := range map[string]string{"LF": string(b), "CRLF": strings.ReplaceAll(string(b), "\n", "\r\n")} {
				got, err := parseServerStatus([]byte(body))
				if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
					t.Errorf("%s: %v %s", form, err, diff)
				}
				if line := got.line(serverStatus{}, 0); line != test.line {
					t.Errorf("%s: line %q, want %q", form, line, test.line)
				}
			}
		})
	}
}

func TestParseServerStatusRefuses(t *testing.T) {
	html, err := os.ReadFile(filepath.Join("testdata", "httpd", "html-2.4.txt"))
	if err != nil {
		t.Fatal(err)
	}
	const workers = "BusyWorkers: 1\nIdleWorkers: 2\n"
	tests := map[string]struct{ body, err string }{
		"empty":            {" \n", "this is no server-status: the page is empty"},
		"for people":       {string(html), "this is server-status for people: something drops `?auto` from status_url"},
		"another page":     {"<html>\nhello", `this is no server-status, it begins with "<html>": correct status_url`},
		"a long line":      {strings.Repeat("x", 1000), `begins with "` + strings.Repeat("x", 60) + `…"`},
		"no scoreboard":    {workers, "the status ends early: no Scoreboard"},
		"no workers":       {"Scoreboard: ___\n", "this is no server-status"},
		"busy is a word":   {"BusyWorkers: many\nIdleWorkers: 2\nScoreboard: _\n", `BusyWorkers is "many"`},
		"idle is negative": {"BusyWorkers: 1\nIdleWorkers: -2\nScoreboard: _\n", `IdleWorkers is "-2"`},
		"not a number":     {workers + "ReqPerSec: NaN\nScoreboard: _\n", `ReqPerSec is "NaN"`},
		"infinite":         {workers + "ReqPerSec: 1e999\nScoreboard: _\n", `ReqPerSec is "1e999"`},
		"negative total":   {workers + "Total Accesses: -5\nScoreboard: _\n", `Total Accesses is "-5"`},
		"endless uptime":   {workers + "Uptime: 99999999999999999999\nScoreboard: _\n", `Uptime is "99999999999999999999"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if st, err := parseServerStatus([]byte(test.body)); err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%+v, error %v, want %q", st, err, test.err)
			}
		})
	}
}

func FuzzServerStatus(f *testing.F) {
	files, err := filepath.Glob("testdata/httpd/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseServerStatus(b)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00\x1b\n") {
				t.Errorf("the error holds control characters: %q", err)
			}
			return
		}
		if st.Busy < 0 || st.Idle < 0 || st.Uptime < 0 || st.Accesses < -1 {
			t.Errorf("%+v", st)
		}
		if line := st.line(serverStatus{}, time.Second); strings.ContainsAny(line, "\n\x1b") || !strings.Contains(line, "busy") {
			t.Errorf("line %q", line)
		}
	})
}

func TestServerStatusLine(t *testing.T) {
	st := serverStatus{Uptime: 100 * time.Second, Busy: 3, Idle: 0, Accesses: 150, Rate: 1.5}
	tests := []struct {
		name    string
		earlier serverStatus
		ago     time.Duration
		want    string
	}{
		{"first", serverStatus{}, 0, "1.5 requests/s"},
		{"since the last", serverStatus{Uptime: 90 * time.Second, Accesses: 50}, 10 * time.Second, "10.0 requests/s"},
		{"restarted in between", serverStatus{Uptime: 900 * time.Second, Accesses: 100}, 10 * time.Second, "1.5 requests/s"},
		{"counter went back", serverStatus{Uptime: 90 * time.Second, Accesses: 200}, 10 * time.Second, "1.5 requests/s"},
		{"was not told before", serverStatus{Uptime: 90 * time.Second, Accesses: -1}, 10 * time.Second, "1.5 requests/s"},
	}
	for _, test := range tests {
		want := "up 1m40s, " + test.want + ", 3 busy and 0 idle workers (all busy: raise MaxRequestWorkers)"
		if got := st.line(test.earlier, test.ago); got != want {
			t.Errorf("%s: %q, want %q", test.name, got, want)
		}
	}
}

func TestNewStatusProbe(t *testing.T) {
	good := map[string]struct {
		url  string
		port int
	}{
		"":                                      {defaultStatusURL, 80},
		"http://127.0.0.1/server-status":        {"http://127.0.0.1/server-status?auto", 80},
		"https://[::1]/s?auto":                  {"https://[::1]/s?auto", 443},
		"http://localhost:8080/s?refresh=5":     {"http://localhost:8080/s?refresh=5&auto", 8080},
		"http://localhost:8080/s?auto&notable=": {"http://localhost:8080/s?auto&notable=", 8080},
	}
	for in, want := range good {
		p, err := newStatusProbe(ResourceConfig{StatusURL: in})
		if err != nil || p.url != want.url || p.port() != want.port {
			t.Errorf("%q: %q port %d, %v", in, p.url, p.port(), err)
		}
	}
	for _, bad := range []string{"127.0.0.1/server-status", "ftp://a/b", "http:///x", "http://a b/", "http://[::1/x"} {
		if p, err := newStatusProbe(ResourceConfig{StatusURL: bad}); err == nil {
			t.Errorf("%q passes as %q", bad, p.url)
		}
	}
}

const goodStatus = "ServerVersion: Test\nBusyWorkers: 1\nIdleWorkers: 2\nScoreboard: W__\n"

// The sentence for each thing that a server can do wrong. ADDR and HOST stand for the URL and the host of the test.
func TestStatusSentences(t *testing.T) {
	answer := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); io.WriteString(w, body) }
	}
	const off = ": server-status is off or denied: enable it with `a2enmod status`, and let <Location \"/server-status\"> have `SetHandler server-status` and `Require local`"
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string // "": it is good
		final   bool
	}{
		{"good", answer(200, goodStatus), "", false},
		{"forbidden", answer(403, ""), "server-status: ADDR answers 403 (Forbidden)" + off, true},
		{"not found", answer(404, ""), "server-status: ADDR answers 404 (Not Found)" + off, true},
		{"password", answer(401, ""), "server-status: ADDR answers 401 (Unauthorized): server-status asks for a password: allow it to this host with `Require local`", true},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://www.example.org/", http.StatusMovedPermanently)
		},
			"server-status: ADDR answers 301 (Moved Permanently) to https://www.example.org/: redirects are not followed: write the final address as status_url", true},
		{"error", answer(500, ""), "server-status: ADDR answers 500 (Internal Server Error): look into the server's error log", false},
		{"unavailable", answer(503, ""), "server-status: ADDR answers 503 (Service Unavailable): look into the server's error log", false},
		{"unheard of", answer(599, ""), "server-status: ADDR answers 599: look into the server's error log", false},
		{"teapot", answer(418, ""), "server-status: ADDR answers 418 (I'm a teapot)", true},
		{"plain to TLS", answer(400, "You're speaking plain HTTP to an SSL-enabled server port."),
			"server-status: ADDR answers 400 (Bad Request): the port speaks TLS: write https:// in status_url", true},
		{"another page", answer(200, "<h1>It works!</h1>"),
			"server-status: ADDR: this is no server-status, it begins with \"<h1>It works!</h1>\": correct status_url, or keep other rules (RewriteRule, ProxyPass, Alias) off /server-status", true},
		{"truncated", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, goodStatus)
		}, fmt.Sprintf("server-status: ADDR: the page ends early, after %d bytes (unexpected EOF)", len(goodStatus)), false},
		{"too large", answer(200, strings.Repeat("x", statusLimit+1)),
			fmt.Sprintf("server-status: ADDR: the page is longer than %d bytes, so it is no server-status: correct status_url", statusLimit), true},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"server-status: ADDR: HOST closes the connection without an answer", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var requests atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if _, auto := r.URL.Query()["auto"]; !auto || !r.Close {
					t.Errorf("request %s close=%v", r.URL, r.Close)
				}
				test.handler(w, r)
			}))
			defer server.Close()
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be used
			p, err := newStatusProbe(ResourceConfig{StatusURL: server.URL + "/server-status"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.read(patient(t))
			checkSentence(t, err, test.want, p.url, test.final)
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func checkSentence(t *testing.T, err error, want, addr string, final bool) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("error %v", err)
		}
		return
	}
	u, perr := url.Parse(addr)
	if perr != nil {
		t.Fatal(perr)
	}
	want = strings.NewReplacer("ADDR", addr, "HOST", u.Host).Replace(want)
	var failed *checkError
	if !errors.As(err, &failed) {
		t.Fatalf("error %#v is no checkError", err)
	}
	if !strings.HasPrefix(err.Error(), want) || failed.final != final {
		t.Errorf("got  %q (final %v)\nwant %q (final %v)", err, failed.final, want, final)
	}
}

func TestExpectSentences(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/server-status":
			io.WriteString(w, goodStatus)
		case "/":
			io.WriteString(w, "<h1>It works!</h1>")
		case "/old":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/cut":
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "It")
		case "/long":
			io.WriteString(w, strings.Repeat("x", statusLimit)+"It works!")
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	tests := []struct {
		name   string
		expect Expect
		want   string
	}{
		{"page", Expect{URL: "/"}, ""},
		{"text", Expect{URL: "/", Contains: "It works!", Status: 200}, ""},
		{"redirect wanted", Expect{URL: "/old", Status: 302}, ""},
		{"redirect", Expect{URL: "/old"}, "expect: ADDR answers 302 (Found) to /, not 200"},
		{"error", Expect{URL: "/broken", Contains: "x"}, "expect: ADDR answers 500 (Internal Server Error), not 200"},
		{"other text", Expect{URL: "/", Contains: "Welcome"}, `expect: ADDR does not contain "Welcome"`},
		{"cut", Expect{URL: "/cut", Contains: "works"}, "expect: ADDR ends early, after 2 bytes (unexpected EOF)"},
		{"cut after the text", Expect{URL: "/cut", Contains: "It"}, ""},
		{"long", Expect{URL: "/long", Contains: "works"}, fmt.Sprintf(`expect: ADDR does not contain "works" in its first %d bytes`, statusLimit)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.expect.URL = server.URL + test.expect.URL
			p, err := newStatusProbe(ResourceConfig{StatusURL: server.URL + "/server-status", Expect: &test.expect})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.read(patient(t))
			checkSentence(t, err, test.want, test.expect.URL, false)
		})
	}
}

func TestStatusOfNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	p, err := newStatusProbe(ResourceConfig{StatusURL: "http://" + host + "/server-status"})
	if err != nil {
		t.Fatal(err)
	}
	// Taken by the kernel, never by a program.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = p.read(ctx)
	if err == nil || !strings.Contains(err.Error(), ": timed out after ") {
		t.Errorf("error %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.read(gone); err == nil || !strings.HasSuffix(err.Error(), ": cancelled") {
		t.Errorf("error %v", err)
	}
	l.Close()
	_, err = p.read(patient(t))
	checkSentence(t, err, "server-status: ADDR: connection refused: nothing listens on HOST; compare `Listen` in the server's configuration with status_url", p.url, false)
}

func TestStatusTimesOutInThePage(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "ServerVersion: slow\n")
		w.(http.Flusher).Flush()
		<-release
	}))
	defer server.Close()
	defer close(release)
	p, err := newStatusProbe(ResourceConfig{StatusURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.read(ctx); err == nil || !strings.Contains(err.Error(), ": timed out after ") {
		t.Errorf("error %v", err)
	}
}

func TestExplainGet(t *testing.T) {
	u, _ := url.Parse("http://www.example.org/s?auto")
	took := 20 * time.Second
	tests := []struct {
		err       error
		connected bool
		want      string
	}{
		{context.DeadlineExceeded, true, "http://www.example.org/s?auto: timed out after 20s: www.example.org takes the connection and does not answer"},
		{context.DeadlineExceeded, false, "http://www.example.org/s?auto: timed out after 20s: no connection to www.example.org"},
		{&net.DNSError{Err: "no such host", Name: "www.example.org"}, false, "http://www.example.org/s?auto: no such host: write a literal address in status_url"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, true, "http://www.example.org/s?auto: the port does not speak TLS: write http:// in status_url"},
		{errors.New("network is unreachable"), false, "http://www.example.org/s?auto: network is unreachable"},
	}
	for _, test := range tests {
		for _, err := range []error{test.err, &url.Error{Op: "Get", URL: u.String(), Err: test.err}} {
			if got := explainGet(u, err, test.connected, took); got != test.want {
				t.Errorf("%v: %q, want %q", err, got, test.want)
			}
		}
	}
}

func TestStatusOverTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, goodStatus) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshakes are what is tested
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	tests := []struct {
		name, url string
		insecure  bool
		want      string
	}{
		{"self-signed", server.URL, false, "server-status: ADDR: the certificate is not good for 127.0.0.1 ("},
		{"self-signed and allowed", server.URL, true, ""},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), true, "server-status: ADDR: the port does not speak TLS: write http:// in status_url"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := newStatusProbe(ResourceConfig{StatusURL: test.url + "/s", TLSInsecure: test.insecure})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.read(patient(t))
			checkSentence(t, err, test.want, p.url, false)
		})
	}
}
