package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

// config holds every setting. The zero value is not usable: see defaults.
type config struct {
	file string // the configuration file

	// Network.
	listen         string
	adminListen    string // empty: no admin listener
	pprof          bool
	console        string
	allowedOrigins []string
	pingInterval   time.Duration
	subjectSockets int // of one subject; 0: all but the last tenth

	// Access.
	auth          string
	tokenFile     string
	mcpResource   string   // empty: no metadata
	authServers   []string // with it
	allowCommands []string
	allowEnv      []string
	auditArgv     string

	// Commands.
	workdir      string
	env          []string
	passEnv      []string
	runner       string
	runnerBinary string // empty: the one beside trouped, or else in PATH
	cgroup       string
	isolation    proc.Isolation

	// Storage.
	dataDir          string
	transcriptBudget int64
	subjectBudget    int64 // of one subject; 0: none

	kubernetes kubernetesConfig
	peers      peersConfig

	// Traces.
	traceEndpoint string // empty: none

	// Identity and log.
	pod       string
	logFormat string
	logLevel  string

	limits actors.Limits
}

// Enumerated setting values.
const (
	authNone         = "none"          // on loopback only
	authNoneInsecure = "none-insecure" // on any address
	authToken        = "token"
	authKubernetes   = "kubernetes"
	logText          = "text"
	logJSON          = "json"
	argvFull         = "full"
	argvDigest       = "digest"
	consoleAuto      = "auto" // where only this machine reaches it
	consoleOn        = "on"
	consoleOff       = "off"
	runnerInside     = "embedded"
)

const (
	// writeTimeout disconnects a client that takes nothing of what is written to it for this long.
	writeTimeout = 10 * time.Second

	// warmInits is the number of inits that are kept ready for the next commands: by default a session
	// may execute as many at once.
	warmInits = 8
)

// removed maps settings of version 0.1 that no longer exist to their replacements.
var removed = settings.Removed{
	"allow-insecure-none": "it was removed in 0.2.0; use --auth none-insecure",
	"auth-cache":          "it was removed in 0.2.0; it is always 10s",
	"drain-output":        "it was removed in 0.2.0; it is always 2s",
	"keep-finished":       "it was removed in 0.2.0; it is always 32",
	"trace-sample": "it was removed in 0.2.0; " +
		"use OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG",
	"warm-inits":    "it was removed in 0.2.0; it is always 8",
	"write-timeout": "it was removed in 0.2.0; it is always 10s",
}

// defaults returns the configuration of a trouped without any settings.
func defaults() *config {
	pod, err := os.Hostname()
	if err != nil || pod == "" {
		pod = "local"
	}
	return &config{
		listen:           "127.0.0.1:8003",
		adminListen:      "127.0.0.1:9090",
		console:          consoleAuto,
		pingInterval:     20 * time.Second,
		auth:             authNone,
		auditArgv:        argvDigest,
		workdir:          ".",
		runner:           runnerInside,
		cgroup:           "auto",
		isolation:        proc.Isolation{Level: isolationAuto, Proc: procReadable},
		dataDir:          defaultDataDir(),
		transcriptBudget: 2 << 30,
		pod:              pod,
		kubernetes:       defaultKubernetes(),
		peers:            defaultPeers(),
		logFormat:        logText,
		logLevel:         "info",
		limits:           actors.DefaultLimits(),
	}
}

// defaultDataDir follows the XDG base directory specification
// (https://specifications.freedesktop.org/basedir-spec/): transcripts are state. The
// client keeps its sessions in the same directory.
func defaultDataDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "troupe", "transcripts")
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "troupe", "transcripts")
	}
	return "/var/lib/troupe/transcripts"
}

// group is a heading of the help text and the flags below it.
type group struct {
	title string
	flags *pflag.FlagSet
}

