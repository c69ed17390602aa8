package chart

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"sigs.k8s.io/yaml"
)

// update is set by go generate: the golden files and the README are written again.
var update = os.Getenv("UPDATE_GOLDEN") != ""

const (
	chartDir    = "../../charts/troupe"
	releaseName = "troupe"
	namespace   = "commands"
)

// object is one rendered object.
type object struct {
	Kind     string
	Metadata struct {
		Name, Namespace     string
		Labels, Annotations map[string]string
	}
	text string
}

// rendering is what helm would send to a cluster.
type rendering struct {
	manifest string // without hooks
	objects  []object
	notes    string
}

// images are the values that the chart asks for. Tests have them as defaults.
const images = "image: {repository: images.example.com/troupe/trouped}\nrunner: {image: {repository: images.example.com/troupe/runner}}"

func loadChart(t testing.TB) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	c.Values = chartutil.CoalesceTables(parse(t, images), c.Values)
	return c
}

// render does what `helm install` does before it talks to a cluster: it checks
// the values against the schema, and renders templates, hooks and notes.
func render(c *chart.Chart, values map[string]any) (*rendering, error) {
	install := action.NewInstall(&action.Configuration{})
	install.ReleaseName, install.Namespace = releaseName, namespace
	install.DryRun, install.ClientOnly, install.Replace = true, true, true
	install.KubeVersion = &chartutil.KubeVersion{Version: "v1.37.2", Major: "1", Minor: "37"}
	release, err := install.Run(c, values)
	if err != nil {
		return nil, err
	}
	r := &rendering{manifest: release.Manifest, notes: release.Info.Notes}
	texts := strings.Split(release.Manifest, "\n---\n")
	for _, hook := range release.Hooks {
		texts = append(texts, hook.Manifest)
	}
	for _, text := range texts {
		o := object{text: text}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			return nil, err
		}
		if o.Kind != "" {
			r.objects = append(r.objects, o)
		}
	}
	return r, nil
}

// parse reads values as helm reads a values file.
func parse(t testing.TB, text string) map[string]any {
	t.Helper()
	values, err := chartutil.ReadValues([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// values returns the files of testdata/values by their name.
func values(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil || len(paths) < 10 {
		t.Fatalf("testdata/values has %d files: %v", len(paths), err)
	}
	all := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".yaml")] = string(text)
	}
	return all
}

// forEach runs check over the rendering of each file of testdata/values.
func forEach(t *testing.T, check func(t *testing.T, name string, r *rendering)) {
	t.Helper()
	all := values(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			r, err := render(loadChart(t), parse(t, all[name]))
			if err != nil {
				t.Fatal(err)
			}
			check(t, name, r)
		})
	}
}

// renderNamed renders one file of testdata/values.
func renderNamed(t testing.TB, name string) *rendering {
	t.Helper()
	r, err := render(loadChart(t), parse(t, values(t)[name]))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// find returns the objects of a kind.
func (r *rendering) find(kind string) []object {
	var found []object
	for _, o := range r.objects {
		if o.Kind == kind {
			found = append(found, o)
		}
	}
	return found
}

// decode reads the only object of a kind strictly into an API type.
func decode[T any](t testing.TB, r *rendering, kind string) *T {
	t.Helper()
	return decodeOnly[T](t, r.find(kind), kind)
}

// decodeNamed reads an object that is one of several of its kind.
func decodeNamed[T any](t testing.TB, r *rendering, kind, name string) *T {
	t.Helper()
	return decodeOnly[T](t, slices.DeleteFunc(r.find(kind), func(o object) bool { return o.Metadata.Name != name }),
		kind+" "+name)
}

func decodeOnly[T any](t testing.TB, found []object, what string) *T {
	t.Helper()
	if len(found) != 1 {
		t.Fatalf("there are %d objects %s, want one", len(found), what)
	}
	into := new(T)
	if err := yaml.UnmarshalStrict([]byte(found[0].text), into); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return into
}

// config returns the configuration file of trouped.
func (r *rendering) config(t testing.TB) string {
	t.Helper()
	for _, o := range r.find("ConfigMap") {
		var data struct{ Data map[string]string }
		if err := yaml.Unmarshal([]byte(o.text), &data); err != nil {
			t.Fatal(err)
		}
		if text, ok := data.Data["trouped.yaml"]; ok {
			return text
		}
	}
	t.Fatal("no ConfigMap has trouped.yaml")
	return ""
}

// random is what no two renderings have in common.
var random = regexp.MustCompile(`(?m)^(  (?:tokens|ca\.crt|ca\.key|tls\.crt|tls\.key)|    troupe.dev/renew-after): \S+$`)
