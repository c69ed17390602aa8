package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
)

// openRaw opens n WebSockets by hand and reads connected from each. Ten thousand
// client packages would cost this process more than they cost the server.
func openRaw(ctx context.Context, url string, n int) ([]net.Conn, error) {
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/ws")
	var conns []net.Conn
	var dialer net.Dialer
	for range n {
		c, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
		if _, err := fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", addr); err != nil {
			return conns, err
		}
		in := bufio.NewReaderSize(c, 4096)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return conns, err
			}
			if strings.TrimSpace(line) == "" {
				break
			}
		}
		head, err := in.Peek(4)
		if err != nil {
			return conns, err
		}
		size := int(head[1])
		if size == 126 {
			size = int(head[2])<<8 | int(head[3])
		}
		frame, err := in.Peek(4 + min(size, 2048))
		if err != nil {
			return conns, fmt.Errorf("session %d: %w", len(conns), err)
		}
		if !strings.Contains(string(frame), `"connected"`) {
			return conns, fmt.Errorf("session %d was refused: %q", len(conns), frame)
		}
	}
	return conns, nil
}
