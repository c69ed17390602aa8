package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// TestFailuresOfAnAddressAreBounded: so many at once, then one each interval, and all again after a pause. What one
// address sends changes nothing for another; hosts have 64 bits of IPv6, and one address, however it is written.
func TestFailuresOfAnAddressAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f failures
		count := func(remote string) (n int) {
			for ; f.add(remote) == nil; n++ {
				if n > 2*MaxFailures {
					t.Fatalf("%s has no bound", remote)
				}
			}
			return n
		}
		for _, c := range []struct {
			remote string
			want   int
		}{
			{"192.0.2.1:1000", MaxFailures},
			{"192.0.2.1:1001", 0},
			{"[::ffff:192.0.2.1]:1002", 0},
			{"192.0.2.2:1000", MaxFailures},
			{"[2001:db8::1]:1000", MaxFailures},
			{"[2001:db8::ffff:1]:1000", 0},
			{"[2001:db8:0:1::1]:1000", MaxFailures},
			{"[fe80::1%eth0]:1000", MaxFailures},
			{"@", MaxFailures},
		} {
			if got := count(c.remote); got != c.want {
				t.Errorf("%s may fail %d times, want %d", c.remote, got, c.want)
			}
		}
		time.Sleep(failureInterval / 2)
		var often *tooManyFailures
		if err := f.add("192.0.2.1:1"); !errors.As(err, &often) || often.wait != failureInterval/2 {
			t.Errorf("half an interval later: %v", err)
		}
		time.Sleep(failureInterval / 2)
		if got := count("192.0.2.1:1"); got != 1 {
			t.Errorf("an interval later it may fail %d times", got)
		}
		time.Sleep(3 * MaxFailures * failureInterval)
		if got := count("192.0.2.1:1"); got != MaxFailures {
			t.Errorf("after a pause it may fail %d times", got)
		}
	})
}

// TestNoMoreThanMaxFailedAddressesAreRemembered, and those with nothing to make up for give way first.
func TestNoMoreThanMaxFailedAddressesAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f failures
		flood := func(network string) {
			for i := range 3 * MaxFailed {
				_ = f.add(fmt.Sprintf("%s.%d.%d:1", network, i>>8, i&255))
				if len(f.until) > MaxFailed {
					t.Fatalf("%d addresses are remembered", len(f.until))
				}
			}
		}
		flood("10.0")
		time.Sleep(2 * failureInterval)
		for range MaxFailures {
			if err := f.add("192.0.2.1:1"); err != nil {
				t.Fatal(err)
			}
		}
		_ = f.add("192.0.2.2:1")
		if len(f.until) != 2 {
			t.Errorf("%d addresses are remembered after a pause, want 2", len(f.until))
		}
	})
}

// TestRightTokenPassesAmongFailures: an address that has sent too many wrong tokens is told when to try again, and
// whoever shares it connects. No token is not a wrong one: that is how a page finds out that it needs one.
func TestRightTokenPassesAmongFailures(t *testing.T) {
	auth, err := NewTokenFile(tokenFile(t, "alice "+goodToken+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) { c.Auth = auth })
	dial := func(authorization string) handshake {
		t.Helper()
		header := http.Header{}
		if authorization != "" {
			header.Set("Authorization", authorization)
		}
		_, h := f.dial(t, "/ws", &websocket.DialOptions{HTTPHeader: header})
		return h
	}
	for i := range MaxFailures {
		wrong := "Bearer wrong-token-wrong-token" + strconv.Itoa(i)
		if i%2 == 0 {
			wrong = "Basic YTpi"
		}
		if h := dial(wrong); h.status != http.StatusUnauthorized {
			t.Fatalf("failure %d: %+v", i, h)
		}
	}
	for range 3 {
		h := dial("Bearer wrong-token-wrong-token")
		if seconds, _ := strconv.Atoi(h.header.Get("Retry-After")); h.status != http.StatusTooManyRequests || seconds != 2 {
			t.Errorf("one too many: %+v", h)
		}
		wantRefusal(t, h)
		if h := dial(""); h.status != http.StatusUnauthorized {
			t.Errorf("no token: %+v", h)
		}
		if h := dial("Bearer " + goodToken); h.status != http.StatusSwitchingProtocols {
			t.Errorf("the right token: %+v", h)
		}
	}
	if n := value(f.gateway.metrics.authFailures.WithLabelValues(authOften)); n != 3 {
		t.Errorf("%v failures of the kind often, want 3", n)
	}
}
