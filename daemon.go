// What is the real world around a node? Sockets, files, processes, and the only select.

package main

import (
	"context"
	"errors"
)

// daemonOptions are the flags of `hactl daemon`.
type daemonOptions struct {
	Config    string // /etc/ha.toml
	Node      string // "": the node one of whose addresses is configured on this host
	StateDir  string // /var/lib/ha
	RunDir    string // /run/ha
	Socket    string // control socket; in RunDir unless --socket says otherwise
	Bootstrap bool   // found the cluster although not all voters are heard
	LogFormat string // auto, journal, text, json
}

func runDaemon(ctx context.Context, o daemonOptions) error { return errors.New("to be written") }
