{{/* What separates sessions: docs/isolation.md. */}}

{{/* Where the seed of workspaces is mounted. */}}
{{- define "troupe.seed" -}}/troupe/seed{{- end -}}

{{/* Whether a node that cannot separate sessions is to take no commands: "true" or "". */}}
{{- define "troupe.isolationRequired" -}}
{{- $i := .Values.isolation -}}
{{- if kindIs "invalid" $i.require -}}
{{- if eq $i.mode "session" -}}true{{- end -}}
{{- else if $i.require -}}true{{- end -}}
{{- end -}}

{{/* The runner's --isolation. With "session" it exits where that cannot be had. */}}
{{- define "troupe.isolation" -}}
{{- $i := .Values.isolation -}}
{{- if eq $i.mode "none" -}}none{{- else if include "troupe.isolationRequired" . -}}session{{- else -}}auto{{- end -}}
{{- end -}}

{{/* The runner's arguments after --connect. */}}
{{- define "troupe.runnerArgs" -}}
{{- $i := .Values.isolation -}}
{{- $mounts := list -}}
{{- range .Values.runner.volumeMounts -}}{{- $mounts = append $mounts (.mountPath | default "") -}}{{- end -}}
{{- if .Values.runner.workspace.seed -}}{{- $mounts = append $mounts (include "troupe.seed" .) -}}{{- end -}}
{{- $read := without (concat $mounts ($i.read | default list) | uniq) "" -}}
- --workspace=/workspace
{{- if .Values.runner.workspace.seed }}
- --workspace-seed={{ include "troupe.seed" . }}
{{- end }}
- --isolation={{ include "troupe.isolation" . }}
{{- if $read }}
- {{ printf "--isolation-read=%s" (join "," $read) | quote }}
{{- end }}
{{- with $i.write }}
- {{ printf "--isolation-write=%s" (join "," .) | quote }}
{{- end }}
{{- if $i.sharedTmp }}
- --isolation-shared-tmp
{{- end }}
{{- if $i.sysvipc }}
- --isolation-sysvipc
{{- end }}
{{- if ne $i.proc "readable" }}
- --isolation-proc={{ $i.proc }}
{{- end }}
{{- end -}}

{{/* Values that contradict each other, or would open what belongs to one session; a YAML list of problems. */}}
{{- define "troupe.validateIsolation" -}}
{{- $v := .Values -}}
{{- $i := $v.isolation -}}
{{- $wrong := list -}}
{{- if eq $i.mode "none" -}}
  {{- if $i.require -}}
    {{- $wrong = append $wrong "isolation.require contradicts isolation.mode none: choose auto or session" -}}
  {{- end -}}
  {{- range $name, $set := dict "read" $i.read "write" $i.write "sharedTmp" $i.sharedTmp "sysvipc" $i.sysvipc "proc" (eq $i.proc "none") -}}
    {{- if $set -}}
      {{- $wrong = append $wrong (printf "isolation.%s has no effect with isolation.mode none: choose auto or session" $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $name, $paths := dict "read" $i.read "write" $i.write -}}
  {{- range $path := $paths -}}
    {{- if ne $path (clean $path) -}}
      {{- $wrong = append $wrong (printf "isolation.%s: %s must be written without . and .., as %s" $name $path (clean $path)) -}}
    {{- end -}}
    {{- if has $path (list "/workspace" "/proc" "/dev" "/dev/shm" "/troupe") -}}
      {{- $wrong = append $wrong (printf "isolation.%s: %s would open to every session what belongs to one, or to the chart" $name $path) -}}
    {{- end -}}
    {{- if eq $path "/tmp" -}}
      {{- $wrong = append $wrong (printf "isolation.%s: /tmp would let sessions list each other's files: set isolation.sharedTmp" $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $v.runner.volumeMounts -}}
  {{- if contains "," (.mountPath | default "") -}}
    {{- $wrong = append $wrong (printf "runner.volumeMounts: the runner takes the paths of mounts as a list with commas, so %s must have none" .mountPath) -}}
  {{- end -}}
  {{- if has (.mountPath | default "" | clean) (list "/troupe" "/troupe/bin" "/troupe/run" (include "troupe.seed" $) "/workspace" "/tmp" "/") -}}
    {{- $wrong = append $wrong (printf "runner.volumeMounts: %s is a path of the chart's: choose another" .mountPath) -}}
  {{- end -}}
{{- end -}}
{{- range $type, $_ := $v.runner.workspace.seed -}}
  {{- if not (has $type (list "configMap" "csi" "image" "persistentVolumeClaim" "projected" "secret")) -}}
    {{- $wrong = append $wrong (printf "runner.workspace.seed: %s is not among the volumes that have files and that restricted pods may have: configMap, csi, image, persistentVolumeClaim, projected, secret" $type) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $wrong -}}
{{- end -}}
