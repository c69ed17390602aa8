//go:build linux

// Command troupe-files moves files in and out of a session. trouped runs it there as it runs any
// command; see package files for its argument.
//
// It is a program of its own so that the inits, which are as many as the commands that run, stay
// small: what it needs would double the time that one takes to start.
package main

import (
	"os"

	"github.com/troupe-dev/troupe/actors/files"
)

func main() { os.Exit(files.Main(os.Args[1:], os.Stdin, os.Stdout)) }
