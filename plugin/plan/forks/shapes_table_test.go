package forks_test

import "github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"

// own selects the fork's pods of the shapes' workload, of the kind in lower case.
func own(kind string) string {
	return `{matchLabels: {kubectl-sandbox.dev/sandbox: pr-42, kubectl-sandbox.dev/role: fork, kubectl-sandbox.dev/workload: ` + kind + `.api}}`
}

const (
	noService = "no Service selects it"
	forkAgain = "kubectl sandbox fork deployment/api --name=pr-42 --image=pr:1"
)

func shapesOfKinds() []workloadShape {
	quiet := []string{noService}
	return []workloadShape{
		{name: "Deployment", warns: quiet},
		{name: "StatefulSet", kind: "StatefulSet", more: "serviceName: api", warns: quiet},
		{name: "DaemonSet", kind: "DaemonSet", spec: "tolerations: [{operator: Exists}]", warns: quiet},
		{name: "ReplicaSet", kind: "ReplicaSet", warns: quiet},
		{name: "Argo Rollout", kind: "argoproj.io/v1alpha1#Rollout", more: "strategy: {canary: {steps: [{setWeight: 20}]}}", warns: quiet},
		{name: "custom kind", kind: "example.com/v1#Service2", more: "wheels: 4", warns: quiet},
		{name: "custom kind with a selector of its own sort", kind: "example.com/v1#Fleet", more: `selector: "app=api"`, warns: quiet},
		{name: "custom kind with claim templates of its own sort", kind: "example.com/v1#Fleet", more: `volumeClaimTemplates: {size: 3}`, warns: quiet},
		{name: "StatefulSet with claim templates", kind: "StatefulSet",
			spec:    `containers: [{name: api, image: "api:1", volumeMounts: [{name: data, mountPath: /data}]}]`,
			more:    `volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]`,
			changes: `volumes: [{name: data, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]`,
			warns:   []string{"in place of those claimed for the baseline: data", noService}},
		{name: "StatefulSet whose claim takes a volume's place", kind: "StatefulSet",
			spec:    `volumes: [{name: data, emptyDir: {}}, {name: tmp, emptyDir: {}}]`,
			more:    `volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]`,
			changes: `volumes: [{name: tmp, emptyDir: {}}, {name: data, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce]}}}}]`,
			warns:   []string{"in place of those claimed for the baseline: data", noService}},
	}
}

