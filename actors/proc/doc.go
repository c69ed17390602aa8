// Package proc starts commands, and kills them with everything they started.
//
// It holds both sides of one small protocol. trouped's side is [Runner] and
// [Tree]. The other side is the process troupe-runner ([Main]): a supervisor
// (serve.go) that keeps a pool of inits, and the init (init.go, exit.go) that
// owns one command's process tree. trouped talks to each init directly over two
// socketpairs; the supervisor only makes inits, and cleans up after those that
// were killed.
//
//	trouped ──control──► runner (child subreaper)
//	   │                    └── init (child subreaper, own session)
//	   └──────start, kill──────►  └── command ── whatever it spawns
//
// Why a tree cannot escape: every descendant of a command whose parent dies
// becomes a child of the command's init, whatever sessions, groups or
// environments it went through. So the init's own wait answering ECHILD is the
// proof that nothing is left. See kill.go for how it gets there.
package proc
