// Package relay carries a client's connection from the pod that has its socket to the pod that owns its session.
//
// It is the protocol and nothing else: no goroutine, no timer, no socket, no clock but the time that each call
// brings. What leaves goes through functions given at construction. So the protocol runs in virtual time: see
// TestSimulation, which is what holds it together.
package relay
