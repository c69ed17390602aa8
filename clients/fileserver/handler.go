package fileserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/files"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// Prefix is where the Handler's paths begin.
const Prefix = "/api/v1/sessions/"

// Config configures a Handler.
type Config struct {
	// Attach connects to a session on behalf of the client that made the request, and follows the
	// executions that offsets names. Its errors are those of troupe.Attach, or one made
	// by Refuse. The Handler detaches.
	Attach func(r *http.Request, session string, offsets map[string]int64) (*troupe.Client, error) // required
	Logger *slog.Logger                                                                            // nil: discard
}

// stallTimeout is the time that a client may take for the next piece of a transfer, which is 64 KiB or
// less.
const stallTimeout = 60 * time.Second

// Handler serves the files of sessions. It authenticates nobody: Attach does.
type Handler struct {
	cfg   Config
	log   *slog.Logger
	mux   *http.ServeMux
	stall time.Duration // tests lower it from stallTimeout
}

// methods of the paths below a session, by what follows its id.
var methods = map[string]map[string]func(*call) error{
	"/files/{path...}": {
		http.MethodGet: (*call).get, http.MethodHead: (*call).get, http.MethodPut: (*call).put,
		http.MethodPost: (*call).post, http.MethodDelete: (*call).remove,
	},
	"/uploads/{upload}": {
		http.MethodHead: (*call).uploadState, http.MethodPatch: (*call).uploadMore, http.MethodDelete: (*call).uploadCancel,
	},
}

// NewHandler returns a Handler.
func NewHandler(cfg Config) *Handler {
	h := &Handler{cfg: cfg, log: cfg.Logger, mux: http.NewServeMux(), stall: stallTimeout}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	for path, serve := range methods {
		allow := strings.Join(slices.Sorted(maps.Keys(serve)), ", ")
		h.mux.HandleFunc(Prefix+"{session}"+path, func(w http.ResponseWriter, r *http.Request) {
			method, ok := serve[r.Method]
			if !ok {
				w.Header().Set("Allow", allow)
				method = func(*call) error { return problemf(http.StatusMethodNotAllowed, "", "use %s", allow) }
			}
			h.serve(w, r, method)
		})
	}
	return h
}

// ServeHTTP is http.Handler's.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// call is one HTTP request.
type call struct {
	h    *Handler
	w    http.ResponseWriter
	r    *http.Request
	ctx  context.Context
	ctrl *http.ResponseController
	path files.Name
	body bool // the request has one that was not read to its end
	sent bool // the header of the answer
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, serve func(*call) error) {
	c := &call{
		h: h, w: w, r: r, ctx: r.Context(), ctrl: http.NewResponseController(w), path: files.Name(r.PathValue("path")),
		body: r.Body != http.NoBody,
	}
	r.Body = &body{r.Body, c}
	c.extend()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	err := serve(c)
	if err == nil {
		return
	}
	p := problemOf(err)
	if c.sent {
		// Only a broken connection says that an answer which has begun is not whole.
		h.log.Debug("a transfer failed", "session", r.PathValue("session"), "err", err)
		panic(http.ErrAbortHandler)
	}
	c.extend()
	p.write(w)
}

// extend lets the client have stallTimeout for its next piece, in either direction. Without a body there
// is no deadline for reading: net/http reads on, to notice that the client has gone, and would take a
// deadline for that.
func (c *call) extend() {
	end := time.Now().Add(c.h.stall)
	_ = c.ctrl.SetWriteDeadline(end) // not supported: the server's own timeouts hold
	if !c.body {
		end = time.Time{}
	}
	_ = c.ctrl.SetReadDeadline(end) // the same
}

// body is that of a request.
type body struct {
	io.ReadCloser
	c *call
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.c.body {
		b.c.body = false
		b.c.extend()
	}
	return n, err
}

// begin sends the header of the answer.
func (c *call) begin(status int) {
	c.sent = true
	c.extend()
	c.w.WriteHeader(status)
}