// groups defines every setting, bound to the fields of c. Package settings derives
// the environment variable and the key of the configuration file from the flag.
func (c *config) groups() []group {
	var all []group
	for _, g := range []struct {
		title  string
		define func(*pflag.FlagSet)
	}{
		{"Network", c.networkFlags},
		{"Access", c.accessFlags},
		{"Commands", c.commandFlags},
		{"Isolation of sessions", c.isolationFlags},
		{"Limits (a client may ask for less but not for more)", c.limitFlags},
		{"Storage", c.storageFlags},
		{"Kubernetes", c.kubernetesFlags},
		{"Peers", c.peerFlags},
		{"Traces", c.traceFlags},
		{"Configuration and log", c.processFlags},
	} {
		fs := pflag.NewFlagSet(g.title, pflag.ContinueOnError)
		fs.SortFlags = false
		g.define(fs)
		settings.Document(fs)
		all = append(all, group{g.title, fs})
	}
	return all
}

func (c *config) networkFlags(fs *pflag.FlagSet) {
	fs.Var(settings.Text(&c.listen, "host:port"), "listen", "address of the WebSocket endpoints /ws and /ws/mcp")
	fs.Var(settings.Text(&c.adminListen, "host:port"), "admin-listen",
		"address of /metrics, /healthz and /readyz; empty: none")
	settings.Bool(fs, &c.pprof, "pprof", "",
		"serve /debug/pprof/ on the admin address; commands can reach it if they share trouped's network")
	fs.Var(settings.Choice(&c.console, consoleAuto, consoleOn, consoleOff), "console",
		"serve the console, a page for browsers, at /; auto: where --listen is a loopback address")
	fs.Var(settings.List(&c.allowedOrigins, "pattern,...", ","), "allowed-origins",
		"browser origins that may connect besides the server's own host, such as https://*.example.com")
	fs.Var(settings.Duration(&c.pingInterval), "ping-interval",
		"time between WebSocket pings; a client that leaves two unanswered is disconnected")
	fs.Var(settings.Int(&c.subjectSockets), "max-connections-per-subject",
		"concurrent WebSockets of one subject; 0: all but the last tenth of two per session")
}

func (c *config) accessFlags(fs *pflag.FlagSet) {
	fs.Var(settings.Choice(&c.auth, authNone, authNoneInsecure, authToken, authKubernetes), "auth",
		"how clients authenticate; none is for loopback addresses, none-insecure accepts everyone on any address")
	fs.Var(settings.Text(&c.tokenFile, "file"), "token-file",
		"lines of \"subject token\" or \"subject token roles\", for --auth token; "+
			"roles, joined by commas: user (the default), viewer, operator, auditor")
	fs.Var(settings.Text(&c.mcpResource, "url"), "mcp-resource",
		"the URL by which clients know /mcp: tells agents that have no token where to get one, "+
			"which takes --authorization-servers (OAuth 2.0 protected resource metadata, RFC 9728)")
	fs.Var(settings.List(&c.authServers, "url,...", ","), "authorization-servers",
		"with --mcp-resource, the issuers of the tokens that --auth accepts")
	fs.Var(settings.List(&c.allowCommands, "path,...", ","), "allow-command",
		"absolute path of a program that clients may run; "+
			"once one is named, every other program, every shell string and every variable is refused")
	fs.Var(settings.List(&c.allowEnv, "NAME,...", ","), "allow-env",
		"with --allow-command, a variable that clients may set, or the beginning of several: LC_*; "+
			"to many programs variables are code (BASH_ENV, PYTHONPATH, GIT_SSH_COMMAND)")
	fs.Var(settings.Choice(&c.auditArgv, argvFull, argvDigest), "audit-argv",
		"how the audit log records a command: its arguments, or their SHA-256")
}

func (c *config) commandFlags(fs *pflag.FlagSet) {
	fs.Var(settings.Text(&c.workdir, "directory"), "workdir",
		"working directory of commands; .: where trouped was started or, if sessions are separated or the runner is "+
			"elsewhere, the home of the session")
	fs.Var(settings.List(&c.env, "NAME=value", "\n"), "env",
		"environment variable of every command; repeat the flag, or separate several with newlines")
	fs.Var(settings.List(&c.passEnv, "NAME,...", ","), "pass-env",
		"variables of trouped's own environment that commands inherit")
	fs.Var(settings.Text(&c.runner, "embedded|socket"), "runner",
		"embedded: start troupe-runner as a child; /path or unix:///path: wait for a runner on that socket")
	fs.Var(settings.Text(&c.runnerBinary, "file"), "runner-binary",
		"binary of the embedded runner; empty: troupe-runner beside trouped, or else in PATH")
	fs.Var(settings.Text(&c.cgroup, "auto|off|directory"), "cgroup",
		"cgroup v2 directory for executions of the embedded runner")
}

