{{/* Checks that the schema cannot express. Each message names the values to change, and all are reported at once. */}}
{{- define "troupe.validate" -}}
{{- $v := .Values -}}
{{- $wrong := list -}}

{{- $how := "there is no public one: build and push it (docs/images.md), then --set" -}}
{{- if not $v.image.repository -}}
  {{- $wrong = append $wrong (printf "image.repository must name the server's image, and %s image.repository=REGISTRY/troupe/trouped; its tag is %s unless image.tag says otherwise" $how .Chart.AppVersion) -}}
{{- end -}}
{{- if not $v.runner.image.repository -}}
  {{- $wrong = append $wrong (printf "runner.image.repository must name the image that commands run in: any, or troupe/runner, and %s runner.image.repository=REGISTRY/troupe/runner; its tag is %s unless runner.image.tag says otherwise" $how .Chart.AppVersion) -}}
{{- end -}}
{{- if and (not $v.tests.image.repository) (or $v.tests.image.tag $v.tests.image.digest) -}}
  {{- $wrong = append $wrong "tests.image.tag and tests.image.digest have no effect without tests.image.repository" -}}
{{- end -}}

{{- if eq $v.auth.mode "none" -}}
  {{- if $v.ingress.enabled -}}
    {{- $wrong = append $wrong "auth.mode none would let everyone who reaches the ingress run commands: choose token or kubernetes, or set ingress.enabled to false" -}}
  {{- end -}}
  {{- if $v.httpRoute.enabled -}}
    {{- $wrong = append $wrong "auth.mode none would let everyone who reaches the gateway run commands: choose token or kubernetes, or set httpRoute.enabled to false" -}}
  {{- end -}}
  {{- if ne $v.service.type "ClusterIP" -}}
    {{- $wrong = append $wrong (printf "auth.mode none would let everyone who reaches the %s run commands: choose token or kubernetes, or service.type ClusterIP" $v.service.type) -}}
  {{- end -}}
{{- end -}}
{{- range $list := list "grantTo" "viewers" "operators" "auditors" -}}
  {{- if and (index $v.auth.kubernetes $list) (ne $v.auth.mode "kubernetes") -}}
    {{- $wrong = append $wrong (printf "auth.kubernetes.%s has no effect with auth.mode %s: set auth.mode to kubernetes" $list $v.auth.mode) -}}
  {{- end -}}
  {{- range index $v.auth.kubernetes $list -}}
    {{- if and .namespace (ne .kind "ServiceAccount") -}}
      {{- $wrong = append $wrong (printf "auth.kubernetes.%s: a %s such as %s has no namespace" $list .kind .name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if ne (empty ($v.auth.oauth).resource) (empty ($v.auth.oauth).authorizationServers) -}}
  {{- $wrong = append $wrong "auth.oauth.resource and auth.oauth.authorizationServers belong together: give both, or none" -}}
{{- end -}}
{{- if and ($v.auth.oauth).resource (eq $v.auth.mode "none") -}}
  {{- $wrong = append $wrong "auth.oauth has no effect with auth.mode none, which needs no token" -}}
{{- end -}}
{{- if and $v.auth.token.existingSecret (ne $v.auth.mode "token") -}}
  {{- $wrong = append $wrong (printf "auth.token.existingSecret has no effect with auth.mode %s: set auth.mode to token" $v.auth.mode) -}}
{{- end -}}
{{- if and (eq $v.auth.mode "token") (eq $v.auth.token.existingSecret (printf "%s-tokens" (include "troupe.fullname" .))) -}}
  {{- $wrong = append $wrong "auth.token.existingSecret names the Secret that this release generates, and helm uninstall removes: copy it under another name first" -}}
{{- end -}}

{{- if lt (int64 $v.limits.transcriptBudgetBytes) (int64 $v.limits.maxOutputBytes) -}}
  {{- $wrong = append $wrong (printf "limits.transcriptBudgetBytes (%d) must hold at least the output of one execution, limits.maxOutputBytes (%d)" (int64 $v.limits.transcriptBudgetBytes) (int64 $v.limits.maxOutputBytes)) -}}
{{- end -}}
{{- with int64 $v.limits.perSubject.outputBytes -}}
  {{- if or (lt . (int64 $v.limits.maxOutputBytes)) (gt . (int64 $v.limits.transcriptBudgetBytes)) -}}
    {{- $wrong = append $wrong (printf "limits.perSubject.outputBytes (%d) must be 0 (no limit), or from limits.maxOutputBytes (%d) to limits.transcriptBudgetBytes (%d)" . (int64 $v.limits.maxOutputBytes) (int64 $v.limits.transcriptBudgetBytes)) -}}
  {{- end -}}
{{- end -}}
{{- with $memory := dig "limits" "memory" "" ($v.runner.resources | default dict) -}}
  {{- range $name, $bytes := dict "maxMemoryBytes" $v.limits.maxMemoryBytes "perSession.memoryBytes" $v.limits.perSession.memoryBytes -}}
    {{- if ge (int64 $bytes) (include "troupe.bytes" $memory | int64) -}}
      {{- $wrong = append $wrong (printf "limits.%s (%d) must be below runner.resources.limits.memory (%v), or the kernel ends every command of the pod before it is reached" $name (int64 $bytes) $memory) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if not $v.runner.workspace.volumeSource -}}
  {{- if ge (int64 $v.limits.perSession.diskBytes) (include "troupe.bytes" $v.runner.workspace.sizeLimit | int64) -}}
    {{- $wrong = append $wrong (printf "limits.perSession.diskBytes (%d) must be below runner.workspace.sizeLimit (%v), or the kubelet evicts the pod before it is reached" (int64 $v.limits.perSession.diskBytes) $v.runner.workspace.sizeLimit) -}}
  {{- end -}}
{{- end -}}

{{- range $v.server.env -}}
  {{- if hasPrefix "TROUPE_" .name -}}
    {{- $wrong = append $wrong (printf "server.env: %s would win over the value that the chart renders: set that value" .name) -}}
  {{- end -}}
  {{- if and (hasPrefix "OTEL_TRACES_SAMPLER" .name) (include "troupe.samples" $) -}}
    {{- $wrong = append $wrong (printf "server.env: %s contradicts tracing.sampleRatio: leave that at 1, or leave the variable out" .name) -}}
  {{- end -}}
{{- end -}}
{{- $env := dict -}}
{{- range $v.server.env -}}{{- $_ := set $env .name true -}}{{- end -}}
{{- range $v.commands.passEnv -}}
  {{- if not (hasKey $env .) -}}
    {{- $wrong = append $wrong (printf "commands.passEnv: %s is not in server.env" .) -}}
  {{- end -}}
{{- end -}}
{{- range $path, $resources := dict "server.resources" $v.server.resources "runner.resources" $v.runner.resources -}}
  {{- range $what, $helper := dict "cpu" "troupe.milliCPU" "memory" "troupe.bytes" "ephemeral-storage" "troupe.bytes" -}}
    {{- $request := dig "requests" $what "" ($resources | default dict) -}}
    {{- $limit := dig "limits" $what "" ($resources | default dict) -}}
    {{- if and $request $limit (gt (include $helper $request | int64) (include $helper $limit | int64)) -}}
      {{- $wrong = append $wrong (printf "%s.requests.%s (%v) must not be above %s.limits.%s (%v)" $path $what $request $path $what $limit) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $v.commands.allow -}}
  {{- if ne . (clean .) -}}
    {{- $wrong = append $wrong (printf "commands.allow: %s must be written without . and .., as %s" . (clean .)) -}}
  {{- end -}}
{{- end -}}
{{- range $v.commands.allowEnv -}}
  {{- if hasPrefix "LD_" . -}}
    {{- $wrong = append $wrong (printf "commands.allowEnv: with %s clients could run code of their own within every allowed program; commands.env sets it for all" .) -}}
  {{- end -}}
{{- end -}}
{{- if and $v.commands.allowEnv (not $v.commands.allow) -}}
  {{- $wrong = append $wrong "commands.allowEnv has no effect without commands.allow: clients may set every variable" -}}
{{- end -}}
{{- if and $v.runner.workspace.volumeSource (hasKey $v.runner.workspace.volumeSource "emptyDir") -}}
  {{- $wrong = append $wrong "runner.workspace.volumeSource is for other volumes than an emptyDir: that one is made from runner.workspace.sizeLimit" -}}
{{- end -}}

{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
  {{- $wrong = append $wrong "httpRoute.parentRefs must name a gateway, such as [{name: my-gateway, namespace: gateways}]" -}}
{{- end -}}
{{- with $v.httpRoute.timeouts -}}
  {{- $request := include "troupe.milliseconds" (.request | default "") | int64 -}}
  {{- if and $request (gt (include "troupe.milliseconds" (.backendRequest | default "") | int64) $request) -}}
    {{- $wrong = append $wrong (printf "httpRoute.timeouts.backendRequest (%s) must not be above httpRoute.timeouts.request (%s)" .backendRequest .request) -}}
  {{- end -}}
{{- end -}}
{{- if and $v.podMonitor.enabled $v.networkPolicy.enabled (not $v.networkPolicy.metricsFrom) -}}
  {{- $wrong = append $wrong "podMonitor.enabled needs networkPolicy.metricsFrom, or the policy blocks Prometheus: for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]" -}}
{{- end -}}

{{- $wrong = concat $wrong (include "troupe.validateVolumes" . | fromYamlArray) (include "troupe.validatePeers" . | fromYamlArray) (include "troupe.validateIsolation" . | fromYamlArray) -}}
{{- $wrong = concat $wrong (include "troupe.validateScale" . | fromYamlArray) -}}
{{- if $wrong -}}
  {{- fail (printf "\n\nThese values cannot work:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end -}}

{{/* Certificates of peers; a YAML list of problems. */}}
{{- define "troupe.validatePeers" -}}
{{- $tls := .Values.peers.tls -}}
{{- $wrong := list -}}
{{- if and (eq $tls.mode "secret") (not $tls.existingSecret) -}}
  {{- $wrong = append $wrong "peers.tls.existingSecret must name the Secret with tls.crt, tls.key and ca.crt, or peers.tls.mode be generated" -}}
{{- end -}}
{{- if and $tls.existingSecret (ne $tls.mode "secret") -}}
  {{- $wrong = append $wrong (printf "peers.tls.existingSecret has no effect with peers.tls.mode %s: set peers.tls.mode to secret" $tls.mode) -}}
{{- end -}}
{{- if and $tls.existingSecret (eq $tls.existingSecret (include "troupe.peerService" .)) -}}
  {{- $wrong = append $wrong "peers.tls.existingSecret names the Secret that this release generates, which helm would now remove: copy it under another name first" -}}
{{- end -}}
{{- if and $tls.issuerRef (ne $tls.mode "certManager") -}}
  {{- $wrong = append $wrong (printf "peers.tls.issuerRef has no effect with peers.tls.mode %s: set peers.tls.mode to certManager" $tls.mode) -}}
{{- end -}}
{{- toYaml $wrong -}}
{{- end -}}

{{/* Volumes that would violate "restricted" or show commands the server's files; a YAML list of problems. */}}
{{- define "troupe.validateVolumes" -}}
{{- $v := .Values -}}
{{- $wrong := list -}}
{{- $own := list "config" "api-token" "bin" "run" "data" "workspace" "seed" "tmp" -}}
{{- $types := list "configMap" "csi" "downwardAPI" "emptyDir" "ephemeral" "image" "persistentVolumeClaim" "projected" "secret" -}}
{{- range $v.runner.volumes -}}
  {{- if has .name $own -}}
    {{- $wrong = append $wrong (printf "runner.volumes: %s is a volume of the chart's: choose another name" .name) -}}
  {{- end -}}
  {{- range $type, $_ := omit . "name" -}}
    {{- if not (has $type $types) -}}
      {{- $wrong = append $wrong (printf "runner.volumes: %s is not among the volumes of restricted pods: %s" $type (join ", " $types)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $type, $_ := $v.runner.workspace.volumeSource -}}
  {{- if not (has $type $types) -}}
    {{- $wrong = append $wrong (printf "runner.workspace.volumeSource: %s is not among the volumes of restricted pods: %s" $type (join ", " $types)) -}}
  {{- end -}}
{{- end -}}
{{- range $v.runner.volumeMounts -}}
  {{- if has .name $own -}}
    {{- $wrong = append $wrong (printf "runner.volumeMounts: %s is a volume of the chart, which values cannot mount for commands: mount one of runner.volumes" .name) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $v.podAnnotations -}}
  {{- if hasPrefix "container.apparmor.security.beta.kubernetes.io/" $name -}}
    {{- $wrong = append $wrong (printf "podAnnotations: %s can disable AppArmor: use appArmorProfile in server.securityContext or runner.securityContext" $name) -}}
  {{- end -}}
  {{- if has $name (list "checksum/config" "kubectl.kubernetes.io/default-container") -}}
    {{- $wrong = append $wrong (printf "podAnnotations: %s is rendered by the chart" $name) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $wrong -}}
{{- end -}}

{{/* Replicas, their disruption and their scaling; a YAML list of problems. */}}
{{- define "troupe.validateScale" -}}
{{- $v := .Values -}}
{{- $wrong := list -}}
{{- $replicas := ternary $v.autoscaling.minReplicas $v.replicaCount $v.autoscaling.enabled | int -}}
{{- $pdb := $v.podDisruptionBudget -}}
{{- if $pdb.enabled -}}
  {{- if and (not (kindIs "invalid" $pdb.minAvailable)) (not (kindIs "invalid" $pdb.maxUnavailable)) -}}
    {{- $wrong = append $wrong "podDisruptionBudget takes minAvailable or maxUnavailable, not both" -}}
  {{- end -}}
  {{- $kept := 0 -}}{{/* Kubernetes rounds a share up. */}}
  {{- if kindIs "string" $pdb.minAvailable -}}
    {{- $kept = div (add (mul (trimSuffix "%" $pdb.minAvailable | int) $replicas) 99) 100 | int -}}
  {{- else if not (kindIs "invalid" $pdb.minAvailable) -}}
    {{- $kept = int $pdb.minAvailable -}}
  {{- end -}}
  {{- if and (gt $replicas 0) (ge $kept $replicas) -}}
    {{- $wrong = append $wrong (printf "podDisruptionBudget.minAvailable %v with %d replicas would block every node drain forever: leave it out, or run more replicas" (toString $pdb.minAvailable) $replicas) -}}
  {{- end -}}
{{- end -}}
{{- if $v.autoscaling.enabled -}}
  {{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
    {{- $wrong = append $wrong (printf "autoscaling.minReplicas (%d) must not be above autoscaling.maxReplicas (%d)" (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
  {{- end -}}
  {{- if eq $v.autoscaling.metric "sessions" -}}
    {{- if gt (int $v.autoscaling.target) (int $v.limits.maxSessions) -}}
      {{- $wrong = append $wrong (printf "autoscaling.target (%d sessions) must not be above limits.maxSessions (%d), which a pod never exceeds" (int $v.autoscaling.target) (int $v.limits.maxSessions)) -}}
    {{- end -}}
  {{- else if not (and (dig "requests" "cpu" "" ($v.server.resources | default dict)) (dig "requests" "cpu" "" ($v.runner.resources | default dict))) -}}
    {{- $wrong = append $wrong "autoscaling.metric cpu is a share of what is requested: set requests.cpu in server.resources and runner.resources" -}}
  {{- end -}}
{{- end -}}
{{- toYaml $wrong -}}
{{- end -}}