func (c *call) answerJSON(status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	c.begin(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	_, err = c.w.Write(append(text, '\n'))
	return err
}

// attach connects to the session of the request. done gives the connection up: the session stays.
func (c *call) attach(offsets map[string]int64) (client *troupe.Client, done func(), err error) {
	if offsets == nil {
		offsets = map[string]int64{}
	}
	client, err = c.h.cfg.Attach(c.r, c.r.PathValue("session"), offsets)
	if err != nil {
		return nil, nil, err
	}
	return client, func() { client.Detach() }, nil
}

// transfer is a run of troupe-files.
type transfer struct {
	c      *call
	exec   *troupe.Execution
	detach func()

	longest int            // of its lines, in bytes
	rest    []byte         // of the last piece
	last    *troupe.Output // owns rest
	errs    []byte         // what it wrote to its standard error
	ended   bool           // the execution was read to its end
}

const maxErrorText = 1024

// run starts req in the session.
func (c *call) run(req *files.Request, set func(*wire.ExecuteParams)) (*transfer, error) {
	arg, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	client, done, err := c.attach(nil)
	if err != nil {
		return nil, err
	}
	params := wire.ExecuteParams{
		Argv: []string{files.Program, string(arg)}, Framing: wire.FramingRaw, Encoding: wire.EncodingBase64,
		Retain: wire.RetainUnread,
	}
	if set != nil {
		set(&params)
	}
	e, err := client.Execute(c.ctx, params)
	if err != nil {
		done()
		return nil, err
	}
	t := &transfer{c: c, exec: e, detach: done, longest: files.MaxReply}
	if req.Op == files.OpWatch {
		t.longest = files.MaxChange
	}
	return t, nil
}

// close ends a transfer that was not read to its end, and gives the connection up.
func (t *transfer) close() {
	if !t.ended {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.c.ctx), 5*time.Second)
		_ = t.exec.Cancel(ctx) // without a reader it ends with the resume window at the latest
		t.exec.Discard()
		_, _ = t.exec.Wait(ctx)
		cancel()
	}
	t.detach()
}

// piece returns the next bytes of the output, at least one, which are valid until the next call, or io.EOF.
func (t *transfer) piece() ([]byte, error) {
	if p := t.rest; len(p) > 0 {
		t.rest = nil
		return p, nil
	}
	if t.last != nil {
		t.last.Release()
		t.last = nil
	}
	for {
		ev, err := t.exec.Next(t.c.ctx)
		if err != nil {
			t.ended = t.ended || errors.Is(err, io.EOF)
			return nil, err
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			switch {
			case ev.Stream == wire.Stderr:
				t.errs = append(t.errs, ev.Data[:min(len(ev.Data), maxErrorText-len(t.errs))]...)
				ev.Release()
			case len(ev.Data) > 0:
				t.last = ev
				return ev.Data, nil
			}
		case *troupe.Gap:
			return nil, errors.New("output of the transfer is missing")
		}
	}
}

// reply returns the next line of the output. Lines that only say that the program is alive are
// skipped.
func (t *transfer) reply() (*files.Reply, error) {
	for {
		if r, err := t.line(); err != nil || !r.Alive {
			return r, err
		}
	}
}

// line is reply for whoever wants every line.
func (t *transfer) line() (*files.Reply, error) {
	var line []byte
	for {
		p, err := t.piece()
		if errors.Is(err, io.EOF) {
			return nil, t.failure()
		}
		if err != nil {
			return nil, err
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			if line = append(line, p...); len(line) > t.longest {
				return nil, errors.New("the program's reply is too long")
			}
			continue
		}
		line = append(line, p[:end]...)
		t.rest = p[end+1:]
		r := new(files.Reply)
		if err := json.Unmarshal(line, r); err != nil {
			return nil, err
		}
		if r.Error != nil {
			return nil, r.Error
		}
		return r, nil
	}
}

// end reads the output to its end and returns nil if the program succeeded.
func (t *transfer) end() error {
	for {
		if _, err := t.piece(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	done, err := t.exec.Wait(t.c.ctx)
	if err != nil {
		return err
	}
	if done.ExitCode == 0 {
		return nil
	}
	return t.failure()
}

// failure says why the program ended without its last line.
func (t *transfer) failure() error {
	done, err := t.exec.Wait(t.c.ctx)
	if err != nil {
		return err
	}
	return &endedError{completed: done, text: string(t.errs)}
}

// once runs a request that has one reply.
func (c *call) once(req *files.Request) (*files.Reply, error) {
	t, err := c.run(req, nil)
	if err != nil {
		return nil, err
	}
	defer t.close()
	r, err := t.reply()
	if err != nil {
		_ = t.end()
		return nil, err
	}
	return r, t.end()
}
