package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCopiesThroughTheIngress protects from: a proxy that gathers, cuts or refuses large files, and a copy that is
// slower than kubectl cp, which is what one would use without it.
//
// The release answers for every host that no other release has, so the test runs alone.
func TestCopiesThroughTheIngress(t *testing.T) {
	r := newRelease("files")
	r.host = ""
	t.Cleanup(func() { r.cleanUp(t) })
	if err := r.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	const size = 1 << 30
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	want := randomFile(t, file, size)
	c := r.dial(t)
	home := shell(t, c, `printf %s "$HOME"`)
	pod := r.pod(t)
	inPod := pod.Namespace + "/" + pod.Name + ":" + home + "/by-kubectl"
	troupeCopy := func(from, to string) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		began := time.Now()
		if out, err := r.cli(ctx, t, "cp", from, to).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("troupe cp %s %s: %v: %s", from, to, err, out)
		}
		return time.Since(began)
	}
	kubectlCopy := func(from, to string) time.Duration {
		t.Helper()
		began := time.Now()
		kubectl(t, "cp", from, to, "--container", "runner", "--retries", "0")
		return time.Since(began)
	}
	up := troupeCopy(file, c.ID()+":by-troupe")
	down := troupeCopy(c.ID()+":by-troupe", filepath.Join(dir, "back"))
	kubectlUp := kubectlCopy(file, inPod)
	kubectlDown := kubectlCopy(inPod, filepath.Join(dir, "back-by-kubectl"))
	if sum, _, _ := strings.Cut(shell(t, c, "sha256sum <by-troupe"), " "); sum != want {
		t.Errorf("the file arrived with the SHA-256 %s, want %s", sum, want)
	}
	if sum := sumOf(t, filepath.Join(dir, "back")); sum != want {
		t.Errorf("the file came back with the SHA-256 %s, want %s", sum, want)
	}
	rate := func(d time.Duration) float64 { return size / d.Seconds() / 1e6 }
	for _, way := range []struct {
		name          string
		ours, kubectl time.Duration
	}{{"up", up, kubectlUp}, {"down", down, kubectlDown}} {
		t.Logf("1 GiB %s: troupe cp %.0f MB/s, kubectl cp %.0f MB/s: %.1f times its rate", way.name, rate(way.ours),
			rate(way.kubectl), way.kubectl.Seconds()/way.ours.Seconds())
		if way.ours > way.kubectl {
			t.Errorf("%s, troupe cp takes %s and kubectl cp %s", way.name, way.ours, way.kubectl)
		}
	}
}

// randomFile writes random bytes and returns their SHA-256.
func randomFile(t *testing.T, name string, size int64) string {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func sumOf(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
