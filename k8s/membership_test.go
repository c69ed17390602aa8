package k8s

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func (m *Membership) text() string {
	var all []string
	for _, x := range m.Members() {
		all = append(all, x.Pod+"="+strings.TrimSuffix(x.Addr, ":9400"))
	}
	return strings.Join(all, " ")
}

// knows fails unless these are the members once all goroutines are idle.
func knows(t *testing.T, m *Membership, want string) {
	t.Helper()
	synctest.Wait()
	if got := m.text(); got != want {
		t.Fatalf("the members are %q, want %q", got, want)
	}
}

// says fails unless Lookup returns this knowledge of a pod.
func says(t *testing.T, m *Membership, pod string, want Knowledge) {
	t.Helper()
	synctest.Wait()
	if addr, got := m.Lookup(pod); got != want || (addr != "") != (want == Known) {
		t.Fatalf("%s is %q, %d, want %d", pod, addr, got, want)
	}
}

// TestMembershipFollows: the members change as soon as the EndpointSlices do.
func TestMembershipFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2", "not ready")))
		m := a.follow(t)
		var told atomic.Int64
		stop := m.Subscribe(func() { m.Members(); m.Lookup("p0"); told.Add(1) })
		changes := func(n int64) {
			t.Helper()
			synctest.Wait()
			if got := told.Swap(0); got != n {
				t.Fatalf("told of %d changes, want %d", got, n)
			}
		}
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2")
		told.Store(0) // the first list may have come before Subscribe
		a.put(slice("s2", at("p2", "10.0.0.3", "terminating")))
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2 p2=10.0.0.3")
		changes(1)
		for range 10 { // flaps
			a.put(slice("s1", at("p0", "10.0.0.1", "not ready"), at("p1", "10.0.0.2")))
			a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2", "not ready")))
		}
		changes(0)
		a.put(slice("s2", at("p2", "10.0.0.3"), at("p1", "10.0.0.2"))) // p1 moves, and is in both for a moment
		a.put(slice("s1", at("p0", "10.0.0.1")))
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2 p2=10.0.0.3")
		changes(0)
		a.put(slice("s1", at("p0", "10.0.7.7"))) // it came back with another address
		knows(t, m, "p0=10.0.7.7 p1=10.0.0.2 p2=10.0.0.3")
		changes(1)
		a.remove("s2")
		knows(t, m, "p0=10.0.7.7")
		changes(1)
		stop()
		a.remove("s1")
		knows(t, m, "")
		changes(0)
		time.Sleep(time.Hour)
		lists, watches := a.counted()
		if lists < 15 || lists > 31 || watches != lists || a.said("WARN") > 0 || a.failures(t, opWatch) > 0 {
			t.Errorf("%d lists, %d watches, %d failures in an hour; the log:\n%s",
				lists, watches, a.failures(t, opWatch), &a.logs)
		}
	})
}

