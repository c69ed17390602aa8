package wire

import "encoding/json"

// Version is the protocol version announced in Connected.
const Version = "1.0.0"

// Method names of requests, client to server.
const (
	MethodExecute = "execute"
	MethodControl = "control"
	MethodInput   = "input"
	MethodSignal  = "signal"
	MethodResize  = "resize"
	MethodStatus  = "status"
	MethodResume  = "resume"
	MethodClose   = "close"
	MethodAck     = "ack"  // usually a notification
	MethodPong    = "pong" // a notification: never answered
)

// Method names of notifications, server to client.
const (
	MethodConnected  = "connected"
	MethodStarted    = "process.started"
	MethodStream     = "process.stream" // on connections with binary frames
	MethodOutput     = "process.output"
	MethodInputTaken = "process.input" // on connections with binary frames
	MethodWarning    = "process.warning"
	MethodResized    = "process.resized"
	MethodScreen     = "process.screen"
	MethodPaused     = "process.paused"
	MethodResumed    = "process.resumed"
	MethodCanceled   = "process.canceled"
	MethodCompleted  = "process.completed"
	MethodError      = "process.error"
	MethodPing       = "ping"
	MethodDraining   = "server.draining"
)

// Control types of ControlParams.
const (
	ControlPause  = "PAUSE"
	ControlResume = "RESUME"
	ControlCancel = "CANCEL"
)

// Framing says how output is cut into pieces.
type Framing string

const (
	FramingLines Framing = "lines" // whole lines, the line limit applies; the default
	FramingRaw   Framing = "raw"   // pieces as the command wrote them, no line rule
)

// Encoding says how the bytes of output travel in JSON.
type Encoding string

const (
	EncodingUTF8   Encoding = "utf-8"  // bytes that are not UTF-8 become U+FFFD; the default
	EncodingBase64 Encoding = "base64" // bytes arrive intact
)

// Retain says which output of an execution its transcript keeps, and what happens when it is full.
type Retain string

const (
	// RetainFirst keeps the output from its beginning up to the output limit, and then drops; the
	// default.
	RetainFirst Retain = "first"
	// RetainUnread keeps what the execution's reader has not acknowledged, at most 1 MiB. When that
	// much is unread, the command waits, as behind a pipe.
	RetainUnread Retain = "unread"
	// RetainLast keeps the newest output, as much as the scrollback allows. The oldest gives way.
	RetainLast Retain = "last"
)

// Bounds of retained output and of windows, in bytes.
const (
	DefaultScrollback = 4 << 20  // kept with RetainLast
	MinScrollback     = 64 << 10 // the least that a client can ask for
	MinWindow         = 4 << 10  // of a follower; room for several lines
	MaxWindow         = 16 << 20
)

// OnOutputLimit says what happens when an execution reaches its output limit.
type OnOutputLimit string

const (
	LimitDrop   OnOutputLimit = "drop"   // further lines are dropped and counted; the default
	LimitCancel OnOutputLimit = "cancel" // the execution is cancelled with ReasonOutputLimit
)

// OnExit says what happens to processes that outlive the command.
type OnExit string

const (
	ExitKill OnExit = "kill" // they are killed once the output is drained; the default
	ExitKeep OnExit = "keep" // they stay part of the execution until its session ends
)

// Reason is the one cause of an execution's end. The set is closed.
type Reason string

const (
	ReasonExited        Reason = "exited"         // the command returned an exit code
	ReasonSignaled      Reason = "signaled"       // a signal that troupe did not send killed it
	ReasonCanceled      Reason = "canceled"       // CANCEL, or signal KILL from the client
	ReasonStreamTimeout Reason = "stream_timeout" // no output for the stream timeout
	ReasonDeadline      Reason = "deadline"       // it ran for max_duration
	ReasonOutputLimit   Reason = "output_limit"   // the limit was reached and on_output_limit is cancel
	ReasonSessionClosed Reason = "session_closed" // its session was closed, expired or failed
	ReasonReaderGone    Reason = "reader_gone"    // with retain unread: no reader came within the resume window
	ReasonDrain         Reason = "drain"          // the server stopped before the command did
	// its tree exceeded max-memory, its session exceeded session-memory, or the kernel killed the command
	// because its container had no memory left
	ReasonOutOfMemory  Reason = "out_of_memory"
	ReasonProcessLimit Reason = "process_limit" // its session exceeded session-processes
	ReasonDiskLimit    Reason = "disk_limit"    // its session exceeded session-disk
	ReasonRunnerLost   Reason = "runner_lost"   // the runner died, and the tree with it
	ReasonStartFailed  Reason = "start_failed"  // the command could not be started
	ReasonInternal     Reason = "internal"      // a defect in troupe; the log has the stack
)

