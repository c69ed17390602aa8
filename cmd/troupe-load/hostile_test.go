package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHostileClientsAreSurvived attacks a trouped that has the chart's limits with everything that
// `troupe-load -only hostile` has, a quarter as large and for a sixth of the time. It looks at
// memory, deaths, and errors of honest clients, and not at times, which other tests on the machine
// change.
func TestHostileClientsAreSurvived(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	bin := t.TempDir()
	// Programs without the race detector, whose memory says nothing.
	build := exec.Command("go", "build", "-o", bin, "../trouped", "../troupe", "../troupe-runner", ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	e, err := newEnv(bin, true)
	if err != nil {
		t.Fatal(err)
	}
	e.self = filepath.Join(bin, "troupe-load")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f, err := runHostile(ctx, e, hostileForm{
		idle: time.Second, period: 10 * time.Second, scale: 0.25, patience: 10 * time.Second,
		args: []string{"--transcript-budget", "268435456"}, // which this is long enough to fill
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.died != "" {
		t.Errorf("the server died: %s", f.died)
	}
	if f.peak == 0 || f.peak >= peakTarget {
		t.Errorf("its memory reached %s", mib(f.peak))
	}
	if f.failed > 0 {
		t.Errorf("%d errors of honest clients in %d commands:\n%s", f.failed, f.commands, strings.Join(f.failures, "\n"))
	}
	var idle []string
	for _, a := range f.attacks {
		if a.Connections == 0 {
			idle = append(idle, a.name)
		}
	}
	// On a busy machine, an attack may still be preparing when the time is over.
	if len(idle) > len(f.attacks)/2 {
		t.Errorf("these attacks did nothing: %v", idle)
	}
	before, during := f.idle.quantile(0.99), f.attacked.quantile(0.99)
	t.Logf("at most %s; /bin/true took %s at p99, %s before", mib(f.peak), ms(during), ms(before))
}

// TestHostileUsesTheChartsLimit: a measurement with another limit says nothing about the chart.
func TestHostileUsesTheChartsLimit(t *testing.T) {
	values, err := os.ReadFile("../../charts/troupe/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, server, _ := strings.Cut(string(values), "\nserver:\n")
	server, _, _ = strings.Cut(server, "\nrunner:\n")
	if !strings.Contains(server, "limits: {memory: 256Mi}") || chartMemory != 256<<20 {
		t.Errorf("chartMemory is %s; the chart has:\n%s", mib(chartMemory), server)
	}
}
