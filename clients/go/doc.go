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
// Each Execution holds at most about Options.Window of output that Next has not returned: the server
// sends no more than that ahead of what the Client acknowledges, and the Client acknowledges what
// Next has returned. The socket is always read, so an Execution that no one reads delays neither the
// others nor the answers to Cancel and Status.
//
// What becomes of the output of a command that is ahead of its reader is up to
// wire.ExecuteParams.Retain: with RetainFirst, the default, the server keeps the first output_limit
// bytes and drops the rest; with RetainUnread the command waits, as behind any pipe, and nothing is
// lost at any length; with RetainLast the newest Scrollback bytes are kept, and a Gap stands for what
// gave way. A Warning tells where dropping begins, and Completed counts it. An execution with
// RetainUnread that has no reader for the server's resume window ends with the reason ReasonReaderGone.
//
// A server without the capability ack is slowed down by TCP instead: while the queue of one Execution
// is full, the socket is not read.
//
// # Bytes
//
// Output.Data holds the command's bytes, also where wire.ExecuteParams.Encoding is utf-8. Servers
// without the capability binary send text, in which that encoding replaces invalid bytes by U+FFFD.
//
// # Requests and lost connections
//
// A request that was not yet written when the connection ended waits for the next connection. For a
// request that was written but not answered:
//
//   - Execute is sent again. Its execution id, chosen by the client, makes that safe.
//   - Input is sent again with its position in stdin, so that the server skips what it has taken.
//   - Pause, Resume, Cancel, Status, CloseInput, Close and Signal KILL are sent
//     again: they are idempotent.
//   - Every other Signal is not, since the command could see it twice. It fails with
//     ErrUnknownOutcome.
package troupe