// Reasons lists every Reason, for metrics and documentation.
func Reasons() []Reason {
	return []Reason{
		ReasonExited, ReasonSignaled, ReasonCanceled, ReasonStreamTimeout, ReasonDeadline, ReasonOutputLimit,
		ReasonSessionClosed, ReasonReaderGone, ReasonDrain, ReasonOutOfMemory, ReasonProcessLimit, ReasonDiskLimit,
		ReasonRunnerLost, ReasonStartFailed, ReasonInternal,
	}
}

// Values of Completed.Status, as cc-executor's clients know them.
const (
	StatusCompleted = "completed" // exit code 0
	StatusFailed    = "failed"    // any other end
	StatusCanceled  = "canceled"  // ended by CANCEL
)

// ExecuteParams asks for one command to be run. Exactly one of Command and Argv is set.
type ExecuteParams struct {
	Command string   `json:"command,omitempty"` // run by /bin/sh -c
	Argv    []string `json:"argv,omitempty"`    // run without a shell; Argv[0] is looked up in PATH
	// ExecutionID is chosen by the client to make execute idempotent: 1 to 128 bytes of
	// [A-Za-z0-9._-]. Empty: the server chooses one.
	ExecutionID   string            `json:"execution_id,omitempty"`
	Cwd           string            `json:"cwd,omitempty"`             // absolute, or relative to the workdir
	Env           map[string]string `json:"env,omitempty"`             // added to the configured environment
	Stdin         bool              `json:"stdin,omitempty"`           // a pipe; otherwise /dev/null
	Timeout       float64           `json:"timeout,omitempty"`         // stream timeout, seconds; at most the server's
	MaxDuration   float64           `json:"max_duration,omitempty"`    // seconds of running time; at most the server's
	Retain        Retain            `json:"retain,omitempty"`          // default first
	OutputLimit   int64             `json:"output_limit,omitempty"`    // with first: bytes; at most the server's
	OnOutputLimit OnOutputLimit     `json:"on_output_limit,omitempty"` // with first: default drop
	Scrollback    int64             `json:"scrollback,omitempty"`      // with last: bytes; default DefaultScrollback
	Window        int64             `json:"window,omitempty"`          // bytes sent beyond the last ack; 0: unbounded
	OnExit        OnExit            `json:"on_exit,omitempty"`         // default kill
	Framing       Framing           `json:"framing,omitempty"`         // default lines
	Encoding      Encoding          `json:"encoding,omitempty"`        // default utf-8
	Traceparent   string            `json:"traceparent,omitempty"`     // W3C Trace Context; malformed: ignored
	Terminal      *Terminal         `json:"terminal,omitempty"`        // implies stdin, framing raw, retain last
}

// Bounds of a terminal.
const (
	MaxCols     = 1000
	MaxRows     = 500
	MaxTerm     = 64 // bytes of Terminal.Term
	DefaultTerm = "xterm-256color"
)

// Terminal is a pseudo-terminal: the command leads its session, and reads and writes it as stdin,
// stdout and stderr.
type Terminal struct {
	Cols int    `json:"cols"`           // 1 to MaxCols
	Rows int    `json:"rows"`           // 1 to MaxRows
	Term string `json:"term,omitempty"` // the variable TERM of the command; default DefaultTerm
}

// ExecuteResult answers execute. A repeated execution_id is answered with the
// same values and Attached set; output then follows from offset 0.
type ExecuteResult struct {
	Status      string `json:"status"` // "started"
	ExecutionID string `json:"execution_id"`
	PID         int    `json:"pid"`  // in the runner's pid namespace
	PGID        int    `json:"pgid"` // process group of the command
	Attached    bool   `json:"attached,omitempty"`
}

