package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"

	"github.com/coder/websocket"
)

// bareServerArg makes this program the floor of the websocketd measurement.
const bareServerArg = "bare-server"

// bareServer runs the command in a client's first message with os/exec, and reports its start and
// end. It has no sessions, limits, log or metrics, and drops the output.
func bareServer() error {
	return serveHelper(func(w http.ResponseWriter, r *http.Request) {
		if err := runBare(w, r); err != nil {
			fmt.Fprintln(os.Stderr, "bare server:", err)
		}
	})
}

func runBare(w http.ResponseWriter, r *http.Request) error {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	ctx := context.Background() // as in the gateway: the library registers a callback on a cancellable one
	_, frame, err := ws.Read(ctx)
	if err != nil {
		return err
	}
	var request struct {
		Params struct {
			Argv []string `json:"argv"`
		} `json:"params"`
	}
	if err := json.Unmarshal(frame, &request); err != nil {
		return err
	}
	cmd := exec.Command(request.Params.Argv[0], request.Params.Argv[1:]...)
	var stdout, stderr bytes.Buffer // through pipes, as in troupe
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte(`{"jsonrpc":"2.0","method":"process.started"}`)); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte(`{"jsonrpc":"2.0","method":"process.completed"}`)); err != nil {
		return err
	}
	_, _, _ = ws.Read(ctx) // returns when the client closes
	return nil
}
