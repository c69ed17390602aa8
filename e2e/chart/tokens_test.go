package chart

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestGeneratedTokenIsLong: 43 characters of 62 are 256 bits. Protects from: a
// Secret that trouped cannot read, or that can be guessed, or that is the same everywhere.
func TestGeneratedTokenIsLong(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		secret := generated(t, renderNamed(t, "default"))
		line := string(secret.Data["tokens"])
		if !regexp.MustCompile(`^default [A-Za-z0-9]{43}\n$`).MatchString(line) {
			t.Errorf("the Secret has %q", base64.StdEncoding.EncodeToString(secret.Data["tokens"]))
		}
		seen[line] = true
	}
	if len(seen) != 2 {
		t.Error("two installations have the same token")
	}
}

// generated returns the Secret that is made, and checks that the one which
// uninstall makes and removes would not undo it where both are applied.
func generated(t *testing.T, r *rendering) *corev1.Secret {
	t.Helper()
	var made []*corev1.Secret
	for _, o := range r.find("Secret") {
		secret := &corev1.Secret{}
		if err := yaml.UnmarshalStrict([]byte(o.text), secret); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(secret.Name, "-tokens") {
			made = append(made, secret)
		}
	}
	if len(made) != 2 || made[0].Name != made[1].Name || string(made[0].Data["tokens"]) != string(made[1].Data["tokens"]) {
		t.Fatalf("the Secrets are %v, want the same tokens twice", made)
	}
	if strings.Contains(r.manifest, "name: "+made[0].Name+"\n  namespace") {
		t.Error("the Secret is a part of the release, so a rollback would undo what was edited")
	}
	return made[0]
}

// TestVolumesOfTheChartAreReserved reads the names from a rendering with every
// volume. Protects from: a new volume of the chart's that a command may mount.
func TestVolumesOfTheChartAreReserved(t *testing.T) {
	_, spec := container(t, renderNamed(t, "default"), "runner")
	for _, v := range spec.Volumes {
		if _, err := render(loadChart(t),
			parse(t, "runner: {volumeMounts: [{name: "+v.Name+", mountPath: /x}]}")); err == nil {
			t.Errorf("a command may mount %s", v.Name)
		}
	}
	if len(spec.Volumes) != 7 {
		t.Errorf("there are %d volumes, want 7, the API token's among them", len(spec.Volumes))
	}
}
