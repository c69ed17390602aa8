package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

// parse runs the command line and returns the configuration that serve would get.
func parse(args ...string) (*config, error) {
	var got *config
	cmd := newCommand(func(c *config) error { got = c; return nil })
	cmd.SetArgs(args)
	err := cmd.Execute()
	return got, err
}

// samples returns two values of a setting. The first is not its default.
func samples(t *testing.T, f *pflag.Flag) (a, b string) {
	t.Helper()
	switch f.Name {
	case "admin-listen": // empty is a value
		return "127.0.0.1:3", ""
	case "env": // commas belong to the value
		return "A=1", "A=1,2\nB=3"
	}
	if choices := settings.Choices(f.Value); choices != nil {
		a, b = choices[0], choices[1]
		if a == f.Value.String() {
			a, b = b, a
		}
		return a, b
	}
	if _, list := f.Value.(pflag.SliceValue); list {
		return "one", "one,two"
	}
	switch f.Value.Type() {
	case "bool":
		return "true", "false"
	case "duration":
		return "17s", "19s"
	case "bytes":
		return "20971520", "31457280"
	case "number":
		return "117", "119"
	default: // text
		return "left", "right"
	}
}

// TestPrecedence holds for every setting there is: a new one cannot miss it.
func TestPrecedence(t *testing.T) {
	for _, f := range allFlags() {
		if f.Name == "config" {
			continue // TestConfigFileFromEnvironment
		}
		t.Run(f.Name, func(t *testing.T) {
			a, b := samples(t, f)
			fallback := f.Value.String()
			if a == fallback {
				t.Fatalf("sample %q is the default: it proves nothing", a)
			}
			for _, c := range []struct {
				name             string
				flag, env, file  string
				inFlag, inE, inF bool
				want             string
			}{
				{name: "default", want: fallback},
				{name: "file over default", file: a, inF: true, want: a},
				{name: "env over file", env: a, file: b, inE: true, inF: true, want: a},
				{name: "env over file, other values", env: b, file: a, inE: true, inF: true, want: b},
				{name: "flag over env", flag: a, env: b, inFlag: true, inE: true, want: a},
				{name: "flag over env, other values", flag: b, env: a, inFlag: true, inE: true, want: b},
				{name: "flag over file", flag: b, file: a, inFlag: true, inF: true, want: b},
			} {
				t.Run(c.name, func(t *testing.T) {
					var args []string
					if c.inFlag {
						args = append(args, "--"+f.Name+"="+c.flag)
					}
					if c.inE {
						t.Setenv(settings.EnvName(f.Name), c.env)
					}
					if c.inF {
						args = append(args, "--config="+writeFile(t, f.Name+": "+quote(c.file)+"\n"))
					}
					if got := effective(t, f.Name, args); got != c.want {
						t.Errorf("got %q, want %q", got, c.want)
					}
				})
			}
		})
	}
}

// allFlags returns every setting with its default.
func allFlags() []*pflag.Flag {
	var all []*pflag.Flag
	for _, g := range defaults().groups() {
		g.flags.VisitAll(func(f *pflag.Flag) { all = append(all, f) })
	}
	return all
}

// effective loads args and returns the value of one setting, without the checks
// that a single setting taken out of context would fail.
func effective(t *testing.T, name string, args []string) string {
	t.Helper()
	flags := newCommand(nil).Flags()
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.Load(flags, settings.Options{File: settings.ConfigFile(flags)}); err != nil {
		t.Fatal(err)
	}
	return flags.Lookup(name).Value.String()
}

func quote(s string) string { return `"` + strings.ReplaceAll(s, "\n", `\n`) + `"` }

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "troupe.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigFileFromEnvironment(t *testing.T) {
	t.Setenv("TROUPE_CONFIG", writeFile(t, "max-sessions: 7\nenv:\n  - A=x, y\n  - B=2\nmax-output: 20MiB\n"))
	c, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	if c.limits.MaxSessions != 7 || c.limits.MaxOutput != 20<<20 || strings.Join(c.env, ";") != "A=x, y;B=2" {
		t.Errorf("got %d sessions, %d bytes, env %q", c.limits.MaxSessions, c.limits.MaxOutput, c.env)
	}
}

