package main

import "time"

func (c *Config) lease() time.Duration { return c.Heartbeat.Deadtime.D() }
