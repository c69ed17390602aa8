//go:build linux

package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// What the conformance suite expects of a server, by the names that it uses. The content is its wish, too.

var (
	picture = []byte("\x89PNG\r\n\x1a\n")
	sound   = []byte("RIFF\x24\x00\x00\x00WAVE")
)

func embedded(uri string) *sdk.EmbeddedResource {
	return &sdk.EmbeddedResource{Resource: &sdk.ResourceContents{
		URI: uri, MIMEType: "text/plain", Text: "This is an embedded resource",
	}}
}

func says(content ...sdk.Content) sdk.ToolHandlerFor[any, any] {
	return func(context.Context, *sdk.CallToolRequest, any) (*sdk.CallToolResult, any, error) {
		return &sdk.CallToolResult{Content: content}, nil, nil
	}
}

func addFixtures(s *sdk.Server) {
	image := &sdk.ImageContent{Data: picture, MIMEType: "image/png"}
	for name, h := range map[string]sdk.ToolHandlerFor[any, any]{
		"test_simple_text":       says(&sdk.TextContent{Text: "This is a simple text response for testing."}),
		"test_image_content":     says(image),
		"test_audio_content":     says(&sdk.AudioContent{Data: sound, MIMEType: "audio/wav"}),
		"test_embedded_resource": says(embedded("test://embedded-resource")),
		"test_multiple_content_types": says(
			&sdk.TextContent{Text: "This is text content"}, image, embedded("test://embedded-in-multiple")),
		"test_error_handling": func(context.Context, *sdk.CallToolRequest, any) (*sdk.CallToolResult, any, error) {
			return nil, nil, errors.New("this tool intentionally returns an error for testing")
		},
		"test_tool_with_logging":  logs,
		"test_tool_with_progress": progresses,
		"test_reconnection":       says(&sdk.TextContent{Text: "done"}),
	} {
		sdk.AddTool(s, &sdk.Tool{Name: name, Description: "A fixture."}, h)
	}
	sdk.AddTool(s, &sdk.Tool{
		Name: "json_schema_2020_12_tool", Description: "A fixture.",
		InputSchema: json.RawMessage(`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
			"$defs":{"address":{"type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
			"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"}},"additionalProperties":false}`),
	}, says(&sdk.TextContent{Text: "done"}))
	addAsking(s)
	addResources(s, image)
}

func logs(ctx context.Context, req *sdk.CallToolRequest, _ any) (*sdk.CallToolResult, any, error) {
	for _, line := range []string{"started", "processing", "completed"} {
		//nolint:staticcheck // the suite asks for what the protocol has deprecated
		_ = req.Session.Log(ctx, &sdk.LoggingMessageParams{Level: "info", Data: "Tool " + line})
	}
	return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "done"}}}, nil, nil
}

func progresses(ctx context.Context, req *sdk.CallToolRequest, _ any) (*sdk.CallToolResult, any, error) {
	for _, n := range []float64{0, 50, 100} {
		_ = req.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{
			ProgressToken: req.Params.GetProgressToken(), Progress: n, Total: 100,
		})
	}
	return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "done"}}}, nil, nil
}

// addAsking adds the tools that ask the client.
func addAsking(s *sdk.Server) {
	type prompt struct {
		Prompt string `json:"prompt"`
	}
	sdk.AddTool(s, &sdk.Tool{Name: "test_sampling", Description: "A fixture."},
		func(ctx context.Context, req *sdk.CallToolRequest, in prompt) (*sdk.CallToolResult, any, error) {
			//nolint:staticcheck // the suite asks for what the protocol has deprecated
			res, err := req.Session.CreateMessage(ctx, &sdk.CreateMessageParams{
				Messages:  []*sdk.SamplingMessage{{Role: "user", Content: &sdk.TextContent{Text: in.Prompt}}},
				MaxTokens: 100,
			})
			if err != nil {
				return nil, nil, err
			}
			answer := "LLM response: " + res.Content.(*sdk.TextContent).Text
			return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: answer}}}, nil, nil
		})
	options := `"type":"string","enum":["option1","option2","option3"]`
	titled := `[{"const":"value1","title":"First"},{"const":"value2","title":"Second"},{"const":"value3","title":"Third"}]`
	for name, properties := range map[string]string{
		"test_elicitation": `"username":{"type":"string","description":"name"},"email":{"type":"string","description":"address"}`,
		"test_elicitation_sep1034_defaults": `"name":{"type":"string","default":"John Doe"},"age":{"type":"integer","default":30},` +
			`"score":{"type":"number","default":95.5},"status":{"type":"string","enum":["active","inactive","pending"],"default":"active"},` +
			`"verified":{"type":"boolean","default":true}`,
		"test_elicitation_sep1330_enums": `"untitledSingle":{` + options + `},"titledSingle":{"type":"string","oneOf":` + titled + `},` +
			`"legacyEnum":{"type":"string","enum":["opt1","opt2","opt3"],"enumNames":["One","Two","Three"]},` +
			`"untitledMulti":{"type":"array","minItems":1,"maxItems":3,"items":{` + options + `}},` +
			`"titledMulti":{"type":"array","minItems":1,"maxItems":3,"items":{"anyOf":` + titled + `}}`,
	} {
		schema := json.RawMessage(`{"type":"object","properties":{` + properties + `}}`)
		sdk.AddTool(s, &sdk.Tool{Name: name, Description: "A fixture.", InputSchema: json.RawMessage(`{"type":"object"}`)},
			func(ctx context.Context, req *sdk.CallToolRequest, in any) (*sdk.CallToolResult, any, error) {
				message, _ := in.(map[string]any)["message"].(string)
				if message == "" {
					message = "Please answer."
				}
				res, err := req.Session.Elicit(ctx, &sdk.ElicitParams{Message: message, RequestedSchema: schema})
				if err != nil {
					return nil, nil, err
				}
				answer := fmt.Sprintf("action=%s, content=%v", res.Action, res.Content)
				return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: answer}}}, nil, nil
			})
	}
}

