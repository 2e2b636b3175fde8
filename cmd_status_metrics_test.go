// Is what Prometheus gets in its format, and does it say what is wrong?

package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestRenderMetrics(t *testing.T) {
	all := situations()
	sync := sampleStatus()
	done := 7.9
	sync.Groups[0].Resources[0].Replica = &Replica{Resource: "r0", Role: "Primary", Frozen: "fencing", Volumes: []ReplicaDisk{{Volume: 0, Disk: "UpToDate"}, {Volume: 1, Disk: "Failed"}},
		Peers: []ReplicaPeer{{Name: "bob", Volume: 0, Connection: "Connected", Role: "Secondary", Disk: "Inconsistent", Replication: "SyncSource", OutOfSync: 5 << 20, Done: &done, Left: 57},
			{Name: "bob", Volume: 1, Connection: "Connected", Role: "Secondary", Disk: "UpToDate", Replication: "Established"}}}
	all["syncing"] = sync
	family := regexp.MustCompile(`^# (HELP|TYPE) (hactl_[a-z_]+) .+$`)
	value := regexp.MustCompile(`^(hactl_[a-z_]+)(\{([a-z]+="([^"\\\n]|\\.)*",?)+\})? -?[0-9.e+]+$`)
	for name, s := range all {
		text := renderMetrics(s)
		if name == "syncing" || name == "blocked" {
			goldenRender(t, "metrics-"+name+".txt", text)
		}
		open, seen := "", map[string]bool{}
		for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			if m := family.FindStringSubmatch(line); m != nil {
				if m[1] == "HELP" && seen[m[2]] {
					t.Errorf("%s: %s is told of twice", name, m[2])
				}
				open, seen[m[2]] = m[2], true
			} else if m := value.FindStringSubmatch(line); m == nil || m[1] != open {
				t.Errorf("%s: %q is no value of %s", name, line, open)
			}
		}
	}
	if text := renderMetrics(nil); !strings.HasSuffix(text, "\nhactl_up 0\n") || strings.Contains(text, "hactl_status") {
		t.Errorf("without a daemon: %q", text)
	}
}

func TestMetricLabelsAreEscaped(t *testing.T) {
	m := &metrics{text: map[string]string{}}
	m.add("hactl_x", "y", 1, "a", "b\"c\\d\ne")
	if want := "hactl_x{a=\"b\\\"c\\\\d\\ne\"} 1\n"; !strings.HasSuffix(m.text["hactl_x"], want) {
		t.Errorf("%q", m.text["hactl_x"])
	}
}
