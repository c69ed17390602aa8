package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Reason is the reason for which an Event is written.
type Reason string

// The reasons.
const (
	SessionLimitReached Reason = "SessionLimitReached" // a client was refused because all sessions are in use
	RunnerLost          Reason = "RunnerLost"          // the runner's container ended, which killed every command
	RunnerConnected     Reason = "RunnerConnected"     // a new runner has connected
	Draining            Reason = "Draining"            // no new sessions; commands may finish
	Drained             Reason = "Drained"             // the last session has ended
)

// kind returns the type of the Event.
func (r Reason) kind() string {
	if r == SessionLimitReached || r == RunnerLost {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// component is the source of the Events.
const component = "trouped"

// repetition is the patch of an Event that occurred again.
type repetition struct {
	Message       string      `json:"message"`
	Count         int         `json:"count"`
	LastTimestamp metav1.Time `json:"lastTimestamp"`
}

// createEvent writes an Event on the pod and returns its name, which has the form of client-go's.
func (c *Client) createEvent(ctx context.Context, pod Pod, reason Reason, o occurrences) (name string, err error) {
	name = fmt.Sprintf("%s.%x", pod.Name, time.Now().UnixNano())
	body, err := json.Marshal(corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: name},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID),
		},
		Type: reason.kind(), Reason: string(reason), Message: o.message, Count: int32(min(o.count, math.MaxInt32)),
		FirstTimestamp: metav1.NewTime(o.first), LastTimestamp: metav1.NewTime(o.last),
		Source: corev1.EventSource{Component: component}, ReportingController: component, ReportingInstance: pod.Name,
	})
	if err != nil {
		return "", err
	}
	return name, c.do(ctx, opEvent, c.core.Post().Namespace(pod.Namespace).Resource("events").
		SetHeader("Content-Type", "application/json").Body(body), nil)
}

// repeatEvent updates the count, the time and the message of an Event.
func (c *Client) repeatEvent(ctx context.Context, pod Pod, name string, o occurrences) error {
	body, err := json.Marshal(repetition{
		Message: o.message, Count: o.count, LastTimestamp: metav1.NewTime(o.last),
	})
	if err != nil {
		return err
	}
	return c.do(ctx, opEvent, c.core.Patch(types.MergePatchType).
		Namespace(pod.Namespace).Resource("events").Name(name).Body(body), nil)
}
