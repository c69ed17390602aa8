{{/* Annotations of what helm test makes and removes again; the argument is the order. Its log is printed by helm, since the pod is gone afterwards. */}}
{{- define "troupe.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}

{{- define "troupe.testScript" -}}
{{- $probe := "/troupe/bin/troupe-runner" -}}
failed() { echo "FAILED: $*"; exit 1; }
{{- if eq .Values.auth.mode "token" }}
while read -r subject token rest; do
  case "$subject" in ''|'#'*) continue ;; esac
  export TROUPE_TOKEN="$token"
  break
done </troupe/tokens
{{- end }}
code=0
out=$(troupe exec --wait=60s -- {{ $probe }} --version 2>&1) || code=$?
{{- if and .Values.commands.allow (not (has $probe .Values.commands.allow)) }}
[ "$code" = 126 ] || failed "a program that commands.allow does not name: exit code $code, want 126: $out"
echo "ok: what commands.allow does not name is refused: $out"
{{- else }}
case "$code $out" in "0 troupe-runner "*) ;; *) failed "exit code $code and output: $out" ;; esac
echo "ok: a command ran and printed: $out"
code=0
out=$(troupe exec -- {{ $probe }} --no-such-flag 2>&1) || code=$?
[ "$code" = 2 ] || failed "a command that exits with 2: exit code $code: $out"
echo "ok: its exit code arrives"
{{- end }}
{{- if ne .Values.auth.mode "none" }}
code=0
out=$(TROUPE_TOKEN=not-a-token-of-this-server troupe exec -- {{ $probe }} --version 2>&1) || code=$?
[ "$code" = 125 ] || failed "a wrong token: exit code $code, want 125: $out"
echo "ok: a wrong token is refused: $out"
{{- end }}
{{- end -}}

{{/* With auth.mode kubernetes the test is a client like any other: an account that may open sessions. */}}
{{- define "troupe.testAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "troupe.fullname" . }}-test
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "troupe.labels" . | nindent 4 }}
    app.kubernetes.io/component: test
  annotations:
    {{- include "troupe.testHook" "-2" | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "troupe.fullname" . }}-test
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "troupe.labels" . | nindent 4 }}
    app.kubernetes.io/component: test
  annotations:
    {{- include "troupe.testHook" "-1" | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "troupe.fullname" . }}-sessions
subjects:
  - kind: ServiceAccount
    name: {{ include "troupe.fullname" . }}-test
    namespace: {{ .Release.Namespace }}
{{- end -}}
