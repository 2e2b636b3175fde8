// Does the web server answer, and what does it say of itself? Reads server-status in its ?auto form, and one page more
// where `expect` names one. Every failure is one sentence: which check, what was seen, what to do. It starts and stops
// nothing, follows no redirect, uses no proxy and keeps no connection.

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// serverStatus is what is used of mod_status' machine-readable page.
type serverStatus struct {
	Server   string // "Apache/2.4.66 (Debian)"; not before 2.4
	Uptime   time.Duration
	Busy     int // workers
	Idle     int
	Accesses int64   // -1: not told (ExtendedStatus Off)
	Rate     float64 // requests/s since it was started; -1: not told
}

// statusLimit bounds what is read of any page. The scoreboard has one letter for each possible worker.
const statusLimit = 1 << 20

// checkError is a failed check.
type checkError struct {
	check string // "server-status" or "expect"
	text  string
	final bool // an answer that waiting will not change: forbidden, not found, no status page
}

func (e *checkError) Error() string { return e.check + ": " + e.text }

// statusProbe knows where to ask.
type statusProbe struct {
	url      string
	insecure bool
	expect   *Expect
}

const defaultStatusURL = "http://127.0.0.1/server-status?auto"

func newStatusProbe(c ResourceConfig) (statusProbe, error) {
	p := statusProbe{url: c.StatusURL, insecure: c.TLSInsecure, expect: c.Expect}
	if p.url == "" {
		p.url = defaultStatusURL
	}
	u, err := url.Parse(p.url)
	if err != nil {
		return p, fmt.Errorf("status_url: %w", err)
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return p, fmt.Errorf("status_url %q: write it as %s", p.url, defaultStatusURL)
	}
	if !u.Query().Has("auto") { // the page for people has no fixed form
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += "auto"
		p.url = u.String()
	}
	return p, nil
}

// port is where the server has to listen for the probe to reach it.
func (p statusProbe) port() int {
	u, err := url.Parse(p.url)
	if err != nil {
		return 0
	}
	if n, err := strconv.Atoi(u.Port()); err == nil {
		return n
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// read asks for server-status, then for the expected page.
func (p statusProbe) read(ctx context.Context) (serverStatus, error) {
	st, err := p.status(ctx)
	if err == nil && p.expect != nil {
		err = p.expected(ctx)
	}
	return st, err
}

func (p statusProbe) status(ctx context.Context) (serverStatus, error) {
	const check = "server-status"
	page, err := p.get(ctx, check, p.url)
	if err != nil {
		return serverStatus{}, err
	}
	if text, final := page.refusal(p.url); text != "" {
		return serverStatus{}, &checkError{check, text, final}
	}
	if page.cut != nil {
		return serverStatus{}, &checkError{check, fmt.Sprintf("%s: the page ends early, after %d bytes (%v)", p.url, len(page.body), page.cut), false}
	}
	if page.more {
		return serverStatus{}, &checkError{check, fmt.Sprintf("%s: the page is longer than %d bytes, so it is no server-status: correct status_url", p.url, statusLimit), true}
	}
	st, err := parseServerStatus(page.body)
	if err != nil {
		return serverStatus{}, &checkError{check, fmt.Sprintf("%s: %v", p.url, err), true}
	}
	return st, nil
}

func (p statusProbe) expected(ctx context.Context) error {
	const check = "expect"
	page, err := p.get(ctx, check, p.expect.URL)
	if err != nil {
		return err
	}
	want := p.expect.Status
	if want == 0 {
		want = http.StatusOK
	}
	switch {
	case page.code != want:
		return &checkError{check, fmt.Sprintf("%s answers %s, not %d", p.expect.URL, page.answer(), want), false}
	case strings.Contains(string(page.body), p.expect.Contains):
		return nil
	case page.cut != nil:
		return &checkError{check, fmt.Sprintf("%s ends early, after %d bytes (%v)", p.expect.URL, len(page.body), page.cut), false}
	case page.more:
		return &checkError{check, fmt.Sprintf("%s does not contain %q in its first %d bytes", p.expect.URL, p.expect.Contains, statusLimit), false}
	}
	return &checkError{check, fmt.Sprintf("%s does not contain %q", p.expect.URL, p.expect.Contains), false}
}

// webPage is an answer, whatever its code.
type webPage struct {
	code     int
	location string
	body     []byte
	more     bool  // longer than statusLimit
	cut      error // the connection ended in the middle of it
}

func (p webPage) answer() string {
	s := strconv.Itoa(p.code)
	if text := http.StatusText(p.code); text != "" {
		s += " (" + text + ")"
	}
	if p.location != "" {
		s += " to " + p.location
	}
	return s
}

// refusal says why the answer's code is not the one of a status page, "" when it is.
func (p webPage) refusal(at string) (text string, final bool) {
	says := at + " answers " + p.answer()
	switch {
	case p.code == http.StatusOK:
		return "", false
	case p.code == http.StatusForbidden || p.code == http.StatusNotFound:
		return says + ": server-status is off or denied: enable it with `a2enmod status`, and let <Location \"/server-status\"> have `SetHandler server-status` and `Require local`", true
	case p.code == http.StatusUnauthorized:
		return says + ": server-status asks for a password: allow it to this host with `Require local`", true
	case p.code >= 300 && p.code < 400:
		return says + ": redirects are not followed: write the final address as status_url", true
	case p.code == http.StatusBadRequest && strings.Contains(string(p.body), "SSL-enabled server port"):
		return says + ": the port speaks TLS: write https:// in status_url", true
	case p.code >= 500:
		return says + ": look into the server's error log", false
	}
	return says, true
}

// get fetches a page over a connection of its own.
func (p statusProbe) get(ctx context.Context, check, at string) (webPage, error) {
	began := time.Now()
	transport := &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: p.insecure}, // only on the operator's word: tls_insecure
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) { connected.Store(connected.Load() || err == nil) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return webPage{}, &checkError{check, err.Error(), true}
	}
	req.Header.Set("User-Agent", "hactl")
	resp, err := client.Do(req)
	if err != nil {
		return webPage{}, &checkError{check, explainGet(req.URL, err, connected.Load(), time.Since(began)), false}
	}
	defer resp.Body.Close()
	pg := webPage{code: resp.StatusCode, location: resp.Header.Get("Location")}
	pg.body, err = io.ReadAll(io.LimitReader(resp.Body, statusLimit+1))
	if len(pg.body) > statusLimit {
		pg.body, pg.more, err = pg.body[:statusLimit], true, nil
	}
	if err != nil && timedOut(err) {
		return webPage{}, &checkError{check, fmt.Sprintf("%s: timed out after %s in the middle of the page", at, roundShort(time.Since(began))), false}
	}
	pg.cut = err
	return pg, nil
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// explainGet says what stood in the way of an answer.
func explainGet(u *url.URL, err error, connected bool, took time.Duration) string {
	at, host := u.String(), u.Host
	var (
		record   tls.RecordHeaderError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		dns      *net.DNSError
	)
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err // without the repeated address
	}
	switch {
	case errors.Is(err, context.Canceled):
		return at + ": cancelled"
	case timedOut(err) && connected:
		return fmt.Sprintf("%s: timed out after %s: %s takes the connection and does not answer", at, roundShort(took), host)
	case timedOut(err):
		return fmt.Sprintf("%s: timed out after %s: no connection to %s", at, roundShort(took), host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("%s: connection refused: nothing listens on %s; compare `Listen` in the server's configuration with status_url", at, host)
	case errors.As(err, &dns):
		return fmt.Sprintf("%s: no such host: write a literal address in status_url", at)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return at + ": the port does not speak TLS: write http:// in status_url"
	case errors.As(err, &hostname), errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &verify):
		return fmt.Sprintf("%s: the certificate is not good for %s (%v): mend it, install its CA on this host, or set tls_insecure = true", at, u.Hostname(), err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Sprintf("%s: %s closes the connection without an answer", at, host)
	}
	return fmt.Sprintf("%s: %v", at, err)
}

// parseServerStatus reads "Key: value" lines. Apache 2.4 begins with host and version, 2.2 with the totals, and with
// ExtendedStatus Off both tell no more than workers and scoreboard; before 2.0 workers were called servers.
func parseServerStatus(body []byte) (serverStatus, error) {
	st := serverStatus{Accesses: -1, Rate: -1}
	var busy, idle, scoreboard bool
	for line := range strings.Lines(string(body)) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "ServerVersion":
			st.Server = printableText(value[:min(len(value), 200)])
		case "Total Accesses":
			st.Accesses, err = strconv.ParseInt(value, 10, 64)
			if st.Accesses < 0 {
				err = strconv.ErrRange
			}
		case "Uptime", "ServerUptimeSeconds":
			st.Uptime, err = parseSeconds(value)
		case "ReqPerSec":
			st.Rate, err = strconv.ParseFloat(value, 64)
			if err == nil && (math.IsNaN(st.Rate) || math.IsInf(st.Rate, 0) || st.Rate < 0) {
				err = strconv.ErrRange
			}
		case "BusyWorkers", "BusyServers":
			busy = true
			st.Busy, err = parseCount(value)
		case "IdleWorkers", "IdleServers":
			idle = true
			st.Idle, err = parseCount(value)
		case "Scoreboard":
			scoreboard = true
		}
		if err != nil {
			return serverStatus{}, fmt.Errorf("this is no server-status: %s is %q", key, value[:min(len(value), 40)])
		}
	}
	return st, missing(body, busy && idle, scoreboard)
}

