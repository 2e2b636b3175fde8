// Command probe is the client of the lab: what does a user of the service see while the cluster moves it? It asks one
// URL at a steady pace, each time on a new connection, and sums up what came of it. Each line on its input ends a step,
// whose name the line is, at the next answer; the end of the input ends the last one, and the program. With -wait it only waits for an
// answer. It judges nothing.
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
	wait := flag.Duration("wait", 0, "only wait until there is an answer, at most this long; exit status 1 if there is none")
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
	if *wait > 0 {
		ctx, stop := context.WithTimeout(context.Background(), *wait)
		defer stop()
		if err := await(ctx, *every, *timeout, asker(flag.Arg(0))); err != nil {
			fmt.Fprintf(os.Stderr, "probe: no answer within %v: %v\n", *wait, err)
			os.Exit(1)
		}
		return
	}
	watch(os.Stdin, os.Stdout, *every, *timeout, asker(flag.Arg(0)))
}

// await asks until there is an answer, one request after the other; at the end of ctx it says why there was none.
func await(ctx context.Context, every, timeout time.Duration, ask func(context.Context) (string, error)) error {
	for {
		c, cancel := context.WithTimeout(ctx, timeout)
		_, err := ask(c)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(every):
		}
	}
}

// mark is the end of a step: the first answer after the wish for it, so that a silence is in one step as a whole.
type mark struct {
	name     string
	wished   time.Time
	answered time.Time // zero: not yet
}

// watch probes until in ends, and writes a line for each step when every request of its time has ended.
func watch(in io.Reader, out io.Writer, every, timeout time.Duration, ask func(context.Context) (string, error)) {
	wishes := make(chan mark)
	go func() {
		defer close(wishes)
		for s := bufio.NewScanner(in); s.Scan(); {
			wishes <- mark{name: s.Text(), wished: time.Now()}
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	results := make(chan result, 1024)
	go pace(ctx, every, timeout, ask, results)

	begin := time.Now()
	var seen []result
	var due []mark
	tell := func(m mark, end time.Time) {
		fmt.Fprintln(out, sum(seen, begin, end).line(m.name))
		seen, begin = since(seen, end), end
	}
	for {
		var ripe <-chan time.Time
		if len(due) > 0 && !due[0].answered.IsZero() {
			ripe = time.After(time.Until(due[0].answered.Add(timeout + every)))
		}
		select {
		case r, open := <-results:
			if !open {
				for _, m := range due {
					tell(m, m.wished)
				}
				tell(mark{name: "end"}, time.Now())
				return
			}
			seen = append(seen, r)
			for i := range due {
				if r.err == nil && due[i].answered.IsZero() && r.end.After(due[i].wished) {
					due[i].answered = r.end
				}
			}
		case m, open := <-wishes:
			if !open {
				wishes = nil
				stop()
				continue
			}
			due = append(due, m)
		case <-ripe:
			tell(due[0], due[0].answered.Add(1)) // the answer itself is the last of the step
			due = due[1:]
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
