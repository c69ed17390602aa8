//go:build linux

// Command troupe-runner starts and kills process trees for trouped.
//
// trouped starts it as a child, or it dials trouped from a container of its
// own:
//
//	troupe-runner --connect /run/troupe/runner.sock
package main

import (
	"os"
	"runtime"

	"github.com/troupe-dev/troupe/actors/proc/shim"
)

// version is set by the linker.
var version = "devel"

// Parent-death signals come when the thread that forked ends. The main thread
// lasts as long as the process.
func init() { runtime.LockOSThread() }

func main() { os.Exit(shim.Main(version, os.Args)) }
