// Package proc starts commands, and kills them with everything they started.
//
// It runs in trouped, as [Runner] and [Tree]. The other side is the program troupe-runner (package
// shim), which trouped starts as a child or which dials trouped from a container of its own. One of
// its processes is the runner, which supervises a pool of inits. Each init owns the process tree of
// one command at a time. trouped talks to each init directly over two socketpairs. The runner only
// makes inits and cleans up after those that were killed.
//
//	trouped ──control──► runner (child subreaper)
//	   │                    └── init (child subreaper, own session)
//	   └──────start, kill──────►  └── command ── whatever it spawns
//
// A tree cannot escape, because every descendant of a command whose parent dies becomes a child of
// the command's init, regardless of sessions, process groups and environment. When the init's wait
// answers ECHILD, nothing is left. Package proctree explains how a kill gets there.
//
// Each init puts its command into the domain of the command's session, see package confine. It
// serves one session after the other. Trees of one session that overlap must share a domain, and a
// domain is only inherited: while the session has a busy init, the runner has that one start another
// (a clone), which serves this session only and ends soon after it became idle.
//
// Lock order: Tree.mu, Runner.mu, frameConn.mu. A goroutine that holds one may take those after it,
// and none before it.
package proc
