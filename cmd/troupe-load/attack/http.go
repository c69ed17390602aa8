package attack

import (
	"bytes"
	"context"
	"fmt"
	"strings"
)

// The attacks of this file need no token.

// request is the beginning of a request that could become a WebSocket.
const request = "GET /ws HTTP/1.1\r\nHost: troupe\r\n"

func headers(ctx context.Context, a *attacker) {
	begun := []byte(request + "X-Fill: " + strings.Repeat("x", 30_000))
	a.keep(ctx, a.spec.Client, a.scaled(8_000), func(c *conn) error {
		if _, err := c.Write(begun); err != nil {
			return err
		}
		return c.untilClosed()
	})
}

// onBoth divides an attack between the listeners that answer everybody. What runs in a pod reaches
// the admin listener too, because it shares the pod's network.
func (a *attacker) onBoth(ctx context.Context, n int, use func(*conn) error) {
	a.keep(ctx, a.spec.Client, a.scaled(n*9/10), use)
	a.keep(ctx, a.spec.Admin, a.scaled(n/10), use)
}

func keepAlive(ctx context.Context, a *attacker) {
	whole := []byte("GET /health HTTP/1.1\r\nHost: troupe\r\n\r\n")
	a.onBoth(ctx, 20_000, func(c *conn) error {
		if _, err := c.Write(whole); err != nil {
			return err
		}
		return c.untilClosed()
	})
}

func slowHeaders(ctx context.Context, a *attacker) {
	two := []byte(request)
	a.onBoth(ctx, 20_000, func(c *conn) error {
		if _, err := c.Write(two); err != nil {
			return err
		}
		return c.untilClosed()
	})
}

// pipeline sends requests on plain connections and status in sessions, and reads no answer.
func pipeline(ctx context.Context, a *attacker) {
	many := bytes.Repeat([]byte("GET /health HTTP/1.1\r\nHost: troupe\r\n\r\n"), 500)
	a.keep(ctx, a.spec.Client, a.scaled(200), func(c *conn) error {
		for {
			if _, err := c.Write(many); err != nil {
				return err
			}
		}
	})
	a.keep(ctx, a.spec.Client, a.scaled(5), func(c *conn) error {
		if err := c.openSession(); err != nil {
			return err
		}
		for id := 0; ; id++ {
			if err := c.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"status","id":%d}`, id)); err != nil {
				return err
			}
		}
	})
}
