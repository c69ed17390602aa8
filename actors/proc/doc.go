// Package proc starts commands, and kills them with everything they started.
//
// It is trouped's side: [Runner] and [Tree]. The other side is the program
// troupe-runner, package shim, which trouped starts as a child or which dials
// in from a container of its own: a supervisor that keeps a pool of inits, and
// the init that owns one command's process tree. trouped talks to each init
// directly over two socketpairs; the supervisor only makes inits, and cleans up
// after those that were killed.
//
//	trouped ──control──► runner (child subreaper)
//	   │                    └── init (child subreaper, own session)
//	   └──────start, kill──────►  └── command ── whatever it spawns
//
// Why a tree cannot escape: every descendant of a command whose parent dies
// becomes a child of the command's init, whatever sessions, groups or
// environments it went through. So the init's own wait answering ECHILD is the
// proof that nothing is left. See package proctree for how it gets there.
//
// Locks: Tree.mu is taken before Runner.mu, never the other way round. A conn's
// mutex comes after both.
package proc
