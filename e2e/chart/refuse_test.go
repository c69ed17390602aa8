package chart

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
)

// TestNonsenseIsRefused: each of these would be found out later, by a pod that
// does not start, a node that cannot be drained or a stranger. The message must
// name the value.
func TestNonsenseIsRefused(t *testing.T) {
	for _, c := range []struct{ values, says string }{
		// Unknown keys, at any depth.
		{"repicas: 2", "additional properties 'repicas' not allowed"},
		{"limits: {maxSession: 2}", "at '/limits': additional properties 'maxSession' not allowed"},
		{"terminationGracePeriodSeconds: 10", "additional properties 'terminationGracePeriodSeconds' not allowed"},
		{"drain: {graceSeconds: 10}", "at '/drain': additional properties 'graceSeconds' not allowed"},
		{"networkPolicy: {egress: {excpt: []}}", "at '/networkPolicy/egress': additional properties 'excpt' not allowed"},
		{
			"runner: {securityContext: {privileged: true}}",
			"at '/runner/securityContext': additional properties 'privileged' not allowed",
		},
		{"tolerations: [{efect: NoSchedule}]", "at '/tolerations/0': additional properties 'efect' not allowed"},
		{"ingress: null", "missing property 'ingress'"},
		// What trouped or Kubernetes would refuse.
		{"limits: {maxSessions: 0}", "at '/limits/maxSessions': minimum: got 0, want 1"},
		{"limits: {maxLineBytes: 63}", "at '/limits/maxLineBytes': minimum: got 63, want 64"},
		{"limits: {drainOutputSeconds: 2}", "at '/limits': additional properties 'drainOutputSeconds' not allowed"},
		{"limits: {streamTimeoutSeconds: 5m}", "at '/limits/streamTimeoutSeconds': got string, want integer"},
		{"limits: {transcriptBudgetBytes: 10000}", "limits.transcriptBudgetBytes (10000) must hold at least the output of one execution, limits.maxOutputBytes (10485760)"},
		{"limits: {perSubject: {session: 2}}", "at '/limits/perSubject': additional properties 'session' not allowed"},
		{"limits: {perSubject: {sessions: -1}}", "at '/limits/perSubject/sessions': minimum: got -1, want 0"},
		{
			"limits: {perSubject: {outputBytes: 1000}}",
			"limits.perSubject.outputBytes (1000) must be 0 (no limit), or from limits.maxOutputBytes (10485760) to limits.transcriptBudgetBytes (2147483648)",
		},
		{
			"limits: {maxMemoryBytes: 2147483648}",
			"limits.maxMemoryBytes (2147483648) must be below runner.resources.limits.memory (2Gi)",
		},
		{
			"limits: {perSession: {memoryBytes: 2147483648}}",
			"limits.perSession.memoryBytes (2147483648) must be below runner.resources.limits.memory (2Gi)",
		},
		{
			"limits: {perSession: {diskBytes: 10737418240}}",
			"limits.perSession.diskBytes (10737418240) must be below runner.workspace.sizeLimit (10Gi)",
		},
		{"limits: {perSession: {disk: 1}}", "at '/limits/perSession': additional properties 'disk' not allowed"},
		{"hostUsers: maybe", "at '/hostUsers': got string, want null or boolean"},
		{"drain: {timeoutSeconds: 0}", "at '/drain/timeoutSeconds': minimum: got 0, want 1"},
		{"runner: {securityContext: {runAsUser: 0}}", "at '/runner/securityContext/runAsUser': minimum: got 0, want 1"},
		{
			"runner: {securityContext: {seccompProfile: {type: Unconfined}}}",
			"at '/runner/securityContext/seccompProfile/type': value must be one of 'RuntimeDefault', 'Localhost'",
		},
		{"runner: {workspace: {sizeLimit: lots}}", "at '/runner/workspace/sizeLimit'"},
		{
			"runner: {workspace: {volumeSource: {emptyDir: {}}}}",
			"runner.workspace.volumeSource is for other volumes than an emptyDir",
		},
		{"image: {digest: latest}", "at '/image/digest'"},
		{"server: {logLevel: loud}", "at '/server/logLevel': value must be one of 'debug', 'info', 'warn', 'error'"},
		{
			"{tracing: {endpoint: http://c:4318, sampleRatio: 0.5}, server: {env: [{name: OTEL_TRACES_SAMPLER, value: always_on}]}}",
			"server.env: OTEL_TRACES_SAMPLER contradicts tracing.sampleRatio",
		},
		{
			"server: {env: [{name: TROUPE_DRAIN_TIMEOUT, value: 1h}]}",
			"server.env: TROUPE_DRAIN_TIMEOUT would win over the value that the chart renders",
		},
		{"commands: {allow: [bin/true]}", "at '/commands/allow/0'"},
		{
			"commands: {allow: [/bin/../bin/true]}",
			"commands.allow: /bin/../bin/true must be written without . and .., as /bin/true",
		},
		{"commands: {allow: [/bin/true], allowEnv: ['*']}", "at '/commands/allowEnv/0'"},
		{"commands: {allow: [/bin/true], allowEnv: ['L*']}", "at '/commands/allowEnv/0'"},
		{"commands: {allow: [/bin/true], allowEnv: [LD_PRELOAD]}", "commands.allowEnv: with LD_PRELOAD clients could run code"},
		{"commands: {allowEnv: [LANG]}", "commands.allowEnv has no effect without commands.allow"},
		{"commands: {env: {COUNT: 1}}", "at '/commands/env/COUNT': got number, want string"},
		{"auth: {mode: password}", "at '/auth/mode': value must be one of 'token', 'kubernetes', 'none'"},
		{"service: {port: 70000}", "at '/service/port': maximum: got 70,000, want 65,535"},
		{"tracing: {endpoint: otel:4318}", "at '/tracing/endpoint'"},
		{"limits: {streamTimeoutSeconds: 99999999999}", "at '/limits/streamTimeoutSeconds': maximum: got"},
		{"drain: {timeoutSeconds: 99999999999}", "at '/drain/timeoutSeconds': maximum"},
		{"drain: {preStopSeconds: 1000000}", "at '/drain/preStopSeconds': maximum"},
		{
			"server: {resources: {requests: {memory: 1Gi}}}",
			"server.resources.requests.memory (1Gi) must not be above server.resources.limits.memory (256Mi)",
		},
		{
			"runner: {resources: {requests: {cpu: 1500m}, limits: {cpu: 1}}}",
			"runner.resources.requests.cpu (1500m) must not be above runner.resources.limits.cpu (1)",
		},
		{"auth: {token: {existingSecret: Foo_Bar}}", "at '/auth/token/existingSecret'"},
		{"serviceAccount: {name: Foo_}", "at '/serviceAccount/name'"},
		{"networkPolicy: {egress: {except: [999.1.1.1/99]}}", "at '/networkPolicy/egress/except/0'"},
		{"networkPolicy: {ingressFrom: [{ipBlock: {cidr: 10.0.0.0/33}}]}", "at '/networkPolicy/ingressFrom/0/ipBlock/cidr'"},
		{
			"server: {securityContext: {seccompProfile: {type: Localhost}}}",
			"at '/server/securityContext/seccompProfile': missing property 'localhostProfile'",
		},
		{
			"runner: {securityContext: {appArmorProfile: {type: RuntimeDefault, localhostProfile: a}}}",
			"at '/runner/securityContext/appArmorProfile'",
		},
		{
			"httpRoute: {timeouts: {request: 1m, backendRequest: 1m1ms}}",
			"httpRoute.timeouts.backendRequest (1m1ms) must not be above httpRoute.timeouts.request (1m)",
		},
		{"commands: {passEnv: [KEY]}", "commands.passEnv: KEY is not in server.env"},
		{
			"auth: {mode: kubernetes, kubernetes: {grantTo: [{kind: User, name: a, namespace: b}]}}",
			"auth.kubernetes.grantTo: a User such as a has no namespace",
		},
		{
			"auth: {mode: kubernetes, kubernetes: {auditors: [{kind: Group, name: a, namespace: b}]}}",
			"auth.kubernetes.auditors: a Group such as a has no namespace",
		},
		{
			"auth: {oauth: {resource: https://troupe.example.com/mcp}}",
			"auth.oauth.resource and auth.oauth.authorizationServers belong together",
		},
		{"auth: {oauth: {resource: troupe.example.com/mcp}}", "at '/auth/oauth/resource'"},
		{"auth: {oauth: {authorizationServers: [id.example.com]}}", "at '/auth/oauth/authorizationServers/0'"},
		{
			"auth: {mode: none, oauth: {resource: 'https://a.example/mcp', authorizationServers: ['https://b.example']}}",
			"auth.oauth has no effect with auth.mode none",
		},
		// What would let everyone in.
		{"auth: {mode: none}", "auth.mode none would let everyone who reaches the ingress run commands"},
		{
			"auth: {mode: none}\ningress: {enabled: false}\nservice: {type: LoadBalancer}",
			"auth.mode none would let everyone who reaches the LoadBalancer run commands",
		},
		{
			"auth: {mode: none}\ningress: {enabled: false}\nhttpRoute: {enabled: true, parentRefs: [{name: a}]}",
			"auth.mode none would let everyone who reaches the gateway run commands",
		},
		// What would take down the walls between sessions, or promise them where there are none.
		{"isolation: {mode: pod}", "at '/isolation/mode': value must be one of 'auto', 'session', 'none'"},
		{"isolation: {mode: none, require: true}", "isolation.require contradicts isolation.mode none"},
		{"isolation: {mode: none, sharedTmp: true}", "isolation.sharedTmp has no effect with isolation.mode none"},
		{"isolation: {mode: none, proc: none}", "isolation.proc has no effect with isolation.mode none"},
		{"isolation: {mode: none, write: [/cache]}", "isolation.write has no effect with isolation.mode none"},
		{"isolation: {read: [/]}", "at '/isolation/read/0'"},
		{"isolation: {read: [cache]}", "at '/isolation/read/0'"},
		{"isolation: {write: ['/a,/workspace']}", "at '/isolation/write/0'"},
		{
			"isolation: {write: [/workspace]}",
			"isolation.write: /workspace would open to every session what belongs to one",
		},
		{"isolation: {read: [/tmp]}", "isolation.read: /tmp would let sessions list each other's files: set isolation.sharedTmp"},
		{"isolation: {write: [/a/../workspace]}", "isolation.write: /a/../workspace must be written without . and .., as /workspace"},
		{
			"runner: {volumeMounts: [{name: a, mountPath: '/a,/workspace'}], volumes: [{name: a, emptyDir: {}}]}",
			"so /a,/workspace must have none",
		},
		{
			"runner: {volumeMounts: [{name: a, mountPath: /workspace/}], volumes: [{name: a, emptyDir: {}}]}",
			"runner.volumeMounts: /workspace/ is a path of the chart's",
		},
		{
			"runner: {workspace: {seed: {hostPath: {path: /}}}}",
			"runner.workspace.seed: hostPath is not among the volumes that have files",
		},
		{
			"runner: {workspace: {seed: {emptyDir: {}}}}",
			"runner.workspace.seed: emptyDir is not among the volumes that have files",
		},
		// What would undo "restricted", or show commands the tokens.
		{
			"runner: {volumes: [{name: host, hostPath: {path: /}}]}",
			"runner.volumes: hostPath is not among the volumes of restricted pods: configMap, csi",
		},
		{
			"runner: {volumes: [{name: share, nfs: {server: a, path: /}}]}",
			"runner.volumes: nfs is not among the volumes of restricted pods",
		},
		{
			"runner: {workspace: {volumeSource: {hostPath: {path: /}}}}",
			"runner.workspace.volumeSource: hostPath is not among the volumes of restricted pods",
		},
		{
			"podAnnotations: {container.apparmor.security.beta.kubernetes.io/runner: unconfined}",
			"podAnnotations: container.apparmor.security.beta.kubernetes.io/runner can disable AppArmor",
		},
		{
			"runner: {volumeMounts: [{name: config, mountPath: /x}]}",
			"runner.volumeMounts: config is a volume of the chart, which",
		},
		{
			"runner: {volumeMounts: [{name: api-token, mountPath: /x}]}",
			"runner.volumeMounts: api-token is a volume of the chart, which",
		},
		{
			"runner: {volumeMounts: [{name: data, mountPath: /x}]}",
			"runner.volumeMounts: data is a volume of the chart, which",
		},
		{"runner: {volumes: [{name: run, emptyDir: {}}]}", "runner.volumes: run is a volume of the chart's"},
		{"podAnnotations: {checksum/config: a}", "podAnnotations: checksum/config is rendered by the chart"},
		{"tests: {image: {tag: \"1\"}}", "have no effect without tests.image.repository"},
		// What would have no effect, or the wrong one.
		{
			"auth: {kubernetes: {grantTo: [{kind: User, name: a}]}}",
			"auth.kubernetes.grantTo has no effect with auth.mode token",
		},
		{
			"auth: {kubernetes: {operators: [{kind: User, name: a}]}}",
			"auth.kubernetes.operators has no effect with auth.mode token",
		},
		{
			"auth: {kubernetes: {grantTo: [{kind: Role, name: a}]}}",
			"at '/auth/kubernetes/grantTo/0/kind': value must be one of 'ServiceAccount', 'User', 'Group'",
		},
		{
			"auth: {mode: kubernetes, token: {existingSecret: a}}",
			"auth.token.existingSecret has no effect with auth.mode kubernetes",
		},
		{
			"auth: {token: {existingSecret: troupe-tokens}}",
			"auth.token.existingSecret names the Secret that this release generates",
		},
		{"httpRoute: {enabled: true}", "httpRoute.parentRefs must name a gateway"},
		{"peers: {tls: {mode: secret}}", "peers.tls.existingSecret must name the Secret"},
		{"peers: {tls: {existingSecret: a}}", "peers.tls.existingSecret has no effect with peers.tls.mode generated"},
		{
			"peers: {tls: {mode: secret, existingSecret: troupe-peers}}",
			"peers.tls.existingSecret names the Secret that this release generates",
		},
		{"peers: {tls: {issuerRef: {name: a}}}", "peers.tls.issuerRef has no effect with peers.tls.mode generated"},
		{"peers: {tls: {mode: plain}}", "at '/peers/tls/mode'"},
		{"podMonitor: {enabled: true}", "podMonitor.enabled needs networkPolicy.metricsFrom"},
		{
			"autoscaling: {enabled: true, minReplicas: 4, maxReplicas: 3}",
			"autoscaling.minReplicas (4) must not be above autoscaling.maxReplicas (3)",
		},
		{
			"autoscaling: {enabled: true, target: 101}",
			"autoscaling.target (101 sessions) must not be above limits.maxSessions (100)",
		},
		{
			"autoscaling: {enabled: true, metric: cpu}\nrunner: {resources: {requests: null}}",
			"set requests.cpu in server.resources and runner.resources",
		},
		{
			"podDisruptionBudget: {minAvailable: 1}",
			"podDisruptionBudget.minAvailable 1 with 1 replicas would block every node drain forever",
		},
		{
			"podDisruptionBudget: {minAvailable: 50%}",
			"podDisruptionBudget.minAvailable 50% with 1 replicas would block every node drain forever",
		},
		{
			"replicaCount: 3\npodDisruptionBudget: {minAvailable: 67%}",
			"podDisruptionBudget.minAvailable 67% with 3 replicas would block",
		},
		{
			"autoscaling: {enabled: true, minReplicas: 2}\npodDisruptionBudget: {minAvailable: 51%}",
			"podDisruptionBudget.minAvailable 51% with 2 replicas would block",
		},
		{"podDisruptionBudget: {maxUnavailable: 0}", "at '/podDisruptionBudget/maxUnavailable'"},
		{"podDisruptionBudget: {minAvailable: 100%}", "at '/podDisruptionBudget/minAvailable'"},
		{
			"replicaCount: 3\npodDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}",
			"podDisruptionBudget takes minAvailable or maxUnavailable, not both",
		},
	} {
		_, err := render(loadChart(t), parse(t, c.values))
		if err == nil {
			t.Errorf("accepted: %s", c.values)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s\nis refused with: %v\nwant: %s", c.values, err, c.says)
		}
	}
}

