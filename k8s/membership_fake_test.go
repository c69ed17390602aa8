package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sliceAPI is an API server that stores EndpointSlices. If api.answer is set, it answers every
// request instead: an outage.
type sliceAPI struct {
	api
	state    sync.Mutex
	version  int
	slices   map[string]*discoveryv1.EndpointSlice
	history  []change
	expired  int  // watches from this version or an earlier one get 410
	silent   bool // watches stay open and send nothing
	open     []*openWatch
	expiring bool // 410 as an HTTP status, not as an event
}

type change struct {
	version int
	event   []byte
}

type openWatch struct {
	lines chan []byte
	cut   chan error
}

func newSliceAPI() *sliceAPI {
	a := &sliceAPI{version: 100, slices: map[string]*discoveryv1.EndpointSlice{}}
	a.stream = a.respond
	return a
}

// follow starts a Membership of the Service troupe-peers in the namespace ns.
func (a *sliceAPI) follow(t testing.TB) *Membership {
	t.Helper()
	m, err := NewMembership(MembershipConfig{Client: a.client(t), Namespace: "ns", Service: "troupe-peers", Port: "peer"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func (a *sliceAPI) respond(r *http.Request) *http.Response {
	a.mu.Lock()
	down := a.answer != nil
	a.mu.Unlock()
	q := r.URL.Query()
	if down {
		return nil
	}
	if r.Method != "GET" || r.URL.Path != "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices" ||
		q.Get("labelSelector") != "kubernetes.io/service-name=troupe-peers" {
		panic(r.Method + " " + r.URL.String())
	}
	a.state.Lock()
	defer a.state.Unlock()
	if q.Get("watch") == "" {
		if q.Get("resourceVersion") != "" {
			panic("the list may be old: " + r.URL.String())
		}
		list := discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"},
		}
		list.ResourceVersion = strconv.Itoa(a.version)
		for _, s := range a.slices {
			s := s.DeepCopy()
			s.TypeMeta = metav1.TypeMeta{} // as in real lists
			list.Items = append(list.Items, *s)
		}
		return respondWith(200, io.NopCloser(strings.NewReader(string(encode(list)))))
	}
	return a.respondWatch(r, q)
}

func (a *sliceAPI) respondWatch(r *http.Request, q url.Values) *http.Response {
	from, err := strconv.Atoi(q.Get("resourceVersion"))
	seconds, err2 := strconv.Atoi(q.Get("timeoutSeconds"))
	if err != nil || err2 != nil || q.Get("allowWatchBookmarks") != "true" {
		panic(r.URL.String())
	}
	gone := metav1.Status{
		Status: "Failure", Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old resource version",
	}
	gone.Kind, gone.APIVersion = "Status", "v1"
	if from <= a.expired && a.expiring {
		return respondWith(410, io.NopCloser(strings.NewReader(string(encode(gone)))))
	}
	w := &openWatch{lines: make(chan []byte, 1000), cut: make(chan error)}
	if from <= a.expired {
		w.lines <- eventLine("ERROR", gone)
	}
	for _, c := range a.history {
		if c.version > from {
			w.lines <- c.event
		}
	}
	a.open = append(a.open, w)
	read, write := io.Pipe()
	unhang := context.AfterFunc(r.Context(), func() { write.CloseWithError(r.Context().Err()) })
	go func() {
		defer unhang()
		defer write.Close()
		end := time.NewTimer(time.Duration(seconds) * time.Second)
		defer end.Stop()
		timeout := end.C
		for {
			select {
			case line := <-w.lines:
				if a.isSilent() {
					timeout = nil
					continue
				}
				if _, err := write.Write(line); err != nil {
					return
				}
			case err := <-w.cut:
				write.CloseWithError(err)
				return
			case <-timeout:
				if a.isSilent() {
					timeout = nil
					continue
				}
				return
			case <-r.Context().Done():
				return
			}
		}
	}()
	return respondWith(200, read)
}

func (a *sliceAPI) isSilent() bool {
	a.state.Lock()
	defer a.state.Unlock()
	return a.silent
}

func respondWith(code int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func eventLine(kind string, object any) []byte {
	return append(encode(map[string]any{"type": kind, "object": object}), '\n')
}

// put creates or replaces a slice.
func (a *sliceAPI) put(s *discoveryv1.EndpointSlice) {
	a.state.Lock()
	defer a.state.Unlock()
	kind := "ADDED"
	if a.slices[s.Name] != nil {
		kind = "MODIFIED"
	}
	a.version++
	s = s.DeepCopy()
	s.TypeMeta = metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"}
	s.ResourceVersion = strconv.Itoa(a.version)
	a.slices[s.Name] = s
	a.tell(eventLine(kind, s))
}

func (a *sliceAPI) remove(name string) {
	a.state.Lock()
	defer a.state.Unlock()
	a.version++
	s := a.slices[name]
	delete(a.slices, name)
	a.tell(eventLine("DELETED", s))
}

func (a *sliceAPI) tell(line []byte) {
	a.history = append(a.history, change{a.version, line})
	for _, w := range a.open {
		select {
		case w.lines <- line:
		default: // its client is gone
		}
	}
}

// say writes a line to all open watches.
func (a *sliceAPI) say(line string) {
	a.state.Lock()
	defer a.state.Unlock()
	for _, w := range a.open {
		select {
		case w.lines <- []byte(line):
		default:
		}
	}
}

// cut breaks the connections of all watches.
func (a *sliceAPI) cut() {
	a.state.Lock()
	defer a.state.Unlock()
	for _, w := range a.open {
		select {
		case w.cut <- errors.New("connection reset by peer"):
		default: // it has ended
		}
	}
	a.open = nil
}

// down answers all requests with answer from now on; nil ends the outage.
func (a *sliceAPI) down(answer http.HandlerFunc) {
	a.become(answer)
	if answer != nil {
		a.cut()
	}
}

// counted returns how many lists and watches were requested.
func (a *sliceAPI) counted() (lists, watches int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.requests {
		if r.query.Get("watch") == "" {
			lists++
		} else {
			watches++
		}
	}
	return lists, watches
}

// slice makes an EndpointSlice of IPv4 addresses.
func slice(name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	port, number, protocol := "peer", int32(9400), corev1.ProtocolTCP
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "ns", Labels: map[string]string{"kubernetes.io/service-name": "troupe-peers"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: &protocol}},
		Endpoints:   endpoints,
	}
}

// at makes a pod's endpoint. how: "not ready" or "terminating".
func at(pod, ip string, how ...string) discoveryv1.Endpoint {
	ready, terminating := len(how) == 0, slices.Contains(how, "terminating")
	return discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: pod, UID: "u"},
	}
}
