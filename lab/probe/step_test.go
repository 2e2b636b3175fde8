package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var t0 = time.Unix(1000, 0)

func at(ms int) time.Time              { return t0.Add(time.Duration(ms) * time.Millisecond) }
func answer(ms int, who string) result { return result{start: at(ms - 1), end: at(ms), who: who} }
func lost(start, end int) result {
	return result{start: at(start), end: at(end), err: errors.New("no answer")}
}

func TestSum(t *testing.T) {
	for _, c := range []struct {
		name    string
		results []result
		want    string
	}{
		{"calm", []result{answer(-5, "a"), answer(0, "a"), answer(5, "a"), answer(10, "a"), answer(95, "a")},
			`step=s gap_ms=85.0 ok=4 lost=0 from=a to=a err=""`},
		{"moved: lost requests end after the answers of the new node",
			[]result{answer(-5, "a"), answer(5, "a"), answer(45, "b"), answer(50, "b"), answer(97, "b"), lost(10, 210), lost(15, 215)},
			`step=s gap_ms=47.0 ok=4 lost=2 from=a to=b err="no answer"`},
		{"the gap began before the step", []result{answer(-40, "a"), answer(20, "b"), answer(70, "b"), answer(99, "b")},
			`step=s gap_ms=60.0 ok=3 lost=0 from=a to=b err=""`},
		{"lost in the step before", []result{answer(-5, "a"), lost(-3, 197), answer(3, "a"), answer(50, "a"), answer(99, "a")},
			`step=s gap_ms=49.0 ok=3 lost=0 from=a to=a err=""`},
		{"silent at the end", []result{answer(-5, "a"), answer(5, "a"), lost(6, 206), lost(90, 290)},
			`step=s gap_ms=95.0 ok=1 lost=2 from=a to=a err="no answer"`},
		{"nothing at all", nil, `step=s gap_ms=100.0 ok=0 lost=0 from=- to=- err=""`},
		{"answers of the next step do not count", []result{answer(-5, "a"), answer(5, "a"), answer(60, "a"), answer(105, "b")},
			`step=s gap_ms=55.0 ok=2 lost=0 from=a to=a err=""`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := sum(c.results, at(0), at(100)).line("s"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSinceKeepsTheLastAnswerAndWhatIsOpen(t *testing.T) {
	all := []result{answer(10, "a"), answer(20, "a"), lost(15, 90), answer(105, "b"), lost(99, 299)}
	kept := since(all, at(100))
	for _, c := range []struct{ from, to int }{{100, 200}, {100, 320}} {
		whole, part := sum(all, at(c.from), at(c.to)), sum(kept, at(c.from), at(c.to))
		if whole != part {
			t.Errorf("step %d to %d: of what was kept %+v, of all %+v", c.from, c.to, part, whole)
		}
	}
	if len(kept) != 3 {
		t.Errorf("kept %d results, want 3: the last answer and the two that ended after", len(kept))
	}
}

// A server that answers, is away, and answers under another name; the steps are told by its own states.
func TestWatch(t *testing.T) {
	states := make(chan string, 1)
	state := "first"
	asked := make(chan string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case state = <-states:
		default:
		}
		if state == "away" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, state)
	}))
	defer server.Close()
	one := make(chan struct{}, 1) // requests one after the other: the handler's state needs no lock
	ask := asker(server.URL)
	serial := func(ctx context.Context) (string, error) {
		one <- struct{}{}
		defer func() { <-one }()
		who, err := ask(ctx)
		select {
		case asked <- fmt.Sprint(who, err):
		default:
		}
		return who, err
	}
	in, marks := io.Pipe()
	lines, out := io.Pipe()
	go func() {
		watch(in, out, time.Millisecond, 10*time.Second, serial)
		out.Close()
	}()
	await := func(what string) {
		for !strings.Contains(<-asked, what) {
		}
	}
	await("first")
	states <- "away"
	await("503")
	states <- "second"
	await("second")
	fmt.Fprintln(marks, "change")
	marks.Close()
	var got []string
	for s := bufio.NewScanner(lines); s.Scan(); {
		got = append(got, s.Text())
	}
	if len(got) != 2 || !strings.HasPrefix(got[0], "step=change ") || !strings.HasPrefix(got[1], "step=end ") {
		t.Fatalf("lines %q, want one for the step and one for the end", got)
	}
	for _, want := range []string{"from=first", "to=second", "503 Service Unavailable"} {
		if !strings.Contains(got[0], want) {
			t.Errorf("%s\nlacks %s", got[0], want)
		}
	}
}

func TestAwait(t *testing.T) {
	left := 3
	err := await(t.Context(), time.Millisecond, time.Second, func(context.Context) (string, error) {
		if left--; left > 0 {
			return "", errors.New("refused")
		}
		return "alice", nil
	})
	if err != nil || left != 0 {
		t.Errorf("error %v with %d refusals left, want an answer after all of them", err, left)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	err = await(ctx, time.Hour, time.Second, func(context.Context) (string, error) { return "", errors.New("refused") })
	if err == nil || err.Error() != "refused" {
		t.Errorf("at the end: %v, want the reason of the last request", err)
	}
}
