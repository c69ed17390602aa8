package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// TestReviews: what each answer of the API server means. Only a clear yes lets a client in.
func TestReviews(t *testing.T) {
	tokenReview := func(status authenticationv1.TokenReviewStatus) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
				writeJSON(w, http.StatusCreated, authenticationv1.TokenReview{Status: status})
				return
			}
			reviewer(w, r)
		}
	}
	ann := authenticationv1.UserInfo{Username: "ann"}
	for _, c := range []struct {
		name   string
		token  string
		answer http.HandlerFunc
		want   string // subject, or "" for ErrBadToken
		denied bool
		failed bool
	}{
		{name: "good", token: "good:ann", answer: reviewer, want: "ann"},
		{name: "bad", token: "bad", answer: reviewer},
		{name: "none", token: "", answer: reviewer},
		{name: "denied", token: "good:nobody", answer: reviewer, denied: true},
		{name: "one audience of two", answer: tokenReview(authenticationv1.TokenReviewStatus{
			Authenticated: true, User: ann, Audiences: []string{"other", "troupe"},
		}), token: "x", want: "ann"},
		{name: "another audience", answer: tokenReview(authenticationv1.TokenReviewStatus{
			Authenticated: true, User: ann, Audiences: []string{"other"},
		}), token: "x"},
		{name: "no audience", answer: tokenReview(authenticationv1.TokenReviewStatus{
			Authenticated: true, User: ann,
		}), token: "x"},
		{name: "not authenticated", answer: tokenReview(authenticationv1.TokenReviewStatus{
			User: ann, Audiences: []string{"troupe"},
		}), token: "x"},
		{name: "no name", answer: tokenReview(authenticationv1.TokenReviewStatus{
			Authenticated: true, Audiences: []string{"troupe"},
		}), token: "x", failed: true},
		{name: "a reply of another kind", answer: func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusCreated, map[string]any{
				"kind": "Pod", "apiVersion": "v1",
				"status": map[string]any{"authenticated": true, "user": ann, "audiences": []string{"troupe"}},
			})
		}, token: "x", failed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := &api{answer: c.answer}
			subject, err := newAuth(t, api, nil).Authenticate(t.Context(), c.token)
			var denied *DeniedError
			switch {
			case c.want != "":
				if subject != c.want || err != nil {
					t.Errorf("got %q, %v", subject, err)
				}
			case c.denied:
				if !errors.As(err, &denied) || err.Error() != "nobody may not create sessions.troupe.dev in the namespace ns" {
					t.Errorf("got %q, %v, want a DeniedError", subject, err)
				}
			case c.failed:
				if err == nil || isRefused(err) {
					t.Errorf("got %q, %v, want an error that is no answer", subject, err)
				}
			default:
				if !errors.Is(err, ErrBadToken) {
					t.Errorf("got %q, %v, want ErrBadToken", subject, err)
				}
			}
			if c.token == "" && len(api.asked("")) > 0 {
				t.Error("the API server was asked about an empty token")
			}
			if subject != "" && err != nil {
				t.Errorf("a subject, %q, with an error", subject)
			}
		})
	}
}

func TestReviewRequests(t *testing.T) {
	api := &api{answer: reviewer}
	if _, err := newAuth(t, api, nil).Authenticate(t.Context(), "good:ann"); err != nil {
		t.Fatal(err)
	}
	asked := api.asked("")
	if len(asked) != 2 || asked[0].path != "/apis/authentication.k8s.io/v1/tokenreviews" ||
		asked[1].path != "/apis/authorization.k8s.io/v1/subjectaccessreviews" {
		t.Fatalf("asked %v", asked)
	}
	var token authenticationv1.TokenReview
	var access authorizationv1.SubjectAccessReview
	for body, into := range map[*[]byte]any{&asked[0].body: &token, &asked[1].body: &access} {
		d := json.NewDecoder(bytes.NewReader(*body))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			t.Fatalf("%s: %v", *body, err)
		}
	}
	if token.Kind != "TokenReview" || token.Spec.Token != "good:ann" ||
		!reflect.DeepEqual(token.Spec.Audiences, []string{"troupe"}) {
		t.Errorf("TokenReview %+v", token)
	}
	want := authorizationv1.SubjectAccessReviewSpec{
		User: "ann", UID: "uid-of-ann", Groups: []string{"team"},
		Extra: map[string]authorizationv1.ExtraValue{"pod": {"a", "b"}},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: "ns", Verb: "create", Group: "troupe.dev", Resource: "sessions",
		},
	}
	if access.Kind != "SubjectAccessReview" || !reflect.DeepEqual(access.Spec, want) {
		t.Errorf("SubjectAccessReview %+v", access)
	}
	if agent := asked[0].header.Get("User-Agent"); agent != "trouped/devel" {
		t.Errorf("User-Agent %q", agent)
	}
}

