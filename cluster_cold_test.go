// Does a cluster come up from nothing, in whatever order its hosts are switched on?

package main

import (
	"testing"
)

func threeNodes() clusterOptions {
	return clusterOptions{Nodes: []string{"alice", "bob", "carol"}, Witness: []string{"carol"}}
}

func TestClusterColdStart(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"alice", "bob", "carol"}, {"carol", "bob", "alice"}} {
		t.Run(order[0]+" first", func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, threeNodes())
			c.start(order...)
			owner := c.owner("web")
			p := c.probe(webURL())
			p.answeredBy(owner.name)
			if owner.name == "carol" {
				t.Errorf("the witness runs the group")
			}
			for _, h := range c.hosts {
				if out, _, code := h.ctl("status"); code != 0 {
					t.Errorf("hactl status on %s: exit status %d\n%s", h.name, code, out)
				}
			}
			if got := c.holders(webVIP); len(got) != 1 {
				t.Errorf("%s is on %v, want one host", webVIP, got)
			}
		})
	}
}
