package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

const defaultServer = "ws://127.0.0.1:8003/ws"

// clientSettings are the settings that all subcommands share.
type clientSettings struct {
	config    string
	server    string
	token     string
	tokenFile string
	caFile    string
	stateDir  string
	wait      time.Duration
	quiet     bool

	from      settings.Origins // where each setting came from
	serverSet bool             // by flag, environment or file
}

func (s *clientSettings) define(fs *pflag.FlagSet) {
	s.server = defaultServer
	fs.Var(settings.Text(&s.config, "file"), "config", "configuration file, YAML")
	fs.VarP(settings.Text(&s.server, "url"), "server", "s", "server: ws, wss, http or https URL, or host:port")
	fs.Var(settings.Text(&s.token, "token"), "token",
		"bearer token; other users can read it in the process list: prefer TROUPE_TOKEN or --token-file")
	fs.Var(settings.Text(&s.tokenFile, "file"), "token-file", "file with the bearer token, read again for each connection")
	fs.Var(settings.Text(&s.caFile, "file"), "ca-file", "file with PEM certificates to trust instead of the system's")
	fs.Var(settings.Text(&s.stateDir, "directory"), "state-dir",
		"directory in which sessions are remembered; empty: XDG_STATE_HOME/troupe or its equivalent")
	fs.Var(settings.NotNegative(settings.Duration(&s.wait)), "wait",
		"how long to keep trying when the server is full, draining or unreachable")
	settings.Bool(fs, &s.quiet, "quiet", "q", "print no messages about lost and resumed connections, unless it takes long")
}

// load sets every flag of cmd that was not given on the command line from the environment, or else
// from the configuration file.
func (s *clientSettings) load(cmd *cobra.Command) error {
	path, optional := s.configFile(cmd.Flags())
	from, err := settings.Load(cmd.Flags(), settings.Options{
		File: path, FileOptional: optional, Keys: func() []string { return fileKeys(cmd.Root()) }, IgnoreEmpty: true,
	})
	if err != nil {
		return usageError(err)
	}
	if from["token-file"] == "--token-file" && from["token"] != "--token" {
		s.token = "" // the flag outranks TROUPE_TOKEN
	}
	s.from, s.serverSet = from, from["server"] != ""
	return nil
}

// onLine reports whether a setting was given on the command line.
func (s *clientSettings) onLine(name string) bool { return s.from[name] == "--"+name }

// configFile returns the path of the configuration file. The file must exist only if the user named
// it.
func (s *clientSettings) configFile(fs *pflag.FlagSet) (path string, optional bool) {
	if path = settings.ConfigFile(fs); path != "" {
		return path, false
	}
	dir, err := configHome()
	if err != nil {
		return "", true // no home directory, no file
	}
	return filepath.Join(dir, "troupe", "config.yaml"), true
}

// configHome is os.UserConfigDir, but a relative XDG_CONFIG_HOME does not count, as the specification
// says, and a relative HOME would make the file depend on the working directory.
func configHome() (string, error) {
	if runtime.GOOS != "linux" {
		return os.UserConfigDir()
	}
	return xdg("XDG_CONFIG_HOME", ".config")
}

// xdg returns a directory of the XDG base directory specification
// (https://specifications.freedesktop.org/basedir-spec/): the variable's, or the default below HOME.
func xdg(variable, below string) (string, error) {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("HOME is not set")
	}
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("HOME is not an absolute path: %q", home)
	}
	return filepath.Join(home, below), nil
}

// fileKeys returns the keys that the configuration file may hold: the flags of every command.
func fileKeys(root *cobra.Command) []string {
	sets := []*pflag.FlagSet{root.PersistentFlags()}
	for _, cmd := range root.Commands() {
		sets = append(sets, cmd.Flags())
	}
	return settings.Keys(sets...)
}

// serverURL completes what the user wrote for a server: http becomes ws, a bare host:port gets ws,
// and a URL without a path /ws.
func serverURL(s string) (string, error) {
	s = strings.TrimSpace(s)
	if strings.Count(s, ":") > 1 && net.ParseIP(s) != nil || strings.HasPrefix(s, "::") {
		return "", usageError(fmt.Errorf("server %q: write an IPv6 address in brackets: [::1]:8003", s))
	}
	if !strings.Contains(s, "://") {
		s = "ws://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err // without the URL, which may hold a password
		}
		return "", usageError(fmt.Errorf("server: the URL is not valid: %w", err))
	}
	if u.User != nil {
		return "", usageError(errors.New(
			"server: the URL must not hold a user name or password; give a token with TROUPE_TOKEN or --token-file"))
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	case "ws", "wss":
	default:
		return "", usageError(fmt.Errorf("server %q: the scheme must be ws, wss, http or https", s))
	}
	if u.Hostname() == "" {
		return "", usageError(fmt.Errorf("server %q names no host", s))
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", usageError(fmt.Errorf("server %q: the port must be from 1 to 65535", s))
		}
	}
	if u.Path = strings.TrimRight(u.Path, "/"); u.Path == "" {
		u.Path = "/ws"
	}
	u.Fragment = ""
	return u.String(), nil
}
