package k8s

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestFloodIsBounded: two thousand random tokens per second cause few requests, and a client that
// was let in before still gets in at once.
func TestFloodIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Millisecond)
			reviewer(w, r)
		}}
		auth := newAuth(t, api, nil)
		if _, err := auth.Authenticate(background(), "good:ann"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second) // the answer is stale
		before := len(api.asked(""))
		var flood sync.WaitGroup
		busy := 0
		var mu sync.Mutex
		const seconds = 10
		for second := range seconds {
			for i := range 2_000 {
				flood.Go(func() {
					_, err := auth.Authenticate(background(), fmt.Sprintf("random-%d-%d", second, i))
					if errors.Is(err, errBusy) {
						mu.Lock()
						busy++
						mu.Unlock()
					} else if !errors.Is(err, ErrBadToken) {
						t.Errorf("got %v", err)
					}
				})
			}
			synctest.Wait()
			began := time.Now()
			subject, err := auth.Authenticate(background(), "good:ann")
			if subject != "ann" || err != nil || time.Since(began) > 20*time.Millisecond {
				t.Errorf("a known client got %q, %v after %v", subject, err, time.Since(began))
			}
			time.Sleep(time.Second)
		}
		flood.Wait()
		asked := len(api.asked("")) - before
		if limit := reviewsBurst + (seconds+maxPending/reviewRate+1)*reviewRate; asked > limit {
			t.Errorf("%d requests, want at most %d", asked, limit)
		}
		if api.most > 2*maxReviews {
			t.Errorf("%d requests at a time, want at most %d", api.most, 2*maxReviews)
		}
		if busy < seconds*2_000-asked-maxPending {
			t.Errorf("%d of the flood were turned away at once", busy)
		}
		if n := len(auth.refused.byID); n > maxAnswers {
			t.Errorf("%d answers kept", n)
		}
		t.Logf("%d requests for %d tokens, at most %d at a time, %d turned away at once",
			asked, seconds*2_000, api.most, busy)
	})
}

// TestManyClientsAtOnce: a hundred new clients connect at the same time, and all get in at once.
func TestManyClientsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Millisecond)
			reviewer(w, r)
		}}
		auth := newAuth(t, api, nil)
		began := time.Now()
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if _, err := auth.Authenticate(background(), fmt.Sprintf("good:client-%d", i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestNoClientWaitsLongerThanAHandshake when the API server hangs, not even behind others. When the
// API server is back, all slots are free.
func TestNoClientWaitsLongerThanAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: hang}
		auth := newAuth(t, api, nil)
		for range 3 {
			began := time.Now()
			var all sync.WaitGroup
			for i := range maxPending {
				all.Go(func() {
					_, err := auth.Authenticate(background(), fmt.Sprintf("good:client-%d", i))
					if err == nil || isRefused(err) || errors.Is(err, errBusy) {
						t.Errorf("got %v", err)
					}
				})
			}
			all.Wait()
			if took := time.Since(began); took > reviewTimeout {
				t.Errorf("took %v", took)
			}
		}
		api.become(reviewer)
		for i := range 2 * maxPending {
			if _, err := auth.Authenticate(background(), fmt.Sprintf("good:late-%d", i)); err != nil {
				t.Fatalf("afterwards: %v", err)
			}
		}
	})
}

// TestCloseEndsReviews while the API server does not answer.
func TestCloseEndsReviews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: hang}
		auth := newAuth(t, api, nil)
		got := make(chan error, 100)
		for i := range cap(got) {
			go func() {
				_, err := auth.Authenticate(background(), fmt.Sprint("good:", i))
				got <- err
			}()
		}
		synctest.Wait()
		began := time.Now()
		auth.Close()
		if api.mu.Lock(); api.running > 0 {
			t.Errorf("%d requests are left after Close", api.running)
		}
		api.mu.Unlock()
		for range cap(got) {
			if err := <-got; err == nil || isRefused(err) {
				t.Errorf("got %v", err)
			}
		}
		if _, err := auth.Authenticate(background(), "good:late"); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
		if time.Since(began) > 0 {
			t.Errorf("took %v", time.Since(began))
		}
		if n := api.failures(t, opTokenReview); n != 0 {
			t.Errorf("%d failures counted for reviews that Close canceled", n)
		}
	})
}
