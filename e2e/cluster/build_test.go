package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Every file in config/ has its place, and renders completely with the existing settings.
func TestConfigurationRenders(t *testing.T) {
	entries, err := configFiles.ReadDir("config")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if placed[e.Name()] == "" {
			t.Errorf("%s is not placed anywhere", e.Name())
		}
		text, err := render(e.Name(), settings{Node: "node7", Address: "10.99.0.7", PodRange: podRange(7), MaxFiles: 20000})
		if err != nil {
			t.Errorf("%s: %v", e.Name(), err)
			continue
		}
		if strings.Contains(string(text), "{{") || strings.Contains(string(text), "<no value>") {
			t.Errorf("%s is not complete:\n%s", e.Name(), text)
		}
		var into any
		switch filepath.Ext(e.Name()) {
		case ".yaml":
			err = yaml.Unmarshal(text, &into)
		case ".conflist":
			err = json.Unmarshal(text, &into)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", e.Name(), err, text)
		}
	}
	if len(entries) != len(placed) {
		t.Errorf("%d files, %d places", len(entries), len(placed))
	}
}

// The versions that programs and images carry are written down twice.
func TestVersionsAreThoseOfTheModule(t *testing.T) {
	mod, err := os.ReadFile("../programs/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"k8s.io/kubernetes " + kubernetesVersion,
		"github.com/containerd/containerd/v2 " + containerdVersion,
		"github.com/traefik/traefik/v3 " + traefikVersion,
		"sigs.k8s.io/metrics-server v" + strings.TrimPrefix(imageMetricsServer, "troupe.test/metrics-server:"),
		legoModule + " " + legoVersion,
		legoModule + " => " + legoCopy,
	} {
		if !strings.Contains(string(mod), "\t"+line+"\n") && !strings.Contains(string(mod), "\t"+line+" // indirect\n") {
			t.Errorf("go.mod of the programs does not say %q", line)
		}
	}
	for _, ref := range []string{imageTraefik, imageMetricsServer} {
		found := false
		for _, file := range []string{"traefik.yaml", "metrics-server.yaml"} {
			text, err := manifestFiles.ReadFile("manifests/" + file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(text), "image: "+ref+"\n")
		}
		if !found {
			t.Errorf("no manifest uses %s", ref)
		}
	}
	if imageTraefik != "troupe.test/traefik:"+strings.TrimPrefix(traefikVersion, "v") {
		t.Errorf("%s is not %s", imageTraefik, traefikVersion)
	}
}

// A change that does not affect the build must not cause one, because a build takes twenty minutes.
func TestSourceKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func(also ...string) string {
		t.Helper()
		k, err := sourceKey(dir, also...)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write("go.mod", "module x\n")
	write("hyper/main.go", "package main\n")
	first := key("go1.26")
	if key("go1.26") != first {
		t.Error("the key of the same sources changes")
	}
	if key("go1.27") == first {
		t.Error("the version of Go does not change the key")
	}
	write("go.mod", "module y\n")
	second := key("go1.26")
	if second == first {
		t.Error("go.mod does not change the key")
	}
	write("hyper/other.go", "")
	if key("go1.26") == second {
		t.Error("a new file does not change the key")
	}
}
