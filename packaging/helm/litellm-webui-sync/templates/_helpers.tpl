{{/* Names, labels, and the pod that the daemon and the test have in common. */}}

{{- define "sync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sync.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "sync.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sync.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects every pod of this release; these labels can never change. */}}
{{- define "sync.selector" -}}
app.kubernetes.io/name: {{ include "sync.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sync.labels" -}}
{{ include "sync.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sync.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}

{{- define "sync.secretName" -}}
{{- default (include "sync.fullname" .) .Values.secret.existing }}
{{- end }}

{{/*
Which keys of the Secret are mounted, as YAML: variable: key. Only those that are there: a file that is named and missing stops
the daemon. The keys of a Secret that the chart made are the variables' names.
*/}}
{{- define "sync.secrets" -}}
{{- $secret := .Values.secret -}}
{{- $litellm := .Values.litellm.url -}}
{{- if $secret.existing -}}
LITELLM_DATABASE_URL: {{ $secret.keys.litellmDatabaseUrl | quote }}
WEBUI_DATABASE_URL: {{ $secret.keys.webuiDatabaseUrl | quote }}
{{- with $secret.keys.httpToken }}
LITELLM_WEBUI_SYNC_HTTP_TOKEN: {{ . | quote }}
{{- end }}
{{- if $litellm }}
LITELLM_WEBUI_SYNC_LITELLM_KEY: {{ $secret.keys.litellmKey | quote }}
{{- end }}
{{- else -}}
LITELLM_DATABASE_URL: LITELLM_DATABASE_URL
WEBUI_DATABASE_URL: WEBUI_DATABASE_URL
{{- if $secret.httpToken }}
LITELLM_WEBUI_SYNC_HTTP_TOKEN: LITELLM_WEBUI_SYNC_HTTP_TOKEN
{{- end }}
{{- if $litellm }}
LITELLM_WEBUI_SYNC_LITELLM_KEY: LITELLM_WEBUI_SYNC_LITELLM_KEY
{{- end }}
{{- end }}
{{- end }}

{{/* The ports of LiteLLM itself, as a YAML list. */}}
{{- define "sync.litellmPorts" -}}
{{- $url := urlParse .Values.litellm.url -}}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $port := default (ternary "443" "80" (eq $url.scheme "https")) $named -}}
{{- toYaml (default (list (int $port)) .Values.networkPolicy.litellm.ports) -}}
{{- end }}

{{/* Of the pod: who it runs as, and what it does not get. */}}
{{- define "sync.pod" -}}
serviceAccountName: {{ include "sync.fullname" . }}
# It never asks Kubernetes anything.
automountServiceAccountToken: false
# Kubernetes would name variables after our Service, and they would begin like our own.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- range $key, $value := .Values.securityContext }}
  {{- if not (kindIs "invalid" $value) }}
  {{ $key }}: {{ int64 $value }}
  {{- end }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* Of the container: image, settings, mounts. */}}
{{- define "sync.container" -}}
{{- $values := .Values -}}
image: {{ include "sync.image" . | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
env:
  - name: LITELLM_WEBUI_SYNC_HTTP
    value: {{ printf "%s:9466" $values.http.address | quote }}
  - name: LITELLM_WEBUI_SYNC_LOG_FORMAT
    value: {{ $values.log.format }}
  - name: RUST_LOG
    value: {{ $values.log.level }}
  {{- range $name, $key := include "sync.secrets" . | fromYaml }}
  - name: {{ $name }}_FILE
    value: /etc/litellm-webui-sync/secrets/{{ $name }}
  {{- end }}
  {{- if $values.policy }}
  - name: LITELLM_WEBUI_SYNC_CONFIG
    value: /etc/litellm-webui-sync/policy/sync.toml
  {{- end }}
  {{- range $name, $value := dict
    "LITELLM_WEBUI_SYNC_LITELLM_URL" $values.litellm.url
    "LITELLM_WEBUI_SYNC_LITELLM_CA" $values.litellm.ca
    "LITELLM_WEBUI_SYNC_SLOT" $values.settings.slot
    "LITELLM_WEBUI_SYNC_PUBLICATION" $values.settings.publication
    "LITELLM_WEBUI_SYNC_SCHEMA" $values.settings.schema
    "LITELLM_WEBUI_SYNC_LITELLM_SCHEMA" $values.settings.litellmSchema
    "DATABASE_SCHEMA" $values.settings.webuiSchema
  }}
  {{- if $value }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources: {{- toYaml $values.resources | nindent 2 }}
volumeMounts:
  - name: secrets
    mountPath: /etc/litellm-webui-sync/secrets
    readOnly: true
  {{- if $values.policy }}
  - name: policy
    mountPath: /etc/litellm-webui-sync/policy
    readOnly: true
  {{- end }}
  {{- if $values.tls.secret }}
  - name: tls
    mountPath: /etc/litellm-webui-sync/tls
    readOnly: true
  {{- end }}
{{- end }}

{{- define "sync.volumes" -}}
- name: secrets
  secret:
    secretName: {{ include "sync.secretName" . }}
    defaultMode: 0440
    items:
      {{- range $name, $key := include "sync.secrets" . | fromYaml }}
      - key: {{ $key | quote }}
        path: {{ $name }}
      {{- end }}
{{- if .Values.policy }}
- name: policy
  configMap:
    name: {{ include "sync.fullname" . }}
{{- end }}
{{- with .Values.tls.secret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}
