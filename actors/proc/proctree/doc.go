// Package proctree finds and kills the descendants of a child subreaper (PR_SET_CHILD_SUBREAPER,
// Linux 3.4).
//
// It runs in every process that is a subreaper: in an init, in the runner, and in trouped after its
// embedded runner has died.
//
// https://man7.org/linux/man-pages/man2/pr_set_child_subreaper.2const.html
package proctree
