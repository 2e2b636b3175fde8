// What docs/security.md promises about change, held against what version 0.1.0 had: testdata/promise only ever grows.

package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var updatePromise = flag.Bool("update-promise", false, "add what is new to testdata/promise")

// Every key of the file of 0.1.0, all of which are in its example, is still taken, and means what it meant.
func TestPromisedFile(t *testing.T) {
	cfg, problems := parseConfig(readFile(t, "testdata/promise/ha-0.1.0.toml"))
	for _, p := range problems {
		t.Errorf("%+v", p)
	}
	if cfg == nil {
		t.Fatal("no config")
	}
	now, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/promise/ha-0.1.0.json"
	if *updatePromise {
		if err := os.WriteFile(path, append(now, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var was, is any
	if err := errors.Join(json.Unmarshal(readFile(t, path), &was), json.Unmarshal(now, &is)); err != nil {
		t.Fatal(err)
	}
	keeps(t, "", was, is)
}

// keeps wants all that was: what is new beside it is no matter.
func keeps(t *testing.T, path string, was, is any) {
	t.Helper()
	switch was := was.(type) {
	case map[string]any:
		m, _ := is.(map[string]any)
		for k, v := range was {
			keeps(t, path+"."+k, v, m[k])
		}
	case []any:
		l, _ := is.([]any)
		if len(l) != len(was) {
			t.Errorf("%s has %d elements, not %d", path, len(l), len(was))
			return
		}
		for i, v := range was {
			keeps(t, fmt.Sprintf("%s[%d]", path, i), v, l[i])
		}
	default:
		if was != is {
			t.Errorf("%s was %v and is %v", path, was, is)
		}
	}
}

// Every field of what --json prints, of the socket's questions, and of what one version stores and another reads is still
// there, under the name and with the kind of value that it had.
func TestPromisedJSON(t *testing.T) {
	var have []string
	for _, v := range []any{Status{}, Event{}, ConfigAnswer{}, generation{}, Command{}, Progress{}, Config{}, State{}, Entry{}} {
		typ := reflect.TypeOf(v)
		have = append(have, jsonFields(typ, typ.Name(), nil)...)
	}
	const path = "testdata/promise/json"
	was, err := os.ReadFile(path)
	if err != nil && !*updatePromise {
		t.Fatal(err)
	}
	promised := strings.Fields(string(was))
	for _, field := range promised {
		if !slices.Contains(have, field) {
			t.Errorf("%s is promised and gone, or another kind of value", field)
		}
	}
	for _, field := range have {
		if !slices.Contains(promised, field) && !*updatePromise {
			t.Errorf("%s is new: add it with -update-promise, and it is promised", field)
		}
	}
	if *updatePromise && !t.Failed() {
		if err := os.WriteFile(path, []byte(strings.Join(have, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// jsonFields lists "path:kind" of all that encoding/json writes of a type.
func jsonFields(typ reflect.Type, path string, within []reflect.Type) (out []string) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice && typ.Elem().Kind() != reflect.Uint8 {
		if typ.Kind() == reflect.Slice {
			path += "[]"
		}
		typ = typ.Elem()
	}
	_, own := reflect.New(typ).Interface().(json.Marshaler)
	if typ.Kind() != reflect.Struct || own || slices.Contains(within, typ) {
		return []string{path + ":" + strings.ReplaceAll(typ.Kind().String(), " ", "")}
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
			continue
		case f.Anonymous && name == "":
			out = append(out, jsonFields(f.Type, path, append(within, typ))...)
			continue
		case name == "":
			name = f.Name
		}
		out = append(out, jsonFields(f.Type, path+"."+name, append(within, typ))...)
	}
	return out
}

// What version 0.1.0 has sealed is opened, and says what it said.
func TestPromisedDatagrams(t *testing.T) {
	text := readFile(t, "testdata/promise/datagrams-0.1.0")
	// They were for other runs of bob, which it says: that is known only of what could be opened.
	o := newOpener("bob", testSession(2), "web", []secret{secret([]byte("an example secret of 32 bytes ok"))}, []string{"alice"})
	body, seen := "", map[messageKind]bool{}
	for line := range strings.Lines(string(text)) {
		what, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what != "sealed" {
			body = digits
			continue
		}
		raw, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		m, err := o.open(raw, "lan", instant(time.Hour))
		if err != nil && !errors.Is(err, errOtherSession) || m.Sender != "alice" || hex.EncodeToString(m.Body) != body {
			t.Errorf("%+v, %v; want the body %s", m, err, body)
		}
		seen[m.Kind] = true
		switch m.Kind {
		case kindHeartbeat:
			h, err := decodeHeartbeat(m.Body)
			if p, _ := h.heard("bob"); err != nil || h.Seq != 7 || h.Lease != time.Second || h.Flags != 8 || h.Wall != 1e18 || len(h.Ancestors) != 1 || p.Links != 3 {
				t.Errorf("heartbeat %+v, %v", h, err)
			}
		case kindAck:
			a, err := decodeAck(m.Body)
			if err != nil || a.Seq != 7 || a.Member != 0xA || a.Clock != 2e9 || !slices.Equal(a.Revoked, []groupEpoch{{"web", 4}}) {
				t.Errorf("ack %+v, %v", a, err)
			}
		case kindHold:
			if h, err := decodeHold(m.Body); err != nil || h != (hold{"bob", "web", 4, 21, time.Second}) {
				t.Errorf("hold %+v, %v", h, err)
			}
		case kindHello:
			if h, err := decodeHello(m.Body); err != nil || h != (hello{Challenge: 5, Answer: 6}) {
				t.Errorf("hello %+v, %v", h, err)
			}
		}
	}
	if len(seen) < 4 {
		t.Errorf("opened only the kinds %v", seen)
	}
}
