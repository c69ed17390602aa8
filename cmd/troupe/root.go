package main

import (
	"github.com/spf13/cobra"
)

const rootHelp = `troupe runs commands on a troupe server and streams what they print.

Every flag can be set by an environment variable (TROUPE_SERVER for --server)
and in the configuration file (server: …), in that order of precedence. The
file is troupe/config.yaml in the user's configuration directory, or --config.
Flags that describe one single command, such as --command, are flags only.`

// rootCommand builds the command tree for a command line.
func (a *app) rootCommand(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "troupe",
		Short:         "Run commands on a troupe server",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if internal(cmd) {
				return nil
			}
			return a.settings.load(cmd)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	a.settings.define(root.PersistentFlags())
	root.AddCommand(
		a.execCommand(),
		a.attachCommand(),
		a.shellCommand(),
		a.recordCommand(),
		a.sessionsCommand(),
		a.cancelCommand(),
		a.cpCommand(),
		a.mcpCommand(),
		a.versionCommand(),
	)
	if cmd, _, err := root.Find(args); err == nil && cmd != root {
		root.CompletionOptions.DisableDefaultCmd = true // not needed, and it would build five commands
	}
	return root
}

// internal reports whether cmd needs no settings. It must work with a broken configuration.
func internal(cmd *cobra.Command) bool {
	for ; cmd != nil; cmd = cmd.Parent() {
		switch cmd.Name() {
		case "version", "completion", "help", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
			return true
		}
	}
	return false
}
