// What time is it, for machines? One clock, CLOCK_BOOTTIME, which unlike Go's own counts suspend. Wall-clock time
// appears only in what people read.

package main

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// boottime is the only place that reads the clock that decisions are made by.
func boottime() instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // cannot fail on a kernel that Go runs on
	}
	return instant(ts.Nano())
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
