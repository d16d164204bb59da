{{/*
What every template of the four charts shares. The file is the same in each chart, and a test keeps it so:
a chart can then be installed straight from its folder, with no dependency to build first.
*/}}

{{/* Labels that never change for a workload. list $ component */}}
{{- define "tipbench.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels. list $ component */}}
{{- define "tipbench.labels" -}}
{{- $root := index . 0 -}}
{{ include "tipbench.selector" . }}
app.kubernetes.io/part-of: tipbench
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* image and imagePullPolicy of a container. dict or list: image values, tag when they name none */}}
{{- define "tipbench.image" -}}
{{- $image := index . 0 -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default (index . 1)) | quote }}
imagePullPolicy: {{ $image.pullPolicy | default "IfNotPresent" }}
{{- end }}

{{/*
What every pod spec begins with. Pods get no token unless they say so. Without enableServiceLinks: false a Service
named "mlflow" would put MLFLOW_PORT=tcp://... into every pod, and the mlflow command reads that variable.
*/}}
{{- define "tipbench.pod" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .Values.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* securityContext of every container. */}}
{{- define "tipbench.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* A Secret's value, base64: the one that exists, else the given new one. list $ secret key new */}}
{{- define "tipbench.kept" -}}
{{- $root := index . 0 -}}
{{- $secret := lookup "v1" "Secret" $root.Release.Namespace (index . 1) | default dict -}}
{{- dig "data" (index . 2) "" $secret | default (index . 3 | b64enc) -}}
{{- end }}

{{/* An Ingress for one Service. list $ component service port path */}}
{{- define "tipbench.ingress" -}}
{{- $root := index . 0 -}}
{{- $ingress := $root.Values.ingress -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ index . 2 }}
  labels: {{- include "tipbench.labels" (list $root (index . 1)) | nindent 4 }}
  {{- with $ingress.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  rules:
    {{- range $host := $ingress.hosts }}
    - host: {{ $host | quote }}
      http:
        paths:
          - path: {{ index $ 4 }}
            pathType: Prefix
            backend:
              service:
                name: {{ index $ 2 }}
                port:
                  number: {{ int (index $ 3) }}
    {{- end }}
  {{- if $ingress.tlsSecret }}
  tls:
    - secretName: {{ $ingress.tlsSecret }}
      hosts: {{- toYaml $ingress.hosts | nindent 8 }}
  {{- end }}
{{- end }}

{{/* The rule that lets a pod ask DNS. */}}
{{- define "tipbench.dns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* A `helm test` pod that runs a few lines of Python. list $ name code env */}}
{{- define "tipbench.test" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ $root.Release.Name }}-test-{{ index . 1 }}
  labels: {{- include "tipbench.labels" (list $root "test") | nindent 4 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  {{- include "tipbench.pod" $root | nindent 2 }}
  automountServiceAccountToken: false
  restartPolicy: Never
  containers:
    - name: test
      {{- include "tipbench.image" (list $root.Values.test.image $root.Chart.Version) | nindent 6 }}
      {{- include "tipbench.container" $root | nindent 6 }}
      command: [python3, -c]
      args:
        - | {{- index . 2 | trim | nindent 10 }}
      {{- with index . 3 }}
      env: {{- toYaml . | nindent 8 }}
      {{- end }}
      resources: {{- toYaml $root.Values.test.resources | nindent 8 }}
{{- end }}
