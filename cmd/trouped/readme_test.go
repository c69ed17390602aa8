package main

import (
	"os"
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
