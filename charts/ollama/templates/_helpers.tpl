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

{{/*
Text as the value of a label: at most 63 letters, digits, dots, dashes and underscores. Where something had to be replaced or cut, a
hash of the whole keeps different texts apart. The same rule is in dags/bench_collect.py and in tipbench.cluster.
*/}}
{{- define "tipbench.label" -}}
{{- $kept := regexReplaceAll "[^A-Za-z0-9_.-]" . "-" | trunc 63 | trimAll "-_." -}}
{{- if eq $kept . -}}
{{ $kept }}
{{- else -}}
{{ printf "%s-%s" ($kept | trunc 54 | trimAll "-_.") (sha256sum . | trunc 8) | trimPrefix "-" }}
{{- end -}}
{{- end }}

{{/* Fails when a release's name would make names that Kubernetes refuses. list $ longest suffix */}}
{{- define "tipbench.checkName" -}}
{{- $root := index . 0 -}}
{{- $longest := index . 1 -}}
{{- if gt (len $root.Release.Name) $longest -}}
{{- fail (printf "the release name %q has %d characters; with %q added it would be longer than Kubernetes allows: use at most %d" $root.Release.Name (len $root.Release.Name) (index . 2) $longest) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $root.Release.Name) -}}
{{- fail (printf "the release name %q cannot name a Service: use small letters, digits and dashes, and begin with a letter" $root.Release.Name) -}}
{{- end -}}
{{- end }}

{{/*
Fails when a URL among the values has a user, a password or a token in it: it would stand in plain in a ConfigMap, a pod or an annotation.
list $ path of a value that is kept in a Secret
*/}}
{{- define "tipbench.checkValues" -}}
{{- $kept := index . 1 -}}
{{- $found := dict "paths" list -}}
{{- range $key, $value := (index . 0).Values -}}
{{- include "tipbench.credentials" (list $found $key $value) -}}
{{- end -}}
{{- with without $found.paths $kept -}}
{{- fail (printf "%s: has a user, a password or a token in a URL, which everybody could read in the cluster. Leave it out there, and put it into a Secret: one that an existingSecret of this chart names, or a variable with valueFrom.secretKeyRef in extraEnv" (join ", " .)) -}}
{{- end -}}
{{- end }}

{{/* Notes the paths of the texts below a value that have credentials in a URL. list {paths} path value */}}
{{- define "tipbench.credentials" -}}
{{- $found := index . 0 -}}
{{- $path := index . 1 -}}
{{- $value := index . 2 -}}
{{- if kindIs "map" $value -}}
{{- range $key, $one := $value -}}
{{- include "tipbench.credentials" (list $found (printf "%s.%s" $path $key) $one) -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $i, $one := $value -}}
{{- include "tipbench.credentials" (list $found (printf "%s[%d]" $path $i) $one) -}}
{{- end -}}
{{- else if and (kindIs "string" $value) (regexMatch "://[^\\s?#]*@" $value) -}}
{{- $_ := set $found "paths" (append $found.paths $path) -}}
{{- end -}}
{{- end }}

{{/* image and imagePullPolicy of a container; a digest wins over a tag. list: image values, tag when they name neither */}}
{{- define "tipbench.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
image: {{ printf "%s@%s" $image.repository $image.digest | quote }}
{{- else -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default (index . 1)) | quote }}
{{- end }}
imagePullPolicy: {{ $image.pullPolicy | default "IfNotPresent" }}
{{- end }}

{{/* Secrets with registry credentials, given as names or as Kubernetes writes them, in the one form that it takes. */}}
{{- define "tipbench.pullSecrets" -}}
{{- range . }}
- name: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ .name }}{{ end }}
{{- end }}
{{- end }}

{{/* type, and what a LoadBalancer or NodePort may say besides; a ClusterIP has no port on the nodes. */}}
{{- define "tipbench.serviceType" -}}
type: {{ .type }}
{{- if eq .type "LoadBalancer" }}
{{- with .loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- define "tipbench.nodePort" -}}
{{- if and .nodePort (ne .type "ClusterIP") -}}
nodePort: {{ int .nodePort }}
{{- end }}
{{- end }}

{{/* The rule that lets a pod talk to the Kubernetes API. */}}
{{- define "tipbench.kubernetesApi" -}}
- ports:
    {{- range .Values.networkPolicy.kubernetesApiPorts }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.kubernetesApiCidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
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
imagePullSecrets: {{- include "tipbench.pullSecrets" . | nindent 2 }}
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
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
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

{{/* The rule that lets a pod ask DNS: behind its Service it listens on 53, or on 5353 (OpenShift). */}}
{{- define "tipbench.dns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
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
