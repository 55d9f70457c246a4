{{- define "densityd.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "densityd.labels" -}}
app.kubernetes.io/name: densityd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "densityd.selector" -}}
app.kubernetes.io/name: densityd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "densityd.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "densityd.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - secretRef: {name: {{ .Values.existingSecret }}}
volumeMounts:
  - {name: store, mountPath: {{ .Values.store.mountPath }}}
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "densityd.volumes" -}}
- name: store
  persistentVolumeClaim: {claimName: {{ .Values.store.existingClaim }}}
- name: tmp
  emptyDir: {}
{{- end -}}

{{- define "densityd.env" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}
