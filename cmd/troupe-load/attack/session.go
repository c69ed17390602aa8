package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// The attacks of this file open sessions and run commands.

// execute is the request that starts a command. more is the rest of the params.
func execute(id, argv, more string) string {
	const request = `{"jsonrpc":"2.0","method":"execute","id":%q,"params":{"execution_id":%q,"argv":%s%s}}`
	return fmt.Sprintf(request, id, id, argv, more)
}

// stdin sends four commands input that they never read, and reads its answers.
func stdin(ctx context.Context, a *attacker) {
	const message = `{"jsonrpc":"2.0","method":"input","id":%d,"params":{"execution_id":"x%d","data":"%s"}}`
	data := strings.Repeat("x", 780_000)
	a.keep(ctx, a.spec.Client, a.scaled(95), func(c *conn) error {
		if err := c.openSession(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- c.discard() }()
		for i := range 4 {
			if err := c.send(execute(fmt.Sprintf("x%d", i), `["/bin/sleep","1000"]`, `,"stdin":true`)); err != nil {
				return err
			}
		}
		for i := range 4 {
			if err := c.send(fmt.Sprintf(message, i, i, data)); err != nil {
				return err
			}
		}
		return <-ended
	})
}

// yes starts as many executions of yes as a session may have.
func (c *conn) yes() error {
	if err := c.openSession(); err != nil {
		return err
	}
	argv := `["/usr/bin/yes","` + strings.Repeat("y", 500) + `"]`
	for i := range 8 {
		framing := `,"framing":"` + []string{"raw", "lines"}[i%2] + `"`
		if err := c.send(execute(fmt.Sprintf("y%d", i), argv, framing)); err != nil {
			return err
		}
	}
	return nil
}

func neverReads(ctx context.Context, a *attacker) {
	a.keep(ctx, a.spec.Client, a.scaled(5), func(c *conn) error {
		if err := c.yes(); err != nil {
			return err
		}
		// The server closes a connection that takes nothing. Reading would show it, so write.
		for {
			time.Sleep(time.Second)
			if err := c.send(`{"jsonrpc":"2.0","method":"pong"}`); err != nil {
				return err
			}
		}
	})
}

func readsSlowly(ctx context.Context, a *attacker) {
	a.keep(ctx, a.spec.Client, a.scaled(5), func(c *conn) error {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096) // without it, the attack is a little weaker
		}
		if err := c.yes(); err != nil {
			return err
		}
		for n := 0; ; n++ {
			if _, err := c.in.Discard(256); err != nil {
				return err
			}
			time.Sleep(250 * time.Millisecond)
			if n%40 == 0 { // the pings are somewhere in the output that waits
				if err := c.send(`{"jsonrpc":"2.0","method":"pong"}`); err != nil {
					return err
				}
			}
		}
	})
}

// evicts writes transcripts of the largest size one after the other.
func evicts(ctx context.Context, a *attacker) {
	a.keep(ctx, a.spec.Client, 2, func(c *conn) error {
		if err := c.openSession(); err != nil {
			return err
		}
		const full = `,"framing":"raw","on_output_limit":"cancel"`
		for i := 0; ; i++ {
			if err := c.send(execute(fmt.Sprintf("e%d", i), `["/usr/bin/yes"]`, full)); err != nil {
				return err
			}
			if _, err := c.await(`"method":"process.completed"`, `"error":{"code"`); err != nil {
				return err
			}
		}
	})
}

// large sends executions as large as a message can be. Each ends at once, and is kept.
func large(ctx context.Context, a *attacker) {
	long := func(n int) string { return strings.Repeat("x", n) }
	args, _ := json.Marshal(append([]string{"/bin/true"}, many(long(120_000), 7)...))
	env := map[string]string{}
	for i := range 7 {
		env[fmt.Sprintf("NAME_%d", i)] = long(120_000)
	}
	vars, _ := json.Marshal(env)
	names := map[string]string{}
	for i := range 40_000 {
		names[fmt.Sprintf("N%d", i)] = ""
	}
	small, _ := json.Marshal(names)
	requests := []func(id string) string{
		func(id string) string { return execute(id, string(args), "") },
		func(id string) string { return execute(id, `["/bin/true"]`, `,"env":`+string(vars)) },
		func(id string) string { return execute(id, `["/bin/true"]`, `,"env":`+string(small)) },
		func(id string) string { return execute(id, `["/`+long(900_000)+`"]`, "") },
		func(id string) string { return execute(id, `["/bin/true"]`, `,"cwd":"/`+long(900_000)+`"`) },
		func(id string) string { return execute(id, `["/bin/true"`+strings.Repeat(`,""`, 300_000)+`]`, "") },
		func(id string) string { return execute(id, `["/bin/true"]`, `,"traceparent":"`+long(900_000)+`"`) },
		func(id string) string { return execute(id, `["/bin/true"]`, "") },
	}
	a.keep(ctx, a.spec.Client, a.scaled(10), func(c *conn) error {
		if err := c.openSession(); err != nil {
			return err
		}
		for i := 0; ; i++ {
			id := fmt.Sprintf("%0128x", rand.Uint64())
			if err := c.send(requests[i%len(requests)](id)); err != nil {
				return err
			}
			if _, err := c.await(`"method":"process.completed"`, `"error":{"code"`); err != nil {
				return err
			}
		}
	})
}

func many(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}