func TestListFlagsRepeat(t *testing.T) {
	t.Setenv("TROUPE_ENV", "Z=26") // replaced by the flags, not added to
	c, err := parse("--env", "A=1,2", "--env", "B=3", "--pass-env", "X,Y", "--pass-env=Z")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.env, ";"); got != "A=1,2;B=3" {
		t.Errorf("env: got %q", got)
	}
	if got := strings.Join(c.passEnv, ";"); got != "X;Y;Z" {
		t.Errorf("pass-env: got %q", got)
	}
}

func TestHelpListsEverySetting(t *testing.T) {
	cmd := newCommand(nil)
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--help"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	// The text is wrapped; the words are what counts.
	words := strings.Join(strings.Fields(out.String()), " ")
	for _, f := range allFlags() {
		env := "($" + settings.EnvName(f.Name) + ")"
		if !strings.Contains(words, " --"+f.Name+" ") || !strings.Contains(words, env) {
			t.Errorf("help does not list --%s with %s", f.Name, env)
		}
		if f.Usage == env || strings.Contains(f.Usage, ". (") {
			t.Errorf("--%s: usage %q", f.Name, f.Usage)
		}
	}
}

func TestCompletionOfChoices(t *testing.T) {
	cmd := newCommand(nil)
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"__complete", "--log-format", ""})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "text\njson\n") {
		t.Errorf("got %q", got)
	}
}

func TestConfigFileMistakes(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"unknown key", "listen: 127.0.0.1:1\nmax-sesions: 3\n", `:2: unknown key "max-sesions"`},
		{"underscores", "max_sessions: 3\n", `:1: unknown key "max_sessions", did you mean "max-sessions"?`},
		{"unknown key without a value", "bogus:\n", `:1: unknown key "bogus"`},
		{"itself", "config: other.yaml\n", `:1: unknown key "config"`},
		{"no value", "listen:\n", ":1: listen: the value is missing"},
		{"twice", "max-sessions: 1\nmax-sessions: 2\n", "max-sessions"},
		{"mapping", "env:\n  A: 1\n", ":1: env: must be a plain value or a list, not a mapping"},
		{"list for one value", "listen: [a, b]\n", ":1: listen: must be a single value, not a list"},
		{"not a mapping", "- listen\n", ":1: expected lines of"},
		{"not YAML", "listen: [\n", "yaml"},
		{"wrong number", "max-sessions: many\n", `:1: max-sessions: "many" is not a whole number`},
		{"wrong limit", "\nmax-sessions: 0\n", ":2: max-sessions)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, c.content)
			_, err := parse("--config", path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q and the file's name", err, c.want)
			}
		})
	}
	if _, err := parse("--config", "/nonexistent.yaml"); err == nil ||
		!strings.Contains(err.Error(), "/nonexistent.yaml") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := parse("--config", writeFile(t, "# nothing\n")); err != nil {
		t.Errorf("a file of comments: %v", err)
	}
}

