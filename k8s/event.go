package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Reason says why an Event is written.
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
		return "Warning"
	}
	return "Normal"
}

// component is the source of the Events.
const component = "trouped"

// event has the fields of a core/v1 Event that we set. The type of k8s.io/api would add 3 MB to the
// binary, with all of core/v1. TestEventMatchesTheAPI compares the two.
type event struct {
	Metadata           eventMetadata `json:"metadata"`
	InvolvedObject     eventObject   `json:"involvedObject"`
	Type               string        `json:"type"`
	Reason             Reason        `json:"reason"`
	Message            string        `json:"message"`
	Count              int           `json:"count"`
	FirstTimestamp     time.Time     `json:"firstTimestamp"`
	LastTimestamp      time.Time     `json:"lastTimestamp"`
	Source             eventSource   `json:"source"`
	ReportingComponent string        `json:"reportingComponent"`
	ReportingInstance  string        `json:"reportingInstance"`
}

type eventMetadata struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

type eventObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
}

type eventSource struct {
	Component string `json:"component"`
}

// repetition is the patch of an Event that occurred again.
type repetition struct {
	Message       string    `json:"message"`
	Count         int       `json:"count"`
	LastTimestamp time.Time `json:"lastTimestamp"`
}

// createEvent writes an Event on the pod and returns its name, which has the form of client-go's.
func (c *Client) createEvent(ctx context.Context, pod Pod, reason Reason, o occurrences) (name string, err error) {
	name = fmt.Sprintf("%s.%x", pod.Name, time.Now().UnixNano())
	body, err := json.Marshal(event{
		Metadata:       eventMetadata{Namespace: pod.Namespace, Name: name},
		InvolvedObject: eventObject{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Type:           reason.kind(), Reason: reason, Message: o.message, Count: o.count,
		// metav1.Time has a resolution of one second.
		FirstTimestamp: o.first.UTC().Truncate(time.Second), LastTimestamp: o.last.UTC().Truncate(time.Second),
		Source: eventSource{Component: component}, ReportingComponent: component, ReportingInstance: pod.Name,
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
		Message: o.message, Count: o.count, LastTimestamp: o.last.UTC().Truncate(time.Second),
	})
	if err != nil {
		return err
	}
	return c.do(ctx, opEvent, c.core.Patch(types.MergePatchType).
		Namespace(pod.Namespace).Resource("events").Name(name).Body(body), nil)
}
