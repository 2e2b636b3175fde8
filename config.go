// What does the operator want? The types of /etc/ha.toml, with the defaults filled in. Reading and checking the
// text is in config_parse.go and config_check.go.

package main

import "time"

// Config is the effective configuration: every default is filled in, every name is resolved.
type Config struct {
	Cluster   ClusterConfig   `json:"cluster"`
	Heartbeat HeartbeatConfig `json:"heartbeat"`
	Watchdog  WatchdogConfig  `json:"watchdog"`
	Links     []LinkConfig    `json:"links"`
	Nodes     []NodeConfig    `json:"nodes"`
	Pings     []PingConfig    `json:"pings,omitempty"`
	Fences    []FenceConfig   `json:"fences,omitempty"`
	Groups    []GroupConfig   `json:"groups,omitempty"`
}

type ClusterConfig struct {
	Name       string `json:"name"`
	KeyFile    string `json:"key_file"`           // default /etc/ha.key
	TwoNode    string `json:"two_node,omitempty"` // "fence", "manual", "ignore"; must be chosen with two voters
	WaitForAll bool   `json:"wait_for_all"`       // default true; two voters only
	// NeedsPing are [[ping]] targets that must answer before one of two voters goes on alone.
	NeedsPing []string `json:"needs_ping,omitempty"`
	NoQuorum  string   `json:"no_quorum"` // one of noQuorumModes; see node.lapse
	LogLevel  string   `json:"log_level"` // debug, info (default), warning, error
}

type HeartbeatConfig struct {
	Interval Duration `json:"interval"` // default 100ms, 10ms … 10s
	Deadtime Duration `json:"deadtime"` // default 1s, at least 3 intervals
	Port     int      `json:"port"`     // default 694, UDP and TCP
}

// WatchdogConfig says what resets a host whose daemon cannot stop its groups any more.
type WatchdogConfig struct {
	Device  string   `json:"device"`  // "none" (default); "reboot": none, but a failed stop reboots the host; or a path
	Timeout Duration `json:"timeout"` // default 10s, whole seconds, at least 2 deadtimes
}

type LinkConfig struct {
	Name      string `json:"name"`
	Interface string `json:"interface"`
	Multicast string `json:"multicast,omitempty"` // group address; empty: unicast to each node's address
}

type NodeConfig struct {
	Name    string        `json:"name"`
	Role    string        `json:"role"` // "full" (default) or "witness"
	Address []LinkAddress `json:"address"`
}

// LinkAddress is a node's address on one link; sorted by link name.
type LinkAddress struct {
	Link    string `json:"link"`
	Address string `json:"address"`
}

// PingConfig is a target outside the cluster that each full node asks now and then.
type PingConfig struct {
	Name     string   `json:"name"`
	Address  string   `json:"address,omitempty"` // echo by ICMP; this or TCP
	TCP      string   `json:"tcp,omitempty"`     // "address:port" that takes connections
	Interval Duration `json:"interval"`          // default: deadtime, at least 500ms
	Timeout  Duration `json:"timeout"`           // default: the same, at most interval
	Failures int      `json:"failures"`          // default 3; so many in a row change what is believed, in either direction
}

// FenceConfig is a device that cuts the power of nodes, or their way to the storage; see docs/design.md section 7.
type FenceConfig struct {
	Name    string   `json:"name"`
	Agent   string   `json:"agent"`             // fence_ipmilan and the like, a path, or "exec"
	Node    string   `json:"node,omitempty"`    // whom it fences, or
	Plugs   []Option `json:"plugs,omitempty"`   // each node that it fences, and what the device calls it; by node
	Options []Option `json:"options,omitempty"` // what the agent is told, by name
	// Secrets are told as well, each read from a file when it is needed; by name.
	Secrets      []Option `json:"secret_files,omitempty"`
	PasswordFile string   `json:"password_file,omitempty"` // the option password, from a file
	Off          string   `json:"off,omitempty"`           // exec only: run by /bin/sh -c
	Status       string   `json:"status,omitempty"`        // exec only
	Level        int      `json:"level"`                   // default 1; levels are tried in order, all devices of one must succeed
	Timeout      Duration `json:"timeout"`                 // default 30s; of one call
	Retries      int      `json:"retries"`                 // default 2; after the first failure, before the next level
	Delay        Duration `json:"delay"`                   // default 0s; two_node = "fence": of the side without head start
	Monitor      OpConfig `json:"monitor"`
}

// Option is a name and its value.
type Option struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type GroupConfig struct {
	Name               string           `json:"name"`
	Prefer             []string         `json:"prefer,omitempty"`
	Failback           string           `json:"failback"`            // "never" (default) or "always"
	MigrationThreshold int              `json:"migration_threshold"` // default 3; failures of one resource on one node until the group moves; 0: never
	FailureTimeout     Duration         `json:"failure_timeout"`     // default 10m; a failcount is forgotten that long after the last failure; 0: never
	After              []string         `json:"after,omitempty"`
	With               []string         `json:"with,omitempty"`
	Apart              []string         `json:"apart,omitempty"`
	Needs              []string         `json:"needs,omitempty"` // [[ping]] targets that its node should reach
	Resources          []ResourceConfig `json:"resources"`
}

