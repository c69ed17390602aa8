//go:build !unix

package main

import (
	"os"
	"time"
)

// watchSize returns a channel that has a value when the terminal may have another size. Consoles of
// Windows send no signal.
func watchSize() (changed <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				select {
				case c <- os.Interrupt:
				default:
				}
			}
		}
	}()
	return c, func() { close(done) }
}
