{{/* Name of every object: the release's name, with the chart's name unless it is in there already. */}}
{{- define "finetune-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of the Service of the metrics; Prometheus calls its job so. */}}
{{- define "finetune-operator.metricsName" -}}
{{- printf "%s-metrics" (include "finetune-operator.fullname" .) -}}
{{- end -}}

{{/* Where an alert is explained. Takes a list: the values of the rules, the alert. */}}
{{- define "finetune-operator.runbook" -}}
{{- with (index . 0).runbookUrl -}}
runbook_url: {{ printf "%s#%s" . (index $ 1 | lower) | quote }}
{{- end -}}
{{- end -}}

{{/* Labels that never change: the Deployment selects by them. */}}
{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "finetune-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "finetune-operator.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: name the existing service account, or set serviceAccount.create to true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image by digest when there is one, else by tag. Takes a list: the image's values, the default tag. */}}
{{- define "finetune-operator.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 1)) -}}
{{- end -}}
{{- end -}}

{{/* Namespaces whose runs are carried out, as a JSON list in an object; empty with allNamespaces. */}}
{{- define "finetune-operator.watchNamespaces" -}}
{{- if .Values.watch.allNamespaces -}}
{{- if .Values.watch.namespaces -}}
{{- fail "watch.allNamespaces is true, and watch.namespaces names some: set one of them" -}}
{{- end -}}
{{- dict "names" list | toJson -}}
{{- else -}}
{{- dict "names" (.Values.watch.namespaces | default (list .Release.Namespace) | uniq) | toJson -}}
{{- end -}}
{{- end -}}

{{/* Namespaces whose stages are fenced in, as a JSON list in an object: those watched, or with allNamespaces those named. */}}
{{- define "finetune-operator.stageNamespaces" -}}
{{- $policy := .Values.stageNetworkPolicy -}}
{{- if .Values.watch.allNamespaces -}}
{{- if and $policy.egress (not $policy.namespaces) -}}
{{- fail "stageNetworkPolicy.egress is set and watch.allNamespaces is true: name the namespaces of the runs in stageNetworkPolicy.namespaces" -}}
{{- end -}}
{{- dict "names" ($policy.namespaces | uniq) | toJson -}}
{{- else -}}
{{- if $policy.namespaces -}}
{{- fail "stageNetworkPolicy.namespaces is for watch.allNamespaces only: the watched namespaces are fenced in anyway" -}}
{{- end -}}
{{- include "finetune-operator.watchNamespaces" . -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do where runs are. It reads no Secrets and starts nothing in other pods. */}}
{{- define "finetune-operator.rules" -}}
# create, patch and delete: a FineTuneSchedule makes runs, cancels them and removes old ones
- apiGroups: [finetune-operator.io]
  resources: [finetuneruns]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [finetune-operator.io]
  resources: [finetuneschedules]
  verbs: [get, list, watch]
- apiGroups: [finetune-operator.io]
  resources: [finetuneruns/status, finetuneschedules/status]
  verbs: [get, patch, update]
# What they own blocks their deletion: asked for where OwnerReferencesPermissionEnforcement is on, as on OpenShift.
- apiGroups: [finetune-operator.io]
  resources: [finetuneruns/finalizers, finetuneschedules/finalizers]
  verbs: [update]
# The run as its stages read it.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, get, patch, delete]
# By which the pods of a training on several nodes find each other; and those of targets, asked as readers ask them.
- apiGroups: [""]
  resources: [services]
  verbs: [create, list]
# What Kueue says of a Job that it holds back, where Kueue is installed.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
# The stages.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, watch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Progress lines.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# Whether the volume that models are put into is large enough.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
# The rollout: three environment entries by server-side apply, then watching the pods.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, patch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get, list, watch]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
