package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// admitted waits for the server's decision about a new connection.
func admitted(c *socket) (bool, error) {
	if status, _, err := c.hear(); err != nil || status != http.StatusSwitchingProtocols {
		return false, errors.Join(err, fmt.Errorf("the handshake is answered with %d", status))
	}
	raw, err := c.read()
	if err != nil {
		return false, err
	}
	m, err := wire.DecodeServerMessage(raw)
	switch {
	case err != nil:
		return false, err
	case m.Method == wire.MethodConnected:
		return true, nil
	case m.Err == nil || m.Err.Code != wire.CodeSessionLimit || string(m.ID) != "null":
		return false, fmt.Errorf("refused with %s", raw)
	}
	if d := m.Err.Data; d == nil || d.Limit != "max-sessions" || d.Value != 100 || d.RetryAfterSeconds <= 0 {
		return false, fmt.Errorf("the refusal does not say which limit, or when to come back: %s", raw)
	}
	if _, err := c.read(); !errors.As(err, new(closed)) || !strings.HasPrefix(err.Error(), "closed with 1013 ") {
		return false, fmt.Errorf("a refused client is told %w", err)
	}
	return false, nil
}

// rush opens n connections at the same time.
func rush(t *testing.T, s *instance, n int) []*socket {
	t.Helper()
	all := make([]*socket, n)
	for i := range all {
		all[i] = knock(t, s, "/ws", nil)
	}
	return all
}

// lucky returns those of the connections that get a session.
func lucky(t *testing.T, all []*socket) []*socket {
	t.Helper()
	in := make([]bool, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() {
			var err error
			if in[i], err = admitted(c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var chosen []*socket
	for i, c := range all {
		if in[i] {
			chosen = append(chosen, c)
		} else {
			c.conn.Close()
		}
	}
	return chosen
}

// active asks how many sessions there are.
func (s *instance) active() int {
	s.t.Helper()
	_, body := s.get(s.http + "/health")
	var health struct {
		Active int `json:"active_sessions"`
	}
	if err := json.Unmarshal([]byte(body), &health); err != nil {
		s.t.Fatalf("%v: %s", err, body)
	}
	return health.Active
}

func (s *instance) awaitActive(n int) {
	s.t.Helper()
	eventually(s.t, func() error {
		if active := s.active(); active != n {
			return fmt.Errorf("%d sessions, want %d", active, n)
		}
		return nil
	})
}

// TestPromise01CeilingIsExactOverSockets: of 105 connections that come at once 100
// get a session and 5 are told -32001 and closed with 1013; never 99 or 101. Then
// sessions end in every way while others come: those that come get what is free.
func TestPromise01CeilingIsExactOverSockets(t *testing.T) {
	s := launch(t, "--resume-window", "50ms")
	for round := range soak(10, 200) {
		in := lucky(t, rush(t, s, 105))
		if len(in) != 100 {
			t.Fatalf("round %d: %d of 105 have a session", round, len(in))
		}
		if active := s.active(); active != 100 {
			t.Fatalf("round %d: /health says %d", round, active)
		}
		// 40 leave and 60 come at the same time.
		var leaving sync.WaitGroup
		for i, c := range in[:40] {
			leaving.Go(func() { leave(c, i) })
		}
		early := lucky(t, rush(t, s, 60))
		leaving.Wait()
		if active := s.active(); active > 100 || len(early) > 40 {
			t.Fatalf("round %d: %d new clients took 40 slots, there are %d sessions", round, len(early), active)
		}
		// Once the ends are through, exactly the rest is free.
		s.awaitActive(60 + len(early))
		late := lucky(t, rush(t, s, 45-len(early)))
		if len(early)+len(late) != 40 {
			t.Fatalf("round %d: 40 slots came free, %d and %d were taken", round, len(early), len(late))
		}
		for i, c := range append(append(in[40:], early...), late...) {
			leave(c, i)
		}
		s.awaitActive(0)
	}
}

// leave ends a connection in one of the ways there are.
func leave(c *socket, how int) {
	switch how % 3 {
	case 0:
		_ = c.write(opText, []byte(`{"jsonrpc":"2.0","method":"close","id":1}`))
		for { // a client that waits for the answer, and for the server's close
			if _, err := c.read(); err != nil {
				break
			}
		}
		c.conn.Close()
	case 1:
		_ = c.write(opClose, []byte{1000 >> 8, 1000 & 0xff})
		c.conn.Close()
	default:
		c.cut()
	}
}

// stubborn is a tree that outlives SIGTERM and lets go of its output.
const stubborn = `trap "" TERM HUP; setsid BASH -c 'trap "" TERM; while :; do SLEEP 1000; done' >/dev/null 2>&1 &
	echo ready; while :; do SLEEP 1000; done`

// crowd takes a while to die, even of SIGKILL: long enough for a client to come in between.
const crowd = `trap "" TERM; for i in {1..300}; do setsid SLEEP 1000 & done >/dev/null 2>&1; ` + stubborn

// TestPromise02SlotFollowsTheProcesses: whichever way a session ends, its slot comes
// back, and when the next client has it, no process of the first is left.
func TestPromise02SlotFollowsTheProcesses(t *testing.T) {
	s := launch(t, "--max-sessions", "1", "--resume-window", "100ms", "--cancel-grace", "400ms", "--cgroup", "off")
	for _, c := range []struct {
		name, path string
		end        func(*socket)
	}{
		{"close", "/ws", func(c *socket) { c.request(wire.MethodClose, struct{}{}) }},
		{"close code 1000", "/ws", (*socket).done},
		{"connection lost for the resume window", "/ws", (*socket).cut},
		{"cc-executor's connection closed", "/ws/mcp", (*socket).done},
		{"cc-executor's connection lost", "/ws/mcp", (*socket).cut},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTrace(t)
			client, _ := session(t, s, c.path)
			client.said(client.start(wire.ExecuteParams{Argv: m.argv(crowd)}), "ready\n")
			m.await(304)
			c.end(client)
			refused := 0
			var next *socket
			eventually(t, func() error {
				next = open(t, s, "/ws")
				raw, err := next.read()
				if err == nil && strings.Contains(string(raw), `"method":"connected"`) {
					return nil
				}
				next.conn.Close()
				refused++
				return fmt.Errorf("refused %d times, the last time with %s", refused, raw)
			})
			m.none()
			t.Logf("refused %d times", refused)
			next.done()
			next.end()
			s.awaitActive(0)
		})
	}
}

// TestPromise02IdleSessionsGiveTheirSlotBack: a session that no client uses does not keep its slot
// from another client.
func TestPromise02IdleSessionsGiveTheirSlotBack(t *testing.T) {
	s := launch(t, "--max-sessions", "1", "--idle-timeout", "100ms")
	idle, _ := session(t, s, "/ws")
	if end := idle.end(); end.code != 1000 {
		t.Error(end)
	}
	s.awaitActive(0)
	session(t, s, "/ws")
}
