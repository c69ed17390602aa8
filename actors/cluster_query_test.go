package actors

import (
	"errors"
	"testing"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// TestAnswersOfPodsAreBounded: what one holds, what all hold together, and what no pod sends.
func TestAnswersOfPodsAreBounded(t *testing.T) {
	part := func(id relay.QueryID, n uint32, size int, last bool) *relay.Answer {
		return &relay.Answer{Id: id[:], Part: n, Data: make([]byte, size), Last: last}
	}
	var q queries
	wait := func(pod string) (relay.QueryID, *awaited) {
		id, a := relay.NewQueryID(), &awaited{pod: pod, done: make(chan error, 1)}
		q.add(id, a)
		return id, a
	}
	ended := func(a *awaited) error {
		select {
		case err := <-a.done:
			return err
		default:
			return errors.New("not ended")
		}
	}

	id, a := wait("b")
	q.receive("c", part(id, 0, 1, true)) // another pod than was asked
	q.receive("b", part(id, 0, 5, false))
	q.receive("b", part(id, 1, 5, true))
	q.receive("b", part(id, 2, 5, true))
	q.receive("b", part(relay.NewQueryID(), 0, 5, true))
	if err := ended(a); err != nil || len(a.data) != 10 || q.held != 10 {
		t.Errorf("an answer in two parts: %v, %d bytes of %d", err, len(a.data), q.held)
	}
	q.remove(id)

	id, a = wait("b")
	q.receive("b", part(id, 1, 5, true))
	if err := ended(a); !errors.Is(err, errAnswerDamaged) {
		t.Errorf("the first part is missing: %v", err)
	}
	q.remove(id)

	id, a = wait("b")
	for i := range uint32(5) {
		q.receive("b", part(id, i, MaxAnswer/4, false))
	}
	if err := ended(a); !errors.Is(err, errAnswerTooLarge) || len(a.data) > MaxAnswer {
		t.Errorf("too large: %v, %d bytes", err, len(a.data))
	}
	q.remove(id)

	var last *awaited
	for range AnswerBudget/MaxAnswer + 1 {
		id, last = wait("b")
		q.receive("b", part(id, 0, MaxAnswer, true))
	}
	if err := ended(last); !errors.Is(err, errAnswerBudget) || q.held > AnswerBudget {
		t.Errorf("too many: %v, %d bytes", err, q.held)
	}
}

// TestQueriesOfPodsAreBounded: no more than MaxQueries are answered at a time, the others are told so.
func TestQueriesOfPodsAreBounded(t *testing.T) {
	s := newService(t, 2, nil)
	asked := s.pods[1].cluster
	for range MaxQueries {
		if !asked.queries.begin() {
			t.Fatal("refused")
		}
	}
	list, err := s.pods[0].ListSessions(t.Context(), Viewer{All: true}, SessionFilter{})
	if err != nil || len(list.Missing) != 1 || list.Missing[0] != (wire.MissingPod{
		Pod: "pod-1", Reason: "it answers too many queries at once: try again",
	}) {
		t.Errorf("%+v, %v", list, err)
	}
	for range MaxQueries {
		asked.queries.end()
	}
	if list, err := s.pods[0].ListSessions(
		t.Context(),
		Viewer{All: true},
		SessionFilter{},
	); err != nil ||
		len(list.Missing) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
	s.stop()
}

// TestQueryOfALaterReleaseIsRefused: the pod that asked is told, and does not wait.
func TestQueryOfALaterReleaseIsRefused(t *testing.T) {
	s := newService(t, 2, nil)
	var silent *PodSilentError
	a := s.pods[0].queryPod(t.Context(), "pod-1", &sessionQuery{Do: "rename"})
	if !errors.As(a.err, &silent) || silent.Pod != "pod-1" {
		t.Errorf("%v", a.err)
	}
	s.stop()
}
