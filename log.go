// Where do log lines go? To the journal with its priorities and fields, or as text or JSON to stderr. One line for each
// change of state, each with a stable event id; docs/events.md lists them.

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// newLogger makes the daemon's logger. Format auto is the journal under systemd, else text.
func newLogger(format string, w io.Writer, level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	switch {
	case format == "json":
		return slog.New(slog.NewJSONHandler(w, options))
	case format == "journal", format == "auto" && os.Getenv("JOURNAL_STREAM") != "" && journal.Enabled():
		return slog.New(&journalHandler{level: level})
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// logLevel reads log_level of the config.
func logLevel(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warning":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// journalHandler sends records to journald: the sentence as MESSAGE with its attributes behind it for who reads, and
// each attribute as a field of its own (event → HA_EVENT) for who searches.
type journalHandler struct {
	level slog.Leveler
	attrs []slog.Attr
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.level, append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h *journalHandler) WithGroup(string) slog.Handler { return h } // groups of attributes are not used here

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "hactl"}
	message := r.Message
	add := func(a slog.Attr) bool {
		fields["HA_"+strings.ToUpper(strings.ReplaceAll(a.Key, "-", "_"))] = a.Value.String()
		if a.Key != "event" {
			message += fmt.Sprintf(" %s=%s", a.Key, a.Value)
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	return journal.Send(message, priority(r.Level), fields)
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
