package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pmezard/go-difflib/difflib"
)

// TestGolden shows in a review what a change of a template does. The defaults
// are there in full; of every other file of values, what it changes.
func TestGolden(t *testing.T) {
	standard := renderNamed(t, "default").golden()
	seen := map[string]bool{}
	forEach(t, func(t *testing.T, name string, r *rendering) {
		path, got := "testdata/golden/"+name+".diff", changes(t, standard, r.golden())
		if name == "default" {
			path, got = "testdata/golden/default.yaml", standard
		}
		seen[path] = true
		if update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("the rendering is not %s. If it should not be, run go generate ./chart and read the diff:\n%s", path,
				changes(t, string(want), got))
		}
	})
	files, err := filepath.Glob("testdata/golden/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !seen[file] {
			t.Errorf("%s belongs to no file of testdata/values", file)
		}
	}
}

// golden is everything that helm renders and prints, without random parts.
func (r *rendering) golden() string {
	var b strings.Builder
	for _, o := range r.objects {
		text := random.ReplaceAllString(o.text, "$1: RANDOM")
		text = included.ReplaceAllString(text, "$1    (the file)\n")
		b.WriteString("---\n" + strings.TrimSpace(text) + "\n")
	}
	b.WriteString("--- NOTES\n" + strings.TrimSpace(r.notes) + "\n")
	return b.String()
}

// included is what comes from a file as it is; TestRulesAndDashboardAreWhole looks at it.
var included = regexp.MustCompile(`(?s)(  # files/rules.yaml, as promtool reads it\n|  troupe.json: \|\n).*`)

// hunk is the head of a hunk. Its line numbers would change with every line above.
var hunk = regexp.MustCompile(`(?m)^@@ .* @@$`)

// changes is a diff without line numbers.
func changes(t *testing.T, from, to string) string {
	t.Helper()
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(from), B: difflib.SplitLines(to),
		Context: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	text = strings.TrimPrefix(text, "--- \n+++ \n")
	return hunk.ReplaceAllString(text, "@@")
}
