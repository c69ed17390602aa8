package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the column at which the help text is wrapped.
const helpWidth = 110

// newCommand returns the command line. run is called with a valid configuration.
func newCommand(run func(*config) error) *cobra.Command {
	c := defaults()
	all := settings(c)
	root := &cobra.Command{
		Use:   "trouped",
		Short: "Run commands for WebSocket clients",
		Long: `trouped runs the commands of WebSocket clients and streams what they print.

Every setting is a flag, an environment variable and a key of the YAML file that
--config names. A flag wins over the variable, the variable over the file. In the
file, the key is the flag's name, and a list is a YAML list. Durations are 90s, 5m,
1h30m or a number of seconds. Sizes are bytes, or 512KiB, 10MiB, 2GB.`,
		Example: `  trouped                                                    # for this machine only
  trouped --listen :8003 --auth token --token-file tokens    # for others
  TROUPE_MAX_SESSIONS=20 trouped --config troupe.yaml`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := load(all, cmd.Flags())
			if err != nil {
				return err
			}
			if err := from.explain(c.validate()); err != nil {
				return err
			}
			return run(c)
		},
	}
	groups := defineFlags(root, all)
	usage := root.UsageFunc()
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		if cmd != root {
			return usage(cmd)
		}
		cmd.Print(rootUsage(root, groups))
		return nil
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w (see trouped --help)", err)
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

// flagGroup is a heading of the help text with the flags below it.
type flagGroup struct {
	title string
	flags *pflag.FlagSet
}

// defineFlags gives the command a flag for each setting, with its completion.
func defineFlags(cmd *cobra.Command, all []setting) []flagGroup {
	var groups []flagGroup
	for _, s := range all {
		value := s.value
		if list, ok := value.(listValue); ok {
			value = &appendingValue{listValue: list}
		}
		flag := cmd.Flags().VarPF(value, s.name, "", s.usage+" ($"+s.env()+")")
		if _, ok := value.(boolValue); ok {
			flag.NoOptDefVal = "true"
		}
		if len(groups) == 0 || groups[len(groups)-1].title != s.group {
			groups = append(groups, flagGroup{s.group, pflag.NewFlagSet(s.group, pflag.ContinueOnError)})
			groups[len(groups)-1].flags.SortFlags = false
		}
		groups[len(groups)-1].flags.AddFlag(flag)
		// It fails only for a flag that does not exist.
		_ = cmd.RegisterFlagCompletionFunc(s.name, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			switch {
			case s.choices() != nil:
				return s.choices(), cobra.ShellCompDirectiveNoFileComp
			case s.dirs:
				return nil, cobra.ShellCompDirectiveFilterDirs
			case s.files:
				return nil, cobra.ShellCompDirectiveDefault
			default:
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
		})
	}
	return groups
}

// rootUsage is the help text below the description.
func rootUsage(root *cobra.Command, groups []flagGroup) string {
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
