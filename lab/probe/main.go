// Command probe is the client of the lab: what does a user of the service see while the cluster moves it? It asks one
// URL at a steady pace, each time on a new connection, and sums up what came of it. Each line on its input ends a step,
// whose name the line is; the end of the input ends the last one, and the program. It judges nothing.
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
	"sync"
	"time"
)

func main() {
	every := flag.Duration("every", 5*time.Millisecond, "a new request this often, whether or not the last one has ended")
	timeout := flag.Duration("timeout", 200*time.Millisecond, "a request without an answer by then is lost")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: probe [FLAGS] URL\neach line on stdin ends a step of that name")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if *every <= 0 || *timeout <= 0 {
		fmt.Fprintln(os.Stderr, "probe: -every and -timeout must be more than 0")
		os.Exit(2)
	}
	watch(os.Stdin, os.Stdout, *every, *timeout, asker(flag.Arg(0)))
}

// mark is the end of a step.
type mark struct {
	name string
	at   time.Time
}

// watch probes until in ends, and writes a line for each step when every request of its time has ended.
func watch(in io.Reader, out io.Writer, every, timeout time.Duration, ask func(context.Context) (string, error)) {
	marks := make(chan mark)
	go func() {
		defer close(marks)
		for s := bufio.NewScanner(in); s.Scan(); {
			marks <- mark{s.Text(), time.Now()}
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	results := make(chan result, 1024)
	go pace(ctx, every, timeout, ask, results)

	begin := time.Now()
	var seen []result
	var due []mark
	for {
		var ripe <-chan time.Time
		if len(due) > 0 {
			ripe = time.After(time.Until(due[0].at.Add(timeout + every)))
		}
		select {
		case r, open := <-results:
			if !open {
				for _, m := range due {
					fmt.Fprintln(out, sum(seen, begin, m.at).line(m.name))
					begin = m.at
				}
				return
			}
			seen = append(seen, r)
		case m, open := <-marks:
			if !open {
				marks = nil
				due = append(due, mark{"end", time.Now()})
				stop()
				continue
			}
			due = append(due, m)
		case <-ripe:
			m := due[0]
			due = due[1:]
			fmt.Fprintln(out, sum(seen, begin, m.at).line(m.name))
			seen = since(seen, m.at)
			begin = m.at
		}
	}
}

// pace starts a request at every tick, lets them overlap, and closes results when all have ended.
func pace(ctx context.Context, every, timeout time.Duration, ask func(context.Context) (string, error), results chan<- result) {
	var wg sync.WaitGroup
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		wg.Go(func() {
			c, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			r := result{start: time.Now()}
			r.who, r.err = ask(c)
			r.end = time.Now()
			results <- r
		})
		select {
		case <-ctx.Done():
			wg.Wait()
			close(results)
			return
		case <-tick.C:
		}
	}
}

// asker gets url; an answer is status 200 and a first word. A kept connection would hide a new node's silence.
func asker(url string) func(context.Context) (string, error) {
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: d.DialContext}}
	return func(ctx context.Context) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		var who string
		if _, err := fmt.Fscan(bufio.NewReader(io.LimitReader(resp.Body, 4096)), &who); err != nil {
			return "", fmt.Errorf("read the answer: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			return "", errors.New(resp.Status)
		}
		return who, nil
	}
}
