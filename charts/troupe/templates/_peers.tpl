{{/* Peers: several pods that are one service. */}}

{{/* The largest number of pods. */}}
{{- define "troupe.maxReplicas" -}}
{{- ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled | int -}}
{{- end -}}

{{/* Whether pods are peers, "true" or "": as the values say, or if there can be more than one pod. */}}
{{- define "troupe.peers" -}}
{{- if ternary (gt (include "troupe.maxReplicas" . | int) 1) .Values.peers.enabled (kindIs "invalid" .Values.peers.enabled) -}}true{{- end -}}
{{- end -}}

{{- define "troupe.peerService" -}}
{{ include "troupe.fullname" . }}-peers
{{- end -}}

{{- define "troupe.peerPort" -}}9400{{- end -}}

{{/* The name in peers' certificates. Of this release, so that an issuer that serves several does not make them peers of each other. */}}
{{- define "troupe.peerCertName" -}}
{{- .Values.peers.tls.certName | default (printf "%s.%s.svc" (include "troupe.peerService" .) .Release.Namespace) -}}
{{- end -}}

{{- define "troupe.peerSecret" -}}
{{- .Values.peers.tls.existingSecret | default (include "troupe.peerService" .) -}}
{{- end -}}

{{/* Pods of one release on different nodes, and in different zones, where possible. A user's rule replaces the chart's rule of its kind. */}}
{{- define "troupe.affinity" -}}
{{- $affinity := deepCopy (.Values.affinity | default dict) -}}
{{- if and (gt (include "troupe.maxReplicas" . | int) 1) (not (hasKey $affinity "podAntiAffinity")) -}}
{{- $term := dict
      "topologyKey" "kubernetes.io/hostname"
      "labelSelector" (dict "matchLabels" (include "troupe.selectorLabels" . | fromYaml)) -}}
{{- $_ := set $affinity "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term))) -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* matchLabelKeys: during a rollout the new pods are spread, not the sum of old and new. */}}
{{- define "troupe.topologySpread" -}}
{{- if not (kindIs "invalid" .Values.topologySpreadConstraints) -}}
{{- with .Values.topologySpreadConstraints }}{{ toYaml . }}{{ end -}}
{{- else if gt (include "troupe.maxReplicas" . | int) 1 -}}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "troupe.selectorLabels" . | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end -}}
{{- end -}}