// ControlParams pauses, resumes or cancels an execution.
type ControlParams struct {
	Type        string `json:"type"`                   // PAUSE, RESUME or CANCEL
	ExecutionID string `json:"execution_id,omitempty"` // needed only when several run
}

// ControlResult answers control: "paused", "resumed" or "canceled".
type ControlResult struct {
	Status      string `json:"status"`
	ExecutionID string `json:"execution_id"`
}

// InputParams writes to the stdin of an execution started with stdin. The
// answer comes when the bytes are in the command's pipe: wait for it to pace.
type InputParams struct {
	ExecutionID string   `json:"execution_id"`
	Data        string   `json:"data,omitempty"`
	Encoding    Encoding `json:"encoding,omitempty"` // of Data; default utf-8
	EOF         bool     `json:"eof,omitempty"`      // close stdin after Data
	// Offset is the position in stdin of the first byte of Data. Bytes that the server has taken
	// already are skipped, so that a client may repeat an input. Nil: after all that was sent before.
	Offset *int64 `json:"offset,omitempty"`
	// Writer names who types into a terminal, for clients that share it: 1 to 128 of [A-Za-z0-9._-].
	// Offset then counts the bytes of this writer alone.
	Writer string `json:"writer,omitempty"`

	decoded []byte // Data, once validation has decoded the base64
}

// SignalParams sends a signal, by name with or without SIG, to the process
// group of the command. KILL kills the whole tree. STOP, TSTP and CONT are refused: use control.
type SignalParams struct {
	ExecutionID string `json:"execution_id"`
	Signal      string `json:"signal"`
}

// ResizeParams says how large the connection's view of an execution's terminal is. The terminal has
// the size of the connection that typed last.
type ResizeParams struct {
	ExecutionID string `json:"execution_id"`
	Cols        int    `json:"cols"` // 1 to MaxCols
	Rows        int    `json:"rows"` // 1 to MaxRows
}

// ResumeParams re-attaches to a session. Executions maps each execution the
// client wants to follow to the offset after the last byte it has.
// A nil map follows every execution from its beginning, an empty one follows none.
type ResumeParams struct {
	ResumeToken string           `json:"resume_token"`
	Executions  map[string]int64 `json:"executions,omitzero"`
	Window      int64            `json:"window,omitempty"` // of each follower; see ExecuteParams
}

// AckParams says that the client has processed an execution's output up to Offset. It gives a
// follower with a window more credit, and lets output that is retained until it is read go.
type AckParams struct {
	ExecutionID string `json:"execution_id"`
	Offset      int64  `json:"offset"`
	Completed   bool   `json:"completed,omitempty"` // process.completed was processed too
}

// ResumeResult answers resume. Executions that the session does not know are
// listed in Unknown.
type ResumeResult struct {
	SessionID  string                     `json:"session_id"`
	Executions map[string]ExecutionStatus `json:"executions"`
	Unknown    []string                   `json:"unknown,omitempty"`
	Limits     Limits                     `json:"limits"`
}

// State of an execution.
type State string

const (
	StateStarting  State = "starting"
	StateRunning   State = "running"
	StatePaused    State = "paused"
	StateCanceling State = "canceling" // the end has a reason; the tree is being killed
	StateExiting   State = "exiting"   // the command exited; its output is read to the end, survivors are killed
	StateKept      State = "kept"      // completed with on_exit keep; survivors live
	StateExited    State = "exited"    // dead, reaped, reported
)

// ExecutionStatus describes one execution in the results of status and resume.
type ExecutionStatus struct {
	State     State      `json:"state"`
	PID       int        `json:"pid,omitempty"`
	PGID      int        `json:"pgid,omitempty"`
	Offset    int64      `json:"offset"`              // bytes in the transcript
	StartedAt string     `json:"started_at"`          // RFC 3339
	Completed *Completed `json:"completed,omitempty"` // once it has ended
	// InputOffset is how many bytes of stdin the server has taken.
	InputOffset int64     `json:"input_offset,omitempty"`
	Terminal    *Terminal `json:"terminal,omitempty"` // its size now; nil: it has none
}