// TestMembersOf: which endpoints are pods with an address, and which of several of a pod counts.
func TestMembersOf(t *testing.T) {
	type slices = []*discoveryv1.EndpointSlice // written in this order
	v6 := func(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		s.AddressType = discoveryv1.AddressTypeIPv6
		return s
	}
	// changed is one slice with the pod p at 10.0.0.1, after a change.
	changed := func(change func(*discoveryv1.EndpointSlice)) slices {
		s := slice("a", at("p", "10.0.0.1"))
		change(s)
		return slices{s}
	}
	port := func(change func(*discoveryv1.EndpointPort)) slices {
		return changed(func(s *discoveryv1.EndpointSlice) { change(&s.Ports[0]) })
	}
	endpoint := func(change func(*discoveryv1.Endpoint)) slices {
		return changed(func(s *discoveryv1.EndpointSlice) { change(&s.Endpoints[0]) })
	}
	number := func(n int32) slices { return port(func(p *discoveryv1.EndpointPort) { p.Port = &n }) }
	udp, other := corev1.ProtocolUDP, "http"
	for _, c := range []struct {
		name   string
		slices slices
		want   string
		noPort bool
	}{
		{"IPv6", slices{v6(slice("a", at("p", "fd00::1")))}, "[fd00::1]:9400", false},
		{"both families", slices{
			slice("a", at("p", "10.0.0.1")), v6(slice("b", at("p", "fd00::1"))),
		}, "10.0.0.1:9400", false},
		{"the later slice", slices{slice("b", at("p", "10.0.0.2")), slice("a", at("p", "10.0.0.1"))}, "10.0.0.1:9400", false},
		{"ready or not, not terminating", slices{
			slice("a", at("p", "10.0.0.1", "not ready")), slice("b", at("p", "10.0.0.2", "terminating")),
		}, "10.0.0.1:9400", false},
		{"not terminating, in IPv6", slices{
			v6(slice("a", at("p", "fd00::1"))), slice("b", at("p", "10.0.0.2", "terminating")),
		}, "[fd00::1]:9400", false},
		{"not terminating, in one slice", slices{
			slice("a", at("p", "10.0.0.2"), at("p", "10.0.0.1", "terminating")),
		}, "10.0.0.2:9400", false},
		{"a tie", slices{slice("a", at("p", "10.0.0.1"), at("p", "10.0.0.3"), at("p", "10.0.0.2"))}, "10.0.0.3:9400", false},
		{"the first address", endpoint(func(e *discoveryv1.Endpoint) {
			e.Addresses = []string{"10.0.0.1", "10.0.0.2"}
		}), "10.0.0.1:9400", false},
		{"no conditions", endpoint(func(e *discoveryv1.Endpoint) {
			e.Conditions = discoveryv1.EndpointConditions{}
		}), "10.0.0.1:9400", false},
		{"terminating only", slices{slice("a", at("p", "10.0.0.1", "terminating"))}, "10.0.0.1:9400", false},
		{"no namespace", endpoint(func(e *discoveryv1.Endpoint) { e.TargetRef.Namespace = "" }), "10.0.0.1:9400", false},
		{"another namespace", endpoint(func(e *discoveryv1.Endpoint) { e.TargetRef.Namespace = "other" }), "", false},
		{"a node", endpoint(func(e *discoveryv1.Endpoint) { e.TargetRef.Kind = "Node" }), "", false},
		{"no target", endpoint(func(e *discoveryv1.Endpoint) { e.TargetRef = nil }), "", false},
		{"no name", slices{slice("a", at("", "10.0.0.1"))}, "", false},
		{"no addresses", endpoint(func(e *discoveryv1.Endpoint) { e.Addresses = nil }), "", false},
		{"an empty address", slices{slice("a", at("p", ""))}, "", false},
		{"a host name as address", slices{slice("a", at("p", "evil.example.com"))}, "", false},
		{"the unspecified address", slices{slice("a", at("p", "0.0.0.0"))}, "", false},
		{"a zone", slices{v6(slice("a", at("p", "fe80::1%eth0")))}, "", false},
		{"the wrong family", slices{slice("a", at("p", "fd00::1"))}, "", false},
		{"FQDN", changed(func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }), "", false},
		{"another port", number(1), "10.0.0.1:1", false},
		{"port 0", number(0), "", true},
		{"port 65535", number(65535), "10.0.0.1:65535", false},
		{"port 65536", number(65536), "", true},
		{"no port number", port(func(p *discoveryv1.EndpointPort) { p.Port = nil }), "", true},
		{"no protocol", port(func(p *discoveryv1.EndpointPort) { p.Protocol = nil }), "10.0.0.1:9400", false},
		{"UDP", port(func(p *discoveryv1.EndpointPort) { p.Protocol = &udp }), "", true},
		{"another port name", port(func(p *discoveryv1.EndpointPort) { p.Name = &other }), "", true},
		{"no port name", port(func(p *discoveryv1.EndpointPort) { p.Name = nil }), "", true},
		{"no endpoint and no port", changed(func(s *discoveryv1.EndpointSlice) {
			s.Endpoints, s.Ports = nil, nil
		}), "", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newSliceAPI()
			for _, s := range c.slices {
				a.put(s)
			}
			m := a.follow(t)
			synctest.Wait()
			if addr, _ := m.Lookup("p"); addr != c.want || len(m.Members()) > 1 {
				t.Errorf("%s: got %q of %q, want %q", c.name, addr, m.text(), c.want)
			}
			if (a.said("no port of the name") > 0) != c.noPort {
				t.Errorf("%s: the log:\n%s", c.name, &a.logs)
			}
		})
	}
}

