{{/* What Airflow's own containers have in common: image, rights, environment. */}}
{{- define "airflow.container" -}}
{{- $keys := .Values.keys.existingSecret | default (printf "%s-keys" .Release.Name) -}}
{{ include "tipbench.image" (list .Values.image .Chart.Version) }}
{{ include "tipbench.container" . }}
envFrom:
  - configMapRef: {name: {{ .Release.Name }}-config}
  {{- with .Values.mlflow.existingSecret }}
  - secretRef: {name: {{ . }}}
  {{- end }}
env:
  {{- if .Values.externalDatabase.existingSecret }}
  - name: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN
    valueFrom:
      secretKeyRef: {name: {{ .Values.externalDatabase.existingSecret }}, key: {{ .Values.externalDatabase.key }}}
  {{- else }}
  - name: POSTGRES_PASSWORD
    valueFrom:
      secretKeyRef: {name: {{ .Values.postgresql.existingSecret | default (printf "%s-postgresql" .Release.Name) }}, key: password}
  - name: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN
    value: postgresql+psycopg://airflow:$(POSTGRES_PASSWORD)@{{ .Release.Name }}-postgresql:5432/airflow
  {{- end }}
  - name: AIRFLOW__CORE__FERNET_KEY
    valueFrom:
      secretKeyRef: {name: {{ $keys }}, key: fernet-key}
  - name: AIRFLOW__API_AUTH__JWT_SECRET
    valueFrom:
      secretKeyRef: {name: {{ $keys }}, key: jwt-secret}
  - name: AIRFLOW__API__SECRET_KEY
    valueFrom:
      secretKeyRef: {name: {{ $keys }}, key: api-secret-key}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "airflow.mounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: logs, mountPath: /opt/airflow/logs}
  - {name: scripts, mountPath: /chart, readOnly: true}
{{- end }}

{{- define "airflow.volumes" -}}
- name: tmp
  emptyDir: {}
- name: logs
  {{- if .Values.logs.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ .Values.logs.persistence.existingClaim | default (printf "%s-logs" .Release.Name) }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: scripts
  configMap: {name: {{ .Release.Name }}-scripts}
{{- end }}

{{/* An init container that waits in a few MiB. list $ "reachable" or "migrated" */}}
{{- define "airflow.wait" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  {{- include "airflow.container" $root | nindent 2 }}
  command: [python3, /chart/db.py, {{ index . 1 }}]
  resources:
    requests: {cpu: 1m, memory: 32Mi}
    limits: {memory: 128Mi}
  {{- include "airflow.mounts" $root | nindent 2 }}
{{- end }}

{{/*
One of Airflow's four processes. dict: root, component, values (replicas, resources), probe, ports (name: number),
token (does it talk to Kubernetes), and for the api-server: args, env, mounts, volumes, initContainers (lists).
*/}}
{{- define "airflow.deployment" -}}
{{- $root := .root -}}
{{- $replicas := .values.replicas | default 1 | int -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $root.Release.Name }}-{{ .component }}
  labels: {{- include "tipbench.labels" (list $root .component) | nindent 4 }}
spec:
  replicas: {{ $replicas }}
  # Ends the old pod first: a small node has no room for both, and one database takes one scheduler's migrations.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
  selector:
    matchLabels: {{- include "tipbench.selector" (list $root .component) | nindent 6 }}
  template:
    metadata:
      labels: {{- include "tipbench.labels" (list $root .component) | nindent 8 }}
      annotations:
        checksum/config: {{ include (print $root.Template.BasePath "/config.yaml") $root | sha256sum }}
    spec:
      {{- include "tipbench.pod" $root | nindent 6 }}
      {{- if .token }}
      serviceAccountName: {{ $root.Release.Name }}
      {{- end }}
      automountServiceAccountToken: {{ .token | default false }}
      initContainers:
        {{- include "airflow.wait" (list $root "migrated") | nindent 8 }}
        {{- with .initContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      containers:
        - name: {{ .component }}
          {{- $container := include "airflow.container" $root | fromYaml }}
          {{- $_ := set $container "env" (concat $container.env (.env | default list)) }}
          {{- toYaml $container | nindent 10 }}
          args: {{- toYaml (prepend (.args | default list) .component) | nindent 12 }}
          {{- with .ports }}
          ports:
            {{- range $name, $port := . }}
            - {name: {{ $name }}, containerPort: {{ $port }}}
            {{- end }}
          {{- end }}
          startupProbe: {{- merge (dict "periodSeconds" 5 "timeoutSeconds" 10 "failureThreshold" 60) .probe | toYaml | nindent 12 }}
          {{- if .probe.httpGet }}
          readinessProbe: {{- merge (dict "periodSeconds" 30 "timeoutSeconds" 10) .probe | toYaml | nindent 12 }}
          {{- end }}
          # Patient: a killed scheduler takes the tasks in its pod with it, and a busy small node is slow to start a command.
          livenessProbe: {{- merge (dict "periodSeconds" 60 "timeoutSeconds" 30 "failureThreshold" 5) .probe | toYaml | nindent 12 }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          {{- $mounts := include "airflow.mounts" $root | fromYaml }}
          volumeMounts: {{- concat $mounts.volumeMounts (.mounts | default list) | toYaml | nindent 12 }}
      volumes:
        {{- include "airflow.volumes" $root | nindent 8 }}
        {{- with .volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
