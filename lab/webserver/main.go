// Command webserver stands in for apache2 in the lab where that is not installed: it takes the same flags, the same
// few directives and shows the same server-status page, so that the httpd resource runs and judges it as it would the
// real one. It serves files of one folder and is for the lab alone.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	file := flag.String("f", "/etc/apache2/apache2.conf", "configuration file")
	test := flag.Bool("t", false, "test the configuration")
	defines := map[string]bool{}
	flag.Func("D", "FOREGROUND, or with -t DUMP_RUN_CFG", func(name string) error {
		defines[name] = true
		return nil
	})
	flag.Parse()
	if err := run(*file, *test, defines); err != nil {
		fmt.Fprintln(os.Stderr, "webserver:", err)
		os.Exit(1)
	}
}

func run(file string, test bool, defines map[string]bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := readConfig(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if test {
		if defines["DUMP_RUN_CFG"] {
			fmt.Printf("ServerRoot: %q\nPidFile: %q\n", filepath.Dir(file), c.pidFile)
		}
		fmt.Fprintln(os.Stderr, "Syntax OK")
		return nil
	}
	return serve(c)
}

// config is what is understood of apache2's directives.
type config struct {
	listen  string // host:port
	root    string
	pidFile string
}

// readConfig takes the directives that it knows and, like a stand-in, leaves those of modules alone; sections are none
// of its business.
func readConfig(r io.Reader) (config, error) {
	var c config
	depth := 0
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		words := strings.Fields(s.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch first := words[0]; {
		case strings.HasPrefix(first, "</"):
			depth--
			continue
		case strings.HasPrefix(first, "<"):
			depth++
			continue
		}
		value := strings.Trim(strings.Join(words[1:], " "), `"`)
		var to *string
		switch words[0] {
		case "Listen":
			if !strings.Contains(value, ":") {
				value = ":" + value
			}
			to = &c.listen
		case "DocumentRoot":
			to = &c.root
		case "PidFile":
			to = &c.pidFile
		}
		if depth > 0 || to == nil {
			continue
		}
		if value == "" {
			return c, fmt.Errorf("line %d: %s has no value", n, words[0])
		}
		*to = value
	}
	switch {
	case s.Err() != nil:
		return c, s.Err()
	case depth != 0:
		return c, errors.New("a section is not closed")
	case c.listen == "":
		return c, errors.New("no Listen: nothing to serve on")
	case c.root == "":
		return c, errors.New("no DocumentRoot: nothing to serve")
	}
	return c, nil
}

// serve runs until SIGTERM, and lets requests end at SIGWINCH as apache2 does.
func serve(c config) error {
	l, err := net.Listen("tcp", c.listen)
	if err != nil {
		return err
	}
	if c.pidFile != "" {
		if err := os.WriteFile(c.pidFile, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
			return err
		}
		defer os.Remove(c.pidFile)
	}
	server := &http.Server{Handler: newSite(c.root), ReadHeaderTimeout: 10 * time.Second}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGWINCH)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case s := <-signals:
		if s == syscall.SIGWINCH {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			return server.Shutdown(ctx)
		}
		return server.Close()
	}
}

// site is the folder and the status page.
type site struct {
	began    time.Time
	accesses atomic.Int64
	busy     atomic.Int64
}

const workers = 64 // what the page shows as slots; goroutines have no such bound

func newSite(root string) http.Handler {
	s := &site{began: time.Now()}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(root)))
	mux.HandleFunc("/server-status", s.status)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.accesses.Add(1)
		s.busy.Add(1)
		defer s.busy.Add(-1)
		mux.ServeHTTP(w, r)
	})
}

// status is mod_status' page in its ?auto form, with "Require local".
func (s *site) status(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	up := int64(time.Since(s.began).Seconds())
	busy := min(s.busy.Load(), workers)
	accesses := s.accesses.Load()
	w.Header().Set("Content-Type", "text/plain; charset=ISO-8859-1")
	fmt.Fprintf(w, "%s\nServerVersion: webserver of the lab\nServerUptimeSeconds: %d\nUptime: %d\nTotal Accesses: %d\n"+
		"ReqPerSec: %g\nBusyWorkers: %d\nIdleWorkers: %d\nScoreboard: %s%s\n", r.Host, up, up, accesses,
		float64(accesses)/float64(max(up, 1)), busy, workers-busy,
		strings.Repeat("W", int(busy)), strings.Repeat("_", int(workers-busy)))
}
