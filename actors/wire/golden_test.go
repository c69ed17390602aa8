package wire

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var (
	goldenLimits = Limits{
		MaxSessions: 100, MaxExecutions: 8, MaxLine: 8192, MaxOutput: 10485760, StreamTimeout: 300,
		CancelGrace: 10, ResumeWindow: 300, IdleTimeout: 3600, MaxMessage: 1048576,
	}
	goldenCompleted = Completed{
		ExecutionID: "build-1", Status: StatusCompleted, PID: 4242, PGID: 4242, Reason: ReasonExited,
		OutputBytes: 6, ExecutionTime: 0.012, Usage: &Usage{UserSeconds: 0.001, SystemSeconds: 0.002, MaxRSSBytes: 1572864},
	}
	goldenTimeout = Completed{
		ExecutionID: "build-2", Status: StatusFailed, PID: 4250, PGID: 4250, ExitCode: -15, Signal: "SIGTERM",
		Reason: ReasonStreamTimeout,
		Error: &Error{
			Code: CodeStreamTimeout, Message: "no output for 300 s",
			Data: &ErrorData{Limit: "stream-timeout", Value: 300},
		},
		DroppedLines: 3, DroppedBytes: 120, DroppedReason: WarnOutputLimit,
		TruncatedLines: 1, TruncatedBytes: 4096, OutputBytes: 10485760,
		Survivors: &Survivors{Count: 2, Commands: []string{"sleep", "python3"}}, ExecutionTime: 301.5,
		Usage: &Usage{UserSeconds: 1.25, SystemSeconds: 0.5, MaxRSSBytes: 52428800},
	}
)

// goldenRequests are the messages of a client, by file.
var goldenRequests = map[string]Request{
	"client.execute.command": {ID: ID("1"), Method: MethodExecute, Params: &ExecuteParams{Command: "echo hello"}},
	"client.execute.argv": {ID: ID(`"b"`), Method: MethodExecute, Params: &ExecuteParams{
		Argv: []string{"make", "-j4"}, ExecutionID: "build-1", Cwd: "/src", Env: map[string]string{"CI": "1"}, Stdin: true,
		Timeout: 60, MaxDuration: 600, OutputLimit: 1048576, OnOutputLimit: LimitCancel, OnExit: ExitKeep,
		Framing: FramingRaw, Encoding: EncodingBase64,
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}},
	"client.execute.unread": {ID: ID("11"), Method: MethodExecute, Params: &ExecuteParams{
		Argv: []string{"pg_dump", "shop"}, Retain: RetainUnread, Framing: FramingRaw, Window: 262144,
	}},
	"client.execute.last": {ID: ID("12"), Method: MethodExecute, Params: &ExecuteParams{
		Argv: []string{"top", "-b"}, Retain: RetainLast, Scrollback: 1048576,
	}},
	"client.execute.terminal": {ID: ID("16"), Method: MethodExecute, Params: &ExecuteParams{
		Argv: []string{"bash", "-l"}, ExecutionID: "shell-1", Stdin: true, Retain: RetainLast, Framing: FramingRaw,
		Terminal: &Terminal{Cols: 80, Rows: 24, Term: "xterm-256color"}, Window: 65536,
	}},
	"client.resize": {ID: ID("17"), Method: MethodResize, Params: &ResizeParams{
		ExecutionID: "shell-1", Cols: 120, Rows: 40,
	}},
	"client.control": {ID: ID("2"), Method: MethodControl, Params: &ControlParams{
		Type:        ControlPause,
		ExecutionID: "build-1",
	}},
	"client.input": {ID: ID("3"), Method: MethodInput, Params: &InputParams{
		ExecutionID: "build-1", Data: "eQo=",
		Encoding: EncodingBase64, EOF: true, decoded: []byte("y\n"),
	}},
	"client.input.offset": {ID: ID("13"), Method: MethodInput, Params: &InputParams{
		ExecutionID: "build-1", Data: "y\n", Offset: ptr(int64(2)),
	}},
	"client.input.writer": {ID: ID("18"), Method: MethodInput, Params: &InputParams{
		ExecutionID: "shell-1", Data: "ls\r", Offset: ptr(int64(0)), Writer: "k3v7",
	}},
	"client.signal": {ID: ID("4"), Method: MethodSignal, Params: &SignalParams{ExecutionID: "build-1", Signal: "SIGINT"}},
	"client.status": {ID: ID("5"), Method: MethodStatus, Params: &StatusParams{}},
	"client.resume": {ID: ID("6"), Method: MethodResume, Params: &ResumeParams{
		ResumeToken: "Zm9ydHktdHdvLXJhbmRvbS1ieXRlcw", Executions: map[string]int64{"build-1": 6},
	}},
	"client.resume.window": {ID: ID("14"), Method: MethodResume, Params: &ResumeParams{
		ResumeToken: "Zm9ydHktdHdvLXJhbmRvbS1ieXRlcw", Executions: map[string]int64{"dump-1": 1048576}, Window: 262144,
	}},
	"client.close": {ID: ID("7"), Method: MethodClose, Params: &CloseParams{}},
	"client.ack":   {Method: MethodAck, Params: &AckParams{ExecutionID: "dump-1", Offset: 131072}},
	"client.ack.completed": {ID: ID("15"), Method: MethodAck, Params: &AckParams{
		ExecutionID: "dump-1", Offset: 2097152, Completed: true,
	}},
	"client.pong": {Method: MethodPong, Params: &PongParams{}},
}

