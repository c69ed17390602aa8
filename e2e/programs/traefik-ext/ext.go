// Package ext replaces a module nested in Traefik's repository. Traefik's own
// module leaves that directory out of its archive and no archive of the nested
// module is to be had, so the two extension points are declared here. They
// hold nothing upstream either.
package ext

// HTTP would extend the dynamic HTTP configuration.
type HTTP struct{}

// DeepCopyInto is what Traefik's generated code calls.
func (h *HTTP) DeepCopyInto(out *HTTP) { *out = *h }

// Router would extend the configuration of one router.
type Router struct{}

// DeepCopyInto is what Traefik's generated code calls.
func (r *Router) DeepCopyInto(out *Router) { *out = *r }
