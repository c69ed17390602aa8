// Package k8s is trouped's client of the Kubernetes API. It asks who a client is (Authenticator),
// reports how many sessions the pod has (Annotator) and what happened to it (Recorder), and follows
// which other pods there are (Membership). Commands run without any of them: outside a cluster they
// do not exist, and without the permission, or while the API server is down, each fails alone and
// no session of the pod waits for it.
//
// # What is used of client-go
//
// The package uses rest.RESTClient with the types of three API groups, but neither the clientset,
// which makes trouped 14 MB larger, nor the informer.
//
// Membership uses client-go's typed list and watch without the Reflector below every informer,
// because the Reflector of v0.37 hides what Membership needs. ListAndWatchWithContext returns nil
// when a watch fails, and the reason goes to klog only; it retries a refused or throttled watch
// inside, so nobody notices an outage; it takes 403 for an outage; it offers no way to ask for a
// new list, which Lookup does; its watches last 5 minutes at least; and it ends before its list
// request does (https://github.com/kubernetes/client-go/blob/v0.37.2/tools/cache/reflector.go).
// What is left of it is a switch over three types of event.
//
// Memory was not the reason. For a trouped at rest that follows 3 pods:
//
//	                                             binary    resident
//	own types and decoder (before)               25.4 MB   30.6 MB
//	typed list and watch (now)                   29.4 MB   31.8 MB
//	cache.Reflector                              29.7 MB   31.3 MB
//	cache.SharedIndexInformer                    29.9 MB   32.7 MB
package k8s
