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
// A file's name begins with the actor that it belongs to:
//
//	manager            admission and the ceiling
//	session            phases, the end; session_connections, session_executions, session_requests
//	process            handlers; process_states, process_control, process_input, process_output, process_end
//	connection         a client's socket; connection_remote: its session is on another pod
//	cluster, *_link    the pods of the service, and the two ends of a link between them
//	engine, messages   what ties them together: Config, every message, guard, dispatch
//	limits, plan       what a client may ask for
//	audit, metrics, trace, execution, sink, runner   records and ports
//
// They are one package because manager, session, process and connection exchange almost 50
// message types in both directions. A wall between them would export all of these, or make
// an import cycle.
//
// The package is the only one that imports protoactor. It knows sockets only
// as a Sink, and processes only as a Tree.
package actors
