package frame

import (
	"path/filepath"
	"strings"
	"time"
)

// The values of Hello.Containment: how processes are kept in their tree.
const (
	ContainmentTree   = "tree"        // child subreapers and package proctree
	ContainmentCgroup = "cgroup+tree" // also a cgroup v2 for each session, and in it for each init
)

// The values of Hello.Isolation: what separates the sessions of one runner.
const (
	IsolationNone    = "none"    // nothing but their workspaces' names
	IsolationSession = "session" // each is in a domain of its own, see package confine
)

// ShutdownGrace is how long inits may take to kill their trees and exit after trouped has closed
// the connection. After that the runner kills the inits and the trees.
const ShutdownGrace = 5 * time.Second

// WorkspaceName reports whether name is that of a workspace: 26 letters, lower case, and digits.
// trouped chooses it, and the other side makes a directory of that name, so both must agree that it
// leads nowhere else.
func WorkspaceName(name string) bool {
	if len(name) != 26 {
		return false
	}
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// LockPath returns the path of the file that a connected runner locks: runner.lock beside
// runner.sock. trouped creates it.
func LockPath(socket string) string {
	return strings.TrimSuffix(socket, filepath.Ext(socket)) + ".lock"
}
