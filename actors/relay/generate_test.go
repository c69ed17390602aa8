package relay

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestGeneratedCodeIsCurrent keeps relay.pb.go what relay.proto says.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Skip("protoc is not installed: apt-get install protobuf-compiler")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "protoc", "--plugin=protoc-gen-go=protoc-gen-go.sh", "--go_out="+dir,
		"--go_opt=paths=source_relative", "relay.proto")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, out)
	}
	want, have := readGenerated(t, filepath.Join(dir, "relay.pb.go")), readGenerated(t, "relay.pb.go")
	if want != have {
		t.Fatal("relay.pb.go is not what protoc makes of relay.proto: run make generate")
	}
}

// protocVersion is the one line that says which protoc it was, which does not matter.
var protocVersion = regexp.MustCompile(`(?m)^// \tprotoc +v.*\n`)

func readGenerated(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return protocVersion.ReplaceAllString(string(b), "")
}
