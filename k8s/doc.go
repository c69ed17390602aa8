// Package k8s is what trouped asks and tells the Kubernetes API: who a client is
// (Authenticator), how many sessions the pod holds (Annotator) and what happened
// to it (Recorder). None of them is needed to run commands. Without a cluster
// nobody makes them; without the permission, or while the API server is down,
// they fail alone: no session waits for them.
//
// Of client-go it uses rest.RESTClient with a scheme of two API groups. A trouped
// that links the whole clientset is 30.7 MB and 28 MB resident at rest instead of
// 17 MB and 20 MB; without any client-go it is 12 MB and 16 MB.
package k8s
