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
{{- if eq .Values.isolation.mode "none" }}
echo "note: isolation.mode is none, sessions are not separated"
{{- else if and .Values.commands.allow (not (has "/bin/sh" .Values.commands.allow)) }}
echo "note: that sessions are separated is not shown, commands.allow does not name /bin/sh"
{{- else }}
{{ include "troupe.testIsolation" . }}
{{- end }}
{{- end -}}

{{/* One session keeps a file and a process. Another, on the same pod, tries to get at them. The first shows that both are there, and
     that nothing but the border between the sessions keeps the second out: it does the same to itself. */}}
{{- define "troupe.testIsolation" -}}
level=$(troupe exec -- /bin/sh -c 'echo "${TROUPE_ISOLATION:-none}"' 2>&1) || level="unknown: $level"
case "$level" in
session)
  reach='cat "$1" && exit 91; ls "${1%/*}" && exit 92; kill -0 "$2" && exit 93; cat "/proc/$2/environ" && exit 94; exit 0'
  : >"$TROUPE_STATE_DIR/one"
  troupe exec -- /bin/sh -euc '
    umask 077
    me=$(exec /bin/sh -c "echo \$PPID") # its own number: Kubernetes takes two dollars for an escape
    file=$HOME/secret
    echo of-session-one >"$file"
    code=0
    /bin/sh -c "$1" reach "$file" "$me" >/dev/null 2>&1 || code=$?
    [ "$code" = 91 ]
    kill -0 "$me"
    echo "$file $me $(uname -n)"
    exec sleep 150' keep "$reach" >"$TROUPE_STATE_DIR/one" 2>&1 &
  one=$!
  until read -r file pid pod <"$TROUPE_STATE_DIR/one"; do
    kill -0 "$one" 2>/dev/null || failed "the first session ended"
    sleep 0.2
  done
  case "$file" in /*) ;; *) failed "the first session said: $file $pid $pod" ;; esac
  code=95
  for _ in $(seq 100); do # with several pods, until one session is where the other is
    code=0
    out=$(troupe exec -- /bin/sh -c '[ "$(uname -n)" = "$3" ] || exit 95; '"$reach" reach "$file" "$pid" "$pod" 2>&1) || code=$?
    [ "$code" = 95 ] || break
  done
  kill "$one"
  case "$code" in
  0) echo "ok: a session reads, lists and signals nothing of another: $out" ;;
  95) echo "note: that sessions are separated is not shown, of 100 sessions none was opened on $pod" ;;
  *) failed "a session reached another one: exit code $code: $out" ;;
  esac
  ;;
{{- if include "troupe.isolationRequired" . }}
*) failed "sessions must be separated, and are not: isolation is $level" ;;
{{- else }}
*) echo "note: sessions are not separated on this node: isolation is $level" ;;
{{- end }}
esac
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
