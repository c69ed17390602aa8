package k8s

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// callTimeout bounds one request. The API server answers in milliseconds; one
// that takes longer than this is not going to answer the client either, whose
// handshake has 10 s.
const callTimeout = 4 * time.Second

// ClientConfig says how a Client talks.
type ClientConfig struct {
	Cluster *Cluster     // required
	Version string       // of the product, for the User-Agent; empty: "devel"
	Logger  *slog.Logger // nil: discard
	Metrics *Metrics     // nil: kept but not exported
}

// Client talks to one API server. It is safe for concurrent use and needs no closing.
type Client struct {
	authentication rest.Interface // authentication.k8s.io/v1
	authorization  rest.Interface // authorization.k8s.io/v1
	core           rest.Interface // v1; bodies are JSON of our own, no types
	discovery      rest.Interface // discovery.k8s.io/v1; the same
	log            *slog.Logger
	metrics        *Metrics
}

// DiscardLibraryLog switches off what client-go logs by itself, for the whole
// process: text on stderr whatever the log's format is, and at its higher levels
// the bodies of requests, which here are tokens. What matters comes back as an
// error. It is to be called before anything uses client-go.
func DiscardLibraryLog() { klog.SetLogger(logr.Discard()) }

// NewClient makes a Client. It connects to nothing yet.
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
	// With each comes v1.Status, in which the API server tells what went wrong.
	if err := errors.Join(authenticationv1.AddToScheme(scheme), authorizationv1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("k8s: %w", err)
	}
	rc := rest.CopyConfig(cfg.Cluster.REST)
	rc.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	rc.UserAgent = "trouped/" + cfg.Version
	rc.WarningHandler = rest.NoWarnings{}
	rc.QPS = -1 // each user of the Client has a bound that fits its purpose
	if rc.Transport == nil {
		// Over HTTP/2 every request shares one connection. When the API server behind it
		// vanishes, all of them hang until its pings fail after 45 s. In HTTP/1.1 a
		// request that timed out takes its connection with it, and the next one dials.
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
		{&c.discovery, "/apis", schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}},
	} {
		if *group.client, err = restClient(rc, httpClient, group.path, group.version); err != nil {
			return nil, fmt.Errorf("k8s: %w", err)
		}
	}
	return c, nil
}

func restClient(rc *rest.Config, httpClient *http.Client, path string, version schema.GroupVersion) (rest.Interface, error) {
	rc = rest.CopyConfig(rc)
	rc.APIPath, rc.GroupVersion = path, &version
	return rest.RESTClientForConfigAndClient(rc, httpClient)
}

// do sends a request, once: who may be waiting, and for how long, is known to the
// caller only. into takes the answer; nil: it is not read.
func (c *Client) do(ctx context.Context, op operation, request *rest.Request, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	began := time.Now()
	result := request.MaxRetries(0).Do(ctx)
	err := result.Error()
	if err == nil && into != nil {
		err = result.Into(into)
	}
	c.metrics.observe(op, began, err)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}
