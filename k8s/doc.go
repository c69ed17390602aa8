// Package k8s is what trouped asks and tells the Kubernetes API: who a client is
// (Authenticator), how many sessions the pod holds (Annotator), what happened to it
// (Recorder) and which other pods there are (Membership). None of them is needed
// to run commands. Without a cluster nobody makes them; without the permission, or
// while the API server is down, they fail alone: no session of the pod waits for them.
//
// Of client-go it uses rest.RESTClient with a scheme of two API groups. That makes
// trouped 5 MB larger, 4 MB of it resident at rest. With core/v1 for the Events it
// would be 8 MB larger, with the clientset 19 MB larger and 12 MB more resident.
// Membership lists and watches by itself, which adds 0.06 MB; client-go's informer
// with discovery/v1 would add 4.5 MB, 2 MB of it resident.
package k8s
