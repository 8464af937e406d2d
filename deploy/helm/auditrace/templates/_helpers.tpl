{{- define "auditrace.name" -}}
{{- if contains "auditrace" .Release.Name }}{{ .Release.Name | trunc 45 | trimSuffix "-" }}{{ else }}{{ printf "%s-auditrace" .Release.Name | trunc 45 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "auditrace.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: auditrace
{{- end }}

{{- /* Those that select: (list . "api") */}}
{{- define "auditrace.selector" -}}
app.kubernetes.io/name: auditrace
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "auditrace.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "auditrace.auditEndpoint" -}}
{{- if .Values.collector.enabled }}http://{{ include "auditrace.name" . }}-collector:4328/v1/logs{{ else }}{{ required "collector.enabled is false: set externalCollector.auditEndpoint, or records stay in the database" .Values.externalCollector.auditEndpoint }}{{ end }}
{{- end }}

{{- define "auditrace.otlpEndpoint" -}}
{{- if .Values.collector.enabled }}http://{{ include "auditrace.name" . }}-collector:4318{{ else }}{{ .Values.externalCollector.otlpEndpoint }}{{ end }}
{{- end }}

{{- define "auditrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* A pod of the service: (dict "root" . "component" "api" "name" "auditrace" "command" (list "serve") "resources" … "grace" 60) */}}
{{- define "auditrace.pod" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $sandbox := and $values.worker.sandbox (eq .component "worker") -}}
metadata:
  labels:
    {{- include "auditrace.selector" (list $root .component) | nindent 4 }}
    {{- include "auditrace.labels" $root | nindent 4 }}
  annotations:
    checksum/templates: {{ $values.templates | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "auditrace.name" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- if $sandbox }}
  hostUsers: false
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .grace }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  initContainers:
    # A Secret is mounted readable by its group, and an empty volume writable by all; the service refuses both for
    # private keys. Copied into a folder of their own, only their owner can read and replace them.
    - name: keys
      image: {{ include "auditrace.image" $root }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [sh, -euc, 'umask 077; mkdir -p /keys/own; for file in /given/*; do cp "$file" "/keys/own/${file##*/}"; done; chmod 600 /keys/own/*']
      securityContext: {{- include "auditrace.containerSecurity" . | nindent 8 }}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 64Mi}
      volumeMounts:
        - {name: given, mountPath: /given, readOnly: true}
        - {name: keys, mountPath: /keys}
  containers:
    - name: {{ .component }}
      image: {{ include "auditrace.image" $root }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: {{- toYaml .command | nindent 8 }}
      env:
        - {name: AUDITRACE_DATABASE, value: {{ required "set database.url, such as postgresql://auditrace@postgres:5432/auditrace" $values.database.url | quote }}}
        {{- with $values.database.passwordSecret.name }}
        - name: PGPASSWORD
          valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.database.passwordSecret.key }}}}
        {{- end }}
        - {name: AUDITRACE_SIGNING_KEY, value: /keys/own/signing.pem}
        - {name: AUDITRACE_LEDGER_SECRET, value: /keys/own/ledger.secret}
        - {name: AUDITRACE_ADMIN_KEY, value: /keys/own/admin.key}
        - {name: AUDITRACE_WORK_FOLDER, value: /work}
        - {name: AUDITRACE_AUDIT_ENDPOINT, value: {{ include "auditrace.auditEndpoint" $root | quote }}}
        - {name: AUDITRACE_CHECKPOINT_INTERVAL, value: {{ $values.settings.checkpointInterval | quote }}}
        - {name: AUDITRACE_SELF_CHECK_INTERVAL, value: {{ $values.settings.selfCheckInterval | quote }}}
        - {name: AUDITRACE_SHUTDOWN_GRACE, value: {{ $values.settings.shutdownGrace | quote }}}
        - {name: AUDITRACE_WORKER_SLOTS, value: {{ $values.worker.slots | quote }}}
        {{- if $sandbox }}
        - {name: AUDITRACE_ISOLATION, value: required}
        {{- end }}
        {{- with $values.settings.traceUrlTemplate }}
        - {name: AUDITRACE_TRACE_URL_TEMPLATE, value: {{ . | quote }}}
        {{- end }}
        {{- if $values.templates }}
        - {name: AUDITRACE_TEMPLATES, value: /templates/jobs.toml}
        {{- end }}
        - {name: OTEL_SERVICE_NAME, value: {{ .name }}}
        - {name: OTEL_RESOURCE_ATTRIBUTES, value: {{ printf "deployment.environment.name=%s" $values.settings.deploymentEnvironment | quote }}}
        {{- with include "auditrace.otlpEndpoint" $root }}
        - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
        {{- end }}
        {{- if and $values.monitoring.serviceMonitor.enabled (eq .component "api") }}
        # They are scraped: sent as well they would count twice.
        - {name: OTEL_METRICS_EXPORTER, value: none}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- $security := include "auditrace.containerSecurity" . | fromYaml }}
      {{- if $sandbox }}
      {{- $security = mergeOverwrite $security (dict "procMount" "Unmasked" "seccompProfile" (dict "type" "Unconfined")) }}
      {{- end }}
      securityContext: {{- toYaml $security | nindent 8 }}
      resources: {{- toYaml .resources | nindent 8 }}
      {{- if eq .component "api" }}
      ports:
        - {name: http, containerPort: 8080}
      # Neither asks the collector or a backend: while they are away records wait in the database.
      startupProbe:
        httpGet: {path: /health/live, port: http}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /health/live, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /health/ready, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      lifecycle:
        # Endpoints are taken out of service while it still answers.
        preStop: {exec: {command: [python, -c, 'import threading; threading.Event().wait(5)']}}
      {{- end }}
      volumeMounts:
        - {name: keys, mountPath: /keys}
        - {name: work, mountPath: /work}
        - {name: tmp, mountPath: /tmp}
        {{- if $values.templates }}
        - {name: templates, mountPath: /templates, readOnly: true}
        {{- end }}
  volumes:
    - name: given
      secret:
        secretName: {{ required "set keys.existingSecret: kubectl create secret generic auditrace-keys --from-file=signing.pem --from-file=ledger.secret, made with `openssl genpkey -algorithm ed25519 -out signing.pem` and `openssl rand -hex 32 > ledger.secret`" $values.keys.existingSecret }}
    - {name: keys, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: work, emptyDir: {sizeLimit: {{ $values.worker.scratchSize }}}}
    - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
    {{- if $values.templates }}
    - {name: templates, configMap: {name: {{ include "auditrace.name" $root }}-templates}}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "auditrace.selector" (list $root .component) | nindent 10 }}
{{- end }}
