{{- define "pnc.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "pnc.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "pnc.labels" -}}
{{ include "pnc.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "pnc.secret" -}}
{{ .Values.secrets.existingSecret | default (printf "%s-secrets" (include "pnc.name" .)) }}
{{- end }}

{{- define "pnc.image" -}}
{{ .repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Settings of the store, for every role of ours. */}}
{{- define "pnc.storeEnv" -}}
{{- $store := .Values.store -}}
{{- if eq $store.kind "s3" }}
- name: PNC_STORE_URL
  value: {{ $store.url | quote }}
{{- with ($store.bundled | ternary (printf "http://%s-store:8333" (include "pnc.name" .)) $store.endpoint) }}
- name: PNC_STORE_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with $store.publicEndpoint }}
- name: PNC_STORE_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: AWS_SHARED_CREDENTIALS_FILE
  value: /run/secrets/pnc/aws
- name: AWS_DEFAULT_REGION
  value: {{ $store.region | quote }}
{{- end }}
{{- end }}

{{/* Files of the Secret that a role uses, as a JSON list. */}}
{{- define "pnc.files" -}}
{{- $all := dict "api" (list "database-url" "broker-url" "internal-key" "secret-keys") "serving" (list "database-url" "internal-key") "worker" (list "database-url" "broker-url" "secret-keys") "migrate" (list "database-url" "secret-keys") -}}
{{- $files := get $all .role -}}
{{- if eq .root.Values.store.kind "s3" }}{{ $files = append $files "aws" }}{{ end -}}
{{ toJson $files }}
{{- end }}

{{/* Environment of a role of ours: settings, the files of its secrets, and the store. */}}
{{- define "pnc.env" -}}
{{- $variables := dict "database-url" "PNC_DATABASE_URL_FILE" "broker-url" "PNC_BROKER_URL_FILE" "internal-key" "PNC_INTERNAL_KEY_FILE" "secret-keys" "PNC_SECRET_KEY_FILE" -}}
- name: PNC_LOG_FORMAT
  value: json
{{- range $file := include "pnc.files" . | fromJsonArray }}
{{- with get $variables $file }}
- name: {{ . }}
  value: /run/secrets/pnc/{{ $file }}
{{- end }}
{{- end }}
{{- include "pnc.storeEnv" .root }}
{{- range $name, $value := .root.Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "pnc.mounts" -}}
- name: secrets
  mountPath: /run/secrets/pnc
  readOnly: true
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "pnc.volumes" -}}
- name: secrets
  secret:
    secretName: {{ include "pnc.secret" .root }}
    defaultMode: 0440
    items:
      {{- range include "pnc.files" . | fromJsonArray }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
- name: data
  {{- if eq .root.Values.store.kind "claim" }}
  persistentVolumeClaim:
    claimName: {{ required "store.existingClaim: expected a claim that all pods can write, got none" .root.Values.store.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .scratch }}
  {{- end }}
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 128Mi
{{- end }}

{{/* A probe of our processes: patient, because a busy machine takes long to start Python. */}}
{{- define "pnc.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 5
  timeoutSeconds: 30
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 15
  timeoutSeconds: 30
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 10
  timeoutSeconds: 30
  failureThreshold: 3
{{- end }}

{{- define "pnc.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "pnc.selector" . | nindent 8 }}
{{- end }}

{{- define "pnc.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pnc.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Resources of a role, with its GPUs. */}}
{{- define "pnc.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpus }}{{ $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" .gpus) $resources.limits) }}{{ end -}}
{{ toYaml $resources }}
{{- end }}