// TestImagesMustBeNamed protects from: pods that pull an image of a stranger's,
// and an installation that only a pod's events explain.
func TestImagesMustBeNamed(t *testing.T) {
	c, err := loader.Load(chartDir) // without the tests' defaults
	if err != nil {
		t.Fatal(err)
	}
	_, err = render(c, nil)
	for _, says := range []string{
		"image.repository=REGISTRY/troupe/trouped",
		"runner.image.repository=REGISTRY/troupe/runner", "docs/images.md", c.Metadata.AppVersion,
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("without images helm says %v, want %s", err, says)
		}
	}
}

// TestBudgetsThatAllowADrainAreTaken: one pod more would be refused.
func TestBudgetsThatAllowADrainAreTaken(t *testing.T) {
	for _, text := range []string{
		"replicaCount: 2\npodDisruptionBudget: {minAvailable: 1}",
		"replicaCount: 2\npodDisruptionBudget: {minAvailable: 50%}",
		"replicaCount: 3\npodDisruptionBudget: {minAvailable: 66%}",
		"replicaCount: 0\npodDisruptionBudget: {minAvailable: 50%}",
	} {
		if _, err := render(loadChart(t), parse(t, text)); err != nil {
			t.Errorf("%s\nis refused with: %v", text, err)
		}
	}
}

