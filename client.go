// How does a command ask the daemon of its own node? The other end of control.go: it turns every way in which the daemon
// may be out of reach into an error that says what to do. It knows no command by name.

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	answerTime = 10 * time.Second // for an answer, and for the first piece of a stream
	answerMax  = 64 << 20         // a state is a few MiB at most
	hintStart  = "systemctl start ha; if it does not stay up: hactl check"
	hintLog    = "journalctl -u ha -n 50 shows what it says"
)

type client struct {
	path string
	http *http.Client
}

func newClient(c *cli.Context) *client {
	path := c.String("socket")
	if path == "" { // HACTL_SOCKET is set and empty
		path = defaultSocket
	}
	return clientAt(path)
}

func clientAt(path string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &client{path, &http.Client{Transport: &http.Transport{DialContext: dial, ResponseHeaderTimeout: answerTime}}}
}

// get reads one whole answer.
func (c *client) get(ctx context.Context, route string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	body, err := c.ask(ctx, http.MethodGet, route, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, answerMax))
	if err != nil {
		return c.lost(ctx, err)
	}
	if raw, ok := into.(*[]byte); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

func (c *client) status(ctx context.Context) (*Status, error) {
	st := new(Status)
	return st, c.get(ctx, "/v1/status", st)
}

// lines reads a stream of JSON values until it ends, each fails, or ctx is over.
func (c *client) lines(ctx context.Context, method, route string, question any, each func([]byte) error) error {
	var body io.Reader
	if question != nil {
		b, err := json.Marshal(question)
		if err != nil {
			return fmt.Errorf("write the question: %w", err)
		}
		body = bytes.NewReader(b)
	}
	answer, err := c.ask(ctx, method, route, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	scanner := bufio.NewScanner(answer)
	scanner.Buffer(nil, answerMax)
	for scanner.Scan() {
		if err := each(scanner.Bytes()); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return c.lost(ctx, err)
	}
	return nil
}

// watch calls each with every new status, and at least once in every seconds unless that is 0.
func (c *client) watch(ctx context.Context, every int, each func(st *Status, line []byte) error) error {
	return c.lines(ctx, http.MethodGet, "/v1/watch?every="+strconv.Itoa(every), nil, func(b []byte) error {
		st := new(Status)
		if err := json.Unmarshal(b, st); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		return each(st, b)
	})
}

// command sends q and calls progress with each line of text until it is done.
func (c *client) command(ctx context.Context, q Command, progress func(string)) error {
	done := false
	err := c.lines(ctx, http.MethodPost, "/v1/command", q, func(b []byte) error {
		var p Progress
		if err := json.Unmarshal(b, &p); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		if p.Text != "" {
			progress(printable(p.Text))
		}
		done = done || p.Done
		if p.Err != "" {
			return &hintError{p.Err, p.Hint, p.Code}
		}
		return nil
	})
	if err == nil && !done {
		return c.lost(ctx, io.ErrUnexpectedEOF)
	}
	return err
}

// ask sends one request; the body of a good answer is the caller's to close.
func (c *client) ask(ctx context.Context, method, route string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://ha"+route, body)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var p Progress
	if json.NewDecoder(io.LimitReader(resp.Body, controlBodyMax)).Decode(&p) != nil || p.Err == "" {
		return nil, &hintError{"the daemon answered " + resp.Status, hintLog, exitError}
	}
	return nil, &hintError{p.Err, p.Hint, p.Code}
}

// unreached says why no answer began.
func (c *client) unreached(ctx context.Context, err error) error {
	var timeout net.Error
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which means nothing to the reader
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{"the daemon does not run: there is no " + c.path, hintStart, exitNoDaemon}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &hintError{"the daemon does not run: nobody answers on " + c.path, hintStart, exitNoDaemon}
	case errors.Is(err, fs.ErrPermission):
		return &hintError{"permission denied on " + c.path, hintReaders, exitDenied}
	case len(c.path) > socketMax:
		return &hintError{fmt.Sprintf("the path of the socket is longer than %d bytes: %s", socketMax, c.path), "choose a shorter --socket", exitUsage}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &hintError{fmt.Sprintf("the daemon has not answered for %s", answerTime), hintLog, exitNoDaemon}
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		strings.Contains(err.Error(), "server closed idle connection"): // before the request was on its way; net/http has no name for it
		return &hintError{"the daemon closed the connection without an answer", hintLog, exitNoDaemon}
	}
	return fmt.Errorf("ask the daemon: %w", err)
}

// lost says why an answer broke off.
func (c *client) lost(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return c.unreached(ctx, err)
	}
	return &hintError{"the daemon went away before it was done", "systemctl status ha; what was decided stands: hactl status shows it once the daemon is back", exitError}
}