// TestVerbsAreAskedForAndCachedApart: an answer about one says nothing of another.
func TestVerbsAreAskedForAndCachedApart(t *testing.T) {
	api := &api{answer: func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
			reviewer(w, r)
			return
		}
		var review authorizationv1.SubjectAccessReview
		decode(r, &review)
		review.Status.Allowed = review.Spec.ResourceAttributes.Verb == "list"
		writeJSON(w, http.StatusCreated, review)
	}}
	auth := newAuth(t, api, nil)
	for range 3 {
		if subject, err := auth.Authorize(t.Context(), "good:ann", "list"); subject != "ann" || err != nil {
			t.Errorf("list: %q, %v", subject, err)
		}
		for _, verb := range []string{"create", "delete", "read"} {
			var denied *DeniedError
			_, err := auth.Authorize(t.Context(), "good:ann", verb)
			if !errors.As(err, &denied) || err.Error() != "ann may not "+verb+" sessions.troupe.dev in the namespace ns" {
				t.Errorf("%s: %v", verb, err)
			}
		}
	}
	if n := len(api.asked("/subjectaccessreviews")); n != 4 {
		t.Errorf("asked %d times about 4 verbs", n)
	}
}

// TestAnswersAreReused for the configured time, refusals for at most 10 s.
func TestAnswersAreReused(t *testing.T) {
	for _, c := range []struct {
		cache     time.Duration
		good, bad int // reviews in a minute, asked for every second
	}{
		{0, 60, 60},
		{5 * time.Second, 12, 12},
		{30 * time.Second, 2, 6},
		{2 * time.Hour, 1, 6},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := &api{answer: reviewer}
			auth := newAuth(t, api, func(cfg *AuthConfig) { cfg.Cache = c.cache })
			count := func(token string, want func(error) bool) int {
				before := len(api.asked("/tokenreviews"))
				for range 60 {
					if _, err := auth.Authenticate(background(), token); !want(err) {
						t.Fatalf("%s: %v", token, err)
					}
					time.Sleep(time.Second)
				}
				return len(api.asked("/tokenreviews")) - before
			}
			accepted := func(err error) bool { return err == nil }
			if got := count("good:ann", accepted); got != c.good {
				t.Errorf("cache %v: %d reviews of a good token, want %d", c.cache, got, c.good)
			}
			for _, token := range []string{"bad", "good:nobody"} {
				if got := count(token, isRefused); got != c.bad {
					t.Errorf("cache %v: %d reviews of the token %s, want %d", c.cache, got, token, c.bad)
				}
			}
		})
	}
}

// TestAnswerChanges: a revoked token is refused, and a token that becomes valid is accepted, as
// soon as the earlier answer has expired.
func TestAnswerChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: reviewer}
		auth := newAuth(t, api, nil)
		is := func(want error) {
			t.Helper()
			if _, err := auth.Authenticate(background(), "good:ann"); !errors.Is(err, want) {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
		is(nil)
		api.become(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 201, authenticationv1.TokenReview{}) })
		time.Sleep(10*time.Second - 1)
		is(nil)
		time.Sleep(time.Nanosecond)
		is(ErrBadToken)
		if len(auth.good.byID) > 0 {
			t.Error("a revoked token is still known")
		}
		api.become(reviewer)
		time.Sleep(10*time.Second - 1)
		is(ErrBadToken)
		time.Sleep(time.Nanosecond)
		is(nil)
	})
}

