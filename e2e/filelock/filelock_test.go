package filelock

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOneHasIt: flock belongs to the open file, so two of one process exclude
// each other as two processes do.
func TestOneHasIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Lock(t.Context(), path, func() { t.Error("the lock is free") })
	if err != nil {
		t.Fatal(err)
	}
	waits, got := make(chan struct{}), make(chan error, 1)
	go func() {
		second, err := Lock(t.Context(), path, func() { close(waits) })
		if err == nil {
			second()
		}
		got <- err
	}()
	select {
	case <-waits:
	case err := <-got:
		t.Fatalf("two have it: %v", err)
	}
	release()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestWaitIsCancelled protects from: a command that Ctrl-C does not end while
// another one builds for half an hour.
func TestWaitIsCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Lock(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	why := errors.New("ended")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, why)
	defer cancel()
	if _, err := Lock(ctx, path, nil); !errors.Is(err, why) {
		t.Errorf("the wait ended with %v", err)
	}
}
