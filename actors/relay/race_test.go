//go:build race

package relay

// The race detector makes a seed cost ten times as much, and a run of one goroutine has no races: a
// part will do.
func init() { simSeeds = 1_000 }
