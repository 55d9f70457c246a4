{{- define "densityd.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "densityd.labels" -}}
{{ include "densityd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "densityd.selector" -}}
app.kubernetes.io/name: densityd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "densityd.inBucket" -}}
{{- if contains "://" .Values.store.url }}true{{ end -}}
{{- end -}}

{{- define "densityd.secret" -}}
{{- if .Values.tryout.enabled }}{{ include "densityd.name" . }}-tryout{{ else }}{{ required "existingSecret names a secret with DENSITYD_DATABASE_URL and DENSITYD_BROKER_URL" .Values.existingSecret }}{{ end -}}
{{- end -}}

{{- define "densityd.keySecret" -}}
{{- if .Values.firstKeySecret }}{{ .Values.firstKeySecret }}{{ else if .Values.tryout.enabled }}{{ include "densityd.name" . }}-first-key{{ end -}}
{{- end -}}

{{- define "densityd.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}{{ else if .Values.serviceAccount.create }}{{ include "densityd.name" . }}{{ else }}default{{ end -}}
{{- end -}}

{{/* What a pod has beside its containers. Takes the root, the component and the component's values. */}}
{{- define "densityd.pod" -}}
{{- $root := .root -}}
{{- $own := .own -}}
serviceAccountName: {{ include "densityd.serviceAccount" $root }}
automountServiceAccountToken: {{ $root.Values.serviceAccount.automountToken }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with merge (dict) ($own.nodeSelector | default dict) $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $root.Values.tolerations ($own.tolerations | default list) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: data
    {{- if include "densityd.inBucket" $root }}
    emptyDir: {sizeLimit: {{ $root.Values.store.cacheSize }}}
    {{- else }}
    persistentVolumeClaim: {claimName: {{ $root.Values.store.existingClaim | default (printf "%s-store" (include "densityd.name" $root)) }}}
    {{- end }}
  - {name: tmp, emptyDir: {}}
  {{- with include "densityd.keySecret" $root }}
  - name: first-key
    secret: {secretName: {{ . }}, items: [{key: key, path: key}]}
  {{- end }}
  {{- with concat $root.Values.extraVolumes ($own.extraVolumes | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What a container of the image has; `variables` are those of its component. */}}
{{- define "densityd.container" -}}
{{- $root := .root -}}
{{- $own := .own -}}
image: {{ printf "%s:%s" $root.Values.image.repository (coalesce $own.imageTag $root.Values.image.tag $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - secretRef: {name: {{ include "densityd.secret" $root }}}
volumeMounts:
  - {name: data, mountPath: /var/lib/densityd}
  - {name: tmp, mountPath: /tmp}
  {{- if include "densityd.keySecret" $root }}
  - {name: first-key, mountPath: /run/secrets/densityd, readOnly: true}
  {{- end }}
  {{- with concat $root.Values.extraVolumeMounts ($own.extraVolumeMounts | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  {{- $variables := dict "DENSITYD_STORE_URL" ($root.Values.store.url | default "/var/lib/densityd/blobs") }}
  {{- with $root.Values.store.endpoint }}{{ $_ := set $variables "DENSITYD_STORE_ENDPOINT" . }}{{ end }}
  {{- if include "densityd.keySecret" $root }}{{ $_ := set $variables "DENSITYD_FIRST_KEY_FILE" "/run/secrets/densityd/key" }}{{ end }}
  {{- range $name, $value := mergeOverwrite $variables (.variables | default dict) $root.Values.env ($own.env | default dict) }}
  - {name: {{ $name }}, value: {{ $value | toString | quote }}}
  {{- end }}
  {{- with concat $root.Values.extraEnv ($own.extraEnv | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  requests: {cpu: {{ $own.cpu | default "500m" | quote }}, memory: {{ int $own.memoryMi }}Mi}
  limits:
    memory: {{ int $own.memoryMi }}Mi
    {{- with $own.limits }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The schema, before a pod of the new version starts; many may do it at the same time. */}}
{{- define "densityd.migrated" -}}
initContainers:
  - name: migrate
    args: [migrate]
    {{- include "densityd.container" (dict "root" .root "own" .own) | nindent 4 }}
{{- end -}}

{{- define "densityd.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "densityd.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "densityd.template" -}}
metadata:
  labels:
    {{- include "densityd.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    {{- with merge (dict) (.own.podLabels | default dict) .root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (.own.podAnnotations | default dict) .root.Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "densityd.disruption" -}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "densityd.name" .root }}-{{ .component }}
  labels: {{- include "densityd.labels" .root | nindent 4 }}
spec:
  {{- toYaml (.own.podDisruptionBudget | default (dict "maxUnavailable" 1)) | nindent 2 }}
  selector:
    matchLabels:
      {{- include "densityd.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
{{- end -}}
