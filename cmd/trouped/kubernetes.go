package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
	"github.com/troupe-dev/troupe/gateway"
	"github.com/troupe-dev/troupe/k8s"
)

// kubernetesConfig holds the settings that concern Kubernetes.
type kubernetesConfig struct {
	audience  string        // that clients' tokens must have
	cache     time.Duration // tests change it from authCache
	reports   string        // kubernetesAuto or kubernetesOff
	namespace string        // empty: the service account's namespace

	cluster *k8s.Cluster // set by findCluster; nil: there is none, or no setting needs one
	missing error        // why cluster is nil
}

// Values of --kubernetes.
const (
	kubernetesAuto = "auto"
	kubernetesOff  = "off"
)

// authCache is how long the API server's answer about a token is reused. A revoked token is
// accepted for this long, on top of the 10 s for which the API server itself caches it
// (https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/kubeapiserver/options/authentication.go#L167).
const authCache = 10 * time.Second

// podUIDEnv names the variable with the pod's UID, which kubectl describe uses to find the pod's
// Events. The downward API sets the variable, so it is not a flag.
const podUIDEnv = "TROUPE_POD_UID"

func defaultKubernetes() kubernetesConfig {
	return kubernetesConfig{audience: "troupe", cache: authCache, reports: kubernetesAuto}
}

func (c *config) kubernetesFlags(fs *pflag.FlagSet) {
	k := &c.kubernetes
	fs.Var(settings.Choice(&k.reports, kubernetesAuto, kubernetesOff), "kubernetes",
		"auto: in a cluster, record the number of sessions in the pod's annotations and write Events about the pod")
	fs.Var(settings.Text(&k.namespace, "name"), "namespace",
		"namespace of the pod; clients need permission to create sessions.troupe.dev in it; "+
			"empty: the service account's namespace")
	fs.Var(settings.Text(&k.audience, "name"), "auth-audience",
		"audience that clients' tokens must have with --auth kubernetes")
}

// namespaceName matches a DNS label (RFC 1123), which the name of a namespace must be.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (c *config) validateKubernetes() error {
	var errs []error
	k := &c.kubernetes
	if k.namespace != "" && !namespaceName.MatchString(k.namespace) {
		errs = append(errs, fmt.Errorf("--namespace must be the name of a namespace, got %q", k.namespace))
	}
	if c.auth == authKubernetes && k.audience == "" {
		errs = append(errs, errors.New("--auth-audience must name the audience of clients' tokens"))
	}
	return errors.Join(errs...)
}

// serviceAccountDir is replaced by tests.
var serviceAccountDir = k8s.ServiceAccountDir

// findCluster looks for the cluster that this process may run in. Finding none is an error only
// with --auth kubernetes and --peer-service.
func (c *config) findCluster() error {
	k := &c.kubernetes
	if !c.needsCluster() && k.reports == kubernetesOff {
		return nil
	}
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	k.cluster, k.missing = k8s.InCluster(host, port, serviceAccountDir)
	if k.namespace == "" && k.cluster != nil {
		k.namespace = k.cluster.Namespace
	}
	switch {
	case !c.needsCluster():
		return nil
	case k.missing != nil && c.auth == authKubernetes:
		return fmt.Errorf("--auth kubernetes: %w", k.missing)
	case k.missing != nil:
		return fmt.Errorf("--peer-service %s: %w", c.peers.service, k.missing)
	case k.namespace == "" && c.auth != authKubernetes:
		return fmt.Errorf("--peer-service %s needs --namespace, the namespace of the Service", c.peers.service)
	case k.namespace == "":
		return errors.New(
			"--auth kubernetes needs --namespace, where clients must have permission to create sessions.troupe.dev",
		)
	}
	return nil
}

// needsCluster reports whether a setting needs the Kubernetes API.
func (c *config) needsCluster() bool { return c.auth == authKubernetes || c.peers.service != "" }

