// What is a moment, to the parts that have no clock? A value that they are called with. Reading the clock is clock.go's.

package main

import "time"

// instant is a moment of CLOCK_BOOTTIME in nanoseconds; it means nothing on another host or after a reboot.
type instant int64

// openForGood is a deadline that never comes.
const openForGood instant = 1<<63 - 1

func (t instant) add(d time.Duration) instant { return t + instant(d) }
func (t instant) sub(u instant) time.Duration { return time.Duration(t - u) }
