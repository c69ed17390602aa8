package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func command(ctx context.Context, t *testing.T, c *Cluster, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd, err := c.Command(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

func kubectl(ctx context.Context, t *testing.T, c *Cluster, stdin string, args ...string) string {
	t.Helper()
	cmd := command(ctx, t, c, "kubectl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := output(cmd)
	if err != nil {
		t.Fatalf("kubectl %v: %v", args, err)
	}
	return string(out)
}

// get asks the ingress, from this process, for the test's page.
func get(ctx context.Context, c *Cluster) (string, error) {
	client := &http.Client{
		Transport: &http.Transport{DialContext: c.DialContext, DisableKeepAlives: true},
		Timeout:   5 * time.Second,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+IngressAddress+"/", http.NoBody)
	if err != nil {
		return "", err
	}
	req.Host = "web.test"
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return string(body), err
}

func eventually(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			t.Fatalf("after %s: %v", liveTimeout, err)
		}
	}
}
