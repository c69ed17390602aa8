package main

import (
	"strings"
	"testing"
)

// TestLoopbackIsWhatOnlyThisMachineReaches: --auth none depends on it.
func TestLoopbackIsWhatOnlyThisMachineReaches(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.255.255.254:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "localhost:1": true,
		"128.0.0.1:1": false, "126.255.255.255:1": false, "0.0.0.0:1": false, ":1": false, "[::]:1": false, "[::2]:1": false,
		"10.0.0.1:1": false, "[::ffff:10.0.0.1]:1": false, "LOCALHOST:1": false, "localhost.:1": false,
		"localhost.example.com:1": false, "a.localhost:1": false, "127.0.0.1.example.com:1": false,
		"127.0.0.1": false, "localhost": false, "": false,
	} {
		if got := loopback(addr); got != want {
			t.Errorf("%q: %v", addr, got)
		}
	}
}

// TestSettingsAtTheirBounds: the last value that works, and the first that does not, each with its
// own flag to change.
func TestSettingsAtTheirBounds(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*config)
		want string // the flag that the error begins with; empty: taken
	}{
		"the defaults": {func(*config) {}, ""},

		"shortest ping interval": {func(c *config) { c.pingInterval = 1 }, ""},
		"no ping interval":       {func(c *config) { c.pingInterval = 0 }, "--ping-interval"},

		"budget of one execution": {func(c *config) { c.transcriptBudget = c.limits.MaxOutput }, ""},
		"budget of less":          {func(c *config) { c.transcriptBudget = c.limits.MaxOutput - 1 }, "--transcript-budget"},

		"no data directory":    {func(c *config) { c.dataDir = "" }, "--data-dir"},
		"no working directory": {func(c *config) { c.workdir = "" }, "--workdir"},

		"no pod":                {func(c *config) { c.pod = "" }, "--pod"},
		"longest pod":           {func(c *config) { c.pod = strings.Repeat("a", 253) }, ""},
		"longer pod":            {func(c *config) { c.pod = strings.Repeat("a", 254) }, "--pod"},
		"pod of every kind":     {func(c *config) { c.pod = "aZ09.-_" }, ""},
		"pod with a slash":      {func(c *config) { c.pod = "a/b" }, "--pod"},
		"pod with a line":       {func(c *config) { c.pod = "a\nb" }, "--pod"},
		"pod that ends a line":  {func(c *config) { c.pod = "a\n" }, "--pod"},
		"pod that begins wrong": {func(c *config) { c.pod = "/a" }, "--pod"},

		"a subject's connections":           {func(c *config) { c.subjectSockets = 1 }, ""},
		"a subject's connections, negative": {func(c *config) { c.subjectSockets = -1 }, "--max-connections-per-subject"},
		"a subject's output":                {func(c *config) { c.subjectBudget = c.limits.MaxOutput }, ""},
		"a subject's output below one execution's": {
			func(c *config) { c.subjectBudget = c.limits.MaxOutput - 1 }, "--max-output-per-subject",
		},
		"a subject's output above all output": {
			func(c *config) { c.subjectBudget = c.transcriptBudget + 1 }, "--max-output-per-subject",
		},
		"collector":                  {func(c *config) { c.traceEndpoint = "https://collector" }, ""},
		"collector without a host":   {func(c *config) { c.traceEndpoint = "http://" }, "--trace-endpoint"},
		"collector without a scheme": {func(c *config) { c.traceEndpoint = "//collector" }, "--trace-endpoint"},
		"collector that is no URL":   {func(c *config) { c.traceEndpoint = "http://a b" }, "--trace-endpoint"},

		"listens without a port": {
			func(c *config) { c.listen, c.auth, c.tokenFile = "127.0.0.1", authToken, "f" }, "--listen",
		},
		"no admin listener":            {func(c *config) { c.adminListen = "" }, ""},
		"admin listener without port":  {func(c *config) { c.adminListen = "127.0.0.1" }, "--admin-listen"},
		"both on one address":          {func(c *config) { c.adminListen = c.listen }, "--admin-listen"},
		"both on ports of the kernel":  {func(c *config) { c.listen, c.adminListen = "127.0.0.1:0", "127.0.0.1:0" }, ""},
		"one port on two addresses":    {func(c *config) { c.listen, c.adminListen = "127.0.0.1:1", "127.0.0.2:1" }, ""},
		"open to others without token": {func(c *config) { c.listen = "0.0.0.0:1" }, "--auth none"},
		"open to others with tokens":   {func(c *config) { c.listen, c.auth, c.tokenFile = "0.0.0.0:1", authToken, "f" }, ""},
		"tokens without a file":        {func(c *config) { c.auth = authToken }, "--auth token"},
		"a file without tokens":        {func(c *config) { c.tokenFile = "f" }, "--token-file"},

		"allowed program":   {func(c *config) { c.allowCommands = []string{"/bin/ls", "/bin/a b"} }, ""},
		"allowed by name":   {func(c *config) { c.allowCommands = []string{"/bin/ls", "ls"} }, "--allow-command"},
		"allowed with dots": {func(c *config) { c.allowCommands = []string{"/bin/../bin/ls"} }, "--allow-command"},
		"allowed directory": {func(c *config) { c.allowCommands = []string{"/bin/"} }, "--allow-command"},
		"no program's name": {func(c *config) { c.allowCommands = []string{""} }, "--allow-command"},
		"allowed variables": {
			func(c *config) { c.allowCommands, c.allowEnv = []string{"/bin/ls"}, []string{"LANG", "LC_*"} }, "",
		},
		"allowed variables, all": {
			func(c *config) { c.allowCommands, c.allowEnv = []string{"/bin/ls"}, []string{"*"} }, "--allow-env",
		},
		"allowed variables, valued": {
			func(c *config) { c.allowCommands, c.allowEnv = []string{"/bin/ls"}, []string{"A=b"} }, "--allow-env",
		},
		"allowed variable of the loader": {
			func(c *config) { c.allowCommands, c.allowEnv = []string{"/bin/ls"}, []string{"LD_PRELOAD"} }, "--allow-env",
		},
		"allowed variables of any program": {func(c *config) { c.allowEnv = []string{"LANG"} }, "--allow-env"},
		"variable":                         {func(c *config) { c.env = []string{"A=b=c", "B="} }, ""},
		"variable without a value":         {func(c *config) { c.env = []string{"A"} }, "--env"},
		"variable without a name":          {func(c *config) { c.env = []string{"=b"} }, "--env"},
		"variable with a space":            {func(c *config) { c.env = []string{"A B=c"} }, "--env"},
		"variable with a NUL":              {func(c *config) { c.env = []string{"A\x00=c"} }, "--env"},
		"passed variable":                  {func(c *config) { c.passEnv = []string{"A"} }, ""},
		"passed variable, valued":          {func(c *config) { c.passEnv = []string{"A=b"} }, "--pass-env"},
		"passed variable, nameless":        {func(c *config) { c.passEnv = []string{""} }, "--pass-env"},
		"runner elsewhere":                 {func(c *config) { c.runner = "/run/a.sock" }, ""},
		"runner at a URL":                  {func(c *config) { c.runner = "unix:///run/a.sock" }, ""},
		"runner at a relative path":        {func(c *config) { c.runner = "unix://run/a.sock" }, "--runner"},
		"runner at a path with dots":       {func(c *config) { c.runner = "/run/../a.sock" }, "--runner"},
		"cgroup":                           {func(c *config) { c.cgroup = "/sys/fs/cgroup/a" }, ""},
		"no cgroup":                        {func(c *config) { c.cgroup = "off" }, ""},
		"a relative cgroup":                {func(c *config) { c.cgroup = "a" }, "--cgroup"},
	} {
		cfg := defaults()
		cfg.pod = "pod"
		c.set(cfg)
		err := cfg.validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && err == nil:
			t.Errorf("%s was taken", name)
		case c.want != "" && (!strings.HasPrefix(err.Error(), c.want+" ") || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v, want one error that begins with %s", name, err, c.want)
		}
	}
}
