package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// requirement is a program of the machine, from a Debian package.
type requirement struct{ program, pkg string }

// requirements are what a cluster uses of the machine, beyond Go and what
// every Debian has.
var requirements = []requirement{
	{"runc", "runc"},
	{"/usr/lib/cni/ptp", "containernetworking-plugins"},
	{"nft", "nftables"},
	{"iptables", "iptables"},
	{"conntrack", "conntrack"},
	{"ethtool", "ethtool"},
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
	{"mount", "mount"},
	{"mmdebstrap", "mmdebstrap"},
	{"buildah", "buildah"},
	{"/etc/ssl/certs/ca-certificates.crt", "ca-certificates"},
}

// MissingPackages names the Debian packages that a cluster needs and this
// machine lacks.
func (c *Cluster) MissingPackages() []string {
	var missing []string
	for _, r := range requirements {
		found := false
		if strings.HasPrefix(r.program, "/") {
			_, err := os.Stat(r.program)
			found = err == nil
		} else {
			for dir := range strings.SplitSeq(c.path(), ":") {
				if _, err := os.Stat(dir + "/" + r.program); err == nil {
					found = true
				}
			}
		}
		if !found && !slices.Contains(missing, r.pkg) {
			missing = append(missing, r.pkg)
		}
	}
	return missing
}

func (c *Cluster) checkPackages() error {
	if missing := c.MissingPackages(); len(missing) > 0 {
		return fmt.Errorf("missing Debian packages: apt-get install --no-install-recommends %s", strings.Join(missing, " "))
	}
	return nil
}

// InstallPackages installs what MissingPackages names, with apt-get.
func (c *Cluster) InstallPackages(ctx context.Context) error {
	missing := c.MissingPackages()
	if len(missing) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("installing packages needs root: " + c.checkPackages().Error())
	}
	return c.step("installed "+strings.Join(missing, " "), func() error {
		install := append([]string{"install", "--yes", "--quiet", "--no-install-recommends"}, missing...)
		for _, args := range [][]string{{"update", "--quiet"}, install} {
			cmd := exec.CommandContext(ctx, "apt-get", args...)
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			if _, err := output(cmd); err != nil {
				return err
			}
		}
		return nil
	})
}
