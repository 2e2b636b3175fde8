// What of DRBD's running options works against the cluster, apart from the guard? What would throw writes away by itself, or
// promote beside the cluster, or let writes wait longer than a takeover takes.

package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// drbdAdvice is one option that should be another.
type drbdAdvice struct {
	harm bool   // data may be lost by it; else it is slow, or a trap
	what string // it does
	line string // as a resource file should have it
}

// afterSplitBrain are the ways out of a split brain that throw nothing away that one side alone has. Consensus does only what
// after-sb-0pri would, and what that does is looked at by itself.
var afterSplitBrain = map[string][]string{
	"after-sb-0pri": {"disconnect", "discard-zero-changes"},
	"after-sb-1pri": {"disconnect", "consensus"},
	"after-sb-2pri": {"disconnect"},
}

// adviceFor goes through what `drbdsetup show` prints. An option that it does not print, as of a resource that is not connected
// to anything, is not judged.
func adviceFor(options []drbdOption, deadtime time.Duration) []drbdAdvice {
	var out []drbdAdvice
	value := func(key string) string {
		i := slices.IndexFunc(options, func(o drbdOption) bool { return o.key == key })
		if i < 0 {
			return ""
		}
		return options[i].value
	}
	for _, key := range []string{"after-sb-0pri", "after-sb-1pri", "after-sb-2pri"} {
		for _, o := range options {
			if o.key == key && !slices.Contains(afterSplitBrain[key], o.value) {
				out = append(out, drbdAdvice{true, fmt.Sprintf("%s %s throws away by itself what one side alone has written, after a split brain", key, o.value),
					fmt.Sprintf("net { %s disconnect; }", key)})
				break
			}
		}
	}
	if value("auto-promote") == "yes" {
		out = append(out, drbdAdvice{false, "auto-promote makes whoever opens the device Primary, beside the cluster", "options { auto-promote no; }"})
	}
	if q := value("quorum"); q != "" && q != "off" && value("on-no-quorum") == "io-error" {
		out = append(out, drbdAdvice{false, "on-no-quorum io-error gives errors to what writes, where waiting would lose nothing", "options { on-no-quorum suspend-io; }"})
	}
	// timeout is how long a write waits for a peer that is dead; DRBD wants it below ping-int and connect-int.
	if tenths, err := strconv.Atoi(value("timeout")); err == nil {
		if is, most := time.Duration(tenths)*100*time.Millisecond, max(deadtime, time.Second).Round(100*time.Millisecond); is > most {
			seconds := int(most/time.Second) + 1
			out = append(out, drbdAdvice{false, fmt.Sprintf("when the other node dies, writes wait %s until DRBD notices, longer than deadtime (%s)", is, deadtime),
				fmt.Sprintf("net { timeout %d; ping-int %d; connect-int %d; }", most/(100*time.Millisecond), seconds, seconds)})
		}
	}
	// A taker that promotes has the peer pinged: this long until a dead one is out of its way.
	if tenths, err := strconv.Atoi(value("ping-timeout")); err == nil && tenths > 10 {
		out = append(out, drbdAdvice{false, fmt.Sprintf("a takeover waits %s for a dead peer's answer", time.Duration(tenths)*100*time.Millisecond), "net { ping-timeout 5; }"})
	}
	return out
}

// adviceFindings is that for people.
func adviceFindings(resource string, all []drbdAdvice) []finding {
	var out []finding
	for _, a := range all {
		level := levelNote
		if a.harm {
			level = levelWarn
		}
		out = append(out, finding{level, fmt.Sprintf("DRBD %s: %s; better: %s", resource, a.what, a.line),
			fmt.Sprintf("put that into its file in /etc/drbd.d on both nodes, then: drbdadm adjust %s", resource)})
	}
	return out
}
