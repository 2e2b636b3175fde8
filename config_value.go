// Is one value of the right type and within its bounds, and how is it named in a message if not? Tables and their keys
// are config_walk.go's; what a string must look like is said by the checks of config_resource.go.

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func (w *walker) wrongType(where, path string, raw any, want string) {
	hint := ""
	if s, ok := raw.(string); ok && (want == "true or false" && (s == "true" || s == "false") || strings.HasPrefix(want, "a number") && decimal(s)) {
		hint = "write it without quotes"
	}
	w.onValue(path, fmt.Sprintf("%s is %s", where, describeValue(raw)), want, hint)
}

func decimal(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

func (w *walker) text(where string, k *keySpec, path string, raw any) (any, bool) {
	v, ok := raw.(string)
	if !ok {
		w.wrongType(where, path, raw, "a string in quotes")
		return nil, false
	}
	if v == "" && !k.empty {
		hint := ""
		if !k.required {
			hint = "leave it out for the default"
		}
		w.onValue(path, where+" is empty", "a value", hint)
		return nil, false
	}
	if strings.ContainsRune(v, 0) {
		w.onValue(path, where+" holds a zero byte", "text", "")
		return nil, false
	}
	if k.check != nil && v != "" {
		if f := k.check(v); f != nil {
			if f.shown != "" {
				v = f.shown
			}
			w.onValue(path, fmt.Sprintf("%s %s %s", where, abbreviate(v), f.what), f.want, f.hint)
			w.refused[path] = raw.(string)
			return nil, false
		}
	}
	return v, true
}

func (w *walker) list(s *section, k *keySpec, path string, raw any) (any, bool) {
	elements, ok := raw.([]any)
	if !ok {
		hint := ""
		if v, isText := raw.(string); isText {
			hint = fmt.Sprintf("did you mean %s = [%s]?", k.key, abbreviate(v))
		}
		w.onValue(path, fmt.Sprintf("%s is %s", s.where(k.key), describeValue(raw)), "an array of strings", hint)
		return nil, false
	}
	values, good := make([]string, 0, len(elements)), true
	seen := map[string]bool{}
	for i, e := range elements {
		at := pathIndex(path, i)
		v, ok := w.text(s.where(k.key), k, at, e)
		if !ok {
			good = false
			continue
		}
		if seen[v.(string)] {
			w.onValue(at, fmt.Sprintf("%s names %s twice", s.where(k.key), abbreviate(v.(string))), "each once", "")
			good = false
		}
		seen[v.(string)] = true
		values = append(values, v.(string))
	}
	return values, good
}

func (w *walker) integer(s *section, k *keySpec, path string, raw any) (any, bool) {
	want := fmt.Sprintf("a number from %d to %d", k.min, k.max)
	v, ok := raw.(int64)
	if !ok {
		w.wrongType(s.where(k.key), path, raw, want)
		return nil, false
	}
	if v < k.min || v > k.max {
		w.onValue(path, fmt.Sprintf("%s is %d", s.where(k.key), v), want, "")
		return nil, false
	}
	return int(v), true
}

const durationForm = "a duration such as \"500ms\", \"10s\" or \"5m\""

func (w *walker) duration(s *section, k *keySpec, path string, raw any) (any, bool) {
	where := s.where(k.key)
	v, ok := raw.(string)
	if !ok {
		hint := ""
		if n, isInt := raw.(int64); isInt {
			hint = fmt.Sprintf("a number alone has no unit; did you mean %q?", k.withUnit(strconv.FormatInt(n, 10)))
		}
		w.onValue(path, fmt.Sprintf("%s is %s", where, describeValue(raw)), durationForm, hint)
		return nil, false
	}
	d, f := parseDuration(v)
	if f != nil {
		if f.bare != "" {
			f.hint = fmt.Sprintf("did you mean %q?", k.withUnit(f.bare))
		}
		w.onValue(path, fmt.Sprintf("%s %s %s", where, abbreviate(v), f.what), f.want, f.hint)
		return nil, false
	}
	if int64(d) < k.min || int64(d) > k.max {
		w.onValue(path, fmt.Sprintf("%s is %s", where, abbreviate(v)),
			fmt.Sprintf("from %s to %s", shortDuration(time.Duration(k.min)), shortDuration(time.Duration(k.max))), "")
		return nil, false
	}
	return Duration(d), true
}

// withUnit is a number with the unit that was most likely meant: that of the default, or one with which it is a value of the key.
func (k *keySpec) withUnit(number string) string {
	units := []string{"s", "ms", "m"}
	if strings.HasSuffix(k.def, "ms") {
		units = []string{"ms", "s"}
	}
	for _, u := range units {
		if d, err := time.ParseDuration(number + u); err == nil && int64(d) >= k.min && int64(d) <= k.max {
			return number + u
		}
	}
	return number + "s"
}

// parseDuration explains what time.ParseDuration only refuses.
func parseDuration(v string) (time.Duration, *flaw) {
	d, err := time.ParseDuration(v)
	if err == nil {
		return d, nil
	}
	tight := strings.ReplaceAll(strings.ToLower(v), " ", "")
	number := strings.TrimRight(tight, "abcdefghijklmnopqrstuvwxyzµ")
	unit := tight[len(number):]
	f := newFlaw("is no duration", durationForm, "")
	if _, err := strconv.ParseFloat(number, 64); err != nil {
		return 0, f
	}
	if unit == "" {
		f.what, f.hint, f.bare = "has no unit", fmt.Sprintf("did you mean %q?", number+"s"), number
		return 0, f
	}
	words := []struct{ word, unit string }{
		{"msec", "ms"}, {"millisecond", "ms"}, {"millis", "ms"}, {"sec", "s"}, {"second", "s"}, {"min", "m"}, {"minute", "m"},
		{"hr", "h"}, {"hour", "h"}, {"ms", "ms"}, {"s", "s"}, {"m", "m"}, {"h", "h"},
	}
	for _, u := range words {
		if unit == u.word || unit == u.word+"s" {
			f.hint = fmt.Sprintf("did you mean %q?", number+u.unit)
			return 0, f
		}
	}
	f.what = fmt.Sprintf("has the unknown unit %q", unit)
	if days, err := strconv.Atoi(number); err == nil && (unit == "d" || unit == "day" || unit == "days") && days > 0 && days < 10000 {
		f.hint = fmt.Sprintf("did you mean \"%dh\"?", 24*days)
	}
	return 0, f
}

// describeValue names a value that has the wrong type.
func describeValue(raw any) string {
	switch v := raw.(type) {
	case string:
		return "the string " + abbreviate(v)
	case int64, bool:
		return fmt.Sprint(v)
	case float64:
		return "the fraction " + strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return "a date or time"
	case []any, []map[string]any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return "a value of another type"
}

// abbreviate quotes a value for a message, cut to what fits on a line.
func abbreviate(v string) string {
	const most = 60
	if r := []rune(v); len(r) > most {
		v = string(r[:most]) + "…"
	}
	return strconv.Quote(v)
}

// shortDuration is time.Duration.String without its zeros: 10m, not 10m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
