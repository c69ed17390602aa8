//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// watchSize returns a channel that has a value when the terminal may have another size.
func watchSize() (changed <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	return c, func() { signal.Stop(c) }
}
