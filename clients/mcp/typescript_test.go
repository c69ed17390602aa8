//go:build linux

package mcp_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTypeScriptClients: the official clients, of both generations, over HTTP and over stdio.
func TestTypeScriptClients(t *testing.T) {
	listen := launch(t)
	for _, library := range []string{"@modelcontextprotocol/sdk", "@modelcontextprotocol/client"} {
		for name, target := range map[string][]string{
			"HTTP":  {"http://" + listen + "/mcp"},
			"stdio": {filepath.Join(buildDir, "troupe"), "mcp"},
		} {
			t.Run(library+" over "+name, func(t *testing.T) {
				cmd := node(t, "testdata/npm/clients.mjs", append([]string{library}, target...)...)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TROUPE_SERVER=ws://" + listen + "/ws"}
				cmd.Stderr = os.Stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				var got struct {
					Tools, Progress                            []string
					Ran, State, Canceled, Wrong, File, Session string
					Code, Resource                             int
				}
				if err := json.Unmarshal(out, &got); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if len(got.Tools) != 17 || got.Code != 3 || !strings.HasSuffix(got.Ran, "\nhello\n") || got.State != "running" ||
					len(got.Progress) != 1 || !strings.HasSuffix(got.Progress[0], "588895 bytes: 100000") ||
					got.Resource < 10_000 || got.Resource > 16<<10 || got.Canceled != "canceled" ||
					!strings.Contains(got.Wrong, "give command") || got.File != "three two" {
					t.Errorf("%s", out)
				}
			})
		}
	}
}

// TestInspector: the command line of the official inspector.
func TestInspector(t *testing.T) {
	listen := launch(t)
	inspect := func(target []string, arguments ...string) string {
		t.Helper()
		arguments = append(append([]string{"--cli"}, target...), arguments...)
		cmd := node(t, modules+"/@modelcontextprotocol/inspector/clients/launcher/build/index.js", arguments...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TROUPE_SERVER=ws://" + listen + "/ws"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", arguments, err, out)
		}
		return string(out)
	}
	http := []string{"http://" + listen + "/mcp", "--transport", "http"}
	if out := inspect(http, "--method", "tools/list"); !strings.Contains(out, `"read_output"`) {
		t.Errorf("%s", out)
	}
	if out := inspect(http, "--method", "resources/templates/list"); !strings.Contains(out, "troupe://session/") {
		t.Errorf("%s", out)
	}
	stdio := []string{filepath.Join(buildDir, "troupe"), "mcp", "-e", "TROUPE_SERVER=ws://" + listen + "/ws"}
	out := inspect(stdio, "--method", "tools/call", "--tool-name", "exec", "--tool-arg", "command=echo inspected")
	if !strings.Contains(out, "inspected\\n") || !strings.Contains(out, "exit code 0") {
		t.Errorf("%s", out)
	}
}
