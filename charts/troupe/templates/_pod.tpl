{{- define "troupe.podSpec" -}}
serviceAccountName: {{ include "troupe.serviceAccountName" . }}
# Commands get no token. The server has one, in its own volume, if it needs the API.
automountServiceAccountToken: false
# A Service called "troupe" would set TROUPE_PORT and the like, which are names of settings.
enableServiceLinks: false
shareProcessNamespace: false
{{- if not (kindIs "invalid" .Values.hostUsers) }}
hostUsers: {{ .Values.hostUsers }}
{{- end }}
terminationGracePeriodSeconds: {{ include "troupe.gracePeriod" . }}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
  {{- if not (kindIs "invalid" .Values.fsGroup) }}
  fsGroup: {{ .Values.fsGroup | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
initContainers:
  {{- include "troupe.installRunner" . | nindent 2 }}
containers:
  {{- include "troupe.server" . | nindent 2 }}
  {{- include "troupe.runner" . | nindent 2 }}
volumes:
  {{- include "troupe.volumes" . | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "troupe.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "troupe.topologySpread" . }}
topologySpreadConstraints:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Installs the runner's binary, so that any image can be the runner's. */}}
{{- define "troupe.installRunner" -}}
- name: install-runner
  image: {{ include "troupe.image" (list . .Values.image) | quote }}
  {{- with .Values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  command: [/troupe-runner, --install, /troupe/bin/troupe-runner]
  securityContext:
    {{- include "troupe.containerSecurity" .Values.server.securityContext | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - {name: bin, mountPath: /troupe/bin}
{{- end -}}

{{- define "troupe.server" -}}
- name: server
  image: {{ include "troupe.image" (list . .Values.image) | quote }}
  {{- with .Values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  args: [--config, /etc/troupe/trouped.yaml]
  env:
    {{- include "troupe.serverEnv" . | nindent 4 }}
  ports:
    - {name: http, containerPort: 8003}
    - {name: metrics, containerPort: 9090}
    {{- if include "troupe.peers" . }}
    - {name: peer, containerPort: {{ include "troupe.peerPort" . }}}
    {{- end }}
  # The server is alive while it answers, also during a drain, and ready while it has a runner and accepts sessions. A restart
  # ends every session of the pod, so a slow machine gets a minute.
  startupProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  readinessProbe:
    httpGet: {path: /readyz, port: metrics}
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 2
  {{- if .Values.drain.preStopSeconds }}
  # The ingress still sends new clients for a moment; the pod serves them.
  lifecycle:
    preStop:
      sleep: {seconds: {{ .Values.drain.preStopSeconds | int64 }}}
  {{- end }}
  securityContext:
    {{- include "troupe.containerSecurity" .Values.server.securityContext | nindent 4 }}
  {{- with .Values.server.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - {name: config, mountPath: /etc/troupe, readOnly: true}
    - {name: run, mountPath: /troupe/run}
    - {name: data, mountPath: /var/lib/troupe}
    {{- if include "troupe.needsAPI" . }}
    - {name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    {{- end }}
{{- end -}}

{{/* Not empty when only a share of the executions is traced. */}}
{{- define "troupe.samples" -}}
{{- if and .Values.tracing.endpoint (lt (float64 .Values.tracing.sampleRatio) 1.0) }}true{{ end -}}
{{- end -}}

{{- define "troupe.serverEnv" -}}
- name: TROUPE_POD
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: TROUPE_POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: TROUPE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- with dig "limits" "memory" "" (.Values.server.resources | default dict) }}
# 90 % of the memory limit, in bytes: the garbage collector works harder before the kernel kills the server.
- name: GOMEMLIMIT
  value: {{ div (mul (include "troupe.bytes" . | int64) 9) 10 | quote }}
{{- end }}
{{- if include "troupe.samples" . }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .Values.tracing.sampleRatio | quote }}
{{- end }}
{{- with .Values.server.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Ignores SIGTERM for as long as trouped is connected, so it needs no hook of its own. */}}
{{- define "troupe.runner" -}}
- name: runner
  image: {{ include "troupe.image" (list . .Values.runner.image) | quote }}
  {{- with .Values.runner.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  command: [/troupe/bin/troupe-runner, --connect, {{ include "troupe.runnerSocket" . }}]
  args:
    {{- include "troupe.runnerArgs" . | nindent 4 }}
  workingDir: /workspace
  securityContext:
    {{- include "troupe.containerSecurity" .Values.runner.securityContext | nindent 4 }}
  {{- with .Values.runner.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - {name: bin, mountPath: /troupe/bin, readOnly: true}
    # Read-only is enough to connect, and keeps commands from placing their own socket there.
    - {name: run, mountPath: /troupe/run, readOnly: true}
    - {name: workspace, mountPath: /workspace}
    - {name: tmp, mountPath: /tmp}
    {{- if .Values.runner.workspace.seed }}
    - {name: seed, mountPath: {{ include "troupe.seed" . }}, readOnly: true}
    {{- end }}
    {{- with .Values.runner.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "troupe.volumes" -}}
- name: config
  projected:
    defaultMode: 0440 # trouped refuses tokens that others can read
    sources:
      - configMap:
          name: {{ include "troupe.fullname" . }}
      {{- if eq .Values.auth.mode "token" }}
      - secret:
          name: {{ include "troupe.tokenSecret" . }}
          items:
            - {key: {{ include "troupe.tokenKey" . | quote }}, path: tokens/tokens}
      {{- end }}
      {{- if include "troupe.peers" . }}
      - secret:
          name: {{ include "troupe.peerSecret" . }}
          items:
            - {key: tls.crt, path: peers/tls.crt}
            - {key: tls.key, path: peers/tls.key}
            - {key: ca.crt, path: peers/ca.crt}
      {{- end }}
{{- if include "troupe.needsAPI" . }}
- name: api-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
      - downwardAPI:
          items:
            - path: namespace
              fieldRef: {fieldPath: metadata.namespace}
{{- end }}
- name: bin
  emptyDir: {sizeLimit: 64Mi}
- name: run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: data
  emptyDir: {sizeLimit: {{ div (mul (int64 .Values.limits.transcriptBudgetBytes) 5) 4 }}}
- name: workspace
  {{- if .Values.runner.workspace.volumeSource }}
  {{- toYaml .Values.runner.workspace.volumeSource | nindent 2 }}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.runner.workspace.sizeLimit | quote }}}
  {{- end }}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.runner.tmp.sizeLimit | quote }}}
{{- with .Values.runner.workspace.seed }}
- name: seed
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.runner.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
