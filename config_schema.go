// Which keys does the file have? One table for each section: kind, default, bounds. It drives reading, checking, showing
// and the test that ha.toml.example explains every key. What concerns more than one key is in config_check.go; the keys
// of each resource type are in config_resource.go.

package main

import (
	"time"
)

type keyKind int

const (
	kindString    keyKind = iota
	kindStrings           // array of strings
	kindBool              //
	kindInt               //
	kindDuration          // "100ms"
	kindTable             // [name] or name = { … }
	kindTables            // [[name]]
	kindAddresses         // { link = "address" }
	kindOptions           // { name = "value" }, values may be numbers and true or false
	kindAny               // of a resource whose type is not known: nothing can be said of it
)

// keySpec is one key. Defaults are written as in the file, strings without their quotes; "" is none.
type keySpec struct {
	key      string
	kind     keyKind
	required bool
	def      string
	min, max int64                          // kindInt: the bounds; kindDuration: the bounds in nanoseconds; kindTables: at most max
	empty    bool                           // "" is a value like others
	check    func(string) *flaw             // kindString, each of kindStrings and kindAddresses
	pair     func(name, value string) *flaw // each of kindOptions; it never shows the value
	table    *tableSpec                     // kindTable, kindTables
	pick     func(map[string]any) *tableSpec
}

// tableSpec is one section. Its keys are in the order in which they are shown.
type tableSpec struct {
	label string // as the operator would write its header
	keys  []keySpec
}

func (t *tableSpec) find(key string) *keySpec {
	for i := range t.keys {
		if t.keys[i].key == key {
			return &t.keys[i]
		}
	}
	return nil
}

func (t *tableSpec) names() []string {
	names := make([]string, len(t.keys))
	for i, k := range t.keys {
		names[i] = k.key
	}
	return names
}

// Bounds of the file. The replicated state and a status that fits one screen are made for these.
const (
	textMax      = 256 << 10
	nodesMax     = 16
	linksMax     = 8
	fencesMax    = 64
	groupsMax    = 64
	resourcesMax = 32
)

const (
	defaultKeyFile  = "/etc/ha.key"
	intervalMin     = 10 * time.Millisecond
	intervalMax     = 10 * time.Second
	deadtimeMin     = 30 * time.Millisecond
	deadtimeMax     = 60 * time.Second
	intervalsInDead = 3 // deadtime holds at least so many intervals: one lost datagram must not look like a death
	timeoutMin      = 10 * time.Millisecond
	timeoutMax      = 24 * time.Hour
	monitorMin      = 100 * time.Millisecond
	pingsMax        = 16
	pingFailures    = 2 // at least: a single lost echo is nothing
)

var (
	twoNodeModes   = []string{"fence", "manual", "ignore"}
	noQuorumModes  = []string{"stop", "freeze"}
	logLevels      = []string{"debug", "info", "warning", "error"}
	nodeRoles      = []string{"full", "witness"}
	failbackModes  = []string{"never", "always"}
	states         = []string{string(classAddressed), string(classStateful)}
	onFailModes    = []string{"restart", "move", "block", "ignore"}
	filesystemRead = []string{"mounted", "read", "write"}
)

var clusterSpec = tableSpec{"[cluster]", []keySpec{
	{key: "name", required: true, check: checkName},
	{key: "key_file", def: defaultKeyFile, check: checkAbsolute},
	{key: "two_node", check: checkEnum(twoNodeModes)},
	{key: "wait_for_all", kind: kindBool, def: "true"},
	{key: "needs_ping", kind: kindStrings, check: checkName},
	{key: "no_quorum", def: "stop", check: checkEnum(noQuorumModes)},
	{key: "log_level", def: "info", check: checkEnum(logLevels)},
}}

var heartbeatSpec = tableSpec{"[heartbeat]", []keySpec{
	{key: "interval", kind: kindDuration, def: "100ms", min: int64(intervalMin), max: int64(intervalMax)},
	{key: "deadtime", kind: kindDuration, def: "1s", min: int64(deadtimeMin), max: int64(deadtimeMax)},
	{key: "port", kind: kindInt, def: "694", min: 1, max: 65535},
}}

var watchdogSpec = tableSpec{"[watchdog]", []keySpec{
	{key: "device", def: watchdogNone, check: checkWatchdog},
	{key: "timeout", kind: kindDuration, def: "10s", min: int64(time.Second), max: int64(10 * time.Minute)},
}}

var linkSpec = tableSpec{"[[link]]", []keySpec{
	{key: "name", required: true, check: checkName},
	{key: "interface", required: true, check: checkInterface},
	{key: "multicast", check: checkMulticast},
}}

var nodeSpec = tableSpec{"[[node]]", []keySpec{
	{key: "name", required: true, check: checkName},
	{key: "role", def: "full", check: checkEnum(nodeRoles)},
	{key: "address", kind: kindAddresses, required: true, check: checkNodeAddress},
}}

// The times of a target have defaults that follow from deadtime: see PingConfig.pace.
var pingSpec = tableSpec{"[[ping]]", []keySpec{
	{key: "name", required: true, check: checkName},
	{key: "address", check: checkNodeAddress},
	{key: "tcp", check: checkTCP},
	{key: "interval", kind: kindDuration, min: int64(intervalMin), max: int64(time.Hour)},
	{key: "timeout", kind: kindDuration, min: int64(timeoutMin), max: int64(time.Hour)},
	{key: "failures", kind: kindInt, def: "3", min: pingFailures, max: 100},
}}

var groupSpec = tableSpec{"[[group]]", []keySpec{
	{key: "name", required: true, check: checkName},
	{key: "prefer", kind: kindStrings, check: checkName},
	{key: "failback", def: "never", check: checkEnum(failbackModes)},
	{key: "migration_threshold", kind: kindInt, def: "3", min: 0, max: 1_000_000},
	{key: "failure_timeout", kind: kindDuration, def: "10m", min: 0, max: int64(365 * 24 * time.Hour)},
	{key: "after", kind: kindStrings, check: checkName},
	{key: "with", kind: kindStrings, check: checkName},
	{key: "apart", kind: kindStrings, check: checkName},
	{key: "needs", kind: kindStrings, check: checkName},
	{key: "resource", kind: kindTables, required: true, max: resourcesMax, table: &anyResourceSpec, pick: pickResource},
}}

var fileSpec = tableSpec{"the file", []keySpec{
	{key: "cluster", kind: kindTable, required: true, table: &clusterSpec},
	{key: "heartbeat", kind: kindTable, table: &heartbeatSpec},
	{key: "watchdog", kind: kindTable, table: &watchdogSpec},
	{key: "link", kind: kindTables, required: true, max: linksMax, table: &linkSpec},
	{key: "node", kind: kindTables, required: true, max: nodesMax, table: &nodeSpec},
	{key: "ping", kind: kindTables, max: pingsMax, table: &pingSpec},
	{key: "fence", kind: kindTables, max: fencesMax, table: &fenceSpec},
	{key: "group", kind: kindTables, max: groupsMax, table: &groupSpec},
}}

// sections are all tables with their keys, for hints about keys that stand in the wrong one and for the test of the
// example.
func sections() []*tableSpec {
	all := []*tableSpec{&clusterSpec, &heartbeatSpec, &watchdogSpec, &linkSpec, &nodeSpec, &pingSpec, &fenceSpec, &groupSpec}
	for i := range resourceTypes {
		all = append(all, &resourceTypes[i].spec)
	}
	return all
}