func ptr[T any](v T) *T { return &v }

// answer is a response of the server.
type answer struct {
	id     ID
	result any
	err    *Error
}

// goldenAnswers are the responses of the server, by file.
var goldenAnswers = map[string]answer{
	"server.result.execute": {id: ID("1"), result: &ExecuteResult{
		Status: "started", ExecutionID: "build-1", PID: 4242,
		PGID: 4242,
	}},
	"server.result.attach": {id: ID(`"b"`), result: &ExecuteResult{
		Status: "started", ExecutionID: "build-1", PID: 4242,
		PGID: 4242, Attached: true,
	}},
	"server.result.control": {id: ID("2"), result: &ControlResult{Status: "paused", ExecutionID: "build-1"}},
	"server.result.empty":   {id: ID("3"), result: struct{}{}},
	"server.result.status": {id: ID("5"), result: &StatusResult{
		SessionID: "troupe-0.5f2c", Pod: "troupe-0", CreatedAt: "2026-01-02T15:04:05Z", Limits: goldenLimits,
		Name: "nightly", Labels: map[string]string{"team": "build"},
		Executions: map[string]ExecutionStatus{"build-3": {
			State: StateRunning, PID: 4260, PGID: 4260, Offset: 512,
			StartedAt: "2026-01-02T15:04:06Z",
		}, "shell-1": {
			State: StateRunning, PID: 4270, PGID: 4270, Offset: 2048, InputOffset: 17,
			StartedAt: "2026-01-02T15:04:07Z", Terminal: &Terminal{Cols: 120, Rows: 40, Term: "xterm-256color"},
		}},
	}},
	"server.result.resume": {id: ID("6"), result: &ResumeResult{
		SessionID: "troupe-0.5f2c", Limits: goldenLimits, Unknown: []string{"build-0"},
		Executions: map[string]ExecutionStatus{"build-1": {
			State: StateExited, PID: 4242, PGID: 4242, Offset: 6,
			StartedAt: "2026-01-02T15:04:05Z", Completed: &goldenCompleted,
		}},
	}},
	"server.error.parse": {err: Errorf(CodeParse, "the frame is not JSON: unexpected end of JSON input at byte 12")},
	"server.error.method": {id: ID("8"), err: Errorf(CodeMethodNotFound,
		`unknown method "hook_status": use one of execute, control, input, signal, resize, status, resume, close, ack, pong`)},
	"server.error.params": {id: ID("9"), err: Errorf(CodeInvalidParams,
		`unknown control type "STOP": use PAUSE, RESUME or CANCEL`)},
	"server.error.start": {id: ID("10"), err: &Error{
		Code: CodeStartFailed, Message: "nosuch: command not found",
		Data: &ErrorData{ExitCode: 127},
	}},
	"server.error.session": {err: &Error{
		Code: CodeSessionLimit, Message: "all 100 sessions are in use",
		Data: &ErrorData{Limit: "max-sessions", Value: 100, RetryAfterSeconds: 5},
	}},
}

