package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// StatusParams, CloseParams and PongParams have no members: the methods take none.
type (
	StatusParams struct{}
	CloseParams  struct{}
	PongParams   struct{}
)

// MaxID is the maximum length of a request id in bytes. The server keeps an id until it answers, so
// an unbounded one would let a client fill its memory.
const MaxID = 256

// Request is a request of a client. Params points to the method's params type,
// validated, and shares no memory with the frame.
type Request struct {
	ID     ID // as sent; empty for a notification, which is never answered
	Method string
	Params any
}

// methods maps each method to a constructor of its params.
var methods = map[string]func() params{
	MethodExecute: func() params { return &executeParams{} },
	MethodControl: func() params { return &controlParams{} },
	MethodInput:   func() params { return &inputParams{} },
	MethodSignal:  func() params { return &signalParams{} },
	MethodResize:  func() params { return &resizeParams{} },
	MethodStatus:  func() params { return &emptyParams[StatusParams]{} },
	MethodResume:  func() params { return &resumeParams{} },
	MethodClose:   func() params { return &emptyParams[CloseParams]{} },
	MethodAck:     func() params { return &ackParams{} },
	MethodPong:    func() params { return &emptyParams[PongParams]{} },
}

// Methods lists the methods of requests in the order of the documentation.
func Methods() []string {
	return []string{
		MethodExecute, MethodControl, MethodInput, MethodSignal, MethodResize,
		MethodStatus, MethodResume, MethodClose, MethodAck, MethodPong,
	}
}

// params is the target into which the JSON of a method is decoded. check returns the exported
// params, or an error that names the member and the valid values.
type params interface {
	check() (any, *Error)
}

// emptyParams ignores all members.
type emptyParams[T any] struct{}

func (*emptyParams[T]) check() (any, *Error) { return new(T), nil }

// envelope is a JSON-RPC message of any kind. Raw members distinguish absent from null.
type envelope struct {
	JSONRPC json.RawMessage `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  json.RawMessage `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   json.RawMessage `json:"error"`
}

// Decode reads one JSON-RPC 2.0 request (https://www.jsonrpc.org/specification).
//
// When it returns an error, the Request still has the id to answer with and, if it could be read,
// the method. An empty id means that the message is a notification, which must not be answered. An
// id of null makes a request, whose answer has the id null. Decode ignores unknown members of the
// envelope and of params.
func Decode(frame []byte) (Request, *Error) {
	if ack, ok := parseAck(frame); ok {
		return Request{Method: MethodAck, Params: ack}, nil
	}
	req := Request{ID: NullID}
	env, err := decodeEnvelope(frame)
	if err != nil {
		return req, err
	}
	id, err := checkID(env.ID)
	if err != nil {
		return req, err
	}
	if err := env.check(); err != nil {
		if len(id) > 0 && env.Result == nil && env.Error == nil {
			req.ID = id
		}
		return req, err
	}
	req.ID = id
	if json.Unmarshal(env.Method, &req.Method) != nil {
		return req, Errorf(CodeInternal, "method could not be read") // check saw a string
	}
	req.Params, err = decodeParams(req.Method, env.Params)
	return req, err
}

// DecodeParams decodes and validates the params of one method, as Decode does for a whole request.
// Nil and null mean no members. The result shares no memory with raw.
func DecodeParams(method string, raw json.RawMessage) (any, *Error) {
	if method == MethodInput {
		if p := decodeInput(raw); p != nil {
			return p, nil
		}
	}
	if at := notUTF8(raw); at >= 0 {
		return nil, Errorf(CodeInvalidParams, "the params are not UTF-8 at byte %d", at)
	}
	return decodeParams(method, raw)
}

func decodeParams(method string, raw json.RawMessage) (any, *Error) {
	newParams, ok := methods[method]
	if !ok {
		return nil, Errorf(CodeMethodNotFound,
			"unknown method %s: use one of %s", quote(method), strings.Join(Methods(), ", "))
	}
	p := newParams()
	if raw != nil && string(raw) != "null" {
		if !isObject(raw) {
			return nil, Errorf(CodeInvalidParams, "params must be an object: they are by name only")
		}
		if n := Elements(raw); n > MaxElements {
			return nil, Errorf(CodeInvalidParams, "params have %d elements: at most %d are accepted", n, MaxElements)
		}
		if err := json.Unmarshal(raw, p); err != nil {
			return nil, typeError(err)
		}
		if err := checkMembers(raw, p); err != nil {
			return nil, err
		}
	}
	return p.check()
}

