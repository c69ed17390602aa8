// Package proctree finds and kills what descends from a process that is a child
// subreaper (PR_SET_CHILD_SUBREAPER, see prctl(2)).
//
// It runs in each of the three processes that are subreapers: an init, the
// runner, and trouped once its embedded runner has died.
package proctree
