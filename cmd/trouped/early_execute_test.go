package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// A client saves a round trip when it sends execute without waiting for connected. The server keeps
// the order of messages, also when the request arrives before the handshake is answered.
func TestExecuteNeedNotWaitForConnected(t *testing.T) {
	s := launch(t)
	for name, hearFirst := range map[string]bool{"before the handshake is answered": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				c := knock(t, s, "/ws", nil)
				heard := func() {
					if status, _, err := c.hear(); err != nil || status != http.StatusSwitchingProtocols {
						t.Fatalf("handshake: %d, %v", status, err)
					}
				}
				if hearFirst {
					heard()
				}
				c.request(wire.MethodExecute, wire.ExecuteParams{ExecutionID: "x", Command: "echo hello"})
				c.request(wire.MethodStatus, wire.StatusParams{})
				if !hearFirst {
					heard()
				}
				var order []string
				for !slices.Contains(order, wire.MethodCompleted) {
					m := c.next()
					switch {
					case m.Err != nil:
						t.Fatalf("answer %s: %v", m.ID, m.Err)
					case m.Method != "":
						order = append(order, m.Method)
					default:
						order = append(order, "answer "+m.ID.String())
					}
				}
				order = slices.DeleteFunc(order, func(s string) bool { return s == "answer 2" }) // to another request: anywhere
				want := "connected, answer 1, process.started, process.output, process.completed"
				if got := strings.Join(order, ", "); got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
				c.done()
			}
		})
	}
}
