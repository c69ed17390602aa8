package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestNeighboursOfOffendersFinish runs one round of `troupe-load -only bounds`: builds finish beside a
// fork bomb, a memory hog and a disk filler, whose clients are told why they ended. It does not look
// at times, which other tests on the machine change.
func TestNeighboursOfOffendersFinish(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "../trouped", "../troupe", "../troupe-runner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	e, err := newEnv(bin, true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	f, err := runBounds(ctx, e, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.beside) != neighbours || len(f.untold) > 0 {
		t.Errorf("%d builds finished; not told why they ended: %s", len(f.beside), strings.Join(f.untold, "; "))
	}
	t.Logf("builds took %s at p95, %s alone", ms(f.beside.quantile(0.95)), ms(f.alone.quantile(0.95)))
}
