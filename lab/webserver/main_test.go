package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadConfig(t *testing.T) {
	for _, c := range []struct{ text, err string }{
		{"Listen 80\nDocumentRoot \"/srv/my site\"\nPidFile /run/w.pid\n# Listen 81\nLoadModule x y\n<Location /server-status>\n  DocumentRoot /no\n</Location>\n", ""},
		{"DocumentRoot /srv\n", "no Listen"},
		{"Listen 80\n", "no DocumentRoot"},
		{"Listen 80\nDocumentRoot\n", "line 2: DocumentRoot has no value"},
		{"Listen 80\nDocumentRoot /srv\n<Location />\n", "a section is not closed"},
	} {
		got, err := readConfig(strings.NewReader(c.text))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.text, err, c.err)
			}
			continue
		}
		if want := (config{listen: ":80", root: "/srv/my site", pidFile: "/run/w.pid"}); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", c.text, got, err, want)
		}
	}
}

func TestSite(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "who"), []byte("alice\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := newSite(root)
	ask := func(path, from string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	if w := ask("/who", "192.0.2.1:999"); w.Code != 200 || w.Body.String() != "alice\n" {
		t.Errorf("/who: %d %q", w.Code, w.Body)
	}
	if w := ask("/server-status?auto", "192.0.2.1:999"); w.Code != http.StatusForbidden {
		t.Errorf("server-status from elsewhere: %d, want 403", w.Code)
	}
	w := ask("/server-status?auto", "127.0.0.1:999")
	for _, want := range []string{"Total Accesses: 3\n", "BusyWorkers: 1\n", "IdleWorkers: 63\n", "Scoreboard: W_"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("status page lacks %q:\n%s", want, w.Body)
		}
	}
}
