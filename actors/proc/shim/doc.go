// Package shim is the program troupe-runner. The same binary runs as two kinds of processes: the
// runner, which supervises inits, and the inits, each of which owns the process tree of one command
// at a time.
//
//	in the runner  main, executable, supervisor, cgroup_manager, dial, install
//	in an init     init, requests, exec, exit, memory, cgroup
//	in both        self, oom
//
// Nothing here runs in trouped, whose side is package proc. Neither package imports the other.
package shim
