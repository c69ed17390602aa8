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

// requirements are what a cluster, and the tests that run on it, use of the
// machine, beyond Go and what every Debian has.
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
	{"socat", "socat"},         // of the tests: an impatient proxy
	{"promtool", "prometheus"}, // of the tests: dashboard and alerts
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
		allow, err := forbidServices()
		if err != nil {
			return err
		}
		defer allow()
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

// policyFile is asked by Debian's packages before they start a service.
const policyFile = "/usr/sbin/policy-rc.d"

// forbidServices keeps packages from starting their services while they are
// installed: Prometheus would take the port of trouped's admin listener, and
// outlive the tests. A policy that is there already stands. The caller undoes it.
func forbidServices() (undo func(), err error) {
	f, err := os.OpenFile(policyFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keep packages from starting services: %w", err)
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n")
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(policyFile)
		return nil, fmt.Errorf("keep packages from starting services: %w", err)
	}
	return func() { os.Remove(policyFile) }, nil
}
