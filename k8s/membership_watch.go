package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

const (
	// serviceLabel is on every EndpointSlice of a Service.
	serviceLabel = "kubernetes.io/service-name"
	// maxList and maxEvent bound what is kept of one answer, in bytes. A slice of 100
	// endpoints, which is what the controller makes, has 40 KB; etcd takes 1.5 MB at most.
	maxList  = 64 << 20
	maxEvent = 4 << 20
)

// The types of a watch's events that differ; the others are ADDED and MODIFIED.
const (
	watchDeleted  = "DELETED"
	watchBookmark = "BOOKMARK"
	watchError    = "ERROR"
)

var (
	// errExpired is not a refusal, as 410 would be: a new list mends it.
	errExpired    = errors.New("the watch has expired")
	errWatchEnded = errors.New("the watch has ended")
)

func (c *Client) slicesOf(namespace, service string) *rest.Request {
	return c.discovery.Get().Namespace(namespace).Resource("endpointslices").
		Param("labelSelector", serviceLabel+"="+service).MaxRetries(0)
}

// listSlices asks for all, as they are now: not for what the API server has in its
// cache, which may be older than what is known here.
func (c *Client) listSlices(ctx context.Context, namespace, service string) (list *endpointSliceList, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	began := time.Now()
	defer func() {
		if c.metrics.observe(opList, began, err); err != nil {
			err = fmt.Errorf("%s endpointslices: %w", opList, err)
		}
	}()
	body, err := c.slicesOf(namespace, service).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxList)).Decode(&list); err != nil {
		return nil, err
	}
	// What is not a list must not be taken for an empty one.
	if list == nil || list.Kind != "EndpointSliceList" || list.Metadata.ResourceVersion == "" {
		return nil, errors.New("the answer is not an EndpointSliceList")
	}
	for _, s := range list.Items {
		if s == nil || s.Metadata.Name == "" {
			return nil, errors.New("the answer has an EndpointSlice without a name")
		}
	}
	return list, nil
}

// sliceWatch is a watch that is open.
type sliceWatch struct {
	events chan sliceEvent // closed at the end
	err    error           // why it ended, then
	cancel context.CancelFunc
}

type sliceEvent struct {
	Type   string
	Object json.RawMessage
	slice  *endpointSlice // nil: a bookmark
}

// watchSlices opens a watch from a version on, which the API server ends after lasting.
func (c *Client) watchSlices(ctx context.Context, namespace, service, version string, lasting time.Duration) (w *sliceWatch, err error) {
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	// The header comes at once, even if there is no event for hours.
	late := time.AfterFunc(callTimeout, cancel)
	body, err := c.slicesOf(namespace, service).
		Param("watch", "1").Param("allowWatchBookmarks", "true").Param("resourceVersion", version).
		Param("timeoutSeconds", strconv.Itoa(int(lasting.Seconds()))).Stream(ctx)
	if !late.Stop() && err == nil {
		body.Close()
		err = context.DeadlineExceeded
	} else if err != nil && errors.Is(err, context.Canceled) && time.Since(began) >= callTimeout {
		err = context.DeadlineExceeded
	}
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		err = errExpired
	}
	c.metrics.observe(opWatch, began, err)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%s endpointslices: %w", opWatch, err)
	}
	w = &sliceWatch{events: make(chan sliceEvent), cancel: cancel}
	go func() {
		defer close(w.events)
		defer body.Close()
		w.err = fmt.Errorf("%s endpointslices: %w", opWatch, w.read(ctx, body))
	}()
	return w, nil
}

// close ends the watch, and waits until it has ended.
func (w *sliceWatch) close() {
	w.cancel()
	for range w.events {
		// What comes now is not wanted any more.
	}
}

// read sends events until something ends them: always an error.
func (w *sliceWatch) read(ctx context.Context, body io.Reader) error {
	bound := &io.LimitedReader{R: body}
	for d := json.NewDecoder(bound); ; {
		bound.N = maxEvent
		var e sliceEvent
		switch err := d.Decode(&e); {
		case bound.N == 0:
			return fmt.Errorf("an event of over %d bytes", maxEvent)
		case errors.Is(err, io.EOF):
			return errWatchEnded
		case err != nil:
			return err
		}
		if err := e.decode(); err != nil {
			return err
		}
		select {
		case w.events <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// decode looks at what an event is about.
func (e *sliceEvent) decode() error {
	switch e.Type {
	case watchBookmark:
		return nil
	case watchError:
		var status metav1.Status
		if err := json.Unmarshal(e.Object, &status); err != nil {
			return err
		}
		if status.Code == 410 {
			return errExpired
		}
		return fmt.Errorf("the API server ended it: %d %s", status.Code, status.Message)
	case watchDeleted, "ADDED", "MODIFIED":
		if err := json.Unmarshal(e.Object, &e.slice); err != nil {
			return err
		}
		if e.slice == nil || e.slice.Kind != "EndpointSlice" || e.slice.Metadata.Name == "" {
			return errors.New("an event is not about an EndpointSlice")
		}
		e.Object = nil
		return nil
	}
	return fmt.Errorf("an event of the type %q", e.Type)
}