// TestMembershipNeverBlocks: with an API server that is down from the start every method returns at
// once, and the pods are known soon after it is up.
func TestMembershipNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		a.down(hang)
		began := time.Now()
		m := a.follow(t)
		says(t, m, "p0", Unresolved)
		if m.text() != "" || time.Since(began) > 0 {
			t.Fatalf("knows %q after %v", m.text(), time.Since(began))
		}
		time.Sleep(10 * time.Minute)
		says(t, m, "p0", Unresolved)
		a.down(nil)
		time.Sleep(maxListDelay*3/2 + callTimeout)
		knows(t, m, "p0=10.0.0.1")
		says(t, m, "p0", Known)
		m.Lookup("p1") // causes a list if the last one was more than 5 s ago
		says(t, m, "p1", Unknown)
		a.down(hang)
		time.Sleep(time.Second)
		began = time.Now()
		m.Close()
		m.Close()
		if time.Since(began) > 0 || a.running != 0 {
			t.Errorf("Close took %v, %d requests are left", time.Since(began), a.running)
		}
	})
}

// json200 answers with a body that claims to be JSON.
func json200(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(body))
	}
}

// listJSON is a list, with a place for its items.
const listJSON = `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1",` +
	`"metadata":{"resourceVersion":"9"},"items":[%s]}`

// faults are the ways in which an API server may be down.
var faults = map[string]http.HandlerFunc{
	"500":       status(500, "InternalError", "etcd is gone"),
	"401":       status(401, "Unauthorized", "Unauthorized"),
	"429":       status(429, "TooManyRequests", "too many requests"),
	"no answer": hang,
	"a page": func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<html>no upstream", http.StatusBadGateway)
	},
	"200, page":  json200("<html>sign in"),
	"200, {}":    json200("{}"),
	"200, null":  json200("null"),
	"no names":   json200(fmt.Sprintf(listJSON, "{}")),
	"null item":  json200(fmt.Sprintf(listJSON, "null")),
	"no version": json200(`{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{},"items":[]}`),
	"text":       func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("welcome")) },
	"other list": func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{
			"kind": "PodList", "apiVersion": "v1", "metadata": map[string]string{"resourceVersion": "9"}, "items": []any{},
		})
	},
}

// TestMembersOutlastTheAPIServer: an outage of minutes removes no member, makes no pod Unknown, and
// causes one warning.
func TestMembersOutlastTheAPIServer(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newSliceAPI()
				a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2")))
				m := a.follow(t)
				knows(t, m, "p0=10.0.0.1 p1=10.0.0.2")
				var told atomic.Int64
				m.Subscribe(func() { told.Add(1) })
				time.Sleep(time.Minute)
				a.down(fault)
				a.put(slice("s1", at("p0", "10.0.0.1"), at("p2", "10.0.0.3"))) // no watch is open
				time.Sleep(maxStaleness + time.Second)
				before, _ := a.counted()
				for range 20 * 60 {
					time.Sleep(time.Second)
					says(t, m, "p1", Known)
					says(t, m, "p2", Unresolved)
					says(t, m, "none", Unresolved)
				}
				after, _ := a.counted()
				// Every 10 to 15 s, and 4 s later if there is no answer.
				if n := after - before; n < 60 || n > 150 || told.Load() > 0 {
					t.Errorf("%d requests in 20 minutes, told of %d changes", n, told.Load())
				}
				if a.said("level=WARN") != 1 || a.said("the last known ones stay") != 1 || a.failures(t, opList) < after-before {
					t.Errorf("%d failures; the log:\n%s", a.failures(t, opList), &a.logs)
				}
				a.down(nil)
				time.Sleep(maxListDelay*3/2 + callTimeout)
				knows(t, m, "p0=10.0.0.1 p2=10.0.0.3")
				if told.Load() != 1 {
					t.Errorf("told of %d changes", told.Load())
				}
				time.Sleep(minHealthy)
				synctest.Wait()
				if a.said("level=WARN") != 1 || a.said("followed again") != 1 {
					t.Errorf("the log:\n%s", &a.logs)
				}
			})
		})
	}
}

