package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
)

// openRaw opens n WebSockets by hand, one after the other. Ten thousand instances of the client
// package would cost this process more than they cost the server.
func openRaw(ctx context.Context, url string, n int) ([]net.Conn, error) {
	var conns []net.Conn
	for range n {
		c, err := openOne(ctx, url)
		if err != nil {
			return conns, fmt.Errorf("session %d: %w", len(conns), err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// openOne opens a WebSocket and waits for connected.
func openOne(ctx context.Context, url string) (net.Conn, error) {
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/ws")
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := handshake(c, addr); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// upgradeRequest asks for a WebSocket; %s is the host.
const upgradeRequest = "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func handshake(c net.Conn, addr string) error {
	if _, err := fmt.Fprintf(c, upgradeRequest, addr); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 4096)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	head, err := in.Peek(4)
	if err != nil {
		return err
	}
	size := int(head[1])
	if size == 126 {
		size = int(head[2])<<8 | int(head[3])
	}
	frame, err := in.Peek(4 + min(size, 2048))
	if err != nil {
		return err
	}
	if !strings.Contains(string(frame), `"connected"`) {
		return fmt.Errorf("refused: %q", frame)
	}
	return nil
}