// decodeEnvelope parses the members of the frame's object.
func decodeEnvelope(frame []byte) (envelope, *Error) {
	var env envelope
	// encoding/json replaces invalid UTF-8 by U+FFFD (https://pkg.go.dev/encoding/json#Unmarshal),
	// and a command with a replaced byte is another command.
	if at := notUTF8(frame); at >= 0 {
		return env, Errorf(CodeParse, "the frame is not UTF-8 at byte %d", at)
	}
	err := json.Unmarshal(frame, &env)
	var syntax *json.SyntaxError
	switch {
	case err == nil && isObject(frame):
		if name := repeatedMember(frame); name != "" {
			return env, Errorf(CodeInvalidRequest, "%q is given twice: give it once", name)
		}
		return env, nil
	case errors.As(err, &syntax):
		return env, Errorf(CodeParse, "the frame is not JSON: %s at byte %d", syntax, syntax.Offset)
	case bytes.HasPrefix(bytes.TrimLeft(frame, " \t\r\n"), []byte("[")):
		return env, Errorf(CodeInvalidRequest, "batches are not supported; send one request per frame")
	}
	return env, Errorf(CodeInvalidRequest, "a request is a JSON object")
}

// notUTF8 returns the index of the first byte of b that is not part of valid UTF-8, or -1.
func notUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	at := 0
	for {
		r, n := utf8.DecodeRune(b[at:])
		if r == utf8.RuneError && n <= 1 {
			return at
		}
		at += n
	}
}

// check reports why the envelope is not a request.
func (env *envelope) check() *Error {
	if env.Result != nil || env.Error != nil {
		return Errorf(CodeInvalidRequest, "the message is a response, and this server sends no requests")
	}
	if string(env.JSONRPC) != `"2.0"` {
		return Errorf(CodeInvalidRequest, `"jsonrpc" must be "2.0"`)
	}
	if env.Method == nil {
		return Errorf(CodeInvalidRequest, `"method" is missing`)
	}
	if env.Method[0] != '"' {
		return Errorf(CodeInvalidRequest, `"method" must be a string`)
	}
	return nil
}

// checkID accepts any id that JSON-RPC allows and returns it as it was sent, or empty if it is
// absent.
func checkID(raw json.RawMessage) (ID, *Error) {
	if raw == nil {
		return nil, nil
	}
	switch raw[0] {
	case '{', '[', 't', 'f':
		return nil, Errorf(CodeInvalidRequest, `"id" must be a string, a number or null`)
	}
	if len(raw) > MaxID {
		return nil, Errorf(CodeInvalidRequest, `"id" may have at most %d bytes`, MaxID)
	}
	return ID(raw), nil
}

// typeError turns a type error of encoding/json into a message for people.
func typeError(err error) *Error {
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &mismatch) {
		return Errorf(CodeInvalidParams, "params: %v", err)
	}
	field := mismatch.Field
	for _, embedded := range []string{
		"ExecuteParams.", "ControlParams.", "InputParams.", "SignalParams.",
		"ResizeParams.", "ResumeParams.", "AckParams.",
	} {
		field = strings.TrimPrefix(field, embedded)
	}
	return Errorf(CodeInvalidParams,
		"%s must be %s, not %s", field, describe(mismatch.Type), describeValue(mismatch.Value))
}

// describeValue adds an article to encoding/json's description of a value.
func describeValue(v string) string {
	switch kind, literal, _ := strings.Cut(v, " "); {
	case kind == "bool":
		return "true or false"
	case kind == "array" || kind == "object":
		return "an " + kind
	case kind == "number" && literal != "":
		if len(literal) > 32 {
			literal = literal[:32] + "…"
		}
		return literal
	default:
		return "a " + kind
	}
}

// describe names the JSON value that a Go type accepts.
func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "an array, each element " + describe(t.Elem())
	case reflect.Map:
		return "an object, each value " + describe(t.Elem())
	default:
		return "an object"
	}
}

func isObject(raw []byte) bool {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	return len(raw) > 0 && raw[0] == '{'
}

// quote quotes a client's text for a message, short enough for a log line.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%.*q…", most, s)
	}
	return fmt.Sprintf("%q", s)
}
