// Package shim is all that runs as the program troupe-runner: the runner, which
// is a supervisor of inits, and the inits, each of which owns the process tree
// of one command at a time.
//
//	in the runner  main, executable, supervisor, cgroup_manager, dial, install
//	in an init     init, requests, exec, exit, memory, cgroup
//	in both        self, oom
//
// trouped's side is package proc, which this one never imports.
package shim
