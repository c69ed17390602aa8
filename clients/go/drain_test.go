package troupe_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// The server says that it stops and closes with 1012. What the client makes of
// it depends on whether it has everything: then it must not come back, nor raise an alarm.
func TestEndOfADrainedSession(t *testing.T) {
	for name, tc := range map[string]struct {
		announced bool
		completed bool // the command is, when the server closes
		resumes   bool
	}{
		"all read":        {announced: true, completed: true},
		"command cut off": {announced: true, resumes: true},
		"not announced":   {completed: true, resumes: true}, // a proxy restarts
	} {
		t.Run(name, func(t *testing.T) {
			s := &fakeServer{script: noise(10_000, 9), hang: !tc.completed}
			var resumes atomic.Int64
			s.request = func(c *fakeConn, m fakeRequest) bool {
				switch m.Method {
				case wire.MethodStatus: // the test's sign to close
					closeAs(c, wire.CauseDraining)
					return true
				case wire.MethodResume:
					resumes.Add(1)
					c.refuse(m.ID, wire.Errorf(wire.CodeNoSession, "no such session"))
					return true
				case wire.MethodExecute:
					if tc.announced {
						c.notify(wire.MethodDraining, wire.Draining{DeadlineSeconds: 300})
					}
				}
				return false
			}
			var lost atomic.Int64
			c := dial(t, s.start(t), troupe.Options{OnNotice: func(n troupe.Notice) {
				if n.Kind != troupe.NoticeLost {
					return
				}
				lost.Add(1)
				if code := troupe.CloseCode(n.Err); code != wire.CauseDraining.Code() {
					t.Errorf("lost with code %d: %v", code, n.Err)
				}
			}})
			e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
			if err != nil {
				t.Fatal(err)
			}
			if tc.completed {
				if got, _ := collect(t, e); !bytes.Equal(got, s.script) {
					t.Fatalf("%d bytes", len(got))
				}
			}
			_, _ = c.Status(t.Context()) // closes
			<-c.Done()
			want := troupe.ErrSessionEnded
			if tc.resumes {
				want = troupe.ErrNoSession
			}
			if !errors.Is(c.Err(), want) {
				t.Errorf("the end is %v, want %v", c.Err(), want)
			}
			if got := resumes.Load() > 0; got != tc.resumes || lost.Load() > 0 != tc.resumes {
				t.Errorf("resumed %t with %d notices of a loss, want %t", got, lost.Load(), tc.resumes)
			}
		})
	}
}
