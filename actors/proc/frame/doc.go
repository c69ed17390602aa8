// Package frame holds what trouped, the runner and the inits say to each other:
// the frames, and the sockets that carry them.
//
// It runs in all three: package proc is trouped's side, package shim the others'.
package frame
