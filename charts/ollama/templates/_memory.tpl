{{/*
How much memory a server gets: what the largest of its models needs. files/memory.json is made by charts/memory.py, by the rule
that tipbench refuses models by.
*/}}

{{/* A quantity in MiB, rounded up; read as Kubernetes reads it. */}}
{{- define "ollama.mib" -}}
{{- $number := regexFind "^[0-9]*(\\.[0-9]*)?([eE][+-]?[0-9]+)?" . -}}
{{- $factors := dict "" 1.0 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- divf (mulf (float64 $number) (get $factors (trimPrefix $number .))) 1048576.0 | ceil | int64 -}}
{{- end }}

{{/* What a known model needs with models.numCtx, in MiB: the sum, then its terms; nothing for one that is not known. list $ tag */}}
{{- define "ollama.need" -}}
{{- $root := index . 0 -}}
{{- $tag := index . 1 -}}
{{- $own := get $root.Values.models.memory $tag -}}
{{- $row := get ($root.Files.Get "files/memory.json" | fromJson) $tag -}}
{{- if $own -}}
{{- include "ollama.mib" $own -}}
{{- else if $row -}}
{{- $wanted := int $root.Values.models.numCtx -}}
{{- $next := 0 -}}
{{- $largest := 0 -}}
{{- range $context, $_ := $row -}}
{{- $context = int $context -}}
{{- $largest = max $largest $context -}}
{{- if and (ge $context $wanted) (or (not $next) (lt $context $next)) -}}
{{- $next = $context -}}
{{- end -}}
{{- end -}}
{{- /* Beyond what a model was trained for no context is allocated. */ -}}
{{- range $i, $mib := get $row (toString ($next | default $largest)) -}}
{{- if $i }} {{ end -}}{{- int64 $mib -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* request and limit of a server's memory. */}}
{{- define "ollama.memory" -}}
{{- $largest := 0 -}}
{{- $which := "" -}}
{{- $sum := "" -}}
{{- range $tag := .Values.models.tags -}}
{{- $need := include "ollama.need" (list $ $tag) | splitList " " -}}
{{- if index $need 0 -}}
{{- if gt (int64 (index $need 0)) (int64 $largest) -}}
{{- $largest = int64 (index $need 0) -}}
{{- $which = $tag -}}
{{- $sum = ternary "" (printf " (weights %s + KV cache %s + buffers %s + overhead %s MiB)" (index (concat $need (list "" "" "" "")) 1) (index (concat $need (list "" "" "" "")) 2) (index (concat $need (list "" "" "" "")) 3) (index (concat $need (list "" "" "" "")) 4)) (eq (len $need) 1) -}}
{{- end -}}
{{- else if not $.Values.memory -}}
{{- fail (printf "memory is empty, and what %s needs is not known here: set models.memory.%q to its estimated_memory_bytes in `tipbench models --json`, or set memory" $tag $tag) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.memory -}}
{{- if not $largest -}}
{{- fail "memory is empty, and there are no models.tags to work it out from: set memory" -}}
{{- end -}}
{{- $largest -}}Mi
{{- else -}}
{{- if lt (int64 (include "ollama.mib" .Values.memory)) (int64 $largest) -}}
{{- fail (printf "memory %s cannot hold %s: with models.numCtx %d it needs %dMi%s; raise memory or leave it empty, lower models.numCtx, or leave the model out" .Values.memory $which (int .Values.models.numCtx) (int64 $largest) $sum) -}}
{{- end -}}
{{- .Values.memory -}}
{{- end -}}
{{- end }}