func shapesOfSpecs() []workloadShape {
	quiet := []string{noService}
	return []workloadShape{
		{name: "probes", spec: `containers: [{name: api, image: "api:1", readinessProbe: {httpGet: {path: /, port: 8080}}, livenessProbe: {tcpSocket: {port: 8080}}, startupProbe: {exec: {command: [ok]}}}]`, warns: quiet},
		{name: "lifecycle hooks", spec: `containers: [{name: api, image: "api:1", lifecycle: {preStop: {sleep: {seconds: 3}}, postStart: {exec: {command: [warm]}}}}]`, warns: quiet},
		{name: "init containers", spec: `initContainers: [{name: migrate, image: "api:1", command: [migrate]}]`, warns: quiet},
		{name: "native sidecars", spec: `initContainers: [{name: proxy, image: "envoy:1", restartPolicy: Always, ports: [{containerPort: 9000}]}]`, warns: quiet},
		{name: "init containers and native sidecars", spec: `initContainers: [{name: migrate, image: "m:1"}, {name: proxy, image: "envoy:1", restartPolicy: Always}]`, warns: quiet},
		{name: "resources", spec: `containers: [{name: api, image: "api:1", resources: {requests: {cpu: 100m}, limits: {memory: 1Gi, nvidia.com/gpu: "1"}}}], resources: {limits: {cpu: "2"}}`, warns: quiet},
		{name: "tolerations and a node selector", spec: `tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}], nodeSelector: {disk: ssd}, priorityClassName: high`, warns: quiet},
		{name: "image pull secrets", spec: `imagePullSecrets: [{name: registry}]`, warns: quiet, inherits: "secret registry"},
		{name: "security contexts", spec: `containers: [{name: api, image: "api:1", securityContext: {readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}}], securityContext: {runAsUser: 1000, fsGroup: 2000, seccompProfile: {type: RuntimeDefault}}`, warns: quiet},
		{name: "unknown fields", spec: `later: {a: [1, 2.5, true, null]}, containers: [{name: api, image: "api:1", later: {b: c}}]`, warns: quiet},
		{name: "runtime class, DNS and host aliases", spec: `runtimeClassName: gvisor, dnsPolicy: None, dnsConfig: {nameservers: [10.0.0.1]}, hostAliases: [{ip: 10.1.1.1, hostnames: [x]}], enableServiceLinks: false, terminationGracePeriodSeconds: 7`, warns: quiet},
		{name: "marks of GitOps", meta: `annotations: {argocd.argoproj.io/tracking-id: "x", kustomize.toolkit.fluxcd.io/checksum: y, meta.helm.sh/release-name: z, kubectl.kubernetes.io/last-applied-configuration: "{}", prometheus.io/scrape: "true"}`, warns: quiet},
		{name: "affinity to nodes and to others", spec: `affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: Exists}]}]}}, podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: db}}}]}}`, warns: quiet},
		{name: "anti-affinity among its own",
			spec:    `affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: api}}}]}}`,
			changes: `affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: ` + own("deployment") + `}]}}`,
			warns:   []string{"the anti-affinity of deployment.apps/api-pr-42 is among its own pods", noService}},
		{name: "topology spread and affinity among its own of a StatefulSet", kind: "StatefulSet",
			spec:    `topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: api}}}], affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {app: api}}}}]}}`,
			changes: `topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: ` + own("statefulset") + `}], affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: zone, labelSelector: ` + own("statefulset") + `}}]}}`,
			warns:   []string{"the affinity and topology spread of deployment.apps/api-pr-42 is among its own pods", noService}},
		{name: "what it inherits",
			spec: `serviceAccountName: api, containers: [{name: api, image: "api:1", envFrom: [{secretRef: {name: env}}], env: [{name: P, valueFrom: {secretKeyRef: {name: db, key: p}}}]}], volumes: [{name: a, secret: {secretName: tls}}, ` +
				`{name: b, configMap: {name: conf}}, {name: c, projected: {sources: [{secret: {name: db}}, {configMap: {name: more}}, {serviceAccountToken: {path: t}}]}}, {name: d, emptyDir: {}}, {name: e, downwardAPI: {}}, {name: f, csi: {driver: x}}, {name: g, nfs: {server: s, path: /}}]`,
			inherits: "service account api; secrets db, env, tls; configmaps conf, more; volumes f, g", warns: quiet},
		{name: "the default service account", spec: `serviceAccountName: default`, warns: quiet},
	}
}

