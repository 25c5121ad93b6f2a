{{- define "solstice.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "solstice.group" -}}
{{- .Values.kafka.group | default .Release.Name -}}
{{- end -}}

{{- define "solstice.selector" -}}
app.kubernetes.io/name: solstice
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "solstice.labels" -}}
{{ include "solstice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "solstice.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "solstice.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "solstice.name" .) -}}
{{- end -}}

{{- define "solstice.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
{{- /* Only for a new volume: later the group would be let write to the cache, which the worker then refuses to run. */}}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "solstice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Mounts that the worker, its init container and the convert job share. */ -}}
{{- define "solstice.mounts" -}}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
{{- if .Values.worker.modelsVolume }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "solstice.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if .Values.worker.modelsVolume }}
- name: models
  {{- toYaml .Values.worker.modelsVolume | nindent 2 }}
{{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "solstice.env" -}}
- {name: SOLSTICE_CACHE, value: /cache/solstice}
{{- if .Values.worker.modelsVolume }}
- {name: SOLSTICE_MODELS, value: /models}
{{- end }}
{{- with .Values.worker.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "solstice.resources" -}}
requests:
  {{- toYaml .Values.resources.requests | nindent 2 }}
limits:
  {{- toYaml .Values.resources.limits | nindent 2 }}
  {{- if .Values.gpus }}
  {{ .Values.gpuResource }}: {{ .Values.gpus | quote }}
  {{- end }}
{{- end -}}

{{- define "solstice.scheduling" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
