package wire

// The HTTP API under /api/v1 describes sessions and pods with these types, as JSON.

// SessionState says whether a session has a client.
type SessionState string

// States of a session.
const (
	SessionAttached SessionState = "attached" // a client is connected
	SessionDetached SessionState = "detached" // none is; it ends after its resume window
	SessionClosing  SessionState = "closing"  // it ends: its executions are cancelled, its clients read the rest
	// SessionUnresponsive: it did not answer in time. Only its id, pod and subject are known.
	SessionUnresponsive SessionState = "unresponsive"
)

// SessionStates lists every SessionState.
func SessionStates() []SessionState {
	return []SessionState{SessionAttached, SessionDetached, SessionClosing, SessionUnresponsive}
}

// Session describes a session.
type Session struct {
	ID           string            `json:"id"`
	Name         string            `json:"name,omitempty"`   // as its client called it; not unique
	Labels       map[string]string `json:"labels,omitempty"` // as its client gave them
	Subject      string            `json:"subject"`          // whose it is
	Pod          string            `json:"pod"`              // that holds it
	State        SessionState      `json:"state"`
	CreatedAt    string            `json:"created_at,omitempty"`    // RFC 3339
	LastActivity string            `json:"last_activity,omitempty"` // RFC 3339: of a client, or the end of a command
	Connections  int               `json:"connections"`             // clients that are attached
	Isolation    string            `json:"isolation,omitempty"`     // what separates it from others: see Connected
	ResumeWindow float64           `json:"resume_window,omitempty"` // seconds that it is kept without a connection

	// Executions are sorted by their start. A listing has those that are not over, at most ListedExecutions.
	Executions []SessionExecution `json:"executions"`
	// ExecutionsOmitted is how many more there are: in a listing of those that are not over.
	ExecutionsOmitted int `json:"executions_omitted,omitempty"`
}

// Bounds of Session.Executions.
const (
	ListedExecutions    = 16
	DescribedExecutions = 128
)

// SessionExecution describes an execution of a session.
type SessionExecution struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Command is what runs, for people: the shell's string, or the arguments with quotes where they need some, cut
	// at MaxShownCommand bytes. Empty: whoever asks may not see it.
	Command   string `json:"command,omitempty"`
	Terminal  bool   `json:"terminal,omitempty"` // it has one
	StartedAt string `json:"started_at"`         // RFC 3339
	Offset    int64  `json:"offset"`             // bytes of output so far
	// MemoryBytes is what its processes held when they were last measured. Absent: they are not measured, because
	// no bound of memory is set or the kernel keeps it, or the execution is over.
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	Reason      Reason `json:"reason,omitempty"`    // why it ended
	ExitCode    *int   `json:"exit_code,omitempty"` // once it has ended; negative for a signal
}

// MaxShownCommand bounds SessionExecution.Command in bytes.
const MaxShownCommand = 128

// SessionList is a page of sessions, sorted by pod and id.
type SessionList struct {
	Sessions []Session `json:"sessions"`
	// Continue names the next page. Empty: there is none.
	Continue string `json:"continue,omitempty"`
	// Missing are the pods that did not answer. The page lacks their sessions.
	Missing []MissingPod `json:"missing,omitempty"`
}

// MissingPod is a pod whose sessions are not in a list.
type MissingPod struct {
	Pod    string `json:"pod"`
	Reason string `json:"reason"`
}

// OutputPage is a part of the output of an execution, both streams in the order of arrival.
type OutputPage struct {
	SessionID   string        `json:"session_id"`
	Subject     string        `json:"subject"` // whose session it is
	ExecutionID string        `json:"execution_id"`
	Pieces      []OutputPiece `json:"pieces"`
	NextOffset  int64         `json:"next_offset"` // where the next page begins
	End         bool          `json:"end"`         // the execution is over, and nothing follows
}

// OutputPiece is what one stream wrote, or a gap.
type OutputPiece struct {
	Stream    string   `json:"stream,omitempty"` // stdout or stderr; empty: a gap
	Data      string   `json:"data,omitempty"`
	Encoding  Encoding `json:"encoding,omitempty"`  // base64 where Data is not UTF-8
	Truncated bool     `json:"truncated,omitempty"` // Data is (part of) a line that was cut
	Gap       int64    `json:"gap,omitempty"`       // bytes that are not kept any more
}

// Attachment lets a client attach to a session, on any pod: connect to /ws?session=ID and send resume with the
// token. It is for the subject that asked, for as long as the session lasts.
type Attachment struct {
	SessionID   string `json:"session_id"`
	ResumeToken string `json:"resume_token"`
}

// PodState says what a pod does for new sessions.
type PodState string

// States of a pod.
const (
	PodReady    PodState = "ready"
	PodDraining PodState = "draining" // it opens no new sessions: it stops, or cannot start commands
	PodDead     PodState = "dead"     // it has not answered for some seconds
	PodUnknown  PodState = "unknown"  // it has not been heard yet
)

// PodStates lists every PodState.
func PodStates() []PodState { return []PodState{PodReady, PodDraining, PodDead, PodUnknown} }

// Pod describes a pod of the service, from its last heartbeat.
type Pod struct {
	Name         string   `json:"name"`
	State        PodState `json:"state"`
	Sessions     int      `json:"sessions"`
	MaxSessions  int      `json:"max_sessions"`
	Refused      int64    `json:"refused"`        // sessions and executions, since it started
	Started      int64    `json:"started"`        // commands, likewise
	StartSeconds float64  `json:"start_seconds"`  // from the requests for these until they ran, in all
	Self         bool     `json:"self,omitempty"` // it gave this answer
}

// PodList is every pod of the service, sorted by name.
type PodList struct {
	Pods []Pod `json:"pods"`
}