func addResources(s *sdk.Server, image *sdk.ImageContent) {
	read := func(c *sdk.ResourceContents) sdk.ResourceHandler {
		return func(_ context.Context, req *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
			c := *c
			c.URI = req.Params.URI
			if id, ok := strings.CutPrefix(c.URI, "test://template/"); ok {
				c.Text = strings.ReplaceAll(c.Text, "ID", strings.TrimSuffix(id, "/data"))
			}
			return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{&c}}, nil
		}
	}
	s.AddResource(&sdk.Resource{Name: "text", URI: "test://static-text", MIMEType: "text/plain"},
		read(&sdk.ResourceContents{MIMEType: "text/plain", Text: "This is the content of the static text resource."}))
	s.AddResource(&sdk.Resource{Name: "binary", URI: "test://static-binary", MIMEType: "image/png"},
		read(&sdk.ResourceContents{MIMEType: "image/png", Blob: picture}))
	s.AddResource(&sdk.Resource{Name: "watched", URI: "test://watched-resource", MIMEType: "text/plain"},
		read(&sdk.ResourceContents{MIMEType: "text/plain", Text: "watched"}))
	s.AddResourceTemplate(
		&sdk.ResourceTemplate{Name: "template", URITemplate: "test://template/{id}/data", MIMEType: "application/json"},
		read(&sdk.ResourceContents{MIMEType: "application/json", Text: `{"id":"ID","templateTest":true,"data":"Data for ID: ID"}`}))

	user := func(c ...sdk.Content) (all []*sdk.PromptMessage) {
		for _, c := range c {
			all = append(all, &sdk.PromptMessage{Role: "user", Content: c})
		}
		return all
	}
	for name, p := range map[string]struct {
		arguments []string
		messages  func(map[string]string) []*sdk.PromptMessage
	}{
		"test_simple_prompt": {nil, func(map[string]string) []*sdk.PromptMessage {
			return user(&sdk.TextContent{Text: "This is a simple prompt for testing."})
		}},
		"test_prompt_with_arguments": {[]string{"arg1", "arg2"}, func(a map[string]string) []*sdk.PromptMessage {
			return user(&sdk.TextContent{Text: fmt.Sprintf("arg1='%s', arg2='%s'", a["arg1"], a["arg2"])})
		}},
		"test_prompt_with_embedded_resource": {[]string{"resourceUri"}, func(a map[string]string) []*sdk.PromptMessage {
			return user(embedded(a["resourceUri"]), &sdk.TextContent{Text: "Please process it."})
		}},
		"test_prompt_with_image": {nil, func(map[string]string) []*sdk.PromptMessage {
			return user(image, &sdk.TextContent{Text: "Please analyze it."})
		}},
	} {
		prompt := &sdk.Prompt{Name: name, Description: "A fixture."}
		for _, a := range p.arguments {
			prompt.Arguments = append(prompt.Arguments, &sdk.PromptArgument{Name: a, Required: true})
		}
		s.AddPrompt(prompt, func(_ context.Context, req *sdk.GetPromptRequest) (*sdk.GetPromptResult, error) {
			return &sdk.GetPromptResult{Messages: p.messages(req.Params.Arguments)}, nil
		})
	}
}

func complete(context.Context, *sdk.CompleteRequest) (*sdk.CompleteResult, error) {
	return &sdk.CompleteResult{Completion: sdk.CompletionResultDetails{Values: []string{}}}, nil
}

func subscribe(context.Context, *sdk.SubscribeRequest) error     { return nil }
func unsubscribe(context.Context, *sdk.UnsubscribeRequest) error { return nil }

// sameOrigin plays the part of gateway.Guard: it refuses pages of other hosts.
func sameOrigin(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, err := url.Parse(r.Header.Get("Origin")); err == nil && u.Host != "" && u.Hostname() != "localhost" && u.Host != r.Host ||
			strings.HasPrefix(r.Host, "evil") {
			http.Error(w, "another origin", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