// TestConcurrentRequestsShareAReview: the review goes on when the client that caused it leaves.
func TestConcurrentRequestsShareAReview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			reviewer(w, r)
		}}
		auth := newAuth(t, api, nil)
		leaving, leave := context.WithCancel(background())
		left := make(chan error, 1)
		go func() {
			_, err := auth.Authenticate(leaving, "good:ann") // the first: its request starts the review
			left <- err
		}()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if subject, err := auth.Authenticate(background(), "good:ann"); subject != "ann" || err != nil {
					t.Errorf("got %q, %v", subject, err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) || time.Since(began) > 0 {
			t.Errorf("the client that left got %v after %v", err, time.Since(began))
		}
		wg.Wait()
		if n := len(api.asked("")); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// TestFailuresAreNotCached: they count as failures and say nothing about the token.
func TestFailuresAreNotCached(t *testing.T) {
	const secret = "good:secret-token"
	for name, broken := range map[string]http.HandlerFunc{
		"500": status(500, "InternalError", "etcd is gone"),
		"403": status(403, "Forbidden", "tokenreviews is forbidden"),
		"401": status(401, "Unauthorized", "Unauthorized"),
		"429": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
		},
		"no answer": hang,
		"garbage":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome") },
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"kind":"Tok`)
		},
		"empty": func(http.ResponseWriter, *http.Request) {},
		"no access review": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
				reviewer(w, r)
				return
			}
			status(403, "Forbidden", "subjectaccessreviews is forbidden")(w, r)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := &api{answer: broken}
			auth := newAuth(t, api, nil)
			began := time.Now()
			subject, err := auth.Authenticate(background(), secret)
			if err == nil || isRefused(err) || subject != "" {
				t.Errorf("%s: got %q, %v", name, subject, err)
			}
			if took := time.Since(began); took > callTimeout {
				t.Errorf("%s: took %v", name, took)
			}
			if n := api.failures(t, opTokenReview) + api.failures(t, opAccessReview); n != 1 {
				t.Errorf("%s: %d failures counted, want 1", name, n)
			}
			api.become(reviewer)
			if subject, err := auth.Authenticate(background(), secret); subject != "secret-token" || err != nil {
				t.Errorf("%s: afterwards %q, %v", name, subject, err)
			}
			if strings.Contains(fmt.Sprint(err), secret) || api.said(secret) > 0 {
				t.Errorf("%s: the token is in %v or in the log", name, err)
			}
		})
	}
}

// TestAnswersAreBounded: a full cache drops the oldest answers.
func TestAnswersAreBounded(t *testing.T) {
	a := newAnswerCache(time.Minute, 3)
	now := time.Now()
	for i := range 10 {
		a.put(now, digest{byte(i)}, answer{})
		a.put(now, digest{byte(i)}, answer{subject: fmt.Sprint(i)})
	}
	for i := range 10 {
		got, _, ok := a.get(now, digest{byte(i)})
		if ok != (i >= 7) || ok && got.subject != fmt.Sprint(i) {
			t.Errorf("%d: %v, %v", i, got, ok)
		}
	}
	if len(a.byID) != 3 || a.order.Len() != 3 {
		t.Errorf("%d and %d are kept", len(a.byID), a.order.Len())
	}
	if a.get(now.Add(time.Minute), digest{9}); len(a.byID) != 0 || a.order.Len() != 0 {
		t.Errorf("%d and %d are kept after their time", len(a.byID), a.order.Len())
	}
}

// TestAnswerWithoutLifetime: with AuthConfig.Cache 0 no name of a refused user stays in memory.
func TestAnswerWithoutLifetime(t *testing.T) {
	c := newAnswerCache(0, 3)
	if c.put(time.Now(), digest{1}, answer{subject: "ann"}); len(c.byID) != 0 || c.order.Len() != 0 {
		t.Errorf("%d and %d are kept", len(c.byID), c.order.Len())
	}
}

func TestAuthConfigIsChecked(t *testing.T) {
	c := new(api).client(t)
	for _, cfg := range []AuthConfig{
		{Audience: "a", Namespace: "n"},
		{Client: c, Namespace: "n"},
		{Client: c, Audience: "a"},
		{Client: c, Audience: "a", Namespace: "n", Cache: -1},
	} {
		if _, err := NewAuthenticator(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
