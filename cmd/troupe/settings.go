package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

const (
	envPrefix     = "TROUPE"
	defaultServer = "ws://127.0.0.1:8003/ws"
)

// settings are what all subcommands share. A flag's definition is the one of
// its environment variable and configuration key as well.
type settings struct {
	config    string
	server    string
	token     string
	tokenFile string
	caFile    string
	stateDir  string
	wait      time.Duration
	quiet     bool

	serverSet bool // by flag, environment or file: it wins over what a session recorded
}

func (s *settings) define(fs *pflag.FlagSet) {
	fs.StringVar(&s.config, "config", "", "configuration file, YAML")
	fs.StringVarP(&s.server, "server", "s", defaultServer, "server: ws, wss, http or https URL, or host:port")
	fs.StringVar(&s.token, "token", "", "bearer token; other users can read it in the process list: prefer TROUPE_TOKEN or --token-file")
	fs.StringVar(&s.tokenFile, "token-file", "", "file with the bearer token, read anew for each connection")
	fs.StringVar(&s.caFile, "ca-file", "", "file with PEM certificates to trust instead of the system's")
	fs.StringVar(&s.stateDir, "state-dir", "", "where sessions are remembered (default XDG_STATE_HOME/troupe or its like)")
	fs.DurationVar(&s.wait, "wait", 0, "keep trying that long when the server is full, draining or not reachable")
	fs.BoolVarP(&s.quiet, "quiet", "q", false, "no notes about lost and resumed connections")
	flagOnly(fs, "config")
}

// flagOnlyKey annotates flags that have no environment variable and no
// configuration key: they describe one command, not a habit.
const flagOnlyKey = "troupe/flag-only"

func flagOnly(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := fs.SetAnnotation(name, flagOnlyKey, nil); err != nil {
			panic(err) // the flag is defined a few lines above
		}
	}
}

func configurable(f *pflag.Flag) bool {
	_, no := f.Annotations[flagOnlyKey]
	return !no && f.Name != "help" && f.Name != "version"
}

// load fills every flag of cmd that was not given from the environment, or
// else from the configuration file.
func (s *settings) load(cmd *cobra.Command) error {
	v := viper.New()
	v.SetEnvPrefix(envPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	if err := s.readFile(v, cmd.Root()); err != nil {
		return err
	}
	tokenFlag := cmd.Flags().Changed("token")
	fileFlag := cmd.Flags().Changed("token-file")
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || !configurable(f) || !v.IsSet(f.Name) {
			return
		}
		if err := cmd.Flags().Set(f.Name, v.GetString(f.Name)); err != nil {
			errs = append(errs, fmt.Errorf("setting %s: %w", f.Name, err))
		}
	})
	if len(errs) > 0 {
		return usageError(errors.Join(errs...))
	}
	if fileFlag && !tokenFlag {
		s.token = "" // the flag outranks TROUPE_TOKEN
	}
	s.serverSet = cmd.Flags().Changed("server")
	return nil
}

// readFile reads the configuration file. Only one that was asked for must exist.
func (s *settings) readFile(v *viper.Viper, root *cobra.Command) error {
	path := s.config
	if path == "" {
		path = os.Getenv(envPrefix + "_CONFIG")
	}
	asked := path != ""
	if !asked {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil // no home directory, no file
		}
		path = filepath.Join(dir, "troupe", "config.yaml")
	}
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	if err := v.ReadInConfig(); err != nil {
		if !asked && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return usageError(fmt.Errorf("configuration: %w", err))
	}
	known := make(map[string]bool)
	for _, cmd := range append(root.Commands(), root) {
		note := func(f *pflag.Flag) { known[f.Name] = known[f.Name] || configurable(f) }
		cmd.Flags().VisitAll(note)
		cmd.PersistentFlags().VisitAll(note)
	}
	for _, key := range v.AllKeys() {
		if !known[key] {
			return usageError(fmt.Errorf("configuration %s: unknown setting %q", path, key))
		}
	}
	return nil
}

// serverURL completes what people write for a server: http becomes ws, a bare
// host:port gets ws, and a URL without a path /ws.
func serverURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "ws://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", usageError(fmt.Errorf("server: %w", err))
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
	if u.Host == "" {
		return "", usageError(fmt.Errorf("server %q names no host", s))
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/ws"
	}
	return u.String(), nil
}
