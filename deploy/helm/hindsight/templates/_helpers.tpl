{{- define "hindsight.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change for a release, for selectors. */}}
{{- define "hindsight.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hindsight.labels" -}}
{{ include "hindsight.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hindsight.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "hindsight.name" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}

{{/*
The configuration file. Values that cannot work together are refused here, since
every release has one. Two releases in a namespace must not share a Lease: its
name is the release's, unless it is given.
*/}}
{{- define "hindsight.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range $key := list "cluster" "listen" -}}
{{- if hasKey $config $key -}}
{{- fail (printf "config.%s is set by the chart (cluster is a value beside config; listen is :8080)" $key) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "cluster" .Values.cluster -}}
{{- if (include "hindsight.elects" .) -}}
{{- $election := dict "name" (include "hindsight.name" .) -}}
{{- $_ := set $config "leader_election" (mergeOverwrite $election $config.leader_election) -}}
{{- else if gt (int .Values.replicas) 1 -}}
{{- fail "replicas above 1 need config.leader_election.enabled: each would ship everything" -}}
{{- end -}}
{{- if and .Values.persistence.enabled (gt (int .Values.replicas) 1) -}}
{{- fail "replicas above 1 cannot share the volume: set persistence.enabled=false" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Not empty if there is a Lease. */}}
{{- define "hindsight.elects" -}}
{{- if dig "leader_election" "enabled" false .Values.config -}}true{{- end -}}
{{- end -}}

{{- define "hindsight.priorityClass" -}}
{{- if .Values.priorityClass.create -}}{{ include "hindsight.name" . }}{{- else -}}{{ .Values.priorityClass.name }}{{- end -}}
{{- end -}}

{{/*
The label job of the first Loki sink.
*/}}
{{- define "hindsight.job" -}}
{{- $job := "hindsight" -}}
{{- range $sink := reverse .Values.config.sinks -}}
{{- if kindIs "map" $sink.loki -}}{{- $job = default "hindsight" $sink.loki.job -}}{{- end -}}
{{- end -}}
{{- $job -}}
{{- end -}}

{{/*
A file of the folder generated: a dashboard or rules. The label job is that of the first Loki sink.
*/}}
{{- define "hindsight.generated" -}}
{{- $root := index . 0 -}}
{{- $job := include "hindsight.job" $root -}}
{{- $root.Files.Get (printf "generated/%s" (index . 1)) | replace "@job@" $job | replace "@grafana@" (trimSuffix "/" $root.Values.links.grafana) | replace "@runbooks@" $root.Values.links.runbooks | trimSuffix "\n" -}}
{{- end -}}
{{/* The rules for the metadata of objects in a namespace; the argument is true if labels or
annotations are read. */}}
{{- define "hindsight.enrich.namespaced" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch]
{{- if . }}
- apiGroups: [""]
  resources: [persistentvolumeclaims, services]
  verbs: [get]
- apiGroups: [apps]
  resources: [daemonsets, deployments, statefulsets]
  verbs: [get]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get]
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get]
{{- end }}
{{- end }}