// TestEverythingIsRefusedAtOnce protects from: an installation in ten attempts.
func TestEverythingIsRefusedAtOnce(t *testing.T) {
	_, err := render(loadChart(t), parse(t, "auth: {mode: none}\nhttpRoute: {enabled: true}\nautoscaling: {enabled: true, maxReplicas: 1, minReplicas: 2}"))
	if err == nil || strings.Count(err.Error(), "\n  - ") != 4 {
		t.Errorf("four mistakes are refused with %v", err)
	}
}

// TestNoValueCrashesTheTemplates: null takes a default away. Either the chart
// does without, or the schema says what is missing.
func TestNoValueCrashesTheTemplates(t *testing.T) {
	c := loadChart(t)
	var paths [][]string
	var walk func(prefix []string, m map[string]any)
	walk = func(prefix []string, m map[string]any) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			path := append(slices.Clone(prefix), key)
			paths = append(paths, path)
			if inner, ok := m[key].(map[string]any); ok {
				walk(path, inner)
			}
		}
	}
	walk(nil, c.Values)
	for _, keys := range paths {
		values := map[string]any{}
		for m, i := values, 0; i < len(keys); i++ {
			if i == len(keys)-1 {
				m[keys[i]] = nil
				break
			}
			inner := map[string]any{}
			m[keys[i]], m = inner, inner
		}
		if _, err := render(loadChart(t), values); err != nil && !strings.Contains(err.Error(), "missing propert") {
			t.Errorf("%s: null is refused with %v", strings.Join(keys, "."), err)
		}
	}
	if len(paths) < 100 {
		t.Errorf("only %d values were found", len(paths))
	}
}

