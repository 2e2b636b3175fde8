// What time is it, for machines? One clock, CLOCK_BOOTTIME, which unlike Go's own counts suspend. Wall-clock time
// appears only in what people read.

package main

import (
	"context"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// boottime is the only place that reads the clock that decisions are made by. The call never waits: see datagram.go.
func boottime() instant {
	var ts unix.Timespec
	if _, _, e := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		panic("clock_gettime(CLOCK_BOOTTIME): " + e.Error()) // cannot fail on a kernel that Go runs on
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
