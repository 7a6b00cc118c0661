{{- define "alertrouter.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "alertrouter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "alertrouter.labels" -}}
{{ include "alertrouter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "alertrouter.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "alertrouter.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- /* The port that has health and metrics. */ -}}
{{- define "alertrouter.operationsPort" -}}
{{- ternary "operations" "http" (gt (int .Values.operations.port) 0) -}}
{{- end -}}

{{- /* A ConfigMap's key cannot hold a "/". */ -}}
{{- define "alertrouter.rulesKey" -}}
{{- . | replace "/" "__" -}}
{{- end -}}
