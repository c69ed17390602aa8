//go:build linux

package shim

import (
	"slices"
	"strings"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Scripts
//
// A script that a client sends for /bin/sh may hold secrets, and /proc/PID/cmdline shows the
// arguments of a process to every user of the machine: it is the one file of a process's memory for
// which the kernel asks no permission (proc_pid_cmdline_read in fs/proc/base.c), so that no domain
// closes it. What a domain does close is /proc/PID/environ. In a domain the shell therefore gets its
// script as a variable, which it evaluates and forgets before it runs the first command.
//
// $0, $-, line numbers, stdin, traps and exit codes are those of sh -c SCRIPT
// (TestHiddenScriptRunsLikeAnArgument). Two things differ. dash and busybox write "eval:" into their
// messages. And bash and busybox, which execute the last command of sh -c in place of themselves,
// fork for it: if a signal kills it, the shell exits with 128 + the signal.
//
// Considered and not taken: A descriptor (sh /dev/fd/9, or ". /dev/fd/9") puts its path into $0 or
// into every message, differs in the same two things, and stays open in what the script starts.
// Arguments that are overwritten once the shell has them can be read until then.
// PR_SET_MM_ARG_START would have to be called by the shell, and needs CAP_SYS_RESOURCE. Without a
// domain nothing is hidden, since the environment and the memory can be read as well.

// scriptVariable is the variable with the script.
const scriptVariable = "TROUPE_COMMAND"

// evalScript unsets it on the line that the script begins on, so that lines keep their numbers.
const evalScript = `eval "unset ` + scriptVariable + `; $` + scriptVariable + `"`

// hideScript takes the script of a start out of its arguments, unless it is the call of a program,
// whose own arguments show the same.
func (r *command) hideScript() {
	last := len(r.Argv) - 1
	script := r.Argv[last]
	if r.callsProgram(script) {
		return
	}
	r.Argv[last] = evalScript
	r.Env = slices.DeleteFunc(r.Env, func(kv string) bool { return strings.HasPrefix(kv, scriptVariable+"=") })
	r.Env = append(r.Env, scriptVariable+"="+script)
}

// callsProgram reports whether a script consists of the name and the arguments of one program, in
// words that a shell passes on as they are. It runs as before: the shells that replace themselves
// by their last command then do so.
func (r *command) callsProgram(script string) bool {
	words := strings.Split(strings.Trim(script, " "), " ")
	name := words[0]
	if strings.ContainsFunc(script, special) || strings.Contains(name, "=") || slices.Contains(builtins, name) {
		return false
	}
	program := &command{Start: &frame.Start{Argv: words, Env: r.Env, Dir: r.Dir}}
	_, failed := program.lookPath()
	return failed == nil
}

// special reports whether a character may mean something to a shell.
func special(c rune) bool {
	letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	return !letter && !strings.ContainsRune(" %+,-./:=@_", c)
}

// builtins are the commands that shells carry out by themselves although there is a program of that
// name. POSIX has systems offer most of them as programs, too.
//
// https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap01.html#tag_18_07
var builtins = []string{
	"alias", "bg", "cd", "command", "echo", "false", "fc", "fg", "getopts", "hash", "jobs", "kill", "print", "printf",
	"pwd", "read", "test", "time", "true", "type", "ulimit", "umask", "unalias", "wait",
}
