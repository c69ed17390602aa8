package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"
)

// row is a line of the table of values.
type row struct{ Key, Default, Text string }

// TestReadmeIsCurrent compares the chart's README with what values.yaml and
// README.md.tmpl make of it. Protects from: a table that tells of other defaults.
func TestReadmeIsCurrent(t *testing.T) {
	got, err := readme(t)
	if err != nil {
		t.Fatal(err)
	}
	path := chartDir + "/README.md"
	if update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("README.md is not current; run go generate ./chart:\n%s", changes(t, string(want), string(got)))
	}
}

func readme(t *testing.T) ([]byte, error) {
	text, err := os.ReadFile(chartDir + "/values.yaml")
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	rows, err := table("", doc.Content[0])
	if err != nil {
		return nil, err
	}
	tmpl, err := template.ParseFiles(chartDir + "/README.md.tmpl")
	if err != nil {
		return nil, err
	}
	meta := loadChart(t).Metadata
	var out bytes.Buffer
	err = tmpl.Execute(&out, map[string]any{
		"Version": meta.Version, "AppVersion": meta.AppVersion, "Description": meta.Description,
		"KubeVersion": strings.TrimSuffix(meta.KubeVersion, "-0"), "Values": rows,
	})
	return out.Bytes(), err
}

// table has a row for each value with a comment that begins with "--". A value
// without one is a section, or a mistake.
func table(prefix string, mapping *yaml.Node) ([]row, error) {
	var rows []row
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		text, ok := description(key.HeadComment)
		switch {
		case ok:
			standard, err := defaultOf(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			rows = append(rows, row{name, standard, text})
		case value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0:
			inner, err := table(name+".", value)
			if err != nil {
				return nil, err
			}
			rows = append(rows, inner...)
		default:
			return nil, fmt.Errorf("values.yaml:%d: %s has no comment that begins with \"# -- \"", key.Line, name)
		}
	}
	return rows, nil
}

// description is the comment from its "# -- " on.
func description(comment string) (string, bool) {
	_, text, ok := strings.Cut(comment, "# -- ")
	text = strings.ReplaceAll(text, "\n# ", " ")
	return strings.ReplaceAll(text, "|", `\|`), ok
}

// defaultOf writes a default on one line.
func defaultOf(node *yaml.Node) (string, error) {
	var value any
	if err := node.Decode(&value); err != nil {
		return "", err
	}
	switch v := value.(type) {
	case nil:
		return "", nil
	case string:
		if v == "" {
			return "", nil
		}
		return "`" + v + "`", nil
	}
	b, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	return "`" + string(b) + "`", nil
}

// TestDocumentedTagIsTheCharts protects from: an image that is built, pushed
// and then not found, since the chart asks for the tag of its appVersion.
func TestDocumentedTagIsTheCharts(t *testing.T) {
	want := loadChart(t).Metadata.AppVersion
	for _, page := range []string{"README.md", "docs/images.md"} {
		text, err := os.ReadFile("../../" + page)
		if err != nil {
			t.Fatal(err)
		}
		tags := regexp.MustCompile(`REGISTRY/troupe/(?:trouped|runner):(\S+?)[ \x60\n]`).FindAllStringSubmatch(string(text),
			-1)
		for _, tag := range tags {
			if tag[1] != want {
				t.Errorf("%s builds the tag %s, the chart asks for %s", page, tag[1], want)
			}
		}
		if len(tags) < 4 {
			t.Errorf("%s builds and pushes %d images, want two of each", page, len(tags))
		}
	}
}

// TestChangelogBeginsWithTheVersion: a chart whose version has no entry cannot be released.
func TestChangelogBeginsWithTheVersion(t *testing.T) {
	text, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	meta := loadChart(t).Metadata
	first := regexp.MustCompile(`(?m)^## \[([^]]+)\]`).FindStringSubmatch(string(text))
	if first == nil || first[1] != meta.Version || meta.AppVersion != meta.Version {
		t.Errorf("CHANGELOG.md begins with %q, the chart is %s and installs %s", first, meta.Version, meta.AppVersion)
	}
}
