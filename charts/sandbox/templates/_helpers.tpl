{{/* Name of everything in the release's namespace, and of the webhook's ClusterRole. Fixed: routers know the Service by it. */}}
{{- define "sandbox.name" -}}sandbox-webhook{{- end -}}

{{- define "sandbox.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "sandbox.name" .) -}}
{{- end -}}

{{- define "sandbox.tag" -}}
{{- .Values.image.tag | default .Chart.AppVersion -}}
{{- end -}}

{{- define "sandbox.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end -}}

{{- define "sandbox.labels" -}}
{{ include "sandbox.selectorLabels" . }}
{{ include "sandbox.commonLabels" . }}
{{- end -}}

{{- define "sandbox.commonLabels" -}}
app.kubernetes.io/version: {{ include "sandbox.tag" . | trunc 63 | quote }}
app.kubernetes.io/part-of: kubectl-sandbox
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* image NAME DIGEST ROOT: the reference of an image. */}}
{{- define "sandbox.image" -}}
{{- $name := index . 0 -}}{{- $digest := index . 1 -}}{{- $root := index . 2 -}}
{{- if $digest -}}
{{- printf "%s/%s@%s" $root.Values.image.registry $name $digest -}}
{{- else -}}
{{- printf "%s/%s:%s" $root.Values.image.registry $name (include "sandbox.tag" $root) -}}
{{- end -}}
{{- end -}}

{{/* quantities MAP: "cpu=10m,memory=32Mi". */}}
{{- define "sandbox.quantities" -}}
{{- $parts := list -}}
{{- range $name := keys . | sortAlpha -}}
{{- $parts = append $parts (printf "%s=%v" $name (get $ $name)) -}}
{{- end -}}
{{- join "," $parts -}}
{{- end -}}

{{/* Namespace of `helm test`: one that admission does not exclude. Without a value, one that the test makes. */}}
{{- define "sandbox.testNamespace" -}}
{{- $namespace := .Values.test.namespace | default (printf "%s-test" (.Release.Namespace | trunc 58 | trimSuffix "-")) -}}
{{- if has $namespace (list .Release.Namespace "kube-system") -}}
{{- fail (printf "test.namespace: %s is excluded from admission: choose another namespace" $namespace) -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}

{{/* Secret that holds a mounted certificate. */}}
{{- define "sandbox.certificateSecret" -}}
{{- if eq .Values.certificates.mode "secret" -}}
{{- .Values.certificates.secretName -}}
{{- else -}}
{{- printf "%s-tls" (include "sandbox.name" .) -}}
{{- end -}}
{{- end -}}

{{- define "sandbox.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "sandbox.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "sandbox.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "sandbox.gatewayLabels" -}}
{{ include "sandbox.gatewaySelectorLabels" . }}
{{ include "sandbox.commonLabels" . }}
{{- end -}}

{{/* Secret of the previews' wildcard certificate; empty: the proxy in front has its own. */}}
{{- define "sandbox.gatewayCertificateSecret" -}}
{{- $tls := .Values.gateway.tls -}}
{{- $tls.secretName | default (ternary "sandbox-gateway-tls" "" (ne $tls.issuerRef.name "")) -}}
{{- end -}}
