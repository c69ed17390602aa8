package image

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/yaml"
)

// skaffold is the part of skaffold.yaml that has to agree with other files.
type skaffold struct {
	Build struct {
		Artifacts []artifact `json:"artifacts"`
	} `json:"build"`
	Deploy struct {
		Helm struct {
			Releases []struct {
				Name              string            `json:"name"`
				ChartPath         string            `json:"chartPath"`
				SetValueTemplates map[string]string `json:"setValueTemplates"`
				SetValues         map[string]any    `json:"setValues"`
			} `json:"releases"`
		} `json:"helm"`
	} `json:"deploy"`
	PortForward []struct {
		ResourceName string `json:"resourceName"`
		Port         int    `json:"port"`
		LocalPort    int    `json:"localPort"`
	} `json:"portForward"`
	Profiles []struct {
		Build struct {
			Artifacts []artifact `json:"artifacts"`
		} `json:"build"`
	} `json:"profiles"`
}

type artifact struct {
	Image  string `json:"image"`
	Docker struct {
		Target string `json:"target"`
	} `json:"docker"`
	Custom struct {
		BuildCommand string `json:"buildCommand"`
	} `json:"custom"`
}

func readSkaffold(t *testing.T) ([]byte, skaffold) {
	t.Helper()
	b, err := os.ReadFile("../../skaffold.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var s skaffold
	if err := yaml.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return b, s
}

// TestSkaffoldIsValid by the schema that skaffold publishes. The program itself
// would say no more before it builds.
func TestSkaffoldIsValid(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("testdata/skaffold-v4beta13.json")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := readSkaffold(t)
	check := func(text string) error {
		t.Helper()
		js, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(js)))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	if err := check(string(text)); err != nil {
		t.Error(err)
	}
	// The schema is one that refuses.
	for _, wrong := range []string{"useBuildkit", "chartPath", "setValueTemplates", "localPort", "buildCommand"} {
		if check(strings.Replace(string(text), wrong+":", wrong+"s:", 1)) == nil {
			t.Errorf("%ss is taken", wrong)
		}
	}
}

// TestSkaffoldAgreesWithChartAndDockerfile: a value or a target that was renamed
// would otherwise be found by the next developer.
func TestSkaffoldAgreesWithChartAndDockerfile(t *testing.T) {
	_, s := readSkaffold(t)
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	template := regexp.MustCompile(`^\{\{\.IMAGE_(REPO|TAG)_(\w+)\}\}$`)
	known := map[string]bool{}
	for _, a := range s.Build.Artifacts {
		known[strings.NewReplacer("/", "_", ".", "_", "-", "_").Replace(a.Image)] = true
		if !strings.Contains(string(dockerfile), " AS "+a.Docker.Target+"\n") {
			t.Errorf("the Dockerfile has no target %s", a.Docker.Target)
		}
		for _, p := range s.Profiles {
			i := slices.IndexFunc(p.Build.Artifacts, func(b artifact) bool { return b.Image == a.Image })
			if i < 0 || !strings.Contains(p.Build.Artifacts[i].Custom.BuildCommand, "--target "+a.Docker.Target+" ") {
				t.Errorf("a profile does not build %s of target %s", a.Image, a.Docker.Target)
			}
		}
	}
	release := s.Deploy.Helm.Releases[0]
	chart, err := loader.Load("../../" + release.ChartPath)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]any{}
	for key, value := range release.SetValueTemplates {
		m := template.FindStringSubmatch(value)
		if m == nil || !known[m[2]] {
			t.Errorf("%s: %s names no artifact of %q", key, value, slices.Sorted(maps.Keys(known)))
		}
		set[key] = "sample"
	}
	maps.Copy(set, release.SetValues)
	values := map[string]any{}
	for key, value := range set {
		if _, err := chartutil.Values(chart.Values).PathValue(key); err != nil {
			t.Errorf("%s is no value of the chart: %v", key, err)
		}
		text, err := yaml.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := strvals.ParseInto(key+"="+strings.TrimSpace(string(text)), values); err != nil {
			t.Fatal(err)
		}
	}
	// This validates them against the chart's schema, too.
	if _, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: release.Name}, nil); err != nil {
		t.Error(err)
	}
	port, err := chartutil.Values(chart.Values).PathValue("service.port")
	if f := s.PortForward[0]; err != nil || port != float64(f.Port) || f.ResourceName != chart.Name() ||
		f.ResourceName != release.Name || f.LocalPort != 8003 {
		t.Errorf("forwarded is %+v; the service of release %s has port %v, %v", f, release.Name, port, err)
	}
}
