// Command floor is a minimal program that does what `troupe exec -- true` does: it links only
// net/http and the WebSocket library. Without an argument it exits immediately. cmd/troupe-load
// builds it and measures it beside troupe.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/coder/websocket"
)

func main() {
	if len(os.Args) < 2 {
		return
	}
	if err := runTrue(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

// runTrue connects, runs /bin/true and ends the session.
func runTrue(ctx context.Context, url string) error {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	request := []byte(`{"jsonrpc":"2.0","method":"execute","id":1,"params":{"argv":["/bin/true"]}}`)
	if err := ws.Write(ctx, websocket.MessageText, request); err != nil {
		return err
	}
	for {
		_, msg, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		if bytes.Contains(msg, []byte(`"process.completed"`)) {
			return ws.Close(websocket.StatusNormalClosure, "")
		}
	}
}
