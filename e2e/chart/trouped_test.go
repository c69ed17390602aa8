package chart

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// trouped builds the server once.
var trouped = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "troupe-chart-")
	if err != nil {
		return "", err
	}
	cleanups = append(cleanups, func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "trouped")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/trouped")
	cmd.Dir = "../.." // the product is a module of its own
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building trouped: %w\n%s", err, out)
	}
	return path, nil
})

func buildTrouped(t *testing.T) string {
	t.Helper()
	path, err := trouped()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// troupedBound is far above what a start or an end takes.
const troupedBound = 30 * time.Second

// TestTroupedTakesTheConfiguration starts the real server with each rendered
// file; only addresses and directories are of this machine. One that needs the
// Kubernetes API gets as far as to miss it, which is after its settings were
// taken. Protects from: a key, a value or a combination of them that only a pod
// in a crash loop shows.
func TestTroupedTakesTheConfiguration(t *testing.T) {
	binary := buildTrouped(t)
	forEach(t, func(t *testing.T, name string, r *rendering) {
		dir := t.TempDir()
		config := r.config(t)
		args := []string{
			"--config", write(t, dir, "trouped.yaml", config), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
			"--runner", filepath.Join(dir, "runner.sock"), "--data-dir", filepath.Join(dir, "data"),
		}
		if strings.Contains(config, "auth: token\n") {
			tokens := "alice of-somebody-elses-secret-0123456789\n"
			if !strings.Contains(name, "existing-secret") {
				tokens = string(generated(t, r).Data["tokens"])
			}
			args = append(args, "--token-file", write(t, dir, "tokens", tokens))
		}
		if r.hasPeers(t) {
			args = append(args, peerArgs(t, dir, setting(t, config, "peer-cert-name"))...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), troupedBound)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Env = []string{"HOME=" + dir, "TROUPE_POD=troupe-0", "TROUPE_NAMESPACE=" + namespace, "TROUPE_POD_UID=1"}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready, log := waitReady(stderr, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
		err = cmd.Wait()
		if strings.Contains(config, "auth: kubernetes\n") || r.hasPeers(t) {
			// Settings are looked at before the cluster, which is not here.
			if !strings.Contains(log, "KUBERNETES_SERVICE_HOST") || strings.Contains(log, "trouped.yaml") {
				t.Errorf("trouped ended with %v, want the lack of a cluster:\n%s", err, log)
			}
			return
		}
		if !ready || err != nil {
			t.Errorf("trouped was ready: %t, and ended with %v:\n%s", ready, err, log)
		}
	})
}

// peerArgs has certificates of peers that the chart generates, on this machine.
func peerArgs(t *testing.T, dir, certName string) []string {
	t.Helper()
	r, err := render(loadChart(t), parse(t, fmt.Sprintf("peers: {enabled: true, tls: {certName: %q}}", certName)))
	if err != nil {
		t.Fatal(err)
	}
	secret := decodeNamed[corev1.Secret](t, r, "Secret", peersSecret)
	return []string{
		"--peer-listen", "127.0.0.1:0", "--peer-cert", write(t, dir, "tls.crt", string(secret.Data["tls.crt"])),
		"--peer-key", write(t, dir, "tls.key", string(secret.Data["tls.key"])), "--peer-ca",
		write(t, dir, "ca.crt", string(secret.Data["ca.crt"])),
	}
}

// waitReady reads the log to its end, and calls then once when the server is ready.
func waitReady(stderr io.Reader, then func()) (ready bool, log string) {
	var all bytes.Buffer
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		var line struct{ Msg string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" && !ready {
			ready = true
			then()
		}
	}
	return ready, all.String()
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDefaultsAreThoseOfTrouped protects from: a README, a --help and a chart
// that name three defaults for one limit.
func TestDefaultsAreThoseOfTrouped(t *testing.T) {
	help, err := exec.Command(buildTrouped(t), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(help)), " ")
	limits := text[strings.Index(text, "Limits ("):strings.Index(text, "Kubernetes: --kubernetes")]
	flag := regexp.MustCompile(` --([a-z-]+) (?:number|bytes|duration) [^$]*\(\$[A-Z_]+\)(?: \(default ([^)]+)\))?`)
	config := renderNamed(t, "default").config(t)
	found := flag.FindAllStringSubmatch(limits+text[strings.Index(text, "--ping-interval"):strings.Index(text, "Access:")],
		-1)
	if len(found) != 21 {
		t.Errorf("--help has %d limits, the chart 21: %v", len(found), found)
	}
	for _, match := range found {
		want := match[2]
		if want == "" {
			want = "0"
		}
		if got := setting(t, config, match[1]); got != want && got != inSeconds(want) {
			t.Errorf("the chart sets --%s to %s, its default is %s", match[1], got, want)
		}
	}
}

// inSeconds writes a duration as the chart does.
func inSeconds(s string) string {
	if s == "0" {
		return "0s"
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return s
	}
	return fmt.Sprintf("%.0fs", d.Seconds())
}

// TestEveryLimitIsPassedOn: testdata/values/limits.yaml gives each limit a
// number of its own. Protects from: a value that has no effect, or another's.
func TestEveryLimitIsPassedOn(t *testing.T) {
	config := renderNamed(t, "limits").config(t)
	standard := renderNamed(t, "default").config(t)
	for key, want := range map[string]string{
		"max-sessions": "11", "max-executions": "12", "max-line": "1300", "max-output": "140000000", "stream-timeout": "15s",
		"max-duration": "16s", "max-memory": "1700000000", "cancel-grace": "18s", "resume-window": "20s",
		"idle-timeout": "21s", "max-message": "22000000", "ping-interval": "25s",
		"transcript-budget": "26000000000", "drain-timeout": "27s", "audit-argv": "full",
		"session-memory": "1800000000", "session-processes": "30", "session-disk": "3100000000",
	} {
		if got := setting(t, config, key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
		if setting(t, standard, key) == want {
			t.Errorf("%s: %s is the default, so this shows nothing", key, want)
		}
	}
}