// goldenNotifications are the notifications of the server, by file.
var goldenNotifications = map[string]struct {
	method string
	params any
}{
	"server.connected": {MethodConnected, &Connected{
		SessionID: "troupe-0.5f2c", Version: Version, Capabilities: []string{
			"execute", "control", "stream", "input",
			"signal", "resume", "ack", "retain", "binary", "input_offset", "terminal", "isolation",
		},
		ResumeToken: "Zm9ydHktdHdvLXJhbmRvbS1ieXRlcw", Limits: goldenLimits, Pod: "troupe-0", Containment: "tree",
		Isolation: "session", IsolationABI: 7,
		Name: "nightly", Labels: map[string]string{"team": "build"},
	}},
	"server.process.started": {MethodStarted, &Started{
		ExecutionID: "build-1", Status: "started", PID: 4242,
		PGID: 4242,
	}},
	"server.process.stream": {MethodStream, &StreamOpened{ExecutionID: "build-1", Stream: 1}},
	"server.process.input":  {MethodInputTaken, &InputTaken{ExecutionID: "build-1", Offset: 2}},
	"server.process.input.error": {MethodInputTaken, &InputTaken{
		ExecutionID: "build-1", Offset: 2,
		Error: Errorf(CodeInputUnavailable, "the command has closed its stdin"),
	}},
	"server.process.output": {MethodOutput, &Output{
		ExecutionID: "build-1", Type: Stdout, Data: "hello\n",
		Offset: 6,
	}},
	"server.process.output.base64": {MethodOutput, &Output{
		ExecutionID: "build-1", Type: Stderr, Data: "/wA=",
		Encoding: EncodingBase64, Offset: 8, Gap: 0,
	}},
	"server.process.output.gap": {MethodOutput, &Output{
		ExecutionID: "build-2", Type: Stdout,
		Data: "x[TRUNCATED]\n", Truncated: true, Offset: 8205, Gap: 8192,
	}},
	"server.process.warning": {MethodWarning, &Warning{
		ExecutionID: "build-2", Code: WarnOutputLimit,
		Message: "output limit of 10485760 bytes reached: further lines are dropped", Offset: 10485760,
	}},
	"server.process.screen.terminal": {MethodScreen, &Screen{
		ExecutionID: "shell-1", Cols: 120, Rows: 40, Data: []byte("\x18\x1b[2J\x1b[1;1H$ "), Offset: 4198400,
	}},
	"server.process.resized.terminal": {MethodResized, &Resized{ExecutionID: "shell-1", Cols: 120, Rows: 40, Offset: 2048}},
	"server.process.paused": {MethodPaused, &ControlEvent{
		ExecutionID: "build-1", Status: "paused", PID: 4242,
		PGID: 4242,
	}},
	"server.process.resumed": {MethodResumed, &ControlEvent{
		ExecutionID: "build-1", Status: "resumed", PID: 4242,
		PGID: 4242,
	}},
	"server.process.canceled": {MethodCanceled, &ControlEvent{
		ExecutionID: "build-1", Status: "canceled",
		PID: 4242, PGID: 4242,
	}},
	"server.process.completed":         {MethodCompleted, &goldenCompleted},
	"server.process.completed.timeout": {MethodCompleted, &goldenTimeout},
	"server.process.error": {MethodError, &ProcessError{
		ExecutionID: "build-1",
		Error:       Errorf(CodeInternal, "the output could not be read"),
	}},
	"server.ping":     {MethodPing, nil},
	"server.draining": {MethodDraining, &Draining{DeadlineSeconds: 300}},
}

// encodeGolden writes every golden message as the product does.
func encodeGolden(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	add := func(name string, b []byte, err error) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[name] = append(b, '\n')
	}
	for name, r := range goldenRequests {
		params := r.Params
		if reflect.TypeOf(params).Elem().NumField() == 0 {
			params = nil
		}
		b, err := AppendRequest(nil, r.ID, r.Method, params)
		add(name, b, err)
	}
	for name, a := range goldenAnswers {
		b, err := AppendResponse(nil, a.id, a.result, a.err)
		add(name, b, err)
	}
	for name, n := range goldenNotifications {
		b, err := AppendNotification(nil, n.method, n.params)
		if out, ok := n.params.(*Output); ok {
			var payload []byte
			if payload, err = out.Bytes(); err == nil {
				b, _ = AppendOutput(nil, out, payload, MaxOutputMessage)
			}
		}
		add(name, b, err)
	}
	return files
}

