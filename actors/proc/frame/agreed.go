package frame

import (
	"path/filepath"
	"strings"
	"time"
)

// The values of Hello.Containment: how processes are kept in their tree.
const (
	ContainmentTree   = "tree"        // child subreapers and package proctree
	ContainmentCgroup = "cgroup+tree" // also a cgroup v2 for each init
)

// ShutdownGrace is how long inits may take to kill their trees and exit after trouped has closed
// the connection. After that the runner kills the inits and the trees.
const ShutdownGrace = 5 * time.Second

// LockPath returns the path of the file that a connected runner locks: runner.lock beside
// runner.sock. trouped creates it.
func LockPath(socket string) string {
	return strings.TrimSuffix(socket, filepath.Ext(socket)) + ".lock"
}
