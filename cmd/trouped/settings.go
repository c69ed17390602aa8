package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/actors"
)

// config is everything that can be set. The zero value is not usable: see defaults.
type config struct {
	file string // the configuration file

	// Network.
	listen         string
	adminListen    string // empty: no admin listener
	pprof          bool
	allowedOrigins []string
	pingInterval   time.Duration
	writeTimeout   time.Duration

	// Access.
	auth              string
	tokenFile         string
	allowInsecureNone bool
	allowCommands     []string
	auditArgv         string

	// Commands.
	workdir      string
	env          []string
	passEnv      []string
	runner       string
	runnerBinary string // empty: beside trouped, then in PATH
	warmInits    int
	cgroup       string

	// Storage.
	dataDir          string
	transcriptBudget int64

	kubernetes kubernetesConfig
	peers      peersConfig

	// Traces.
	traceEndpoint string // empty: none
	traceSample   float64

	// Identity and log.
	pod       string
	logFormat string
	logLevel  string

	limits actors.Limits
}

// Values of the settings that are one of a closed set.
const (
	authNone       = "none"
	authToken      = "token"
	authKubernetes = "kubernetes"
	logText        = "text"
	logJSON        = "json"
	argvFull       = "full"
	argvDigest     = "digest"
	runnerInside   = "embedded"
)

// defaults returns what holds when nothing is set.
func defaults() *config {
	pod, err := os.Hostname()
	if err != nil || pod == "" {
		pod = "local"
	}
	return &config{
		listen:           "127.0.0.1:8003",
		adminListen:      "127.0.0.1:9090",
		pingInterval:     20 * time.Second,
		writeTimeout:     10 * time.Second,
		auth:             authNone,
		auditArgv:        argvDigest,
		workdir:          ".",
		runner:           runnerInside,
		warmInits:        8, // one session's worth of executions
		cgroup:           "auto",
		dataDir:          defaultDataDir(),
		transcriptBudget: 2 << 30,
		pod:              pod,
		kubernetes:       defaultKubernetes(),
		peers:            defaultPeers(),
		traceSample:      1,
		logFormat:        logText,
		logLevel:         "info",
		limits:           actors.DefaultLimits(),
	}
}

// defaultDataDir follows the XDG base directory specification: transcripts are
// state, of no use to anybody once trouped has ended. The client remembers its
// sessions beside them.
func defaultDataDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "troupe", "transcripts")
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "troupe", "transcripts")
	}
	return "/var/lib/troupe/transcripts"
}

// setting is the one definition of a setting. The flag, the environment
// variable, the key of the configuration file, the help text, the completion
// and the documentation all come from it.
type setting struct {
	name  string
	group string // heading in the help text
	usage string
	value pflag.Value
	files bool // completes file names
	dirs  bool // completes directories
}