func goldenPath(name string) string { return filepath.Join("testdata", "golden", name+".json") }

// The bytes on the wire are a promise to clients: a changed golden file is a changed protocol.
// UPDATE_GOLDEN=1 writes the files.
func TestGoldenMessages(t *testing.T) {
	files := encodeGolden(t)
	for name, got := range files {
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(goldenPath(name), got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(goldenPath(name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	onDisk, err := filepath.Glob(goldenPath("*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(onDisk) != len(files) {
		t.Errorf("%d golden files on disk, %d messages here", len(onDisk), len(files))
	}
}

func TestGoldenRequestsDecode(t *testing.T) {
	for name, want := range goldenRequests {
		frame, err := os.ReadFile(goldenPath(name))
		if err != nil {
			t.Fatal(err)
		}
		got, werr := Decode(frame)
		if werr != nil {
			t.Errorf("%s: %v", name, werr)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v %+v, want %+v %+v", name, got, got.Params, want, want.Params)
		}
	}
}

func TestGoldenServerMessagesDecode(t *testing.T) {
	for name, want := range goldenAnswers {
		m := readServerMessage(t, name)
		if id := want.id; id == nil {
			want.id = NullID
		}
		if string(m.ID) != string(want.id) || !reflect.DeepEqual(m.Err, want.err) {
			t.Errorf("%s: got id %s error %v", name, m.ID, m.Err)
		}
		if want.err == nil {
			sameJSON(t, name, m.Result, want.result)
		}
	}
	for name, want := range goldenNotifications {
		m := readServerMessage(t, name)
		if m.Method != want.method || len(m.ID) != 0 {
			t.Errorf("%s: got method %q id %q", name, m.Method, m.ID)
		}
		if out, ok := want.params.(*Output); ok {
			if m.Output == nil || *m.Output != *out {
				t.Errorf("%s: got %+v", name, m.Output)
			}
			continue
		}
		sameJSON(t, name, m.Params, want.params)
	}
}

func readServerMessage(t *testing.T, name string) Message {
	t.Helper()
	frame, err := os.ReadFile(goldenPath(name))
	if err != nil {
		t.Fatal(err)
	}
	m, err := DecodeServerMessage(bytes.TrimSpace(frame))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// sameJSON decodes raw into a value of want's type and compares.
func sameJSON(t *testing.T, name string, raw json.RawMessage, want any) {
	t.Helper()
	if want == nil {
		if raw != nil {
			t.Errorf("%s: unexpected params %s", name, raw)
		}
		return
	}
	typ := reflect.TypeOf(want)
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	got := reflect.New(typ)
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(got.Interface()); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if reflect.TypeOf(want).Kind() != reflect.Pointer {
		got = got.Elem()
	}
	if !reflect.DeepEqual(got.Interface(), want) {
		t.Errorf("%s: got %+v, want %+v", name, got.Interface(), want)
	}
}

func TestGoldenCoversEveryMessage(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range goldenRequests {
		seen[r.Method] = true
	}
	for _, m := range Methods() {
		if !seen[m] {
			t.Errorf("no golden request for %s", m)
		}
		if methods[m] == nil {
			t.Errorf("Methods lists %s, which Decode does not know", m)
		}
	}
	if len(Methods()) != len(methods) {
		t.Errorf("Methods has %d entries, Decode knows %d", len(Methods()), len(methods))
	}
	notified := map[string]bool{}
	for _, n := range goldenNotifications {
		notified[n.method] = true
	}
	for _, m := range []string{
		MethodConnected, MethodStarted, MethodStream, MethodOutput, MethodInputTaken, MethodWarning, MethodPaused,
		MethodResumed, MethodCanceled, MethodCompleted, MethodError, MethodPing, MethodDraining,
	} {
		if !notified[m] {
			t.Errorf("no golden notification for %s", m)
		}
	}
	for name := range goldenNotifications {
		if !strings.HasPrefix(name, "server.") {
			t.Errorf("%s is a message of the server", name)
		}
	}
}
