package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// instructions tell a model what holds for all tools. Some clients do not show them, so the
// descriptions stand alone.
func instructions(own bool) string {
	s := "Commands and files on a troupe server. A command runs in a session, which keeps its files, and has an execution id. " +
		"exec waits up to yield_ms; then the command goes on: use wait, read_output, write_stdin or cancel. " +
		"A call that is lost never ends a command. Results hold up to 16 KiB of output; read_output reads the rest by offset."
	if own {
		return s + " Without the argument session, calls use one session of your own."
	}
	return s + " Begin with open_session."
}

// resulter is a structured result that can also be read as text.
type resulter interface{ result() *sdk.CallToolResult }

// tool describes a tool: what it does, its arguments (a JSON object of schemas) and which it needs.
type tool struct {
	name, what  string
	args        string
	needs       string // names, with spaces
	out         json.RawMessage
	annotations sdk.ToolAnnotations
}

// Schemas that several tools share. They are prompt text, so they are as short as can be.
const (
	sessionArg   = `"session":{"type":"string"}`
	executionArg = sessionArg + `,"execution":{"type":"string"}`
	yieldArg     = `"yield_ms":{"type":"integer","minimum":0,"maximum":600000}`
	bytesArg     = `"max_bytes":{"type":"integer","minimum":1,"maximum":32768}`
	pathArg      = sessionArg + `,"path":{"type":"string"}`
	offsetArg    = `"offset":{"type":"integer","minimum":0}`
)

// outSchema describes an object by the members that programs need most. ! marks numbers.
func outSchema(members string) json.RawMessage {
	properties := map[string]any{}
	for _, name := range strings.Fields(members) {
		name, number := strings.CutSuffix(name, "!")
		properties[name] = map[string]string{"type": "string"}
		if number {
			properties[name] = map[string]string{"type": "number"}
		}
	}
	schema, err := json.Marshal(map[string]any{"type": "object", "properties": properties})
	if err != nil {
		panic(err) // maps of strings
	}
	return schema
}

// Annotations of tools. OpenWorldHint is left at true for those that may reach beyond the session.
var (
	no          = false
	destructive = sdk.ToolAnnotations{} // both hints are true by default
	reads       = sdk.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: &no}
	adds        = sdk.ToolAnnotations{DestructiveHint: &no, OpenWorldHint: &no}
	ends        = sdk.ToolAnnotations{IdempotentHint: true, OpenWorldHint: &no}
	edits       = sdk.ToolAnnotations{OpenWorldHint: &no}
)

func (d *Door) addTools() {
	d.addCommandTools()
	d.addFileTools()
}

func (d *Door) addCommandTools() {
	// Schemas of results. What a model needs to know of them is in their names.
	reportOut := outSchema("execution state output next_offset! exit_code!")
	pieceOut := outSchema("state output next_offset! matches!")
	statusOut, sessionOut := outSchema("execution status"), outSchema("session")
	executesOut := json.RawMessage(`{"type":"object","properties":{"executions":{"type":"array"}}}`)

	add(d, tool{
		"open_session", "Open a session: a place of its own for commands and files.",
		`"name":{"type":"string"}`, "", sessionOut, adds,
	}, d.openSession)
	add(d, tool{
		"close_session", "End a session, its commands and its files.",
		sessionArg, "session", sessionOut, ends,
	}, d.closeSession)
	add(d, tool{
		"exec", "Run a command: command is a line of sh, argv a program. Returns its output (beginning and end) and how it ended; " +
			"if it runs longer than yield_ms (default 10000), state running: continue with wait. " +
			"Repeating a call with the same execution_id never runs it twice. Stdin is empty unless given, and closed unless keep_stdin. " +
			"With terminal, for programs such as vim or ssh, it returns the screen: go on with send_keys.",
		sessionArg + `,"command":{"type":"string"},"argv":{"type":"array","items":{"type":"string"}},"cwd":{"type":"string"},"terminal":{"type":"boolean"},` +
			`"env":{"type":"object","additionalProperties":{"type":"string"}},"stdin":{"type":"string"},"keep_stdin":{"type":"boolean"},` +
			yieldArg + `,` + bytesArg + `,"max_seconds":{"type":"number","exclusiveMinimum":0},"execution_id":{"type":"string"}`,
		"session", reportOut, destructive,
	}, d.exec)
	add(d, tool{
		"wait", "Wait up to yield_ms (default 10000) for the end of a command. Returns output from offset, or else the last of it.",
		executionArg + `,` + offsetArg + `,` + yieldArg + `,` + bytesArg, "session execution", reportOut, reads,
	}, d.wait)
	add(d, tool{
		"read_output", "Read output of a command, also after its end: from offset, the last tail lines, or lines that match the regular expression grep.",
		executionArg + `,` + offsetArg + `,"tail":{"type":"integer","minimum":1},"grep":{"type":"string"},` + bytesArg,
		"session execution", pieceOut, reads,
	}, d.readOutput)
	add(d, tool{
		"write_stdin", "Write text to a command that was started with keep_stdin; returns what it prints within yield_ms (default 1000).",
		executionArg + `,"text":{"type":"string"},"eof":{"type":"boolean"},` + yieldArg + `,` + bytesArg,
		"session execution", reportOut, destructive,
	}, d.writeStdin)
	add(d, tool{
		"send_keys", `Type into a terminal: each of keys is a key, such as Enter, Ctrl-C, Up or F5, or else text: [":wq","Enter"]. ` +
			"Returns the screen when it is still, within yield_ms (default 2000).",
		executionArg + `,"keys":{"type":"array","items":{"type":"string"}},` + yieldArg,
		"session execution keys", reportOut, destructive,
	}, d.sendKeys)
	add(d, tool{
		"read_screen", "Read the screen of a terminal as text, when it is still.",
		executionArg + `,` + yieldArg, "session execution", reportOut, reads,
	}, d.readScreen)
	add(d, tool{
		"signal", "Send a signal, such as INT, to a command's process group.",
		executionArg + `,"signal":{"type":"string"}`, "session execution signal", statusOut, destructive,
	}, d.signal)
	add(d, tool{
		"cancel", "End a command and everything it started. Returns when all of it is dead.",
		executionArg, "session execution", reportOut, ends,
	}, d.cancel)
	add(d, tool{
		"pause", "Stop a command and everything it started, until resume.",
		executionArg, "session execution", statusOut, adds,
	}, d.pause)
	add(d, tool{
		"resume", "Let a paused command go on.",
		executionArg, "session execution", statusOut, adds,
	}, d.resume)
	add(d, tool{
		"list", "List the commands of a session, the newest first.",
		sessionArg, "session", executesOut, reads,
	}, d.list)
}