func shapesOfWarnings() []workloadShape {
	claim := func(mode string) string {
		return `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [` + mode + `]}}`
	}
	const mounts = `volumes: [{name: data, persistentVolumeClaim: {claimName: data}}], containers: [{name: api, image: "api:1", volumeMounts: [{name: data, mountPath: /data}]}]`
	const reads = `volumes: [{name: data, persistentVolumeClaim: {claimName: data}}], containers: [{name: api, image: "api:1", volumeMounts: [{name: data, mountPath: /data, readOnly: true}]}]`
	const noClaim = `--patch='{"spec":{"volumes":[{"emptyDir":{},"name":"data","persistentVolumeClaim":null}]}}'`
	return []workloadShape{
		{name: "claim of one node", spec: mounts, beside: claim("ReadWriteOnce"), inherits: "claim data",
			warns: []string{"claim data is mounted on one node at a time (ReadWriteOnce), so the fork's pods start on the node of the baseline's alone, and is written to by fork and baseline alike; an empty volume instead: " + noClaim, noService}},
		{name: "claim of one node, read", spec: reads, beside: claim("ReadWriteOnce"), inherits: "claim data",
			warns: []string{"so the fork's pods start on the node of the baseline's alone; an empty volume instead: " + noClaim, noService}},
		{name: "claim of one pod", spec: mounts, beside: claim("ReadWriteOncePod"), inherits: "claim data",
			warns: []string{"goes to one pod at a time (ReadWriteOncePod), so the fork's waits for the baseline's to end; an empty volume instead: " + noClaim, noService}},
		{name: "claim of many", spec: mounts, beside: claim("ReadWriteMany"), inherits: "claim data",
			warns: []string{"claim data is written to by fork and baseline alike; an empty volume instead: " + noClaim, noService}},
		{name: "claim of many, read", spec: reads, beside: claim("ReadWriteMany"), inherits: "claim data", warns: []string{noService}},
		{name: "claim that can't be read", spec: mounts, inherits: "claim data", warns: []string{"(its access modes could not be read)", noService}},
		{name: "host port", spec: `containers: [{name: api, image: "api:1", ports: [{containerPort: 8080, hostPort: 80}]}]`,
			warns: []string{`take port 80 of their node (hostPort): where the baseline's run they stay Pending, and elsewhere they get what comes to that port; without it: --patch='{"spec":{"containers":[{"name":"api","ports":[{"containerPort":8080,"hostPort":null}]}]}}'`, noService}},
		{name: "host path", kind: "DaemonSet", spec: `volumes: [{name: log, hostPath: {path: /var/log}}], containers: [{name: api, image: "api:1", volumeMounts: [{name: log, mountPath: /log}]}]`, inherits: "host path /var/log",
			warns: []string{`fork and baseline write to the same /var/log (hostPath); an empty volume instead: --patch='{"spec":{"volumes":[{"emptyDir":{},"hostPath":null,"name":"log"}]}}'`, noService}},
		{name: "host path, read", kind: "DaemonSet", spec: `volumes: [{name: log, hostPath: {path: /var/log}}], containers: [{name: api, image: "api:1", volumeMounts: [{name: log, mountPath: /log, readOnly: true}]}]`, inherits: "host path /var/log",
			warns: []string{noService}},
		{name: "host network", spec: `hostNetwork: true, containers: [{name: api, image: "api:1", ports: [{containerPort: 80, hostPort: 80}]}]`,
			warns: []string{`on one node both can't; a network of their own instead: --patch='{"spec":{"containers":[{"name":"api","ports":[{"containerPort":80,"hostPort":null}]}],"hostNetwork":null}}'`, noService}},
		{name: "node name", spec: `nodeName: n1`,
			warns: []string{`bound to node n1 past the scheduler (nodeName), and fail where it has no room for them; scheduled instead: --patch='{"spec":{"nodeName":null}}'`, noService}},
		{name: "static IP by Calico", meta: `annotations: {cni.projectcalico.org/ipAddrs: '["10.0.0.1"]'}`,
			warns: []string{`annotation cni.projectcalico.org/ipAddrs asks for the address that the baseline's pods have: the fork's do not start, or take it from them; without it: --patch='{"metadata":{"annotations":{"cni.projectcalico.org/ipAddrs":null}}}'`, noService}},
		{name: "static IP by Kube-OVN", meta: `annotations: {ovn.kubernetes.io/ip_address: 10.0.0.1, net1.default.ovn.kubernetes.io/ip_address: 10.1.0.1, ovn.kubernetes.io/logical_switch: a}`,
			warns: []string{"annotation net1.default.ovn.kubernetes.io/ip_address, ovn.kubernetes.io/ip_address asks for", noService}},
		{name: "static IP by Multus", meta: `annotations: {k8s.v1.cni.cncf.io/networks: '[{"name": "a", "ips": ["10.0.0.1/24"]}]'}`, warns: []string{"annotation k8s.v1.cni.cncf.io/networks asks for", noService}},
		{name: "networks by Multus", meta: `annotations: {k8s.v1.cni.cncf.io/networks: "a, b"}`, warns: []string{noService}},
		{name: "static MAC by Cilium", meta: `annotations: {cni.cilium.io/mac-address: "0a:58:0a:00:00:01"}`, warns: []string{"annotation cni.cilium.io/mac-address asks for", noService}},
		{name: "leader election by flag", spec: `containers: [{name: api, image: "api:1", args: [--leader-elect-resource-name=x]}]`,
			warns: []string{"leader election (--leader-elect-resource-name): it waits while a pod of the baseline leads, and may lead in its place later; to keep it out, give it no pods: --replicas=0", noService}},
		{name: "leader election switched off", spec: `containers: [{name: api, image: "api:1", args: [--leader-elect=false]}]`, warns: []string{noService}},
		{name: "leader election by variable", spec: `containers: [{name: api, image: "api:1", env: [{name: LEADER_ELECTION_ID, value: x}]}]`,
			warns: []string{"leader election (env LEADER_ELECTION_ID): it waits", noService}},
		{name: "leader election by a Lease", beside: `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: leader}, spec: {holderIdentity: api-6d4cf56db6-x7k2p_1b2c}}`,
			warns: []string{"leader election (lease/leader)", noService}},
		{name: "a Lease that another holds", beside: `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: leader}, spec: {holderIdentity: api-server-6d4cf56db6-x7k2p}}`, warns: []string{noService}},
		{name: "a Lease of a StatefulSet's pod", kind: "StatefulSet", beside: `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: leader}, spec: {holderIdentity: api-0}}`,
			warns: []string{"leader election (lease/leader)", noService}},
		{name: "consumer of a queue", spec: `containers: [{name: api, image: "api:1"}]`, warns: []string{noService + ", so no request is routed to its fork, which runs beside it: from a queue it would take the baseline's messages (--replicas=0 keeps it from that)"}},
		{name: "consumer of a queue without pods", spec: `containers: [{name: api, image: "api:1", args: [--leader-elect]}]`, args: []string{"--replicas=0"}},
		{name: "all that is bound to a node", kind: "DaemonSet",
			spec: `hostNetwork: true, nodeName: n1, serviceAccountName: agent, volumes: [{name: run, hostPath: {path: /run}}, {name: lib, hostPath: {path: /lib}}], ` +
				`initContainers: [{name: side, image: "s:1", restartPolicy: Always, ports: [{containerPort: 99, hostPort: 99}]}], containers: [{name: api, image: "api:1", args: [-leader-election], volumeMounts: [{name: run, mountPath: /run}, {name: lib, mountPath: /lib}]}]`,
			inherits: "service account agent; host paths /lib, /run",
			warns:    []string{"the same /run, /lib (hostPath)", "(hostNetwork)", "(nodeName)", "(-leader-election)", noService}},
		{name: "routed, behind a Service",
			meta:   `labels: {app: api, team: shop, kubectl-sandbox.dev/role: baseline, kubectl-sandbox.dev/workload: deployment.api}, annotations: {kubectl-sandbox.dev/ports: http=8080}`,
			beside: `{apiVersion: v1, kind: Service, metadata: {name: api}, spec: {selector: {app: api}, ports: [{port: 80}]}}`},
		{name: "what could not be read", warns: []string{noService, "could not read poddisruptionbudgets.policy, statefulsets.apps: whether they select the forks' pods is not known"},
			state: func(s *forks.State) {
				s.Objects.Unread = []string{"poddisruptionbudgets.policy", "statefulsets.apps"}
			}},
	}
}

