package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/gateway"
)

const (
	// pageTimeout bounds the time in which a client takes a page of a recording.
	pageTimeout = 10 * time.Second
	// firstLook and lastLook bound the time between two looks for more of a recording that is followed. Its times are
	// those of the transcript, so looking rarely makes them no less exact.
	firstLook = 50 * time.Millisecond
	lastLook  = 500 * time.Millisecond
	// silence is how long the pod that holds the session may fail to answer before the recording breaks off.
	silence = 10 * time.Second
)

// recordingQuery are the parameters of a recording.
type recordingQuery struct {
	since  float64 // seconds: leave out what was before
	follow bool    // go on until the terminal ends
}

// recording sends what a terminal has shown as an asciicast.
func recording(ctx context.Context, r *request) (answer, error) {
	query, err := parseRecording(r.URL.Query())
	if err != nil {
		return answer{}, &problem{Status: http.StatusBadRequest, Detail: err.Error()}
	}
	if !r.h.records.TryEnter(r.subject) {
		return answer{}, &problem{
			Status: http.StatusTooManyRequests,
			Detail: fmt.Sprintf("%d recordings are being sent, of which one subject has at most half: try again", MaxRecordings),
		}
	}
	s := &recordingStream{request: r, recordingQuery: query}
	err = r.withSession(gateway.VerbRead, http.StatusOK, func(v actors.Viewer) (string, error) {
		s.viewer = v
		if err := s.next(ctx); err != nil {
			return "", err
		}
		return s.page.Subject, nil
	})
	if err != nil {
		r.h.records.Leave(r.subject)
		return answer{}, err
	}
	return answer{stream: s.send}, nil
}

func parseRecording(query url.Values) (q recordingQuery, err error) {
	for name, values := range query {
		switch {
		case name != "since" && name != "follow":
			return q, fmt.Errorf("unknown parameter %.40q: use since and follow", name)
		case len(values) > 1:
			return q, fmt.Errorf("%s may be given once", name)
		case name == "since":
			if q.since, err = strconv.ParseFloat(values[0], 64); err != nil || !(q.since >= 0) {
				return q, fmt.Errorf("since %.40q: use a number of seconds, such as the time of an event", values[0])
			}
		default:
			if q.follow, err = strconv.ParseBool(values[0]); err != nil {
				return q, fmt.Errorf("follow %.40q: use true or false", values[0])
			}
		}
	}
	return q, nil
}

// recordingStream is a recording that is being sent.
type recordingStream struct {
	*request
	recordingQuery
	viewer actors.Viewer
	page   *actors.RecordingPage
	offset int64 // of the next page
	cast   asciicast
}

// next reads the next page.
func (s *recordingStream) next(ctx context.Context) error {
	page, err := s.h.cfg.Engine.ReadRecording(ctx, s.viewer, s.PathValue("id"), s.PathValue("execution"), s.offset)
	if err == nil {
		s.page, s.offset = page, page.NextOffset
	}
	return err
}

// send sends the recording. It holds the permit of the request only from reading a page to having sent it.
func (s *recordingStream) send(ctx context.Context, w http.ResponseWriter) error {
	defer s.h.records.Leave(s.subject)
	header := w.Header()
	header.Set("Content-Type", castType)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Authorization")
	if s.Method == http.MethodHead {
		return nil
	}
	s.cast.begin(s.page)
	end := s.page.Offset
	for wait := firstLook; ; {
		s.cast.add(s.page.Pieces, s.since)
		over := s.page.End || !s.follow && (len(s.page.Pieces) == 0 || s.offset >= end)
		if over {
			s.cast.finish()
		}
		if err := s.flush(w); err != nil || over {
			return err
		}
		wait = min(2*wait, lastLook)
		if len(s.page.Pieces) > 0 {
			wait = firstLook
		}
		s.page = nil
		s.leave()
		if wait > firstLook && !sleep(ctx, wait) {
			return ctx.Err()
		}
		if err := s.more(ctx); err != nil {
			return err
		}
	}
}

// more reads the next page. A session that is gone was the terminal's end.
func (s *recordingStream) more(ctx context.Context) error {
	for began := time.Now(); ; {
		if !s.enter(ctx) {
			return ctx.Err()
		}
		err := s.next(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, actors.ErrNoSession), errors.Is(err, actors.ErrNoExecution):
			s.page = &actors.RecordingPage{End: true}
			return nil
		case time.Since(began) > silence:
			return err
		}
		if s.leave(); !sleep(ctx, lastLook) {
			return ctx.Err()
		}
	}
}

// flush sends what the asciicast has.
func (s *recordingStream) flush(w http.ResponseWriter) error {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(pageTimeout)) // not supported: the server's own timeouts hold
	_, err := w.Write(s.cast.out.Bytes())
	s.cast.out = bytes.Buffer{}
	if err != nil {
		return err
	}
	if err := control.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