// missing says what a page lacks to be a status page.
func missing(body []byte, workers, scoreboard bool) error {
	text := strings.TrimSpace(string(body))
	first, _, _ := strings.Cut(text, "\n")
	switch {
	case workers && scoreboard:
		return nil
	case workers:
		return errors.New("the status ends early: no Scoreboard")
	case text == "":
		return errors.New("this is no server-status: the page is empty")
	case strings.Contains(text, "<title>Apache Status</title>"):
		return errors.New("this is server-status for people: something drops `?auto` from status_url")
	}
	if len(first) > 60 {
		first = first[:60] + "…"
	}
	return fmt.Errorf("this is no server-status, it begins with %q: correct status_url, or keep other rules (RewriteRule, ProxyPass, Alias) off /server-status", printableText(first))
}

func parseCount(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// parseSeconds reads whole seconds, up to what a Duration holds.
func parseSeconds(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 33)
	return time.Duration(n) * time.Second, err
}

// line is the one-line summary. Its rate is that since an earlier reading of the same server, where there is one.
func (s serverStatus) line(earlier serverStatus, ago time.Duration) string {
	var b strings.Builder
	if s.Server != "" {
		b.WriteString(s.Server + ", ")
	}
	if s.Uptime > 0 {
		b.WriteString("up " + s.Uptime.String() + ", ")
	}
	rate := s.Rate
	if ago > 0 && s.Accesses >= earlier.Accesses && earlier.Accesses >= 0 && s.Uptime >= earlier.Uptime {
		rate = float64(s.Accesses-earlier.Accesses) / ago.Seconds()
	}
	if rate >= 0 {
		fmt.Fprintf(&b, "%.1f requests/s, ", rate)
	}
	fmt.Fprintf(&b, "%d busy and %d idle workers", s.Busy, s.Idle)
	if s.Idle == 0 {
		b.WriteString(" (all busy: raise MaxRequestWorkers)")
	}
	return b.String()
}
