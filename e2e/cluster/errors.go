package cluster

import "errors"

var (
	// ErrOff means that the node, or the whole cluster, is not running.
	ErrOff = errors.New("not running")
	// ErrNotBuilt means that programs or images are missing; Build and Images
	// make them.
	ErrNotBuilt = errors.New("not built")
)
