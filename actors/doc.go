// Package actors is troupe's engine: the manager, session, process and
// connection actors, and the rules that hold between them.
//
// Control travels in mailboxes; bytes do not. A command's output goes from its
// pipe into a transcript, and a connection pulls it from there at its own pace.
//
//	manager ── admission, the ceiling, drain         manager.go
//	  session ── executions, connections, timers     session.go
//	    process ── one command, its state machine    process.go
//	  reaper ── keeps a failed session's slot until its processes are dead
//	connection ── one socket's mailbox               connection.go
//
// The package is the only one that imports protoactor. It knows sockets only
// as a Sink, and processes only as a Tree.
package actors
