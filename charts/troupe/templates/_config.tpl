{{/* The configuration file of trouped. */}}
{{- define "troupe.config" -}}
{{- $v := .Values -}}
{{- $l := $v.limits -}}
listen: ":8003"
admin-listen: ":9090"
ping-interval: {{ $l.pingIntervalSeconds | int64 }}s
{{- with $v.auth.allowedOrigins }}
allowed-origins: {{ toJson . }}
{{- end }}
console: {{ ternary "on" "off" $v.console.enabled | quote }}
auth: {{ ternary "none-insecure" $v.auth.mode (eq $v.auth.mode "none") }}
{{- if eq $v.auth.mode "token" }}
token-file: /etc/troupe/tokens/tokens
{{- else if eq $v.auth.mode "kubernetes" }}
auth-audience: {{ $v.auth.kubernetes.audience | quote }}
{{- end }}
{{- with ($v.auth.oauth).resource }}
mcp-resource: {{ . | quote }}
authorization-servers: {{ toJson $v.auth.oauth.authorizationServers }}
{{- end }}
audit-argv: {{ $v.commands.auditArgv }}
{{- with $v.commands.allow }}
allow-command: {{ toJson . }}
{{- end }}
{{- with $v.commands.allowEnv }}
allow-env: {{ toJson . }}
{{- end }}
runner: {{ include "troupe.runnerSocket" . }}
isolation: {{ ternary "session" $v.isolation.mode (ne (include "troupe.isolationRequired" .) "") }}
{{- with $v.commands.env }}
env:
  {{- range $name, $value := . }}
  - {{ printf "%s=%s" $name $value | toJson }}
  {{- end }}
{{- end }}
{{- with $v.commands.passEnv }}
pass-env: {{ toJson . }}
{{- end }}
max-sessions: {{ $l.maxSessions | int64 }}
max-executions: {{ $l.maxExecutions | int64 }}
max-sessions-per-subject: {{ $l.perSubject.sessions | int64 }}
max-connections-per-subject: {{ $l.perSubject.connections | int64 }}
max-executions-per-subject: {{ $l.perSubject.executions | int64 }}
session-memory: {{ $l.perSession.memoryBytes | int64 }}
session-processes: {{ $l.perSession.processes | int64 }}
session-disk: {{ $l.perSession.diskBytes | int64 }}
max-line: {{ $l.maxLineBytes | int64 }}
max-output: {{ $l.maxOutputBytes | int64 }}
stream-timeout: {{ $l.streamTimeoutSeconds | int64 }}s
max-duration: {{ $l.maxDurationSeconds | int64 }}s
max-memory: {{ $l.maxMemoryBytes | int64 }}
cancel-grace: {{ $l.cancelGraceSeconds | int64 }}s
resume-window: {{ $l.resumeWindowSeconds | int64 }}s
idle-timeout: {{ $l.idleTimeoutSeconds | int64 }}s
max-message: {{ $l.maxMessageBytes | int64 }}
drain-timeout: {{ $v.drain.timeoutSeconds | int64 }}s
data-dir: /var/lib/troupe/transcripts
transcript-budget: {{ $l.transcriptBudgetBytes | int64 }}
max-output-per-subject: {{ $l.perSubject.outputBytes | int64 }}
kubernetes: {{ ternary "auto" "off" $v.podReports.enabled | quote }}
{{- if include "troupe.peers" . }}
peer-listen: ":{{ include "troupe.peerPort" . }}"
peer-service: {{ include "troupe.peerService" . }}
peer-cert: /etc/troupe/peers/tls.crt
peer-key: /etc/troupe/peers/tls.key
peer-ca: /etc/troupe/peers/ca.crt
peer-cert-name: {{ include "troupe.peerCertName" . | quote }}
{{- end }}
{{- if $v.server.pprof }}
pprof: true
{{- end }}
{{- if $v.tracing.endpoint }}
trace-endpoint: {{ $v.tracing.endpoint | quote }}
{{- end }}
log-format: json
log-level: {{ $v.server.logLevel }}
{{- end -}}