func (d *Door) addFileTools() {
	fileOut, writtenOut := outSchema("content next_offset! next_line!"), outSchema("status bytes!")
	entriesOut := json.RawMessage(`{"type":"object","properties":{"entries":{"type":"array"}}}`)
	add(d, tool{
		"read_file", "Read a text file from line or byte offset on.",
		pathArg + `,` + offsetArg + `,"line":{"type":"integer","minimum":1},"lines":{"type":"integer","minimum":1},` + bytesArg,
		"session path", fileOut, reads,
	}, d.readFile)
	add(d, tool{
		"write_file", "Write a file as a whole, and the directories above it.",
		pathArg + `,"content":{"type":"string"}`, "session path content", writtenOut, ends,
	}, d.writeFile)
	add(d, tool{
		"edit_file", "Replace the text old, which must be in the file exactly once, by new; with all, every one.",
		pathArg + `,"old":{"type":"string"},"new":{"type":"string"},"all":{"type":"boolean"}`,
		"session path old new", writtenOut,
		edits,
	}, d.editFile)
	add(d, tool{
		"list_files", "List a directory, depth levels deep (default 1).",
		pathArg + `,"depth":{"type":"integer","minimum":1,"maximum":20}`, "session path", entriesOut, reads,
	}, d.listFiles)
}

// add registers a tool. A handler's error becomes a result that the model reads.
func add[In any, Out resulter](d *Door, t tool, handle func(context.Context, *sdk.CallToolRequest, In) (Out, error)) {
	required := []string{}
	for _, name := range strings.Fields(t.needs) {
		if name != "session" || !d.cfg.OwnSession {
			required = append(required, name)
		}
	}
	schema := map[string]any{
		"type": "object", "properties": json.RawMessage("{" + t.args + "}"), "additionalProperties": false,
	}
	if len(required) > 0 {
		schema["required"] = required
	}
	input, err := json.Marshal(schema)
	if err != nil {
		panic(err) // a mistake in the table above
	}
	sdk.AddTool(d.server, &sdk.Tool{
		Name: t.name, Description: t.what, Annotations: &t.annotations,
		InputSchema: json.RawMessage(input), OutputSchema: t.out,
	}, func(ctx context.Context, req *sdk.CallToolRequest, in In) (res *sdk.CallToolResult, out Out, err error) {
		// The SDK calls tools on goroutines of its own, where a panic would end the server for all.
		defer func() {
			if r := recover(); r != nil {
				d.cfg.Logger.Error("a tool has panicked", "tool", t.name, "panic", r, "stack", string(debug.Stack()))
				err = fmt.Errorf("%s has failed: this is an error of the server", t.name)
			}
		}()
		out, err = handle(ctx, req, in)
		if err != nil {
			return nil, out, err
		}
		return out.result(), out, nil
	})
}
