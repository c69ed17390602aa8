package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeListsLimits keeps the README's table alike with what the server does.
func TestReadmeListsLimits(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) == 5 && strings.HasPrefix(strings.TrimSpace(cells[2]), "`--") {
			value, _, _ := strings.Cut(strings.TrimSpace(cells[3]), " ")
			documented[strings.Trim(strings.TrimSpace(cells[2]), "`-")] = value
		}
	}
	c := defaults()
	limits := limitSettings(c)
	for _, s := range append(networkSettings(c), storageSettings(c)...) {
		switch s.name {
		case "ping-interval", "write-timeout", "transcript-budget":
			limits = append(limits, s)
		}
	}
	for _, s := range limits {
		if got, want := documented[s.name], s.value.String(); got != want {
			t.Errorf("README.md gives --%s as %q, the default is %s", s.name, got, want)
		}
		delete(documented, s.name)
	}
	for name := range documented {
		t.Errorf("README.md lists --%s, which is no limit", name)
	}
}

// TestReadmeNamesRealTests: a promise whose proof was renamed or removed is a
// promise without one.
func TestReadmeNamesRealTests(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	peers, err := os.ReadFile("../../docs/peers.md")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, peers...)
	named := regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
	if len(named) == 0 {
		t.Fatal("README.md names no test")
	}
	for _, m := range named {
		files, err := filepath.Glob("../../" + string(m[1]) + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(source, []byte("\nfunc "+string(m[2])+"("))
		}
		if !found {
			t.Errorf("README.md names %s in %s, which is not there", m[2], m[1])
		}
	}
}
