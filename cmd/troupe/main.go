// Command troupe runs commands on a troupe server and streams what they print.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

func main() {
	a := &app{
		stdin: os.Stdin, stdinPiped: piped(os.Stdin),
		stdout: os.Stdout, stderr: os.Stderr,
		signals: catchSignals,
	}
	os.Exit(a.run(os.Args[1:]))
}

// catchSignals returns a channel of the signals that cancel a command or detach from it. Only
// subcommands that follow a command call it, because it starts a thread, which takes a twentieth of
// the time of troupe version.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A reader that goes away (`troupe exec … | head`) must cancel the command,
	// not kill troupe and leave it running.
	signal.Ignore(syscall.SIGPIPE)
	return signals
}

// app is one run of the program, with everything that it uses of its environment.
type app struct {
	stdin      io.Reader
	stdinPiped bool // stdin is a pipe or a file
	stdout     io.Writer
	stderr     io.Writer
	signals    func() <-chan os.Signal

	settings clientSettings
	over     atomic.Bool // everything followed has ended, so changes of the connection are not reported
}

// run executes a command line and returns the exit code.
func (a *app) run(args []string) int {
	root := a.rootCommand(args)
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.Execute()
	code, message := verdict(err)
	if message != "" {
		a.notef("%s", message)
	}
	return code
}

// notef writes one line to stderr, marked as troupe's own.
func (a *app) notef(format string, args ...any) {
	fmt.Fprintf(a.stderr, "troupe: "+format+"\n", args...)
}

// piped reports whether f provides input: a pipe, a file or a socket does; a terminal and /dev/null
// do not.
func piped(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}
