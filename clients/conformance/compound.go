package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/troupe-dev/troupe/actors/wire"
)

// started expects the execute of one execution and answers it.
func (p *player) started(ctx context.Context, s *Started) error {
	const name = "\x00started"
	if err := p.request(ctx, &Step{Expect: wire.MethodExecute, As: name, Params: s.Params}); err != nil {
		return err
	}
	result := fmt.Sprintf(`{"status":"started","execution_id":%q,"pid":42,"pgid":42}`, s.ExecutionID)
	if err := p.send(ctx, &Step{Answer: name, Result: json.RawMessage(result)}); err != nil {
		return err
	}
	return p.stream(ctx, s.ExecutionID, s.Stream, 0)
}

// stream names the stream of an execution's binary messages; 0: it has none.
func (p *player) stream(ctx context.Context, id string, stream uint16, offset int64) error {
	if stream == 0 {
		return nil
	}
	return p.notify(ctx, map[string]any{"method": wire.MethodStream, "params": wire.StreamOpened{
		ExecutionID: id, Stream: stream, Offset: offset,
	}})
}

// resumed expects a resume at exactly the given offsets and answers it.
func (p *player) resumed(ctx context.Context, s *Resumed) error {
	const name = "\x00resumed"
	m, err := p.next(ctx, wire.MethodResume)
	if err != nil {
		return err
	}
	p.asks[name] = m.ID
	var params wire.ResumeParams
	if err := json.Unmarshal(m.Params, &params); err != nil {
		return err
	}
	if !maps.Equal(params.Executions, s.Executions) {
		return fmt.Errorf("the client resumes %v, want %v", params.Executions, s.Executions)
	}
	result := map[string]any{"session_id": "pod-0.conformance", "unknown": s.Unknown}
	running := make(map[string]any)
	for id, offset := range s.Executions {
		running[id] = map[string]any{
			"state": wire.StateRunning, "pid": 42, "pgid": 42, "offset": offset, "started_at": "2026-01-02T15:04:05Z",
		}
	}
	for _, id := range s.Unknown {
		delete(running, id)
	}
	result["executions"] = running
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	if err := p.send(ctx, &Step{Answer: name, Result: text}); err != nil {
		return err
	}
	for id, stream := range s.Streams {
		if err := p.stream(ctx, id, stream, s.Executions[id]); err != nil {
			return err
		}
	}
	return nil
}
