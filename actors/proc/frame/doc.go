// Package frame is the protocol between trouped, the runner and the inits: the frames, the sockets
// that carry them, and what else both sides must agree on.
//
// It runs in all three processes. Package proc is trouped's side, package shim the side of the
// runner and the inits.
package frame
