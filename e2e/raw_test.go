package e2e

import (
	"context"
	"net/http"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// raw is a bare WebSocket: for what clients/go hides, such as close codes
// and refusals, and for a client that does nothing by itself.
type raw struct{ ws *websocket.Conn }

// dialRaw makes a WebSocket to the release. When the server refuses the
// handshake the HTTP status is returned with the error.
func (r *release) dialRaw(ctx context.Context, dial dialer) (*raw, int, error) {
	header := http.Header{}
	if r.token != "" {
		header.Set("Authorization", "Bearer "+r.token)
	}
	ws, resp, err := websocket.Dial(ctx, r.url(), &websocket.DialOptions{HTTPClient: httpClient(dial), HTTPHeader: header})
	if err != nil {
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		return nil, status, err
	}
	ws.SetReadLimit(16 << 20)
	return &raw{ws}, resp.StatusCode, nil
}

// next reads a message.
func (c *raw) next(ctx context.Context) (wire.Message, error) {
	_, frame, err := c.ws.Read(ctx)
	if err != nil {
		return wire.Message{}, err
	}
	return wire.DecodeServerMessage(frame)
}

// closeCode is the code of the close frame in err's chain, -1 if there is none.
func closeCode(err error) int { return int(websocket.CloseStatus(err)) }

// done ends the session, as a client that is finished does.
func (c *raw) done() error { return c.ws.Close(websocket.StatusNormalClosure, "") }
