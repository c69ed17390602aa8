// Package troupe runs commands on a troupe server and survives the loss of its
// connections.
//
// A Client owns one session. When its WebSocket ends for any reason other than Close or Detach, it
// reconnects with exponential backoff, resumes the session and continues every execution at the
// byte where it stopped: nothing is lost, nothing is delivered twice, and output that the server no
// longer has is reported as a Gap.
//
//	c, err := troupe.Dial(ctx, "wss://troupe.example.com/ws", troupe.Options{Token: token})
//	if err != nil { ... }
//	defer c.Close()
//	done, err := c.Run(ctx, wire.ExecuteParams{Command: "make test"}, os.Stdout, os.Stderr)
//
// # Contexts
//
// A context given to a method bounds the wait, not the command: a command runs until it ends, until
// Execution.Cancel cancels it, or until its session ends.
//
// # Slow consumers
//
// Each Execution holds at most Options.BufferBytes of unread output. When the buffer is full, the
// socket is not read for up to Options.StallTimeout, so that TCP flow control slows the server down
// for a consumer that is merely slower than the network. An Execution whose consumer does not read
// at all is parked: its further output is read and dropped, and requested again from the server's
// transcript, at the right offset, once the buffer is empty. An unread Execution therefore loses
// nothing, keeps the connection alive, and delays the other executions of its Client and the
// answers to Cancel and Status by no more than StallTimeout.
//
// # Requests and lost connections
//
// A request that was not yet written when the connection ended waits for the next connection. For a
// request that was written but not answered:
//
//   - Execute is sent again. Its execution id, chosen by the client, makes that safe.
//   - Pause, Resume, Cancel, Status, CloseInput, Close and Signal KILL are sent
//     again: they are idempotent.
//   - Input and every other Signal are not, since the command could see them
//     twice. They fail with ErrUnknownOutcome.
package troupe
