package frame

import (
	"path/filepath"
	"strings"
	"time"
)

// Containment says what holds a tree together.
const (
	ContainmentTree   = "tree"        // child subreapers and the walk in kill.go
	ContainmentCgroup = "cgroup+tree" // a cgroup v2 leaf as well
)

// ShutdownGrace is how long inits get to kill their trees and exit once their
// lifeline is cut, before the runner does it for them.
const ShutdownGrace = 5 * time.Second

// LockPath is the file that a connected runner has locked: runner.lock beside
// runner.sock. trouped makes it; see vacant.
func LockPath(socket string) string {
	return strings.TrimSuffix(socket, filepath.Ext(socket)) + ".lock"
}
