// Package confine puts a thread, and with it everything that the thread starts, into the domain of
// one session: a Landlock domain, which separates files, signals and tracing, and a seccomp filter
// for the system calls that name another process and that Landlock does not check.
//
// Neither needs a privilege. Both bind a single thread and are inherited across fork and execve;
// neither can be taken off again. So the caller locks a goroutine to its thread and never unlocks
// it: the thread then ends with the goroutine.
//
//   - https://docs.kernel.org/userspace-api/landlock.html
//   - https://docs.kernel.org/userspace-api/seccomp_filter.html
package confine
