package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/troupe-dev/troupe/actors"
)

// validate reports every setting that cannot work and every contradictory combination of settings.
// Each error begins with the flag to change. validate looks at nothing outside the process: a
// missing directory is reported when it is used.
func (c *config) validate() error {
	errs := []error{c.limits.Validate()}
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.pingInterval <= 0 {
		refuse("--ping-interval must be positive, got %v", c.pingInterval)
	}
	if c.subjectSockets < 0 {
		refuse("--max-connections-per-subject must not be negative (0 means none), got %d", c.subjectSockets)
	}
	if c.transcriptBudget < c.limits.MaxOutput {
		refuse("--transcript-budget must hold at least one execution's --max-output (%d), got %d",
			c.limits.MaxOutput, c.transcriptBudget)
	}
	if c.subjectBudget != 0 && (c.subjectBudget < c.limits.MaxOutput || c.subjectBudget > c.transcriptBudget) {
		refuse("--max-output-per-subject must be 0 (no limit), or from one execution's --max-output (%d) to "+
			"--transcript-budget (%d), got %d", c.limits.MaxOutput, c.transcriptBudget, c.subjectBudget)
	}
	if c.dataDir == "" {
		refuse("--data-dir must name a directory")
	}
	if c.workdir == "" {
		refuse("--workdir must name a directory")
	}
	if !podName.MatchString(c.pod) {
		refuse("--pod must be 1 to 253 of the characters A-Z a-z 0-9 . - _, got %q", c.pod)
	}
	if c.traceEndpoint != "" {
		if u, err := url.Parse(c.traceEndpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			refuse("--trace-endpoint must be a URL such as http://otel-collector:4318, got %q", c.traceEndpoint)
		}
	}
	errs = append(errs,
		c.validateNetwork(), c.validateAccess(), c.validateCommands(), c.validateIsolation(),
		c.validateKubernetes(), c.validatePeers())
	return errors.Join(errs...)
}

// podName matches what may precede the dot in a session id.
var podName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)

func (c *config) validateNetwork() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen must be host:port, got %q", c.listen))
	}
	if c.adminListen == "" {
		return errors.Join(errs...)
	}
	if _, port, err := net.SplitHostPort(c.adminListen); err != nil {
		errs = append(errs, fmt.Errorf("--admin-listen must be host:port or empty, got %q", c.adminListen))
	} else if c.adminListen == c.listen && port != "0" {
		errs = append(errs, fmt.Errorf("--admin-listen must differ from --listen, both are %s", c.listen))
	}
	return errors.Join(errs...)
}

// validateResource checks what agents are told of authorization servers.
func (c *config) validateResource() (errs []error) {
	if (c.mcpResource == "") != (len(c.authServers) == 0) {
		errs = append(errs, errors.New("--mcp-resource and --authorization-servers belong together: give both, or none"))
	}
	for _, given := range append([]string{c.mcpResource}, c.authServers...) {
		if u, err := url.Parse(given); given != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
			errs = append(errs, fmt.Errorf("--mcp-resource and --authorization-servers take URLs such as "+
				"https://troupe.example.com/mcp, got %q", given))
		}
	}
	return errs
}

func (c *config) validateAccess() error {
	errs := c.validateResource()
	switch {
	case c.auth == authToken && c.tokenFile == "":
		errs = append(errs, errors.New("--auth token needs --token-file FILE, with lines of \"subject token\""))
	case c.auth != authToken && c.tokenFile != "":
		errs = append(errs, fmt.Errorf("--token-file has no effect with --auth %s: use --auth token", c.auth))
	case c.auth == authNone && !loopback(c.listen):
		errs = append(errs, fmt.Errorf("--auth none would let everyone who reaches %s run commands: "+
			"use --auth token --token-file FILE, or listen on a loopback address such as 127.0.0.1:8003, "+
			"or use --auth none-insecure if something in front of trouped decides who may connect", c.listen))
	}
	for _, path := range c.allowCommands {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			errs = append(errs, fmt.Errorf("--allow-command must be an absolute path without . or .., got %q", path))
		}
	}
	for _, entry := range c.allowEnv {
		if err := actors.CheckAllowEnv(entry); err != nil {
			errs = append(errs, fmt.Errorf("--allow-env %w", err))
		}
	}
	if len(c.allowEnv) > 0 && len(c.allowCommands) == 0 {
		errs = append(errs, errors.New("--allow-env has no effect without --allow-command: clients may set every variable"))
	}
	return errors.Join(errs...)
}

func (c *config) validateCommands() error {
	var errs []error
	for _, pair := range c.env {
		if name, _, ok := strings.Cut(pair, "="); !ok || !envName.MatchString(name) {
			errs = append(errs, fmt.Errorf("--env must be NAME=value, got %q", pair))
		}
	}
	for _, name := range c.passEnv {
		if !envName.MatchString(name) {
			errs = append(errs, fmt.Errorf("--pass-env must be the name of a variable, got %q", name))
		}
	}
	if _, err := c.runnerSocket(); err != nil {
		errs = append(errs, err)
	}
	if c.cgroup != "auto" && c.cgroup != "off" && !filepath.IsAbs(c.cgroup) {
		errs = append(errs, fmt.Errorf("--cgroup must be auto, off or an absolute path, got %q", c.cgroup))
	}
	return errors.Join(errs...)
}

var envName = regexp.MustCompile(`^[^=\x00\s]+$`)

// runnerSocket returns the path of the socket on which trouped waits for a runner, or ""
// for the embedded runner.
func (c *config) runnerSocket() (string, error) {
	if c.runner == runnerInside {
		return "", nil
	}
	path := strings.TrimPrefix(c.runner, "unix://")
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return "", fmt.Errorf("--runner must be embedded, /path/to.sock or unix:///path/to.sock, got %q", c.runner)
	}
	return path, nil
}

// loopback reports whether a listener on addr can be reached from this machine only. A
// name other than localhost may resolve to any address, so it does not count.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// servesConsole reports whether the console is at /.
func (c *config) servesConsole() bool {
	return c.console == consoleOn || c.console == consoleAuto && loopback(c.listen)
}
