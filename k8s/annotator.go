package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// The annotations that an Annotator keeps. Both are the number of sessions.
const (
	// deletionCost makes a scale-in take the pods with the fewest sessions first (KEP-2255).
	deletionCost = "controller.kubernetes.io/pod-deletion-cost"
	// sessionsAnnotation is for people: kubectl get pods -o custom-columns shows it.
	sessionsAnnotation = "troupe.dev/sessions"
)

const (
	// lookInterval is how long a change may go unnoticed. Looking is an atomic load.
	lookInterval = time.Second
	// patchInterval is the least time between two patches, the very first aside. Every
	// patch of a pod is written to etcd and sent to all who watch pods; a scale-in needs
	// no fresher figure.
	patchInterval = 10 * time.Second
)

// Pod names the pod this process is in.
type Pod struct {
	Namespace string // required
	Name      string // required
	UID       string // for Events, which kubectl describe finds by it; empty: it does not find them
}

func (p Pod) validate() error {
	if p.Namespace == "" || p.Name == "" {
		return errors.New("k8s: the pod's Namespace and Name are required")
	}
	return nil
}

// AnnotatorConfig says what an Annotator reports.
type AnnotatorConfig struct {
	Client   *Client    // required
	Pod      Pod        // required
	Sessions func() int // the number of sessions now; required; must not block
}

// Annotator keeps the number of sessions in the annotations of the own pod.
type Annotator struct {
	cfg    AnnotatorConfig
	gate   gate
	cancel context.CancelFunc
	done   chan struct{}
}

// NewAnnotator starts an Annotator, which begins by writing the current number:
// the pod may have annotations of a container that ran before. The caller ends it
// with Close.
func NewAnnotator(cfg AnnotatorConfig) (*Annotator, error) {
	if cfg.Client == nil || cfg.Sessions == nil {
		return nil, errors.New("k8s: AnnotatorConfig.Client and Sessions are required")
	}
	if err := cfg.Pod.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Annotator{cfg: cfg, gate: reports("pod annotations", cfg.Client.log), cancel: cancel, done: make(chan struct{})}
	go a.run(ctx)
	return a, nil
}

// Close ends the Annotator at once; a patch under way is cut off.
func (a *Annotator) Close() {
	a.cancel()
	<-a.done
}

func (a *Annotator) run(ctx context.Context) {
	defer close(a.done)
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	written := -1      // unknown
	var next time.Time // the earliest next patch
	for {
		sessions, now := a.cfg.Sessions(), time.Now()
		if sessions != written && !now.Before(next) && a.gate.open(now) {
			err := a.patch(ctx, sessions)
			now = time.Now()
			if written >= 0 {
				next = now.Add(patchInterval)
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				a.gate.failed(now, err)
				written = -1 // it may have been written all the same; so it is repeated whatever the number is by then
			default:
				a.gate.succeeded()
				written = sessions
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// patch is a JSON merge patch (RFC 7386) of two annotations, which leaves all others alone.
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
		// Of the pod in the answer nothing is read: ask for the short form.
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").
		Body(body), nil)
}
