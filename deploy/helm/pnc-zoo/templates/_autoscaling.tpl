{{/* A HorizontalPodAutoscaler by processor use. */}}
{{- define "pnc.hpa" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "pnc.name" .root }}-{{ .role }}
  labels:
    {{- include "pnc.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "pnc.name" .root }}-{{ .role }}
  minReplicas: {{ .scaling.minReplicas }}
  maxReplicas: {{ .scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .scaling.cpuPercent }}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
{{- end }}