func shapesOfSelectors() []workloadShape {
	const other = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: other}, spec: `
	service := func(selector string) string {
		return `{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: ` + selector + `, ports: [{port: 53, protocol: UDP}]}}`
	}
	budget := func(selector string) string {
		return `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}, spec: {selector: ` + selector + `}}`
	}
	monitor := func(spec string) string {
		return `{apiVersion: monitoring.coreos.com/v1, kind: PodMonitor, metadata: {name: m}, spec: {` + spec + `}}`
	}
	const autoscaler = `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h}, spec: {maxReplicas: 3, scaleTargetRef: `
	const taken = "selects the pods of the fork, deployment.apps/api-pr-42, and would take them for its own"
	const counted = "poddisruptionbudget.policy/b selects the pods of the fork, deployment.apps/api-pr-42, and would count them as the baseline's"
	keep := func(names ...string) (args []string) {
		for _, n := range names {
			args = append(args, "--keep-label="+n)
		}
		return args
	}
	return []workloadShape{
		{name: "selectors by the baseline's labels", warns: []string{noService}, beside: budget(`{matchLabels: {app: api}}`) + "\n---\n" +
			budget(`{matchExpressions: [{key: team, operator: Exists}]}`) + "\n---\n" + service(`{app: api2}`) + "\n---\n" + autoscaler + `{apiVersion: apps/v1, kind: Deployment, name: api}}}`},
		{name: "kept label", args: keep("team"), labels: []string{"team"}, warns: []string{noService}},
		{name: "kept label that nothing selects by alone", args: keep("team"), labels: []string{"team"}, warns: []string{noService}, beside: budget(`{matchLabels: {app: api, team: shop}}`)},
		{name: "kept labels", args: keep("team", "app"), problem: "--keep-label app: with it, deployment.apps/api " + taken, fix: forkAgain + " --keep-label=team"},
		{name: "kept label that no pod has", args: keep("nope"), problem: "--keep-label nope: the pods of deployment.apps/api have no such label; there is app, team", fix: forkAgain},
		{name: "kept label of a Service's selector", args: keep("team"), beside: service(`{team: shop}`),
			problem: "--keep-label team: with it, service/s selects the pods of the fork, deployment.apps/api-pr-42, and would send requests to them that are the baseline's", fix: forkAgain},
		{name: "kept label of a budget's selector", args: keep("team"), beside: budget(`{matchExpressions: [{key: team, operator: In, values: [shop, bank]}]}`),
			problem: "--keep-label team: with it, " + counted, fix: forkAgain},
		{name: "kept label of a Deployment's selector", args: keep("team"), beside: other + `{selector: {matchLabels: {team: shop}}, template: {}}}`,
			problem: "--keep-label team: with it, deployment.apps/other " + taken, fix: forkAgain},
		{name: "kept label of a StatefulSet's selector", kind: "StatefulSet", args: keep("app"), problem: "--keep-label app: with it, statefulset.apps/api " + taken,
			fix: "kubectl sandbox fork statefulset/api --name=pr-42 --image=pr:1"},
		{name: "kept label of a custom kind's selector", kind: "argoproj.io/v1alpha1#Rollout", args: keep("app"), problem: "--keep-label app: with it, rollout.argoproj.io/api " + taken,
			fix: "kubectl sandbox fork rollout.argoproj.io/api --name=pr-42 --image=pr:1"},
		{name: "kept label of an autoscaler's target", args: keep("app"), beside: autoscaler + `{apiVersion: apps/v1, kind: Deployment, name: api}}}`,
			problem: taken + ", and horizontalpodautoscaler/h would measure them with it", fix: forkAgain},
		{name: "kept label of an autoscaler's custom target", args: keep("team"),
			beside: autoscaler + `{apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: web}}}` + "\n---\n" +
				`{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: web}, status: {selector: team=shop}}`,
			problem: "--keep-label team: with it, rollout.argoproj.io/web " + taken + ", and horizontalpodautoscaler/h", fix: forkAgain},
		{name: "kept label by which one of two suffices", args: keep("team", "tier"), meta: `labels: {app: api, team: shop, tier: web}`,
			beside:  budget(`{matchExpressions: [{key: tier, operator: Exists}]}`),
			problem: "--keep-label tier: with it, " + counted, fix: forkAgain + " --keep-label=team"},
		{name: "budget over everything", beside: budget(`{}`), problem: counted,
			fix: `kubectl patch poddisruptionbudget/b --type=merge '--patch={"spec":{"selector":{"matchExpressions":[{"key":"kubectl-sandbox.dev/sandbox","operator":"DoesNotExist"}]}}}'`},
		{name: "budget by absence", beside: budget(`{matchExpressions: [{key: batch, operator: DoesNotExist}]}`), problem: counted,
			fix: `kubectl patch poddisruptionbudget/b --type=merge '--patch={"spec":{"selector":{"matchExpressions":[{"key":"batch","operator":"DoesNotExist"},{"key":"kubectl-sandbox.dev/sandbox","operator":"DoesNotExist"}]}}}'`},
		{name: "budget by exclusion", beside: budget(`{matchExpressions: [{key: app, operator: NotIn, values: [db]}]}`), problem: counted,
			fix: `kubectl patch poddisruptionbudget/b --type=merge '--patch={"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["db"]},{"key":"kubectl-sandbox.dev/sandbox","operator":"DoesNotExist"}]}}}'`},
		{name: "budget without a selector", beside: budget(`null`), warns: []string{noService}},
		{name: "budgets, several", beside: budget(`{}`) + "\n---\n" + `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: c}, spec: {selector: {}}}`, problem: counted + "; so do poddisruptionbudget.policy/c",
			fix: `kubectl patch poddisruptionbudget/b --type=merge '--patch={"spec":{"selector":{"matchExpressions":[{"key":"kubectl-sandbox.dev/sandbox","operator":"DoesNotExist"}]}}}'`},
		{name: "Service by our labels", beside: service(`{kubectl-sandbox.dev/workload: deployment.api}`),
			problem: "service/s selects the pods of the fork, deployment.apps/api-pr-42, and would send",
			fix:     `kubectl patch service/s --type=merge '--patch={"spec":{"selector":{"kubectl-sandbox.dev/role":"baseline"}}}'`},
		{name: "Service without a selector", beside: service(`{}`), warns: []string{noService}},
		{name: "Service of a revision", beside: service(`{pod-template-hash: abc}`), warns: []string{noService}},
		{name: "Deployment by absence of a label that the baseline has", beside: other + `{selector: {matchExpressions: [{key: team, operator: DoesNotExist}]}, template: {}}}`,
			problem: "deployment.apps/other " + taken, fix: forkAgain + " --keep-label=team"},
		{name: "ReplicaSet by exclusion", beside: `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: rs}, spec: {selector: {matchExpressions: [{key: app, operator: NotIn, values: [x]}]}, template: {}}}`,
			problem: "replicaset.apps/rs " + taken + "; a selector can't be changed", fix: "kubectl get replicaset.apps/rs -o yaml"},
		{name: "DaemonSet by what every Deployment's pods have", beside: `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: ds}, spec: {selector: {matchExpressions: [{key: pod-template-hash, operator: Exists}]}, template: {}}}`,
			problem: "daemonset.apps/ds " + taken, fix: "kubectl get daemonset.apps/ds -o yaml"},
		{name: "PodMonitor over everything", beside: monitor(`selector: {}`), warns: []string{noService, "podmonitor.monitoring.coreos.com/m selects the pods of deployment.apps/api-pr-42 as well"}},
		{name: "PodMonitor of another namespace", beside: `{apiVersion: monitoring.coreos.com/v1, kind: PodMonitor, metadata: {name: m, namespace: mon}, spec: {selector: {matchExpressions: [{key: x, operator: DoesNotExist}]}, namespaceSelector: {any: true}}}`,
			warns: []string{noService, "podmonitor.monitoring.coreos.com/m of namespace mon selects"}},
		{name: "PodMonitors that do not", warns: []string{noService}, beside: monitor(`selector: {matchLabels: {app: api}}`) + "\n---\n" + monitor(`selector: {}, namespaceSelector: {matchNames: [mon]}`) +
			"\n---\n" + `{apiVersion: monitoring.coreos.com/v1, kind: PodMonitor, metadata: {name: m, namespace: mon}, spec: {selector: {}}}`},
		{name: "placement of others by everything", warns: []string{noService, "deployment.apps/other places its pods by its anti-affinity and topology spread, which counts those of deployment.apps/api-pr-42 as well"},
			beside: other + `{selector: {matchLabels: {app: other}}, template: {spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h, labelSelector: {}}]}}, ` +
				`topologySpreadConstraints: [{topologyKey: h, whenUnsatisfiable: DoNotSchedule, maxSkew: 1, labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [x]}]}}]}}}}`},
		{name: "placement of others that only prefers", warns: []string{noService},
			beside: other + `{selector: {matchLabels: {app: other}}, template: {spec: {affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: h, labelSelector: {}}}]}}, ` +
				`topologySpreadConstraints: [{topologyKey: h, whenUnsatisfiable: ScheduleAnyway, maxSkew: 1, labelSelector: {}}]}}}}`},
		{name: "placement of others by a kept label", args: keep("team"), labels: []string{"team"}, warns: []string{noService, "deployment.apps/other places its pods by its affinity, which counts"},
			beside: other + `{selector: {matchLabels: {app: other}}, template: {spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h, labelSelector: {matchLabels: {team: shop}}}]}}}}}}`},
	}
}