// StatusResult answers status.
type StatusResult struct {
	SessionID  string                     `json:"session_id"`
	Pod        string                     `json:"pod"`
	CreatedAt  string                     `json:"created_at"` // RFC 3339
	Executions map[string]ExecutionStatus `json:"executions"`
	Limits     Limits                     `json:"limits"`
	Name       string                     `json:"name,omitempty"`   // see SessionOptions
	Labels     map[string]string          `json:"labels,omitempty"` // see SessionOptions
}

// Limits are the limits in force for a session. Zero means none.
type Limits struct {
	MaxSessions   int     `json:"max_sessions"`
	MaxExecutions int     `json:"max_executions"`
	MaxLine       int     `json:"max_line"`       // bytes
	MaxOutput     int64   `json:"max_output"`     // bytes
	StreamTimeout float64 `json:"stream_timeout"` // seconds
	MaxDuration   float64 `json:"max_duration"`   // seconds
	MaxMemory     int64   `json:"max_memory"`     // bytes
	CancelGrace   float64 `json:"cancel_grace"`   // seconds
	ResumeWindow  float64 `json:"resume_window"`  // seconds
	IdleTimeout   float64 `json:"idle_timeout"`   // seconds
	MaxMessage    int64   `json:"max_message"`    // bytes
}

// Capabilities of Connected.
const (
	CapabilityExecute     = "execute"
	CapabilityControl     = "control"
	CapabilityStream      = "stream"
	CapabilityInput       = "input"
	CapabilitySignal      = "signal"
	CapabilityResume      = "resume"
	CapabilityAck         = "ack"          // the method ack, and window
	CapabilityRetain      = "retain"       // retain and scrollback of execute
	CapabilityBinary      = "binary"       // ?frames=binary
	CapabilityInputOffset = "input_offset" // offset of input
	CapabilityIsolation   = "isolation"    // this session is separated from others by the kernel
	CapabilityTerminal    = "terminal"     // terminal of execute, and the method resize
	CapabilityScreen      = "screen"       // process.screen behind a gap in the output of a terminal
)

// The values of Connected.Isolation: what separates one session from the others of its pod.
const (
	IsolationNone    = "none"    // the names of their directories
	IsolationSession = "session" // the kernel
)