// TestExpiredWatch: when the API server has compacted the watch's resource version, a list follows
// at once and without a warning.
func TestExpiredWatch(t *testing.T) {
	gone := `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":410,` +
		`"reason":"Expired","message":"too old resource version"}}` + "\n"
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		m := a.follow(t)
		time.Sleep(time.Minute)
		a.say(gone)
		synctest.Wait()
		a.put(slice("s2", at("p1", "10.0.0.2"))) // no watch is open
		knows(t, m, "p0=10.0.0.1")
		time.Sleep(maxJitter)
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2")
		if a.said("WARN") > 0 {
			t.Errorf("the log:\n%s", &a.logs)
		}
	})
	// An API server that has compacted even the version of its last list gets fewer and fewer
	// requests.
	for _, asStatus := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := newSliceAPI()
			a.put(slice("s1", at("p0", "10.0.0.1")))
			a.expired, a.expiring = 1_000_000, asStatus
			m := a.follow(t)
			time.Sleep(time.Hour)
			if lists, _ := a.counted(); lists < 200 || lists > 400 || a.said("level=WARN") != 1 {
				t.Errorf("%d lists in an hour, the log:\n%s", lists, &a.logs)
			}
			a.put(slice("s2", at("p1", "10.0.0.2")))
			time.Sleep(maxListDelay * 3 / 2)
			knows(t, m, "p0=10.0.0.1 p1=10.0.0.2") // lists work
		})
	}
}

// TestBrokenWatch: an invalid event ends the watch, removes no member, and a list makes up for it.
func TestBrokenWatch(t *testing.T) {
	defer func(before int) { maxBody = before }(maxBody)
	maxBody = 64 << 10
	const aSlice = `"object":{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1",`
	for name, line := range map[string]string{
		"no JSON":          "<html>",
		"half":             `{"type":"ADDED",` + aSlice + `"metadata":{"na` + "\n\x00",
		"no type":          "{}\n",
		"a type":           `{"type":"GARBLED","object":{}}`,
		"no object":        `{"type":"ADDED"}`,
		"null":             `{"type":"DELETED","object":null}`,
		"a pod":            `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"s1"}}}`,
		"no name":          `{"type":"DELETED",` + aSlice + `"metadata":{}}}`,
		"wrong types":      `{"type":"MODIFIED",` + aSlice + `"metadata":{"name":"s1"},"endpoints":7}}`,
		"a status":         `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}}`,
		"no status":        `{"type":"ERROR","object":[]}`,
		"without an end":   `{"type":"ADDED","object":{"kind":"` + strings.Repeat("x", maxBody+1),
		"spaces and pages": strings.Repeat(" ", maxBody+1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newSliceAPI()
				a.put(slice("s1", at("p0", "10.0.0.1")))
				m := a.follow(t)
				for range 3 {
					time.Sleep(minHealthy + time.Second)
					a.say(line)
					synctest.Wait()
					before, _ := a.counted()
					a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2")))
					knows(t, m, "p0=10.0.0.1")
					time.Sleep(maxJitter)
					knows(t, m, "p0=10.0.0.1 p1=10.0.0.2")
					if after, _ := a.counted(); after != before+1 {
						t.Fatalf("%d lists", after-before)
					}
					a.put(slice("s1", at("p0", "10.0.0.1")))
					knows(t, m, "p0=10.0.0.1")
				}
				time.Sleep(minHealthy)
				before, _ := a.counted()
				for range 60 { // as soon as a watch starts
					a.say(line)
					time.Sleep(time.Second)
				}
				if after, _ := a.counted(); after-before > 12 || a.said("level=WARN") != 1 {
					t.Errorf("%d lists in a minute, the log:\n%s", after-before, &a.logs)
				}
				knows(t, m, "p0=10.0.0.1")
			})
		})
	}
}

// TestBookmarks: a bookmark proves that the watch is alive, and changes nothing.
func TestBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		m := a.follow(t)
		time.Sleep(time.Minute)
		a.say(`{"type":"BOOKMARK","object":{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1",` +
			`"metadata":{"resourceVersion":"500"}}}` + "\n")
		knows(t, m, "p0=10.0.0.1")
		time.Sleep(maxStaleness)
		says(t, m, "none", Unknown) // no list is needed
		if lists, _ := a.counted(); lists != 1 {
			t.Errorf("%d lists", lists)
		}
	})
}

// TestSilentWatch: when a connection dies silently, a lookup still finds a new pod at once, and
// Members has it within four minutes.
func TestSilentWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		m := a.follow(t)
		time.Sleep(time.Minute)
		a.state.Lock()
		a.silent = true
		a.state.Unlock()
		a.put(slice("s2", at("p1", "10.0.0.2")))
		knows(t, m, "p0=10.0.0.1")
		if _, known := m.Lookup("p1"); known != Unresolved {
			t.Errorf("p1 is %d before the new list", known)
		}
		says(t, m, "p1", Known)
		a.put(slice("s3", at("p2", "10.0.0.3")))
		time.Sleep(2*minWatchTimeout + watchGrace + maxJitter)
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2 p2=10.0.0.3")
		if a.said("WARN") > 0 {
			t.Errorf("the log:\n%s", &a.logs)
		}
	})
}

