package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// The annotations that an Annotator keeps. The value of both is the number of sessions.
const (
	// deletionCost makes a ReplicaSet that scales in remove the pods with the fewest sessions first:
	// https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost
	deletionCost = "controller.kubernetes.io/pod-deletion-cost"
	// sessionsAnnotation is for people: kubectl get pods -o custom-columns can show it.
	sessionsAnnotation = "troupe.dev/sessions"
)

const (
	// pollInterval is how long a change may go unnoticed. A poll costs one atomic load.
	pollInterval = time.Second
	// patchInterval is the minimum time between two patches, except after the first. Every patch of a
	// pod is written to etcd and sent to all watchers of pods, and scaling in needs no fresher number.
	patchInterval = 10 * time.Second
)

// Pod identifies the pod that this process runs in.
type Pod struct {
	Namespace string // required
	Name      string // required
	UID       string // for Events; if it is empty, kubectl describe does not find them
}

func (p Pod) validate() error {
	if p.Namespace == "" || p.Name == "" {
		return errors.New("k8s: the pod's Namespace and Name are required")
	}
	return nil
}

// AnnotatorConfig configures an Annotator.
type AnnotatorConfig struct {
	Client   *Client    // required
	Pod      Pod        // required
	Sessions func() int // returns the current number of sessions; required; must not block
}

// Annotator keeps the number of sessions in the annotations of its own pod.
type Annotator struct {
	cfg     AnnotatorConfig
	backoff backoff
	cancel  context.CancelFunc
	done    chan struct{}
}

// NewAnnotator starts an Annotator. It writes the current number at once, because the pod may still
// have the annotations of a container that ran before. The caller must Close it.
func NewAnnotator(cfg AnnotatorConfig) (*Annotator, error) {
	if cfg.Client == nil || cfg.Sessions == nil {
		return nil, errors.New("k8s: AnnotatorConfig.Client and Sessions are required")
	}
	if err := cfg.Pod.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Annotator{
		cfg: cfg, backoff: newReportBackoff("pod annotations", cfg.Client.log),
		cancel: cancel, done: make(chan struct{}),
	}
	go a.run(ctx)
	return a, nil
}

// Close stops the Annotator at once. It cancels a running patch.
func (a *Annotator) Close() {
	a.cancel()
	<-a.done
}

func (a *Annotator) run(ctx context.Context) {
	defer close(a.done)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	written := -1      // unknown
	var next time.Time // the earliest next patch
	for {
		sessions, now := a.cfg.Sessions(), time.Now()
		if sessions != written && !now.Before(next) && a.backoff.ready(now) {
			err := a.patch(ctx, sessions)
			now = time.Now()
			if written >= 0 {
				next = now.Add(patchInterval)
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				a.backoff.failed(now, err)
				// The API server may have applied the patch before its answer was lost, so the next
				// patch is sent whatever the number is by then.
				written = -1
			default:
				a.backoff.succeeded()
				written = sessions
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// patch sends a JSON merge patch (RFC 7386) of the two annotations, which keeps all others.
func (a *Annotator) patch(ctx context.Context, sessions int) error {
	n := strconv.Itoa(sessions)
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"annotations": map[string]string{deletionCost: n, sessionsAnnotation: n},
	}})
	if err != nil {
		return err
	}
	c, pod := a.cfg.Client, a.cfg.Pod
	return c.do(ctx, opPatch, c.core.Patch(types.MergePatchType).
		Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
		// Nothing in the answer is read, so ask for the pod's metadata only.
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").
		Body(body), nil)
}
