// Command troupe runs commands on a troupe server and streams what they print.
package main

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

func main() {
	a := &app{
		stdin: os.Stdin, stdinPiped: piped(os.Stdin),
		stdout: os.Stdout, stderr: os.Stderr, terminal: terminal(os.Stdout),
		signals: catchSignals,
	}
	os.Exit(a.run(os.Args[1:]))
}

// app is one run of the program, with everything that it uses of its environment.
type app struct {
	stdin      io.Reader
	stdinPiped bool // stdin is a pipe or a file
	stdout     io.Writer
	stderr     io.Writer
	terminal   bool // stdout is a terminal
	signals    func() <-chan os.Signal

	settings clientSettings
	over     atomic.Bool // everything followed has ended, so changes of the connection are not reported
	outage   outage
	tty      atomic.Pointer[tty] // what shows a terminal of the server now; nil: nothing does
}

// run executes a command line and returns the exit code.
func (a *app) run(args []string) int {
	stdout := &checkedWriter{Writer: a.stdout}
	a.stdout = stdout
	root := a.rootCommand(args)
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.Execute()
	if err == nil {
		err = stdout.err
	}
	code, message := verdict(err)
	if message != "" {
		a.notef("%s", message)
	}
	return code
}

// maxNote bounds a note, in bytes: a server may say anything.
const maxNote = 4096

// notef writes one line to stderr, marked as troupe's own.
func (a *app) notef(format string, args ...any) {
	line := "troupe: %s\n"
	if t := a.tty.Load(); t != nil {
		line = t.line(line)
	}
	fmt.Fprintf(a.stderr, line, visible(shorten(fmt.Sprintf(format, args...), maxNote)))
}

// piped reports whether f provides input: a pipe, a file or a socket does; a terminal and /dev/null
// do not.
func piped(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}