// TestLookupsAreBounded: lookups of made-up names do not cause a list each.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		m := a.follow(t)
		time.Sleep(time.Minute)
		before, _ := a.counted()
		for i := range 60_000 {
			m.Lookup(fmt.Sprintf("made-up-%d", i))
			time.Sleep(time.Millisecond)
		}
		after, _ := a.counted()
		if n := after - before; n < 10 || n > 13 {
			t.Errorf("%d lists in a minute of lookups", n)
		}
	})
}

// TestLostPodIsUnresolvedFirst: a pod that leaves and comes back within three seconds is never
// Unknown, a pod that stays away is Unknown after that.
func TestLostPodIsUnresolvedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2")))
		m := a.follow(t)
		says(t, m, "p1", Known)
		for range 5 {
			a.put(slice("s1", at("p0", "10.0.0.1")))
			says(t, m, "p1", Unresolved)
			time.Sleep(lostGrace - time.Millisecond)
			says(t, m, "p1", Unresolved)
			a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2")))
			says(t, m, "p1", Known)
			time.Sleep(time.Millisecond)
			says(t, m, "p1", Known)
		}
		a.put(slice("s1", at("p0", "10.0.0.1")))
		time.Sleep(lostGrace)
		says(t, m, "p1", Unknown)
		says(t, m, "p0", Known)
		for i := range 1000 { // one rollout after another
			a.put(slice("s1", at("p0", "10.0.0.1"), at(fmt.Sprint("q", i), "10.0.0.3")))
			time.Sleep(time.Second)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.lost) > 5 {
			t.Errorf("%d lost pods are remembered", len(m.lost))
		}
	})
}

// TestRefusedMembership: without the permission there is one warning and, after two minutes, at
// most one try per hour. Once it is granted, all pods are known. They stay when it is withdrawn.
func TestRefusedMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		forbidden := status(403, "Forbidden", "endpointslices is forbidden")
		a.down(forbidden)
		m := a.follow(t)
		const hours = 24
		for range hours * 60 {
			says(t, m, "p0", Unresolved)
			time.Sleep(time.Minute)
		}
		lists, _ := a.counted()
		if lists < hours/2+10 || lists > hours+30 || a.failures(t, opList) != lists {
			t.Errorf("%d tries in %d hours, %d failures", lists, hours, a.failures(t, opList))
		}
		if a.said("level=WARN") != 1 || a.said("refuses to list and watch EndpointSlices") != 1 {
			t.Errorf("the log:\n%s", &a.logs)
		}
		a.down(nil)
		time.Sleep(2 * time.Hour)
		knows(t, m, "p0=10.0.0.1")
		a.down(forbidden)
		time.Sleep(membershipRefusalGrace + time.Minute)
		knows(t, m, "p0=10.0.0.1")
		// If the watch had just started, its end causes a warning too, and the refusal is told once it lasts.
		if a.said("refuses to list") != 2 || a.said("level=WARN") > 3 || a.said("followed again") != 1 {
			t.Errorf("withdrawn, the log:\n%s", &a.logs)
		}
	})
}

// TestShortRefusal: an API server that is starting refuses requests that it permits later.
func TestShortRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		m := a.follow(t)
		time.Sleep(time.Minute)
		a.down(status(403, "Forbidden", "endpointslices is forbidden"))
		time.Sleep(membershipRefusalGrace / 2)
		a.put(slice("s2", at("p1", "10.0.0.2")))
		a.down(nil)
		time.Sleep(maxListDelay * 3 / 2)
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2")
	})
}

// TestSliceDeletedDuringAnOutage: the list after the outage replaces all that was known before.
func TestSliceDeletedDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		a.put(slice("s2", at("p1", "10.0.0.2")))
		m := a.follow(t)
		time.Sleep(time.Minute)
		a.down(hang)
		a.remove("s2")
		time.Sleep(time.Minute)
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2")
		a.down(nil)
		time.Sleep(maxListDelay*3/2 + callTimeout)
		knows(t, m, "p0=10.0.0.1")
	})
}

