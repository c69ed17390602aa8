package k8s

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

var errWatchEnded = errors.New("the watch has ended")

func (c *Client) slicesOf(namespace, service string) *rest.Request {
	return c.discovery.Get().Namespace(namespace).Resource("endpointslices").
		Param("labelSelector", discoveryv1.LabelServiceName+"="+service).MaxRetries(0)
}

// listSlices returns all slices of a Service. Without a resourceVersion the answer is current; an
// answer from the API server's cache (resourceVersion=0) may be older than what is known here.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list
func (c *Client) listSlices(ctx context.Context, namespace, service string) (*discoveryv1.EndpointSliceList, error) {
	list := new(discoveryv1.EndpointSliceList)
	err := c.call(ctx, opList, func(ctx context.Context) error {
		if err := c.slicesOf(namespace, service).Do(ctx).Into(list); err != nil {
			return err
		}
		// The decoder accepts {} as a list, and null as an item. Neither may count as "no pods".
		if list.ResourceVersion == "" {
			return errors.New("the answer is not an EndpointSliceList")
		}
		for i := range list.Items {
			if list.Items[i].Name == "" {
				return errors.New("the answer has an EndpointSlice without a name")
			}
		}
		return nil
	})
	return list, err
}

// watchSlices opens a watch that starts after a resource version and that the API server ends after
// timeout.
func (c *Client) watchSlices(
	ctx context.Context, namespace, service, version string, timeout time.Duration,
) (w watch.Interface, err error) {
	err = c.call(ctx, opWatch, func(callCtx context.Context) error {
		// The call's timeout covers the response header, which comes before the first event.
		watchCtx, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(callCtx, cancel)
		w, err = c.slicesOf(namespace, service).
			Param("watch", "1").Param("allowWatchBookmarks", "true").Param("resourceVersion", version).
			Param("timeoutSeconds", strconv.Itoa(int(timeout.Seconds()))).Watch(watchCtx)
		if !stop() && ctx.Err() == nil {
			if err == nil {
				w.Stop()
			}
			err = context.DeadlineExceeded
		}
		if err != nil {
			cancel()
		}
		return err
	})
	return w, err
}

// sliceOf returns the slice that an event of a watch is about, or why the watch is over.
func sliceOf(e watch.Event) (*discoveryv1.EndpointSlice, error) {
	if e.Type == watch.Error {
		return nil, apierrors.FromObject(e.Object)
	}
	s, ok := e.Object.(*discoveryv1.EndpointSlice)
	if !ok || s.Name == "" && e.Type != watch.Bookmark {
		return nil, fmt.Errorf("%s event of %T instead of an EndpointSlice with a name", e.Type, e.Object)
	}
	return s, nil
}
