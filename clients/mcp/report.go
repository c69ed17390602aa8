package mcp

import (
	"fmt"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
)

// report is the structured result of the tools that run or follow a command.
type report struct {
	Session   string     `json:"session"`
	Execution string     `json:"execution"`
	State     wire.State `json:"state"` // exited: see reason

	// Its end.
	Reason   wire.Reason `json:"reason,omitempty"`
	ExitCode *int        `json:"exit_code,omitempty"`
	Signal   string      `json:"signal,omitempty"`
	Seconds  float64     `json:"seconds"` // since it began
	Message  string      `json:"message,omitempty"`
	Memory   *memory     `json:"memory,omitempty"`

	// Its output.
	Output     string    `json:"output"`
	Offset     int64     `json:"offset"`      // of the beginning of output
	NextOffset int64     `json:"next_offset"` // after the end of output
	Omitted    *omission `json:"omitted,omitempty"`

	Screen *shownScreen `json:"screen,omitempty"` // output is what its terminal shows

	Dropped   *dropped        `json:"dropped,omitempty"`
	Survivors *wire.Survivors `json:"survivors,omitempty"`
	Stdin     *int            `json:"stdin_bytes_taken,omitempty"` // if not all of it
}

type memory struct {
	Limit int64 `json:"limit_bytes,omitempty"` // unknown: that of the container
	Peak  int64 `json:"peak_bytes"`            // of the largest process
}

// dropped counts output that the server did not keep.
type dropped struct {
	Lines  int64  `json:"lines"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason,omitempty"`
}

// end fills in how the command ended.
func (r *report) end(done *wire.Completed, limits wire.Limits) {
	r.State, r.Reason, r.Seconds = wire.StateExited, done.Reason, done.ExecutionTime
	if done.ExitCode >= 0 {
		code := done.ExitCode
		r.ExitCode = &code
	}
	r.Signal, r.Survivors = done.Signal, done.Survivors
	if done.Error != nil {
		r.Message = done.Error.Message
	}
	if done.DroppedBytes > 0 {
		r.Dropped = &dropped{Lines: done.DroppedLines, Bytes: done.DroppedBytes, Reason: done.DroppedReason}
	}
	if done.Reason == wire.ReasonOutOfMemory {
		r.Memory = &memory{Limit: limits.MaxMemory}
		if done.Error != nil && done.Error.Data != nil {
			r.Memory.Limit = int64(done.Error.Data.Value)
		}
		if done.Usage != nil {
			r.Memory.Peak = done.Usage.MaxRSSBytes
		}
	}
}

// output fills in what was read.
func (r *report) output(x *excerpt) {
	head, tail, between := x.parts()
	r.Output, r.Offset, r.NextOffset, r.Omitted = head, x.start, x.end, between
	if between != nil {
		r.Output = head + omissionLine(between) + tail
	}
	if x.lost > 0 {
		r.Message = joinSentences(r.Message,
			fmt.Sprintf("%d bytes of output before offset %d are no longer on the server", x.lost, x.end))
	}
}

func omissionLine(o *omission) string {
	return fmt.Sprintf("\n[%d bytes omitted at offset %d: see read_output]\n", o.Bytes, o.Offset)
}

func joinSentences(a, b string) string {
	if a == "" {
		return b
	}
	return a + ". " + b
}

// headline says in a line how the command is, for models that read text. It comes first, because some
// clients cut the end.
func (r *report) headline() string {
	var b strings.Builder
	switch {
	case r.State != wire.StateExited && r.Screen != nil:
		fmt.Fprintf(&b, "%s after %s: not ended. Continue with send_keys or read_screen, or cancel it",
			r.State, seconds(r.Seconds))
	case r.State != wire.StateExited:
		fmt.Fprintf(&b, "%s after %s: not ended. Continue with wait or read_output from offset %d, or cancel it",
			r.State, seconds(r.Seconds), r.NextOffset)
	case r.Reason == wire.ReasonExited:
		fmt.Fprintf(&b, "exit code %d after %s", *r.ExitCode, seconds(r.Seconds))
	case r.Signal != "":
		fmt.Fprintf(&b, "ended after %s: %s (%s)", seconds(r.Seconds), r.Reason, r.Signal)
	default:
		fmt.Fprintf(&b, "ended after %s: %s", seconds(r.Seconds), r.Reason)
	}
	if m := r.Memory; m != nil && m.Limit > 0 {
		fmt.Fprintf(&b, "; memory limit %d bytes, peak of the largest process %d", m.Limit, m.Peak)
	} else if m != nil {
		fmt.Fprintf(&b, "; the container has no memory left, peak of the largest process %d bytes", m.Peak)
	}
	if d := r.Dropped; d != nil {
		fmt.Fprintf(&b, "; %d bytes of output in %d lines were dropped (%s)", d.Bytes, d.Lines, d.Reason)
	}
	if s := r.Survivors; s != nil {
		fmt.Fprintf(&b, "; %d processes outlived the command and were killed: %s", s.Count, strings.Join(s.Commands, " "))
	}
	if r.Message != "" {
		fmt.Fprintf(&b, "; %s", r.Message)
	}
	if r.Screen != nil {
		fmt.Fprintf(&b, "; %s", r.Screen)
	}
	fmt.Fprintf(&b, " [session %s, execution %s]", r.Session, r.Execution)
	return b.String()
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

// result returns the report as the result of a tool.
func (r *report) result() *sdk.CallToolResult {
	content := []sdk.Content{&sdk.TextContent{Text: r.headline() + "\n" + r.Output}}
	if r.Omitted != nil {
		content = append(content, &sdk.ResourceLink{
			URI: executionURI(r.Session, r.Execution), Name: "output of " + r.Execution, MIMEType: textPlain,
		})
	}
	return &sdk.CallToolResult{Content: content}
}