// Connected is the first notification on a new session.
type Connected struct {
	SessionID    string   `json:"session_id"`
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"`
	ResumeToken  string   `json:"resume_token"`
	Limits       Limits   `json:"limits"`
	Pod          string   `json:"pod"`
	Containment  string   `json:"containment"`             // "cgroup+tree" or "tree"
	Isolation    string   `json:"isolation"`               // what separates this session from others: "session" or "none"
	IsolationABI int      `json:"isolation_abi,omitempty"` // version of Landlock of the kernel

	// What the client asked for: see SessionOptions. A pod of an earlier release opens the session without.
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Started follows the answer to execute.
type Started struct {
	ExecutionID string `json:"execution_id"`
	Status      string `json:"status"` // "started"
	PID         int    `json:"pid"`
	PGID        int    `json:"pgid"`
}

// StreamOpened announces, on a connection with binary frames, the number of an execution's output.
// It precedes the first frame of each follow. A later one for the execution replaces it.
type StreamOpened struct {
	ExecutionID string `json:"execution_id"`
	Stream      uint16 `json:"stream"` // 1 or more; not used for another follow while this one may have frames under way
	Offset      int64  `json:"offset"` // where the output begins
}

// InputTaken answers a binary input frame.
type InputTaken struct {
	ExecutionID string `json:"execution_id"`
	Offset      int64  `json:"offset"`          // bytes of stdin that are in the command's pipe
	Error       *Error `json:"error,omitempty"` // the frame was refused
}

// Stream names of Output.Type.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Output is a piece of an execution's transcript. Pieces of one execution are contiguous: a piece
// holds the transcript's bytes from Offset-len(bytes) to Offset, where bytes are Data before the
// replacement of invalid UTF-8, and it starts where the previous piece ended, plus Gap.
type Output struct {
	ExecutionID string   `json:"execution_id"`
	Type        string   `json:"type"` // stdout or stderr
	Data        string   `json:"data"`
	Encoding    Encoding `json:"encoding,omitempty"` // set when base64
	Truncated   bool     `json:"truncated"`          // Data is one line that was cut and ends in [TRUNCATED] and a newline
	Offset      int64    `json:"offset"`             // transcript position after this piece
	Gap         int64    `json:"gap,omitempty"`      // bytes missing between the piece before and this one
}

// Codes of Warning.
const (
	WarnOutputLimit = "output_limit" // the output limit was reached, lines are dropped from here on
	// the data directory failed or its budget is spent, lines are dropped from here on
	WarnTranscriptWrite = "transcript_write"
	// the session is near one of its bounds, at which executions end
	WarnSessionMemory    = "session_memory"
	WarnSessionProcesses = "session_processes"
)

// Warning reports a loss of output at the moment it begins, or that a bound of the session is near.
type Warning struct {
	ExecutionID string `json:"execution_id"`
	Code        string `json:"code"`
	Message     string `json:"message"`
	Offset      int64  `json:"offset"` // transcript position at which dropping began, or at which the warning stands
}

// Resized says that an execution's terminal has this size from here on. The first one stands before
// the output.
type Resized struct {
	ExecutionID string `json:"execution_id"`
	Cols        int    `json:"cols"`
	Rows        int    `json:"rows"`
	Offset      int64  `json:"offset"` // transcript position at which it stands
}

// Screen draws what a terminal of this size shows at an offset, which is behind output that is missing.
// Several may follow each other, each of which has a part of the drawing. The parts are no output: written
// to a terminal one after the other, they give it that screen whatever it showed before.
type Screen struct {
	ExecutionID string `json:"execution_id"`
	Cols        int    `json:"cols"`
	Rows        int    `json:"rows"`
	Data        []byte `json:"data"` // base64 in JSON
	Offset      int64  `json:"offset"`
}

// ControlEvent is the params of process.paused, process.resumed and process.canceled.
type ControlEvent struct {
	ExecutionID string `json:"execution_id"`
	Status      string `json:"status"`
	PID         int    `json:"pid"`
	PGID        int    `json:"pgid"`
}

// Survivors are processes that outlived the command. They were killed or, with on_exit keep, still
// run.
type Survivors struct {
	Kept     bool     `json:"kept"` // they still run
	Count    int      `json:"count"`
	Commands []string `json:"commands"` // command names (comm), at most 32
}

// Usage is the resource usage of an execution's reaped processes.
type Usage struct {
	UserSeconds   float64 `json:"user_seconds"`
	SystemSeconds float64 `json:"system_seconds"`
	MaxRSSBytes   int64   `json:"max_rss_bytes"` // of the largest single process
}

// Completed is the last notification of an execution (with on_exit keep, output of survivors may
// follow it). It is sent exactly once on each connection that follows the execution.
type Completed struct {
	ExecutionID    string     `json:"execution_id"`
	Status         string     `json:"status"` // completed, failed or canceled
	PID            int        `json:"pid,omitempty"`
	PGID           int        `json:"pgid,omitempty"`
	ExitCode       int        `json:"exit_code"`        // negative for a signal: -15 is SIGTERM
	Signal         string     `json:"signal,omitempty"` // name with SIG
	Reason         Reason     `json:"reason"`
	Error          *Error     `json:"error,omitempty"`
	DroppedLines   int64      `json:"dropped_lines"`
	DroppedBytes   int64      `json:"dropped_bytes"`
	DroppedReason  string     `json:"dropped_reason,omitempty"` // why: the code of the warning that announced it
	TruncatedLines int64      `json:"truncated_lines"`
	TruncatedBytes int64      `json:"truncated_bytes"` // bytes skipped in truncated lines
	OutputBytes    int64      `json:"output_bytes"`    // bytes in the transcript: the last offset
	Survivors      *Survivors `json:"survivors,omitempty"`
	ExecutionTime  float64    `json:"execution_time"` // seconds from start to end, pauses included
	Usage          *Usage     `json:"usage,omitempty"`
}

// ProcessError reports that an execution could not continue as requested.
type ProcessError struct {
	ExecutionID string `json:"execution_id,omitempty"`
	Error       *Error `json:"error"`
}

// Draining announces that the server is stopping. Running executions may finish until the deadline.
type Draining struct {
	DeadlineSeconds float64 `json:"deadline_seconds"`
}

// ID is a JSON-RPC request id, kept as it was sent so that the answer carries it with the same
// type. Empty means that the message is a notification.
type ID json.RawMessage
