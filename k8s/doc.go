// Package k8s is trouped's client of the Kubernetes API. It asks who a client is (Authenticator),
// reports how many sessions the pod has (Annotator) and what happened to it (Recorder), and tracks
// the other pods of the service (Membership). Commands run without any of these four. None of the
// four exists outside a cluster; without the permission, or while the API server is down, each
// fails by itself and no session of the pod waits for it.
//
// # What is used of client-go
//
// The package uses rest.RESTClient with the types of three API groups. The clientset would link the
// types and decoders of all groups.
//
// Membership uses client-go's typed list and watch without the Reflector below every informer,
// because the Reflector of v0.37 hides what Membership needs. ListAndWatchWithContext returns nil
// when a watch fails, and the reason goes to klog only. It retries a refused or throttled watch by
// itself, so its caller does not notice the outage. It treats 403 like any failure. It offers no
// way to ask for a new list, which Lookup needs. Its watches last at least 5 minutes. It may return
// before its list request has ended. All that is left to use is a switch over three types of event.
// See https://github.com/kubernetes/client-go/blob/v0.37.2/tools/cache/reflector.go.
//
// Memory was not the reason. For a trouped at rest that follows 3 pods:
//
//	                                             binary    resident
//	own types and decoder (before)               25.4 MB   30.6 MB
//	typed list and watch (now)                   29.4 MB   31.8 MB
//	cache.Reflector                              29.7 MB   31.3 MB
//	cache.SharedIndexInformer                    29.9 MB   32.7 MB
package k8s