// openCluster creates the Kubernetes API client if there is a cluster. It does not send a request.
func (s *server) openCluster() error {
	k := &s.c.kubernetes
	metrics := k8s.NewMetrics(s.registry)
	if k.cluster == nil {
		if k.missing != nil {
			s.log.Debug("no reports on the pod", "err", k.missing)
		}
		return nil
	}
	k8s.DiscardLibraryLog()
	client, err := k8s.NewClient(k8s.ClientConfig{Cluster: k.cluster, Version: version, Logger: s.log, Metrics: metrics})
	switch {
	case err != nil && s.c.auth == authKubernetes:
		return fmt.Errorf("--auth kubernetes: %w", err)
	case err != nil && s.c.needsCluster():
		return fmt.Errorf("--peer-service %s: %w", s.c.peers.service, err)
	case err != nil:
		s.log.Warn("no reports on the pod", "err", err)
		return nil
	}
	s.cluster = client
	if !s.reportsOnPod() {
		return nil
	}
	if s.events, err = k8s.NewRecorder(k8s.RecorderConfig{Client: client, Pod: s.ownPod()}); err != nil {
		return err
	}
	s.onClose("events", func() error { s.events.Close(); return nil })
	return nil
}

func (s *server) reportsOnPod() bool {
	return s.cluster != nil && s.c.kubernetes.reports != kubernetesOff && s.c.kubernetes.namespace != ""
}

func (s *server) ownPod() k8s.Pod {
	return k8s.Pod{Namespace: s.c.kubernetes.namespace, Name: s.c.pod, UID: os.Getenv(podUIDEnv)}
}

// openAnnotations starts recording the number of sessions in the pod's annotations.
func (s *server) openAnnotations() error {
	if !s.reportsOnPod() {
		return nil
	}
	annotator, err := k8s.NewAnnotator(k8s.AnnotatorConfig{
		Client: s.cluster, Pod: s.ownPod(), Sessions: func() int { return s.engine.Stats().Sessions },
	})
	if err != nil {
		return err
	}
	s.onClose("annotations", func() error { annotator.Close(); return nil })
	return nil
}

// openClusterAuth creates the Authenticator of --auth kubernetes.
func (s *server) openClusterAuth() error {
	k := &s.c.kubernetes
	auth, err := k8s.NewAuthenticator(
		k8s.AuthConfig{Client: s.cluster, Audience: k.audience, Namespace: k.namespace, Cache: k.cache},
	)
	if err != nil {
		return err
	}
	s.onClose("reviews", func() error { auth.Close(); return nil })
	s.auth = clusterAuth{auth}
	return nil
}

// clusterAuth turns the API server's answers into the gateway's errors.
type clusterAuth struct{ k8s *k8s.Authenticator }

func (a clusterAuth) Authenticate(ctx context.Context, token string) (string, error) {
	return a.Authorize(ctx, token, gateway.VerbCreate)
}

// Authorize implements gateway.Authorizer.
func (a clusterAuth) Authorize(ctx context.Context, token string, verb gateway.Verb) (string, error) {
	if token == "" {
		return "", gateway.ErrNoToken
	}
	subject, err := a.k8s.Authorize(ctx, token, string(verb))
	var denied *k8s.DeniedError
	switch {
	case errors.Is(err, k8s.ErrBadToken):
		return "", gateway.ErrBadToken
	case errors.As(err, &denied):
		// As with the API server, the error tells the client its own name and the missing permission.
		return "", fmt.Errorf("%w: %w", gateway.ErrForbidden, denied)
	}
	return subject, err
}

// sessionRefused must not block: the engine calls it.
func (s *server) sessionRefused(cause wire.Cause) {
	if cause == wire.CauseSessionLimit {
		s.events.Record(k8s.SessionLimitReached,
			fmt.Sprintf("A session was refused: all sessions are in use (--max-sessions is %d)", s.c.limits.MaxSessions))
	}
}

// runnerChanged must not block: the runner calls it.
func (s *server) runnerChanged(e proc.RunnerEvent) {
	switch e.Kind {
	case proc.RunnerLost:
		s.events.Record(k8s.RunnerLost, "The runner ended, and every command with it")
	case proc.RunnerRestarted:
		s.events.Record(k8s.RunnerConnected, "Another runner takes commands")
	}
}

func (s *server) drainBegan() {
	now := s.engine.Stats()
	s.events.Record(k8s.Draining,
		fmt.Sprintf("No new sessions; open: %d, with %d executions running, which may finish for %v",
			now.Sessions, now.Executions, settings.FormatDuration(s.c.limits.DrainTimeout)))
}

func (s *server) drainEnded() { s.events.Record(k8s.Drained, "No session is left") }