// TestSchemaIsClosed: an object of the schema has fixed properties, or names of
// the user's with a schema for their values, or is one of the Kubernetes API.
// Protects from: a part of the values in which a misspelt key has no effect.
func TestSchemaIsClosed(t *testing.T) {
	c := loadChart(t)
	var schema map[string]any
	if err := json.Unmarshal(c.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	var walk func(at string, node any)
	walk = func(at string, node any) {
		switch node := node.(type) {
		case map[string]any:
			_, closed := node["additionalProperties"]
			_, explained := node["$comment"]
			if node["type"] == "object" && !closed && !explained {
				t.Errorf("%s is open", at)
			}
			for key, inner := range node {
				walk(at+"/"+key, inner)
			}
		case []any:
			for i, inner := range node {
				walk(fmt.Sprintf("%s/%d", at, i), inner)
			}
		}
	}
	walk("", schema)
	known := schema["properties"].(map[string]any)
	for key := range c.Values {
		delete(known, key)
	}
	delete(known, "global") // of Helm
	if len(known) > 0 {
		t.Errorf("the schema allows %v, which values.yaml does not have", slices.Sorted(maps.Keys(known)))
	}
}

// TestLintIsClean is helm lint --strict, over every file of values.
func TestLintIsClean(t *testing.T) {
	for name, text := range values(t) {
		linter := lint.AllWithKubeVersion(chartDir, chartutil.CoalesceTables(parse(t, text), parse(t, images)), namespace,
			&chartutil.KubeVersion{Version: "v1.37.2", Major: "1", Minor: "37"})
		for _, m := range linter.Messages {
			if m.Severity > 1 { // 1 is information: an icon is recommended
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// TestValuesStayShort: who installs the chart reads them.
func TestValuesStayShort(t *testing.T) {
	text, err := os.ReadFile(chartDir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 312 {
		t.Errorf("values.yaml has %d lines", n)
	}
}
