// What does the daemon have before all else on its host? Memory that is not swapped out, the processor as soon as it wants
// it, and to be killed last when memory is short: a lease must not end because a service keeps the host busy. What the
// daemon runs has none of that.

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// niceFirst outweighs 87 who want the processor as much, and yet one that spins does not stop the host, as one with
// real-time priority would; nor can a kernel's control groups refuse it.
const niceFirst = -20

// lockMemory keeps the daemon in memory: one that waits for the swap device is as good as frozen. Only what it touches is
// locked. Not where there is a limit, with which a later allocation would fail.
func lockMemory() error {
	var limit unix.Rlimit
	var caps [2]unix.CapUserData
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err == nil {
		err = unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0])
	}
	if err != nil || limit.Cur != unix.RLIM_INFINITY && caps[0].Effective&(1<<unix.CAP_IPC_LOCK) == 0 {
		return err
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

// raisePriority puts all threads of this process first, and with them those that they will start: the kernel keeps a nice
// value for each thread. A session of its own, as systemd gives it, comes first as a whole too, where the kernel shares the
// processor out by sessions (autogroup).
func raisePriority() error {
	for raised := true; raised; { // a thread that was not raised yet may have started another
		raised = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list own threads: %w", err)
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("list own threads: %w", err)
			}
			is, err := unix.Getpriority(unix.PRIO_PROCESS, id)
			if err == nil && 20-is > niceFirst { // the system call answers 20 minus the nice value
				raised = true
				err = unix.Setpriority(unix.PRIO_PROCESS, id, niceFirst)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended meanwhile
				return fmt.Errorf("set nice value %d: %w", niceFirst, err)
			}
		}
	}
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		return err
	}
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(niceFirst)), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// makeOrdinary takes from a child, the first of its process group, what its birth gave it. One that has ended meanwhile
// needs nothing.
func makeOrdinary(pid int) {
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err == nil && strings.HasPrefix(string(own), "-") {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0)
	}
	if is, err := unix.Getpriority(unix.PRIO_PROCESS, os.Getpid()); err == nil && 20-is < 0 {
		_ = unix.Setpriority(unix.PRIO_PGRP, pid, 0)
	}
}