// env is the setting's environment variable.
func (s setting) env() string {
	return "TROUPE_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// choices returns the closed set of values that a setting has, if it has one.
func (s setting) choices() []string {
	if c, ok := s.value.(choiceValue); ok {
		return c.choices
	}
	return nil
}

// inFile reports whether the configuration file may hold the setting.
func (s setting) inFile() bool { return s.name != "config" }

// settings returns every setting, bound to the fields of c.
func settings(c *config) []setting {
	var all []setting
	group := func(name string, list ...setting) {
		for _, s := range list {
			s.group = name
			all = append(all, s)
		}
	}
	group("Network", networkSettings(c)...)
	group("Access", accessSettings(c)...)
	group("Commands", commandSettings(c)...)
	group("Limits (a client may ask for less, never for more)", limitSettings(c)...)
	group("Storage", storageSettings(c)...)
	group("Kubernetes", kubernetesSettings(c)...)
	group("Peers", peerSettings(c)...)
	group("Traces", traceSettings(c)...)
	group("Configuration and log", processSettings(c)...)
	return all
}

func networkSettings(c *config) []setting {
	return []setting{
		{
			name: "listen", value: textValue{&c.listen, "host:port"},
			usage: "address of the WebSocket endpoints /ws and /ws/mcp",
		},
		{
			name: "admin-listen", value: textValue{&c.adminListen, "host:port"},
			usage: "address of /metrics, /healthz and /readyz; empty: none",
		},
		{
			name: "pprof", value: boolValue{&c.pprof},
			usage: "serve /debug/pprof/ on the admin address, which commands reach when they share trouped's network",
		},
		{
			name: "allowed-origins", value: listValue{&c.allowedOrigins, "pattern,...", ","},
			usage: "browser origins that may connect, besides the server's own host, such as https://*.example.com",
		},
		{
			name: "ping-interval", value: durationValue{&c.pingInterval},
			usage: "time between WebSocket pings; a client that leaves two unanswered is disconnected",
		},
		{
			name: "write-timeout", value: durationValue{&c.writeTimeout},
			usage: "a client that does not take a write for so long is disconnected",
		},
	}
}

func accessSettings(c *config) []setting {
	return []setting{
		{
			name: "auth", value: choiceValue{&c.auth, []string{authNone, authToken, authKubernetes}},
			usage: "how clients prove who they are; none is for loopback addresses",
		},
		{
			name: "token-file", value: textValue{&c.tokenFile, "file"}, files: true,
			usage: "lines of \"subject token\", for --auth token",
		},
		{
			name: "allow-insecure-none", value: boolValue{&c.allowInsecureNone},
			usage: "accept --auth none on an address that is not loopback",
		},
		{
			name: "allow-command", value: listValue{&c.allowCommands, "path,...", ","}, files: true,
			usage: "absolute path of a program that may be run; once one is named, no other program and no shell string may",
		},
		{
			name: "audit-argv", value: choiceValue{&c.auditArgv, []string{argvFull, argvDigest}},
			usage: "what the audit log says of a command: its arguments, or their SHA-256",
		},
	}
}

func commandSettings(c *config) []setting {
	return []setting{
		{
			name: "workdir", value: textValue{&c.workdir, "directory"}, dirs: true,
			usage: "working directory of commands, and their HOME",
		},
		{
			name: "env", value: listValue{&c.env, "NAME=value", "\n"},
			usage: "environment variable of every command; repeat it, or separate with newlines",
		},
		{
			name: "pass-env", value: listValue{&c.passEnv, "NAME,...", ","},
			usage: "variable of trouped's own environment that commands get",
		},
		{
			name: "runner", value: textValue{&c.runner, "embedded|socket"}, files: true,
			usage: "embedded: start troupe-runner as a child; /path or unix:///path: wait there for one",
		},
		{
			name: "runner-binary", value: textValue{&c.runnerBinary, "file"}, files: true,
			usage: "the embedded runner; empty: troupe-runner beside trouped, then in PATH",
		},
		{
			name: "warm-inits", value: intValue{&c.warmInits},
			usage: "inits kept ready for the commands that come next",
		},
		{
			name: "cgroup", value: textValue{&c.cgroup, "auto|off|directory"}, dirs: true,
			usage: "cgroup v2 directory for executions of the embedded runner",
		},
	}
}

func limitSettings(c *config) []setting {
	l := &c.limits
	return []setting{
		{name: "max-sessions", value: intValue{&l.MaxSessions}, usage: "sessions at a time"},
		{name: "max-executions", value: intValue{&l.MaxExecutions}, usage: "executions at a time in one session"},
		{name: "max-line", value: smallBytesValue{&l.MaxLine}, usage: "bytes of a line; a longer one is cut"},
		{name: "max-output", value: bytesValue{&l.MaxOutput}, usage: "bytes of output kept per execution"},
		{name: "stream-timeout", value: durationValue{&l.StreamTimeout}, usage: "silence after which a running execution ends"},
		{name: "max-duration", value: durationValue{&l.MaxDuration}, usage: "running time of an execution; 0: no limit"},
		{name: "max-memory", value: bytesValue{&l.MaxMemory}, usage: "memory of an execution's processes together; 0: no limit"},
		{name: "cancel-grace", value: durationValue{&l.CancelGrace}, usage: "from SIGTERM to SIGKILL"},
		{name: "drain-output", value: durationValue{&l.SurvivorGrace}, usage: "from a command's exit to the killing of survivors that hold its output open"},
		{name: "resume-window", value: durationValue{&l.ResumeWindow}, usage: "a session without a connection is kept for so long"},
		{name: "idle-timeout", value: durationValue{&l.IdleTimeout}, usage: "a session with nothing running is kept for so long"},
		{name: "max-message", value: bytesValue{&l.MaxMessage}, usage: "bytes of an inbound message"},
		{name: "keep-finished", value: intValue{&l.KeepFinished}, usage: "finished executions that a session remembers"},
		{name: "drain-timeout", value: durationValue{&l.DrainTimeout}, usage: "executions may finish for so long after SIGTERM"},
	}
}

func storageSettings(c *config) []setting {
	return []setting{
		{
			name: "data-dir", value: textValue{&c.dataDir, "directory"}, dirs: true,
			usage: "directory of transcripts; what an earlier trouped left in it is removed",
		},
		{
			name: "transcript-budget", value: bytesValue{&c.transcriptBudget},
			usage: "bytes of transcripts on disk",
		},
	}
}

func traceSettings(c *config) []setting {
	return []setting{
		{
			name: "trace-endpoint", value: textValue{&c.traceEndpoint, "url"},
			usage: "OpenTelemetry collector that is sent a trace of each execution, by OTLP over HTTP, such as http://otel-collector:4318; empty: none. The variables OTEL_EXPORTER_OTLP_* refine it",
		},
		{
			name: "trace-sample", value: ratioValue{&c.traceSample},
			usage: "share of the executions that are traced, 0 to 1; a client that sends its own trace has decided for itself",
		},
	}
}

func processSettings(c *config) []setting {
	return []setting{
		{
			name: "config", value: textValue{&c.file, "file"}, files: true,
			usage: "YAML file whose keys are the names of these flags",
		},
		{
			name: "pod", value: textValue{&c.pod, "name"},
			usage: "name of this server, the first part of its session ids",
		},
		{
			name: "log-format", value: choiceValue{&c.logFormat, []string{logText, logJSON}},
			usage: "format of the log on stderr",
		},
		{
			name: "log-level", value: choiceValue{&c.logLevel, []string{"debug", "info", "warn", "error"}},
			usage: "least severe message that is logged",
		},
	}
}
