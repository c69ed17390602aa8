//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLimitOfZeroIsRefused: it must not become the server's limit, wherever it is given, as the
// protocol refuses it.
func TestLimitOfZeroIsRefused(t *testing.T) {
	f := start(t, nil)
	for _, flag := range []string{"--timeout", "--max-duration", "--output-limit"} {
		for _, value := range []string{"0", "-1"} {
			config := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(config, []byte(flag[2:]+": "+value+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			env := "TROUPE_" + strings.ToUpper(strings.ReplaceAll(flag[2:], "-", "_"))
			for _, given := range []struct{ args, env, where string }{
				{args: flag + "=" + value, where: flag},
				{env: value, where: env},
				{args: "--config=" + config, where: config},
			} {
				t.Setenv(env, given.env)
				args := []string{"exec"}
				if given.args != "" {
					args = append(args, given.args)
				}
				r := f.run(append(args, "--", "print", "x")...)
				if r.code != 125 || r.stdout.String() != "" || !strings.Contains(r.stderr.String(), given.where) ||
					!strings.Contains(r.stderr.String(), "is not greater than 0; leave it out for the server's") {
					t.Errorf("%+v: code %d, %q, %q", given, r.code, r.stdout, r.stderr)
				}
			}
			t.Setenv(env, "")
		}
	}
	if r := f.run("exec", "--wait=-1s", "--", "print", "x"); r.code != 125 {
		t.Errorf("--wait: code %d, %q", r.code, r.stderr)
	}
}
