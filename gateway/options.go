package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// sessionOptions returns what a client asks for with name, label and resume_window. session is the one that it
// re-attaches to.
func (g *Gateway) sessionOptions(
	r *http.Request, session string, endsWithConnection bool,
) (o wire.SessionOptions, err error) {
	query := r.URL.Query()
	name, labels, window := query["name"], query["label"], query["resume_window"]
	switch {
	case len(name)+len(labels)+len(window) == 0:
		return o, nil
	case session != "":
		return o, errors.New("name, label and resume_window are for a new session: leave them out together with session=")
	case len(window) > 0 && endsWithConnection:
		return o, errors.New("resume_window: this session ends with its connection; connect to /ws for one that outlives it")
	case len(name) > 1 || len(window) > 1:
		return o, errors.New("name and resume_window may be given once")
	case len(labels) > wire.MaxLabels:
		return o, fmt.Errorf("%d labels: a session has at most %d", len(labels), wire.MaxLabels)
	}
	// The strings are parts of the request's line, which the session is not to keep.
	if len(name) > 0 {
		if name[0] == "" {
			return o, errors.New("name is empty: leave it out for a session without one")
		}
		o.Name = strings.Clone(name[0])
	}
	for _, label := range labels {
		key, value, ok := strings.Cut(strings.Clone(label), "=")
		if !ok {
			return o, fmt.Errorf("label %.80q: write key=value", label)
		}
		if _, twice := o.Labels[key]; twice {
			return o, fmt.Errorf("label %.80q is given twice", key)
		}
		if o.Labels == nil {
			o.Labels = make(map[string]string, len(labels))
		}
		o.Labels[key] = value
	}
	if len(window) > 0 {
		if o.ResumeWindow, err = resumeWindow(window[0], g.cfg.Engine.Stats().MaxResumeWindow); err != nil {
			return o, err
		}
	}
	return o, o.Check()
}

// resumeWindow reads a number of seconds.
func resumeWindow(text string, most time.Duration) (time.Duration, error) {
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds >= 1 && seconds <= most.Seconds()) { // NaN is neither
		return 0, fmt.Errorf("resume_window %.80q: give seconds, from 1 to %v, this server's idle timeout",
			text, most.Seconds())
	}
	return time.Duration(seconds * float64(time.Second)), nil
}