// TestErrorNamesSource protects the operator who has a value in three places.
func TestErrorNamesSource(t *testing.T) {
	t.Setenv("TROUPE_STREAM_TIMEOUT", "soon")
	if _, err := parse(); err == nil || !strings.HasPrefix(err.Error(),
		`TROUPE_STREAM_TIMEOUT: "soon" is not a duration`) {
		t.Errorf("environment: %v", err)
	}
	if _, err := parse("--stream-timeout", "5m"); err != nil {
		t.Errorf("a flag hides a wrong variable: %v", err)
	}
	t.Setenv("TROUPE_STREAM_TIMEOUT", "-1s")
	if _, err := parse(); err == nil || !strings.HasSuffix(err.Error(), "(from TROUPE_STREAM_TIMEOUT)") {
		t.Errorf("validation: %v", err)
	}
	if _, err := parse("--stream-timeout", "later"); err == nil || !strings.Contains(err.Error(), "--stream-timeout") {
		t.Errorf("flag: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		args string
		want string // empty: accepted
	}{
		{"none on loopback", "--listen 127.0.0.7:1", ""},
		{"none on IPv6 loopback", "--listen [::1]:1", ""},
		{"none on mapped loopback", "--listen [::ffff:127.0.0.1]:1", ""},
		{"none on localhost", "--listen localhost:1", ""},
		{"none on every address", "--listen :1", "--auth none"},
		{"none on 0.0.0.0", "--listen 0.0.0.0:1", "use --auth token --token-file FILE"},
		{"none on a name", "--listen example.com:1", "--auth none-insecure"},
		{"none on a name that looks local", "--listen localhost.example.com:1", "--auth none"},
		{"none, said explicitly", "--listen :1 --auth none-insecure", ""},
		{"token without a file", "--auth token", "--auth token needs --token-file"},
		{"token on every address", "--listen :1 --auth token --token-file f", ""},
		{"file without token", "--token-file f", "--token-file has no effect"},
		{"unknown auth", "--auth kerberos", "is not one of none, none-insecure, token"},
		{"same address twice", "--listen 127.0.0.1:1 --admin-listen 127.0.0.1:1", "--admin-listen must differ"},
		{"two free ports", "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0", ""},
		{"no admin listener", "--admin-listen=", ""},
		{"no port", "--listen 127.0.0.1", "--listen must be host:port"},
		{"no admin port", "--admin-listen localhost", "--admin-listen must be host:port"},
		{"small budget", "--transcript-budget 1MiB", "--transcript-budget must hold"},
		{"relative program", "--allow-command echo", "--allow-command must be an absolute path"},
		{"path with dots", "--allow-command /bin/../bin/sh", "--allow-command must be an absolute path"},
		{"env without a value", "--env HOME", "--env must be NAME=value"},
		{"env without a name", "--env =x", "--env must be NAME=value"},
		{"pass-env with a value", "--pass-env A=b", "--pass-env must be the name"},
		{"relative socket", "--runner run.sock", "--runner must be"},
		{"relative cgroup", "--cgroup troupe", "--cgroup must be"},
		{"pod with a slash", "--pod a/b", "--pod must be"},
		{"collector without a scheme", "--trace-endpoint collector:4318", "--trace-endpoint must be a URL"},
		{"collector over gRPC", "--trace-endpoint grpc://collector:4317", "--trace-endpoint must be a URL"},
		{"collector", "--trace-endpoint http://collector:4318", ""},
		{"a setting of 0.1", "--warm-inits 4", "--warm-inits: it was removed in 0.2.0; it is always 8 (see trouped --help)"},
		{"no data directory", "--data-dir=", "--data-dir must name"},
		{"no working directory", "--workdir=", "--workdir must name"},
		{"zero ping", "--ping-interval 0", "--ping-interval must be positive"},
		{"zero sessions", "--max-sessions 0", "--max-sessions must be positive"},
		{"argument", "serve", "unknown command"},
		{"unknown flag", "--colour", "unknown flag: --colour (see trouped --help)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parse(strings.Fields(c.args)...)
			if c.want == "" {
				if err != nil || got == nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	_, err := parse("--max-sessions", "0", "--listen", "x", "--pod", "")
	for _, flag := range []string{"--max-sessions", "--listen", "--pod"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
}

func TestDataDirFollowsXDG(t *testing.T) {
	t.Setenv("HOME", "/home/u")
	t.Setenv("XDG_STATE_HOME", "/state")
	if got := defaultDataDir(); got != "/state/troupe/transcripts" {
		t.Errorf("XDG_STATE_HOME: %s", got)
	}
	t.Setenv("XDG_STATE_HOME", "")
	if got := defaultDataDir(); got != "/home/u/.local/state/troupe/transcripts" {
		t.Errorf("HOME: %s", got)
	}
	t.Setenv("HOME", "")
	if got := defaultDataDir(); got != "/var/lib/troupe/transcripts" {
		t.Errorf("neither: %s", got)
	}
}
