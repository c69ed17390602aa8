package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// page reads a page of the documentation, by its path from the top of the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestConfigurationListsLimits holds the table of docs/configuration.md to the server's defaults.
func TestConfigurationListsLimits(t *testing.T) {
	documented := map[string]string{}
	for line := range strings.Lines(page(t, "docs/configuration.md")) {
		cells := strings.Split(line, "|")
		if len(cells) == 5 && strings.HasPrefix(strings.TrimSpace(cells[2]), "`--") {
			value, _, _ := strings.Cut(strings.TrimSpace(cells[3]), " ")
			documented[strings.Trim(strings.TrimSpace(cells[2]), "`-")] = value
		}
	}
	limits := pflag.NewFlagSet("limits", pflag.ContinueOnError)
	c := defaults()
	c.limitFlags(limits)
	c.networkFlags(limits)
	c.storageFlags(limits)
	limits.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "listen", "admin-listen", "pprof", "console", "allowed-origins", "data-dir":
			return // no limit
		}
		if got, want := documented[f.Name], f.Value.String(); got != want {
			t.Errorf("docs/configuration.md gives --%s as %q, the default is %s", f.Name, got, want)
		}
		delete(documented, f.Name)
	})
	for name := range documented {
		t.Errorf("docs/configuration.md lists --%s, which is no limit", name)
	}
}

// pagesWithTests name the tests that prove what they say.
var pagesWithTests = []string{
	"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/configuration.md", "docs/operations.md", "docs/peers.md",
	"docs/performance.md", "docs/promises.md", "docs/isolation.md",
}

// TestPromisesNameRealTests: a promise whose proof was renamed or removed is a promise without one.
func TestPromisesNameRealTests(t *testing.T) {
	reference := regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)`")
	for _, name := range pagesWithTests {
		named := reference.FindAllStringSubmatch(page(t, name), -1)
		if len(named) == 0 && name == "docs/promises.md" {
			t.Errorf("%s names no test", name)
		}
		for _, m := range named {
			if !declares(t, m[1], m[2]) {
				t.Errorf("%s names %s in %s, which does not exist", name, m[2], m[1])
			}
		}
	}
}

// declares reports whether a test file of the package in dir has that function.
func declares(t *testing.T, dir, function string) bool {
	t.Helper()
	files, err := filepath.Glob("../../" + dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(source, []byte("\nfunc "+function+"("))
	})
}

// TestReadmeQuotesTheFigures: the README repeats six rows of docs/performance.md. A figure that
// was measured again must change in both.
func TestReadmeQuotesTheFigures(t *testing.T) {
	_, costs, _ := strings.Cut(page(t, "README.md"), "\n## What it costs\n")
	costs, _, _ = strings.Cut(costs, "\n## ")
	_, rows, _ := strings.Cut(costs, "|---|---|\n")
	all, quoted := page(t, "docs/performance.md"), 0
	for row := range strings.Lines(rows) {
		if !strings.HasPrefix(row, "| ") {
			break
		}
		quoted++
		if !strings.Contains(all, "\n"+strings.TrimSpace(row)) {
			t.Errorf("docs/performance.md has no row that begins %s", row)
		}
	}
	if quoted != 6 {
		t.Errorf("the README has %d figures, want 6", quoted)
	}
}

// TestPagesLinkToFilesThatExist protects a reader who follows a link of the README or the
// documentation.
func TestPagesLinkToFilesThatExist(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pages := []string{"charts/troupe/README.md"}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/runbooks/*.md"} {
		found, err := filepath.Glob("../../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			pages = append(pages, strings.TrimPrefix(f, "../../"))
		}
	}
	for _, name := range pages {
		for _, m := range link.FindAllStringSubmatch(page(t, name), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := filepath.Join(filepath.Dir(name), target)
			if target == "" {
				file = name
			}
			if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(page(t, file)), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", name, m[1], file)
			}
		}
	}
}

// anchors returns what GitHub makes of a page's headings.
func anchors(text string) []string {
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(plain, " ", "-"))
	}
	return list
}

// pagesWithPaths name files of the repository in backquotes.
var pagesWithPaths = append([]string{
	"ARCHITECTURE.md", "CHANGELOG.md", "docs/images.md", "docs/observability.md",
	"docs/protocol.md",
}, pagesWithTests...)

// TestPagesNameFilesThatExist: a page that names a file which was moved sends its reader to
// nothing. Where a page says `function` in `file`, the file must declare it.
func TestPagesNameFilesThatExist(t *testing.T) {
	path := regexp.MustCompile("`((?:actors|gateway|k8s|clients|cmd|charts|docs|e2e|\\.ci)/[A-Za-z0-9_./-]*)`")
	within := regexp.MustCompile("((?:`[a-zA-Z.]+`, )*`[a-zA-Z.]+`) in `([a-z0-9_/]+\\.go)`")
	for _, name := range pagesWithPaths {
		text := page(t, name)
		for _, m := range path.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil && !isTest(m[1]) && !strings.Contains(text, "moved** from `"+m[1]) {
				t.Errorf("%s names %s: %v", name, m[1], err)
			}
		}
		for _, m := range within.FindAllStringSubmatch(strings.ReplaceAll(text, "\n", " "), -1) {
			for _, function := range strings.Split(m[1], ", ") {
				function = strings.Trim(function, "`")
				if !declaresFunction(page(t, m[2]), function) {
					t.Errorf("%s says that %s is in %s, which does not declare it", name, function, m[2])
				}
			}
		}
	}
}

// isTest reports whether a path is a package followed by one of its tests or functions, as in
// actors/relay.WindowFor.
func isTest(path string) bool {
	dir, name, ok := strings.Cut(filepath.Base(path), ".")
	info, err := os.Stat(filepath.Join("../..", filepath.Dir(path), dir))
	return ok && err == nil && info.IsDir() && name != "" && name[0] >= 'A' && name[0] <= 'Z'
}

// declaresFunction looks for a function, or as type.method for a method.
func declaresFunction(source, function string) bool {
	receiver, method, ok := strings.Cut(function, ".")
	if !ok {
		return regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + function + `\(`).MatchString(source)
	}
	return regexp.MustCompile(`(?m)^func \(\w* ?\*?` + receiver + `\) ` + method + `\(`).MatchString(source)
}

// TestMapNamesEveryPackage: a package that the map of ARCHITECTURE.md lacks is one that a newcomer
// does not find.
func TestMapNamesEveryPackage(t *testing.T) {
	_, tree, _ := strings.Cut(page(t, "ARCHITECTURE.md"), "\n## Map\n")
	tree, _, _ = strings.Cut(tree, "\n## ")
	mapped := map[string]bool{}
	var parents []string
	for line := range strings.Lines(tree) {
		indent := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		fields := strings.Fields(line)
		if len(fields) < 2 || indent > len(parents) {
			continue
		}
		parents = append(parents[:indent], strings.TrimSuffix(fields[0], "/"))
		mapped[filepath.Join(parents...)] = true
	}
	for _, top := range []string{"actors", "gateway", "k8s", "clients", "cmd"} {
		err := filepath.WalkDir("../../"+top, func(path string, d os.DirEntry, err error) error {
			files, _ := filepath.Glob(path + "/*.go")
			dir := strings.TrimPrefix(path, "../../")
			if err == nil && d.IsDir() && len(files) > 0 && !strings.Contains(path, "testdata") && !mapped[dir] {
				t.Errorf("the map does not name %s", dir)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
