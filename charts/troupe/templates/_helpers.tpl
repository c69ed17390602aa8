{{/* Names. */}}

{{- define "troupe.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name, once: "troupe" rather than "troupe-troupe". Short enough for the suffixes that objects have. */}}
{{- define "troupe.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "troupe.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "troupe.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "troupe.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "troupe.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Cluster-wide objects carry the namespace, so that two releases of one name do not collide. */}}
{{- define "troupe.clusterName" -}}
troupe:{{ .Release.Namespace }}:{{ include "troupe.fullname" . }}
{{- end -}}

{{/* Labels. A component is part of the selector, so that the pod of helm test is never taken for a server. */}}

{{- define "troupe.selectorLabels" -}}
app.kubernetes.io/name: {{ include "troupe.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "troupe.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "troupe.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The chart's labels win over the user's: a selector that matches nothing is worse than a missing label. */}}
{{- define "troupe.labels" -}}
{{- toYaml (merge (include "troupe.ownLabels" . | fromYaml) (.Values.commonLabels | default dict)) -}}
{{- end -}}

{{/* Without the chart's version: a change of the chart alone does not replace pods. */}}
{{- define "troupe.podLabels" -}}
{{- $own := include "troupe.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- toYaml (merge $own (.Values.podLabels | default dict) (.Values.commonLabels | default dict)) -}}
{{- end -}}

{{/* image: (list $ .Values.image) */}}
{{- define "troupe.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The requirements of the restricted Pod Security Standard. Values cannot undo them: the schema refuses those that could. */}}
{{- define "troupe.containerSecurity" -}}
{{- $restricted := dict
      "runAsNonRoot" true
      "allowPrivilegeEscalation" false
      "capabilities" (dict "drop" (list "ALL"))
      "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (mergeOverwrite $restricted .) -}}
{{- end -}}

{{/* The paths that an Ingress or an HTTPRoute passes on, and how they match. */}}
{{- define "troupe.paths" -}}
/api/v1: Prefix
/health: Exact
/mcp: Exact
/ws: Prefix
{{- if .Values.console.enabled }}
/: Exact
/console: Prefix
{{- end }}
{{- if (.Values.auth.oauth).resource }}
/.well-known/oauth-protected-resource: Prefix
{{- end }}
{{- end -}}

{{/* Numbers. */}}

{{/* From the end of preStop to SIGKILL: the drain, the grace of commands that are cancelled then, and 30 s for survivors that hold
     output open (2 s) and for closing (trouped gives up after 20 s). */}}
{{- define "troupe.gracePeriod" -}}
{{- add .Values.drain.preStopSeconds .Values.drain.timeoutSeconds .Values.limits.cancelGraceSeconds 30 -}}
{{- end -}}

{{/* A quantity of memory or storage, in bytes. */}}
{{- define "troupe.bytes" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- mulf (float64 $number) (get $units (trimPrefix $number .) | default 1) | int64 -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{/* A quantity of CPU, in thousandths of one. */}}
{{- define "troupe.milliCPU" -}}
{{- if hasSuffix "m" (toString .) -}}
{{- trimSuffix "m" . | float64 | int64 -}}
{{- else -}}
{{- mulf (toString . | float64) 1000 | int64 -}}
{{- end -}}
{{- end -}}

{{/* A duration of the Gateway API, in milliseconds. */}}
{{- define "troupe.milliseconds" -}}
{{- $units := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" . -1 -}}
{{- $number := regexFind "^[0-9]+" . -}}
{{- $sum = add $sum (mul (int64 $number) (get $units (trimPrefix $number .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Whether the server talks to the Kubernetes API, and so needs a token: "true" or "". */}}
{{- define "troupe.needsAPI" -}}
{{- if or .Values.podReports.enabled (eq .Values.auth.mode "kubernetes") (include "troupe.peers" .) -}}true{{- end -}}
{{- end -}}

{{/* Name and key of the Secret with the tokens. */}}
{{- define "troupe.tokenSecret" -}}
{{- .Values.auth.token.existingSecret | default (printf "%s-tokens" (include "troupe.fullname" .)) -}}
{{- end -}}
{{- define "troupe.tokenKey" -}}
{{- ternary .Values.auth.token.existingSecretKey "tokens" (ne .Values.auth.token.existingSecret "") -}}
{{- end -}}

{{- define "troupe.runnerSocket" -}}/troupe/run/runner.sock{{- end -}}
