package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
)

// version is set with -ldflags "-X main.version=…".
var version string

// buildVersion returns the version that the linker set, or else the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.stdout, "troupe %s, protocol %s, %s %s/%s\n", buildVersion(), wire.Version,
				runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
