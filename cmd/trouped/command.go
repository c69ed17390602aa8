package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

// helpWidth is the column at which the help text is wrapped.
const helpWidth = 110

const rootHelp = `trouped runs the commands of WebSocket clients and streams their output.

Every setting is a flag, an environment variable and a key of the YAML file that
--config names. A flag wins over the variable, and the variable over the file. In
the file, the key is the flag's name, and a list is a YAML list. Write a duration
as 90s, 5m, 1h30m or a number of seconds, and a size in bytes or as 512KiB, 10MiB,
2GB.`

const rootExample = `  trouped                                                    # for this machine only
  trouped --listen :8003 --auth token --token-file tokens    # for others
  TROUPE_MAX_SESSIONS=20 trouped --config troupe.yaml`

// newCommand returns the command line. run is called with a valid configuration.
func newCommand(run func(*config) error) *cobra.Command {
	c := defaults()
	root := &cobra.Command{
		Use:           "trouped",
		Short:         "Run commands for WebSocket clients",
		Long:          rootHelp,
		Example:       rootExample,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd.Flags()); err != nil {
				return err
			}
			return run(c)
		},
	}
	groups := c.groups()
	defineFlags(root, groups)
	usage := root.UsageFunc()
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		if cmd != root {
			return usage(cmd)
		}
		cmd.Print(rootUsage(root, groups))
		return nil
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w (see trouped --help)", removed.Flag(err))
	})
	root.AddCommand(&cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "trouped %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	})
	return root
}

// load fills in the settings that were not given as flags, and validates all of them.
func (c *config) load(flags *pflag.FlagSet) error {
	from, err := settings.Load(flags, settings.Options{File: settings.ConfigFile(flags), Removed: removed})
	if err != nil {
		return err
	}
	return from.Explain(c.validate())
}

// defineFlags gives the command its flags, and each flag its completion.
func defineFlags(cmd *cobra.Command, groups []group) {
	for _, g := range groups {
		cmd.Flags().AddFlagSet(g.flags)
		g.flags.VisitAll(func(f *pflag.Flag) {
			// It fails only for a flag that does not exist.
			_ = cmd.RegisterFlagCompletionFunc(
				f.Name,
				func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
					return complete(f.Value)
				},
			)
		})
	}
}

// complete returns a shell completion for a value, based on its choices or its type.
func complete(v pflag.Value) ([]string, cobra.ShellCompDirective) {
	kind := v.Type()
	switch {
	case settings.Choices(v) != nil:
		return settings.Choices(v), cobra.ShellCompDirectiveNoFileComp
	case strings.HasSuffix(kind, "directory"):
		return nil, cobra.ShellCompDirectiveFilterDirs
	case strings.HasSuffix(kind, "file"), strings.HasSuffix(kind, "socket"), strings.HasPrefix(kind, "path"):
		return nil, cobra.ShellCompDirectiveDefault
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// rootUsage returns the help text below the description.
func rootUsage(root *cobra.Command, groups []group) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  trouped [flags]\n  trouped [command]\n\nExamples:\n%s\n\nCommands:\n", root.Example)
	for _, sub := range root.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(&b, "  %-12s %s\n", sub.Name(), sub.Short)
		}
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(helpWidth))
	}
	return b.String()
}
