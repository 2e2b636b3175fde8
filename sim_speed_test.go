// What does an hour of a simulated cluster cost? In seconds of one processor, as everything that the simulator does is
// bounded by them: a cluster in which nothing happens, and those of the first seeds in which much does.
//
//	go test -run '^$' -bench SimulatedHour -benchtime 1x

package main

import (
	"syscall"
	"testing"
	"time"
)

// simHourAim is what an hour of three nodes at default timing may take.
const simHourAim = time.Second

func BenchmarkSimulatedHour(b *testing.B) {
	b.Run("quiet", func(b *testing.B) {
		begun, simulated := processorTime(b), time.Duration(0)
		for seed := range uint64(b.N) {
			simulated += quietHour(b, seed+1)
		}
		reportHour(b, begun, simulated)
	})
	b.Run("faults", func(b *testing.B) {
		begun, simulated := processorTime(b), time.Duration(0)
		for range b.N {
			for seed := range uint64(24) {
				s := newSimRun(nil, seed+1)
				s.run()
				if len(s.problems()) > 0 {
					b.Fatalf("seed %d: %q", seed+1, s.problems())
				}
				simulated += s.w.now
			}
		}
		reportHour(b, begun, simulated)
	})
}

// quietHour is two full nodes and a witness at the defaults, from their start on.
func quietHour(b *testing.B, seed uint64) time.Duration {
	setup := clusterSetup{nodes: []string{"alice", "bob", "carol=witness"}, groups: defaultGroup}
	w, err := newWorld(nil, seed, setup.text())
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range w.hosts {
		if err := m.start(false); err != nil {
			b.Fatal(err)
		}
	}
	w.lan.watch(w.config)
	w.run(time.Hour)
	if len(w.checks.broken) > 0 || !w.settled() {
		b.Fatalf("a quiet cluster is not well after an hour: %q", w.checks.broken)
	}
	return w.now
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportHour(b *testing.B, begun, simulated time.Duration) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric((processorTime(b)-begun).Seconds()/simulated.Hours(), "cpu-s/cluster-hour")
	b.ReportMetric(simHourAim.Seconds(), "aim")
}