// TestLateList: an answer is as old as its question, and answers the lookups that waited for it.
func TestLateList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		a.stream = func(r *http.Request) *http.Response {
			response := a.respond(r)
			if r.URL.Query().Get("watch") == "" {
				time.Sleep(3 * time.Second)
			}
			return response
		}
		m := a.follow(t)
		time.Sleep(time.Second)
		m.Lookup("none")
		time.Sleep(2*time.Second + maxStaleness/2)
		synctest.Wait()
		if lists, _ := a.counted(); lists != 1 {
			t.Errorf("%d lists", lists)
		}
		if _, known := m.Lookup("none"); known != Unresolved {
			t.Errorf("after a list of %v ago, none is %d", 3*time.Second+maxStaleness/2, known)
		}
	})
}

// TestHangingWatch: the API server lists, but no watch starts before its request is given up. Lists
// go on, with growing delays, and what they say is known.
func TestHangingWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		a.stream = func(r *http.Request) *http.Response {
			if r.URL.Query().Get("watch") != "" {
				<-r.Context().Done()
			}
			return a.respond(r)
		}
		m := a.follow(t)
		time.Sleep(time.Minute)
		a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2")))
		time.Sleep(maxListDelay*3/2 + callTimeout)
		knows(t, m, "p0=10.0.0.1 p1=10.0.0.2")
		lists, _ := a.counted()
		if lists < 4 || lists > 12 || a.said("level=WARN") != 1 || a.failures(t, opWatch) < 3 {
			t.Errorf("%d lists, %d failures; the log:\n%s", lists, a.failures(t, opWatch), &a.logs)
		}
	})
}

// TestRelistsAreSpread: watches do not last equally long, and pods whose watches end together do
// not list together.
func TestRelistsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		a.follow(t)
		delays := map[time.Duration]bool{}
		for range 20 {
			time.Sleep(minHealthy + time.Second)
			a.cut()
			ended := time.Now()
			time.Sleep(maxJitter)
			synctest.Wait()
			asked := a.asked("")
			delays[asked[len(asked)-2].at.Sub(ended).Truncate(100*time.Millisecond)] = true
		}
		timeouts := map[string]bool{}
		for _, r := range a.asked("") {
			if timeout := r.query.Get("timeoutSeconds"); timeout != "" {
				timeouts[timeout] = true
			}
		}
		if len(delays) < 4 || len(timeouts) < 10 {
			t.Errorf("20 watches had %d timeouts and %d delays", len(timeouts), len(delays))
		}
	})
}

// TestMembershipMetrics: whether the EndpointSlices are followed, and how many pods they have.
func TestMembershipMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1"), at("p1", "10.0.0.2")))
		m := a.follow(t)
		are := func(when string, following, pods int) {
			t.Helper()
			synctest.Wait()
			f, p := a.gauge(t, "troupe_kubernetes_following"), a.gauge(t, "troupe_kubernetes_endpoints")
			if f != following || p != pods {
				t.Errorf("%s: following %d, %d endpoints, want %d and %d", when, f, p, following, pods)
			}
		}
		are("at first", 1, 2)
		time.Sleep(time.Minute)
		a.down(hang)
		time.Sleep(time.Minute)
		are("in an outage", 0, 2)
		a.down(nil)
		a.put(slice("s1", at("p0", "10.0.0.1")))
		time.Sleep(maxListDelay*3/2 + callTimeout)
		are("after it", 1, 1)
		m.Close()
		are("closed", 0, 1)
	})
}

// TestHugeList is not read to its end, and removes no member.
func TestHugeList(t *testing.T) {
	defer func(before int) { maxBody = before }(maxBody)
	maxBody = 64 << 10
	synctest.Test(t, func(t *testing.T) {
		a := newSliceAPI()
		a.put(slice("s1", at("p0", "10.0.0.1")))
		m := a.follow(t)
		time.Sleep(time.Minute)
		a.down(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, listJSON, strings.Repeat(" ", maxBody))
		})
		time.Sleep(time.Minute)
		knows(t, m, "p0=10.0.0.1")
		if a.said("larger than 65536 bytes") == 0 {
			t.Errorf("the log:\n%s", &a.logs)
		}
	})
}

func TestMembershipConfigIsChecked(t *testing.T) {
	c := new(api).client(t)
	for _, cfg := range []MembershipConfig{
		{Namespace: "n", Service: "s", Port: "p"},
		{Client: c, Service: "s", Port: "p"},
		{Client: c, Namespace: "n", Port: "p"},
		{Client: c, Namespace: "n", Service: "s"},
	} {
		if _, err := NewMembership(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
