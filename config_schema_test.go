// Do the schema, the example and the types agree?

package main

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// eachSpec visits every section of the schema, the nested ones too.
func eachSpec(visit func(label string, spec *tableSpec)) {
	var walk func(label string, spec *tableSpec)
	walk = func(label string, spec *tableSpec) {
		visit(label, spec)
		for _, k := range spec.keys {
			if k.table != nil && k.table != &anyResourceSpec {
				walk(label+" "+k.key, k.table)
			}
		}
	}
	for _, s := range sections() {
		walk(s.label, s)
	}
}

// TestExampleExplainsEveryKey reads the example with its commented keys switched on: each key of the schema is there, in
// its section, with a comment.
func TestExampleExplainsEveryKey(t *testing.T) {
	text := string(readFile(t, "ha.toml.example"))
	commented := regexp.MustCompile(`(?m)^# ([a-z_]+ += )`)
	full := commented.ReplaceAllString(text, "$1")
	tree, err := decode(full)
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]map[string]any{}
	keep := func(label string, v any) {
		if m, ok := v.(map[string]any); ok {
			if written[label] == nil {
				written[label] = map[string]any{}
			}
			for k, e := range m {
				written[label][k] = e
			}
		}
	}
	keep("[cluster]", tree["cluster"])
	keep("[heartbeat]", tree["heartbeat"])
	keep("[watchdog]", tree["watchdog"])
	for _, m := range tree["link"].([]map[string]any) {
		keep("[[link]]", m)
	}
	for _, m := range tree["node"].([]map[string]any) {
		keep("[[node]]", m)
	}
	for _, m := range tree["ping"].([]map[string]any) {
		keep("[[ping]]", m)
	}
	for _, m := range tree["fence"].([]map[string]any) {
		keep("[[fence]]", m)
		keep("[[fence]] monitor", m["monitor"])
	}
	for _, g := range tree["group"].([]map[string]any) {
		keep("[[group]]", g)
		for _, r := range g["resource"].([]map[string]any) {
			keep(pickResource(r).label, r)
		}
	}
	everywhere := written[`[[group.resource]] of type "drbd"`] // explains the keys that all types have
	eachSpec(func(label string, spec *tableSpec) {
		section, nested, _ := strings.Cut(label, `" `)
		m := written[label]
		if nested != "" {
			m, _ = written[section+`"`][nested].(map[string]any)
		}
		for _, k := range spec.keys {
			_, here := m[k.key]
			_, common := everywhere[k.key]
			if !here && !(common && strings.HasPrefix(label, "[[group.resource]]") && nested == "") {
				t.Errorf("%s: %s is not in ha.toml.example", label, k.key)
			}
		}
	})
}

// TestExampleShowsDefaults holds every value of the example against the schema, except where the comment says that
// there is no default or another.
func TestExampleShowsDefaults(t *testing.T) {
	c, problems := parseConfig(readFile(t, "ha.toml.example"))
	if c == nil {
		t.Fatal(problems)
	}
	explained := configExplain(c)
	if strings.Contains(explained, "from the file") {
		t.Errorf("a timer of the example is not its default:\n%s", explained)
	}
	fresh := build(&section{spec: &fileSpec, values: map[string]any{}})
	if c.Cluster.KeyFile != fresh.Cluster.KeyFile || c.Cluster.LogLevel != fresh.Cluster.LogLevel || c.Heartbeat != fresh.Heartbeat {
		t.Errorf("the example has %+v %+v, the defaults are %+v %+v", c.Cluster, c.Heartbeat, fresh.Cluster, fresh.Heartbeat)
	}
	g := c.group("web")
	none := buildGroup(&section{spec: &groupSpec, values: map[string]any{}})
	if g.Failback != none.Failback || g.MigrationThreshold != none.MigrationThreshold || g.FailureTimeout != none.FailureTimeout {
		t.Errorf("the example's group differs from the defaults %+v", none)
	}
}

// Every default passes its own checks, and every bound is in order.
func TestSchemaDefaults(t *testing.T) {
	eachSpec(func(label string, spec *tableSpec) {
		seen := map[string]bool{}
		for _, k := range spec.keys {
			if seen[k.key] {
				t.Errorf("%s: %s is there twice", label, k.key)
			}
			seen[k.key] = true
			if k.required && k.def != "" {
				t.Errorf("%s: %s is required and has a default", label, k.key)
			}
			if k.min > k.max {
				t.Errorf("%s: %s is from %d to %d", label, k.key, k.min, k.max)
			}
			if k.def == "" {
				continue
			}
			empty := &section{spec: spec, values: map[string]any{}}
			switch k.kind {
			case kindString:
				if k.check != nil {
					if f := k.check(k.def); f != nil {
						t.Errorf("%s: %s: its default %q %s", label, k.key, k.def, f.what)
					}
				}
			case kindDuration:
				if d := int64(empty.duration(k.key)); d < k.min || d > k.max {
					t.Errorf("%s: %s: its default %s is out of bounds", label, k.key, time.Duration(d))
				}
			case kindInt:
				if n := int64(empty.number(k.key)); n < k.min || n > k.max {
					t.Errorf("%s: %s: its default %d is out of bounds", label, k.key, n)
				}
			}
		}
	})
}

// A key that the types have and the schema has not could never be set, and the other way round.
func TestSchemaMatchesTypes(t *testing.T) {
	resource := map[string]bool{}
	for _, rt := range resourceTypes {
		for _, k := range rt.spec.names() {
			resource[k] = true
		}
	}
	names := func(spec *tableSpec) map[string]bool {
		m := map[string]bool{}
		for _, k := range spec.names() {
			m[k] = true
		}
		return m
	}
	for _, c := range []struct {
		typ  reflect.Type
		keys map[string]bool
	}{
		{reflect.TypeFor[ClusterConfig](), names(&clusterSpec)},
		{reflect.TypeFor[HeartbeatConfig](), names(&heartbeatSpec)},
		{reflect.TypeFor[LinkConfig](), names(&linkSpec)},
		{reflect.TypeFor[NodeConfig](), names(&nodeSpec)},
		{reflect.TypeFor[PingConfig](), names(&pingSpec)},
		{reflect.TypeFor[FenceConfig](), names(&fenceSpec)},
		{reflect.TypeFor[GroupConfig](), names(&groupSpec)},
		{reflect.TypeFor[ResourceConfig](), resource},
		{reflect.TypeFor[Expect](), names(&expectSpec)},
	} {
		for i := range c.typ.NumField() {
			name, _, _ := strings.Cut(c.typ.Field(i).Tag.Get("json"), ",")
			if name == "resources" { // one section each: [[group.resource]]
				name = "resource"
			}
			if !c.keys[name] {
				t.Errorf("%s.%s: no key %s in the schema", c.typ.Name(), c.typ.Field(i).Name, name)
			}
			delete(c.keys, name)
		}
		for k := range c.keys {
			t.Errorf("%s has no field for %s", c.typ.Name(), k)
		}
	}
	if got := resourceTypeNames(); len(got) != len(resourceTypes) {
		t.Errorf("%d names for %d types", len(got), len(resourceTypes))
	}
	for i, name := range resourceTypeNames() {
		if resourceTypes[i].name != name {
			t.Errorf("type %d is %s and %s", i, name, resourceTypes[i].name)
		}
	}
}
