package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/gateway"
)

// codes are the statuses of all answers. The set is closed: the metric has a series for each.
var codes = []int{
	http.StatusOK, http.StatusAccepted, http.StatusNotModified, http.StatusBadRequest, http.StatusUnauthorized,
	http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
	http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusInternalServerError,
	http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

func newMetrics(reg prometheus.Registerer) *prometheus.CounterVec {
	m := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "troupe_api_requests_total", Help: "Requests to the HTTP API that were answered, by route and status.",
	}, []string{"route", "code"})
	for _, r := range append([]route{noRoute}, routes...) {
		for _, code := range codes {
			m.WithLabelValues(r.label(), strconv.Itoa(code))
		}
	}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

// label names the route in the metric.
func (r route) label() string { return strings.TrimPrefix(r.path, Prefix) }

// serve answers the requests of one route.
func (h *Handler) serve(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a answer
		m, subject, err := h.admit(w, r, route)
		if err == nil {
			req := &request{r, h, subject, len(m.verbs) > 0}
			defer req.leave() // once the answer is written, which is held until then
			a, err = m.serve(r.Context(), req)
		}
		if err != nil {
			a = problemOf(err).answer(w.Header())
			if a.status == http.StatusInternalServerError {
				h.log.Error("an API request failed", "route", route.label(), "err", err)
			}
		}
		status := http.StatusOK
		if a.stream != nil {
			err = a.stream(r.Context(), w)
		} else {
			status = write(w, r, a)
		}
		h.metrics.WithLabelValues(route.label(), strconv.Itoa(status)).Inc()
		if a.stream != nil && err != nil {
			panic(http.ErrAbortHandler) // only a broken connection says that an answer which has begun is not whole
		}
	})
}

// leave gives the permit of a request back.
func (r *request) leave() {
	if r.held {
		r.held = false
		r.h.permits.Leave(r.subject)
	}
}

// enter waits for a permit again, until ctx ends.
func (r *request) enter(ctx context.Context) bool {
	r.held = r.held || r.h.permits.Enter(ctx, r.subject)
	return r.held
}

// admit finds the method that serves a request, or refuses it. If the method asks for a verb, the subject has one, and
// a permit.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request, route route) (m method, subject string, err error) {
	if len(route.methods) == 0 {
		return m, "", &problem{
			Status: http.StatusNotFound,
			Detail: "there is nothing here: see " + Prefix + "openapi.json",
		}
	}
	name := r.Method
	if name == http.MethodHead {
		name = http.MethodGet // net/http sends no body
	}
	m, ok := route.methods[name]
	if !ok {
		w.Header().Set("Allow", route.allow())
		return m, "", &problem{Status: http.StatusMethodNotAllowed, Detail: "use " + route.allow()}
	}
	if err := noBody(w, r); err != nil {
		return m, "", err
	}
	if len(m.verbs) == 0 {
		return m, "", nil
	}
	subject, status, err := h.cfg.Gateway.Authorize(r, m.verbs...)
	if err != nil {
		gateway.RetryLater(w.Header(), err)
		return m, "", h.refusal(r, status, err)
	}
	if h.cfg.Gateway.OneSubject() {
		return m, "", &problem{
			Status: http.StatusForbidden, Detail: "without authentication every client is the same subject, and this server " +
				"separates sessions: use the resume token that the session's own client was given",
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.wait)
	defer cancel()
	if !h.permits.Enter(ctx, subject) {
		return m, "", &problem{
			Status: http.StatusTooManyRequests, Detail: fmt.Sprintf(
				"%d requests are being served, of which one subject has at most half: try again", MaxRequests),
		}
	}
	return m, subject, nil
}

func (r route) allow() string {
	names := slices.Sorted(maps.Keys(r.methods))
	if i := slices.Index(names, http.MethodGet); i >= 0 {
		names = slices.Insert(names, i+1, http.MethodHead)
	}
	return strings.Join(names, ", ")
}

// noBody refuses a request with more of a body than net/http may skip.
func noBody(w http.ResponseWriter, r *http.Request) error {
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if _, err := io.Copy(io.Discard, body); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return &problem{Status: http.StatusRequestEntityTooLarge, Detail: "no request takes a body: leave it out"}
		}
		return &problem{Status: http.StatusBadRequest, Detail: "the body of the request broke off"}
	}
	return nil
}

// refusal is the problem of a client that was not let in.
func (h *Handler) refusal(r *http.Request, status int, err error) error {
	p := &problem{Status: status, Detail: err.Error()}
	if status == http.StatusServiceUnavailable {
		p.Detail = "authentication is unavailable, try again"
		h.log.Error("API request refused", "remote", r.RemoteAddr, "status", status, "err", err)
	}
	return p
}

// may reports whether the client has a further verb.
func (r *request) may(verb gateway.Verb) (bool, error) {
	ok, err := r.h.cfg.Gateway.May(r.Request, verb)
	if err != nil {
		return false, r.h.refusal(r.Request, http.StatusServiceUnavailable, err)
	}
	return ok, nil
}

// write sends an answer, or that the client has it already, and returns its status.
func write(w http.ResponseWriter, r *http.Request, a answer) int {
	body, isRaw := a.body.(json.RawMessage)
	header := w.Header()
	if !isRaw {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(a.body); err != nil {
			a.status = http.StatusInternalServerError
		}
		body = b.Bytes()
	}
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/json")
	}
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "private, no-cache") // a cache asks again, with the ETag
	header.Add("Vary", "Authorization")
	if a.status == http.StatusOK && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		sum := sha256.Sum256(body)
		tag := `"` + hex.EncodeToString(sum[:12]) + `"`
		header.Set("ETag", tag)
		if matches(r.Header.Get("If-None-Match"), tag) {
			header.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return http.StatusNotModified
		}
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone
	}
	return a.status
}

// matches reports whether a list of entity tags has the tag: weakly, as If-None-Match compares
// (https://www.rfc-editor.org/rfc/rfc9110#field.if-none-match).
func matches(list, tag string) bool {
	if strings.TrimSpace(list) == "*" {
		return true
	}
	for item := range strings.SplitSeq(list, ",") {
		if strings.TrimPrefix(strings.TrimSpace(item), "W/") == tag {
			return true
		}
	}
	return false
}
