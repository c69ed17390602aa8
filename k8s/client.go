package k8s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// callTimeout bounds one request. A healthy API server answers within milliseconds, and a client's
// handshake, which may need two requests, has only 10 s.
const callTimeout = 4 * time.Second

// maxBody bounds the bytes of an answer, and of all events of one watch together. A full
// EndpointSlice, with 100 endpoints, has 40 KB. The limit therefore allows a list of 40,000 pods; a
// watch ends after 400 changes of full slices, and a list follows it. Tests lower the limit.
var maxBody = 16 << 20

// ClientConfig configures a Client.
type ClientConfig struct {
	Cluster *Cluster     // required
	Version string       // of trouped, for the User-Agent; empty: "devel"
	Logger  *slog.Logger // nil: discard
	Metrics *Metrics     // nil: not exported
}

// Client sends requests to one API server. It is safe for concurrent use and needs no Close.
type Client struct {
	authentication rest.Interface // authentication.k8s.io/v1
	authorization  rest.Interface // authorization.k8s.io/v1
	core           rest.Interface // v1; requests are our own JSON, see event.go
	discovery      rest.Interface // discovery.k8s.io/v1
	log            *slog.Logger
	metrics        *Metrics
}

// DiscardLibraryLog turns off client-go's own log for the whole process. It writes text to stderr
// whatever our log format is, and at verbosity 8 the bodies of requests, which contain tokens.
// Errors that matter are returned. Call it before anything uses client-go.
func DiscardLibraryLog() { klog.SetLogger(logr.Discard()) }

// NewClient returns a Client. It does not connect yet.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Cluster == nil || cfg.Cluster.REST == nil {
		return nil, errors.New("k8s: ClientConfig.Cluster is required: see InCluster")
	}
	if cfg.Version == "" {
		cfg.Version = "devel"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}

	scheme := runtime.NewScheme()
	// Each of them also adds v1.Status, which an API server sends when a request fails.
	err := errors.Join(
		authenticationv1.AddToScheme(scheme), authorizationv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme))
	if err != nil {
		return nil, fmt.Errorf("k8s: %w", err)
	}
	rc := rest.CopyConfig(cfg.Cluster.REST)
	rc.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	rc.UserAgent = "trouped/" + cfg.Version
	rc.WarningHandler = rest.NoWarnings{}
	rc.Wrap(limitBodies)
	rc.QPS = -1 // no limit here: each user of the Client has its own
	if rc.Transport == nil {
		// Over HTTP/2 all requests share one connection. If the API server behind it vanishes, all of
		// them hang until the connection's ping fails, after 45 s by the defaults of apimachinery v0.37
		// (util/net/http.go; https://github.com/kubernetes/kubernetes/issues/87615). Over HTTP/1.1 a
		// request that times out closes its connection, and the next one dials.
		rc.NextProtos = []string{"http/1.1"}
	}
	httpClient, err := rest.HTTPClientFor(rc)
	if err != nil {
		return nil, fmt.Errorf("k8s: %w", err)
	}
	c := &Client{log: cfg.Logger, metrics: cfg.Metrics}
	for _, group := range []struct {
		client  *rest.Interface
		path    string
		version schema.GroupVersion
	}{
		{&c.authentication, "/apis", authenticationv1.SchemeGroupVersion},
		{&c.authorization, "/apis", authorizationv1.SchemeGroupVersion},
		{&c.core, "/api", schema.GroupVersion{Version: "v1"}},
		{&c.discovery, "/apis", discoveryv1.SchemeGroupVersion},
	} {
		if *group.client, err = restClient(rc, httpClient, group.path, group.version); err != nil {
			return nil, fmt.Errorf("k8s: %w", err)
		}
	}
	return c, nil
}

func restClient(
	rc *rest.Config, httpClient *http.Client, path string, version schema.GroupVersion,
) (rest.Interface, error) {
	rc = rest.CopyConfig(rc)
	rc.APIPath, rc.GroupVersion = path, &version
	return rest.RESTClientForConfigAndClient(rc, httpClient)
}

// do sends a request once; only the caller knows whether a retry is worth the wait. It decodes the
// answer into into, unless that is nil.
func (c *Client) do(ctx context.Context, op operation, request *rest.Request, into runtime.Object) error {
	return c.call(ctx, op, func(ctx context.Context) error {
		result := request.MaxRetries(0).Do(ctx)
		if into == nil {
			return result.Error()
		}
		return result.Into(into)
	})
}

// call makes a request within callTimeout and counts it.
func (c *Client) call(ctx context.Context, op operation, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	began := time.Now()
	err := request(ctx)
	c.metrics.observe(op, began, err)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// limitBodies fails the reading of an answer after maxBody bytes. client-go v0.37 reads an answer,
// and an event of a watch in JSON, into memory whatever its size.
func limitBodies(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err == nil {
			response.Body = &limitedBody{response.Body, maxBody}
		}
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type limitedBody struct {
	io.ReadCloser
	left int
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the API server's answer is larger than %d bytes", maxBody)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
