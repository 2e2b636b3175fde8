// What does the daemon say to the systemd that started it, and what does it ask? That it runs, its state in one line, that
// it lives, how long its stop may take; and, when it is told to end, whether it is to be started again at once. Where no
// systemd runs nobody listens, and an end is for good.

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

const (
	ownJobWait  = 2 * time.Second // systemd answers in milliseconds; without an answer the groups are handed over
	failedPause = time.Second     // before a start that failed is reported: systemd repeats it for ever
)

// tellSystemd sends lines of sd_notify(3).
func tellSystemd(lines ...string) {
	_, _ = sd.SdNotify(false, strings.Join(lines, "\n")) // without systemd there is nobody to tell
}

// underSystemd tells whether systemd waits for word of this process.
func underSystemd() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

func statusLine(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// extendStop makes systemd wait for a stop that takes longer than the unit says.
func extendStop(limit time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", limit.Microseconds())
}

// watchdogEvery is how often systemd wants to hear that the daemon lives; 0 is never.
func watchdogEvery() time.Duration {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return 0
	}
	return every / 3
}

// startsAgain tells whether systemd ends this process to start it again: then everything stays as it is. SIGTERM alone
// does not tell, as `systemctl stop` and a shutdown send it too.
func startsAgain(ctx context.Context, dial func(context.Context) (*systemdBus, error)) (bool, error) {
	if !underSystemd() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, ownJobWait)
	defer cancel()
	b, err := dial(ctx)
	if err != nil {
		return false, fmt.Errorf("reach systemd: %w", err)
	}
	defer b.Close()
	job, err := b.JobOf(ctx, os.Getpid())
	if err != nil {
		return false, fmt.Errorf("ask systemd for its job: %w", err)
	}
	return job == "restart" || job == "try-restart", nil
}
