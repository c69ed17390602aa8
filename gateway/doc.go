// Package gateway is the network side of trouped: HTTP, authentication, WebSockets and JSON-RPC. A
// socket has one reader and one writer goroutine. The reader passes requests to the engine in
// order. Only the writer sends; it pulls output from transcripts at the client's pace.
//
// The life of a socket: accept.go, read.go, inflight.go (bounds on requests), send.go (what the
// engine sends), write.go, follow.go (output), ping.go, close.go.
//
// # Glossary
//
//   - connection: one client's connection, as the engine knows it; socket: its WebSocket; netConn: the TCP
//     connection below it
//   - piece: bytes of one stream of an execution's output, from a cursor; held: the part of a piece that is
//     not sent yet; next: the piece after it
//   - message: one WebSocket message; item: an answer, a notification or a feed in the queue
package gateway
