package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
)

const (
	// QueryTimeout is how long this pod waits for the others' answers. A pod that stood still for longer is busy
	// with other things, and is named in the answer.
	QueryTimeout = 1500 * time.Millisecond
	// MaxAnswer bounds the answer of one pod, in bytes.
	MaxAnswer = 160 << 10
	// AnswerBudget bounds what has arrived of all answers, in bytes.
	AnswerBudget = 2 << 20
	// MaxQueries is how many queries of other pods are answered at a time. The others are told to come again.
	MaxQueries = 5
)

// PodSilentError says that a pod gave no answer.
type PodSilentError struct {
	Pod    string
	Reason string
}

func (e *PodSilentError) Error() string { return fmt.Sprintf("pod %s: %s", e.Pod, e.Reason) }

// queries are the questions that this pod has asked others and those that it is answering.
type queries struct {
	mu       sync.Mutex
	awaited  map[relay.QueryID]*awaited
	held     int // bytes of awaited answers
	answered sync.WaitGroup
	answers  int // that are being made
	closed   bool
}

// awaited is an answer that has arrived in part.
type awaited struct {
	pod  string
	part uint32
	data []byte
	over bool       // done was sent
	done chan error // buffered: nil once data is complete
}

// ask sends a query to a peer and waits for its answer.
func (p *cluster) ask(ctx context.Context, pod string, params []byte) ([]byte, error) {
	p.mu.Lock()
	state := p.table.Peer(pod).State
	p.mu.Unlock()
	if state == relay.PeerIsDead {
		return nil, &PodSilentError{pod, "it is dead: it has not answered for some seconds"}
	}
	id, a := relay.NewQueryID(), &awaited{pod: pod, done: make(chan error, 1)}
	p.queries.add(id, a)
	defer p.queries.remove(id)
	p.transport.Send(pod, p.table.Ask(&relay.Query{Id: id[:], Params: params}))
	select {
	case err := <-a.done:
		if err != nil {
			return nil, &PodSilentError{pod, err.Error()}
		}
		return a.data, nil
	case <-ctx.Done():
		return nil, &PodSilentError{pod, "it did not answer in time"}
	}
}

func (q *queries) add(id relay.QueryID, a *awaited) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.awaited == nil {
		q.awaited = map[relay.QueryID]*awaited{}
	}
	q.awaited[id] = a
}

// remove ends the wait. The data that has arrived is the caller's.
func (q *queries) remove(id relay.QueryID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held -= len(q.awaited[id].data)
	delete(q.awaited, id)
}

var (
	errAnswerTooLarge = errors.New("its answer is too large")
	errAnswerDamaged  = errors.New("a part of its answer was lost")
	errAnswerBudget   = errors.New("too many answers arrive at once: try again")
)

// receive takes a part of an answer.
func (q *queries) receive(from string, part *relay.Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.awaited[relay.QueryID(part.GetId())]
	if a == nil || a.pod != from || a.over {
		return // it comes too late
	}
	var err error
	switch size := len(part.GetData()); {
	case part.GetPart() != a.part:
		err = errAnswerDamaged
	case len(a.data)+size > MaxAnswer:
		err = errAnswerTooLarge
	case q.held+size > AnswerBudget:
		err = errAnswerBudget
	default:
		a.part++
		a.data = append(a.data, part.GetData()...)
		q.held += size
		if !part.GetLast() {
			return
		}
	}
	a.over = true
	a.done <- err
}

// begin counts an answer that is being made; false: there are too many, or this pod leaves.
func (q *queries) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.answers == MaxQueries {
		return false
	}
	q.answers++
	q.answered.Add(1)
	return true
}

func (q *queries) end() {
	q.mu.Lock()
	q.answers--
	q.mu.Unlock()
	q.answered.Done()
}

// close waits for the answers that are being made, and makes no others.
func (q *queries) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.answered.Wait()
}

// answer answers a query of a peer, in the background.
func (p *cluster) answer(from string, q *relay.Query) {
	id, params := relay.QueryID(q.GetId()), slices.Clone(q.GetParams())
	send := func(data []byte) {
		for _, e := range p.table.Answer(id, data) {
			p.transport.Send(from, e)
		}
	}
	if !p.queries.begin() {
		send(busyAnswer)
		return
	}
	go func() {
		defer p.queries.end()
		ctx, cancel := context.WithTimeout(context.Background(), QueryTimeout)
		defer cancel()
		send(p.engine.answerQuery(ctx, params))
	}()
}

// others returns the names of the peers, sorted.
func (p *cluster) others() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, 0, len(p.known))
	for pod := range p.known {
		names = append(names, pod)
	}
	slices.Sort(names)
	return names
}