func (c *config) limitFlags(fs *pflag.FlagSet) {
	l := &c.limits
	fs.Var(settings.Int(&l.MaxSessions), "max-sessions", "concurrent sessions")
	fs.Var(settings.Int(&l.MaxExecutions), "max-executions", "concurrent executions of one session")
	fs.Var(settings.Int(&l.MaxSessionsPerSubject), "max-sessions-per-subject",
		"concurrent sessions of one subject; 0: all but the last tenth, which is for subjects that have none")
	fs.Var(settings.Int(&l.MaxExecutionsPerSubject), "max-executions-per-subject",
		"concurrent executions of one subject, in all its sessions; 0: no limit")
	fs.Var(settings.Bytes(&l.MaxLine), "max-line", "bytes of a line; longer lines are truncated")
	fs.Var(settings.Bytes(&l.MaxOutput), "max-output", "bytes of output kept per execution")
	fs.Var(settings.Duration(&l.StreamTimeout), "stream-timeout",
		"how long an execution may print nothing before it is ended")
	fs.Var(settings.Duration(&l.MaxDuration), "max-duration", "how long an execution may run; 0: no limit")
	fs.Var(settings.Bytes(&l.MaxMemory), "max-memory", "total memory of all processes of an execution; 0: no limit")
	fs.Var(settings.Bytes(&l.SessionMemory), "session-memory",
		"total memory of all executions of a session; 0: no limit")
	fs.Var(settings.Int(&l.SessionProcesses), "session-processes",
		"processes and threads of all executions of a session; 0: no limit")
	fs.Var(settings.Bytes(&l.SessionDisk), "session-disk",
		"bytes in the workspace of a session, and of a single file; 0: no limit")
	fs.Var(settings.Duration(&l.CancelGrace), "cancel-grace", "time from SIGTERM to SIGKILL")
	fs.Var(settings.Duration(&l.ResumeWindow), "resume-window", "how long a disconnected session is kept")
	fs.Var(settings.Duration(&l.IdleTimeout), "idle-timeout", "how long a session with no running execution is kept")
	fs.Var(settings.Bytes(&l.MaxMessage), "max-message", "bytes of an inbound message")
	fs.Var(settings.Duration(&l.DrainTimeout), "drain-timeout", "how long executions may keep running after SIGTERM")
}

func (c *config) storageFlags(fs *pflag.FlagSet) {
	fs.Var(settings.Text(&c.dataDir, "directory"), "data-dir",
		"directory of transcripts; trouped removes those that an earlier trouped left there")
	fs.Var(settings.Bytes(&c.transcriptBudget), "transcript-budget", "total bytes of all transcripts on disk")
	fs.Var(settings.Bytes(&c.subjectBudget), "max-output-per-subject",
		"total bytes of one subject's transcripts on disk; 0: no limit")
}

func (c *config) traceFlags(fs *pflag.FlagSet) {
	fs.Var(settings.Text(&c.traceEndpoint, "url"), "trace-endpoint",
		"OpenTelemetry collector that receives a trace of each execution by OTLP over HTTP, "+
			"such as http://otel-collector:4318; empty: none; "+
			"the variables OTEL_EXPORTER_OTLP_* and OTEL_TRACES_SAMPLER* configure it further")
}

func (c *config) processFlags(fs *pflag.FlagSet) {
	fs.Var(settings.Text(&c.file, "file"), "config", "YAML file whose keys are the names of these flags")
	fs.Var(settings.Text(&c.pod, "name"), "pod", "name of this server, the first part of its session ids")
	fs.Var(settings.Choice(&c.logFormat, logText, logJSON), "log-format", "format of the log on stderr")
	fs.Var(settings.Choice(&c.logLevel, "debug", "info", "warn", "error"), "log-level",
		"lowest severity that is logged")
}

// sessionBounds are what all executions of a session may hold.
func (c *config) sessionBounds() proc.Bounds {
	l := &c.limits
	return proc.Bounds{Memory: l.SessionMemory, Processes: l.SessionProcesses, Disk: l.SessionDisk}
}