// ResourceConfig holds the keys of all types; config_resource.go knows which belong to which type.
type ResourceConfig struct {
	Type    string   `json:"type"`            // vip, httpd, systemd, filesystem, drbd, exec
	Name    string   `json:"name"`            // default: the type, with -2, -3 … when repeated in the group
	OnFail  string   `json:"on_fail"`         // restart (default), move, block, ignore: what a failed monitor leads to
	State   string   `json:"state,omitempty"` // addressed, stateful; empty: as its type has it, see class.go
	Start   OpConfig `json:"start"`
	Stop    OpConfig `json:"stop"`
	Monitor OpConfig `json:"monitor"`

	// vip
	Address      string   `json:"address,omitempty"` // IPv4 or IPv6, optional /prefix; bare means /32 or /128
	Interface    string   `json:"interface,omitempty"`
	ProbeWait    Duration `json:"probe_wait,omitempty"`    // default 10ms
	ProbeTimeout Duration `json:"probe_timeout,omitempty"` // default 10s

	// httpd
	ConfigFile  string   `json:"config_file,omitempty"`
	StatusURL   string   `json:"status_url,omitempty"`
	Unit        string   `json:"unit,omitempty"`    // also type systemd; httpd's default: apache2.service or httpd.service, whichever exists; "none": foreground
	Program     string   `json:"program,omitempty"` // default: the apache2 or httpd found on the host
	Expect      *Expect  `json:"expect,omitempty"`
	TLSInsecure bool     `json:"tls_insecure,omitempty"` // do not check the certificate of an https status_url
	Environment []string `json:"environment,omitempty"`  // httpd in the foreground, exec: "NAME=value"

	// filesystem
	Device    string `json:"device,omitempty"`
	Directory string `json:"directory,omitempty"`
	FSType    string `json:"fstype,omitempty"`
	Options   string `json:"options,omitempty"`
	Probe     string `json:"probe,omitempty"` // "" (mounted), "read", "write"

	// drbd
	Resource string `json:"resource,omitempty"`
}

// Expect is a page that the monitor fetches beside server-status.
type Expect struct {
	URL      string `json:"url"`
	Contains string `json:"contains,omitempty"`
	Status   int    `json:"status"` // default 200
}

// OpConfig is one operation of a resource.
type OpConfig struct {
	Command  string   `json:"command,omitempty"`  // exec only: run by /bin/sh -c
	Interval Duration `json:"interval,omitempty"` // monitor only
	Timeout  Duration `json:"timeout"`
}

// Duration is written as "100ms", "10s", "5m" in the file and in JSON.
type Duration time.Duration

func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

func (c *Config) node(name string) *NodeConfig {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}

func (c *Config) ping(name string) *PingConfig {
	for i := range c.Pings {
		if c.Pings[i].Name == name {
			return &c.Pings[i]
		}
	}
	return nil
}

// target is what the echo goes to, in the operator's words.
func (p *PingConfig) target() string {
	if p.TCP != "" {
		return "tcp " + p.TCP
	}
	return p.Address
}

func (c *Config) group(name string) *GroupConfig {
	for i := range c.Groups {
		if c.Groups[i].Name == name {
			return &c.Groups[i]
		}
	}
	return nil
}

func (g *GroupConfig) resource(name string) *ResourceConfig {
	for i := range g.Resources {
		if g.Resources[i].Name == name {
			return &g.Resources[i]
		}
	}
	return nil
}

// voters are all nodes, in the order of the file: a witness votes as well.
func (c *Config) voters() []string {
	names := make([]string, len(c.Nodes))
	for i := range c.Nodes {
		names[i] = c.Nodes[i].Name
	}
	return names
}

// fullNodes are those that run groups, in the order of the file.
func (c *Config) fullNodes() []string {
	var names []string
	for i := range c.Nodes {
		if !c.Nodes[i].witness() {
			names = append(names, c.Nodes[i].Name)
		}
	}
	return names
}

func (n *NodeConfig) witness() bool { return n.Role == "witness" }

// on is the node's address on a link, "" if it is not on it or, being nil, in the config at all.
func (n *NodeConfig) on(link string) string {
	if n == nil {
		return ""
	}
	for _, a := range n.Address {
		if a.Link == link {
			return a.Address
		}
	}
	return ""
}

func (c *Config) isWitness(name string) bool {
	n := c.node(name)
	return n != nil && n.witness()
}

// twoVoters: there is no majority without the other, so two_node decides what one alone may do.
func (c *Config) twoVoters() bool { return len(c.Nodes) == 2 }
