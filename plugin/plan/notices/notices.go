// Package notices says what the pods of a fork share with those of their baseline, take from them, or lack beside them.
package notices

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// A Copy is a planned fork, beside the baseline that its pods are copied from.
type Copy struct {
	Workload   *plan.Workload
	Deployment *unstructured.Unstructured // of the fork
	Template   map[string]any             // the baseline's pod template with the fork's change
	// KeptForAdmission are the labels that the fork's pods keep because admission webhooks read them.
	KeptForAdmission []string
	// Reached means that a Service sends requests to the baseline, and Gated that the fork's pods wait for its routers.
	Reached, Gated bool
}

// Notices are what is to be said of a fork's pods.
type Notices struct {
	// Inherits lists what they share with the baseline's and with no other pods, such as Secrets; often empty.
	Inherits string
	// Lacks is what the baseline's kind gives its pods and a Deployment does not, if the template does not visibly
	// rely on it; often empty.
	Lacks string
	// Warnings are what makes the fork or its baseline behave unexpectedly.
	Warnings []string
}

// A noticeMaker reports what one fork inherits from its baseline that two workloads can't have, or should not share.
type noticeMaker struct {
	*Copy
	pod      *corev1.PodTemplateSpec // of the fork
	objects  *plan.NamespaceObjects
	warnings []string
}

// Of lists what a fork inherits, and warns of what makes the fork or its baseline behave unexpectedly. It does
// not mention what is usual.
func Of(c *Copy, objects *plan.NamespaceObjects) Notices {
	template, _, _ := unstructured.NestedMap(c.Deployment.Object, "spec", "template")
	var pod corev1.PodTemplateSpec
	if runtime.DefaultUnstructuredConverter.FromUnstructured(template, &pod) != nil {
		return Notices{} // the API server will report why it is not a pod template
	}
	m := &noticeMaker{Copy: c, pod: &pod, objects: objects}
	inherits := m.inherited()
	for _, what := range fork.Lost(c.Workload.Template()) {
		m.warn("can't be kept in a fork: %s", what)
	}
	lacks := m.kind()
	m.claimTemplates()
	m.aimed()
	m.claims()
	m.hostPaths()
	m.network()
	m.node()
	m.addresses()
	if replicas, _, _ := unstructured.NestedInt64(c.Deployment.Object, "spec", "replicas"); replicas > 0 {
		m.election()
		if !c.Reached && !c.Gated {
			m.warn("no Service selects it, so no request is routed to its fork, which runs beside it: from a queue it would take the baseline's messages (--replicas=0 keeps it from that)")
		}
	}
	return Notices{Inherits: inherits, Lacks: lacks, Warnings: m.warnings}
}

func (m *noticeMaker) warn(format string, args ...any) {
	m.warnings = append(m.warnings, fmt.Sprintf(m.Workload.String()+": "+format, args...))
}

// patchFlag returns the flag that changes the pod template by a strategic merge patch.
func patchFlag(patch any) string {
	b, err := json.Marshal(patch)
	if err != nil {
		panic(err) // strings, numbers and nulls always encode
	}
	return "--patch=" + plan.QuoteWord(string(b))
}

type jsonObject = map[string]any

// inherited lists the objects and places that the fork's pods share with the baseline's, except those that all pods
// share.
func (m *noticeMaker) inherited() string {
	spec := m.pod.Spec
	of := map[string][]string{}
	add := func(kind, name string) {
		if name != "" && !slices.Contains(of[kind], name) {
			of[kind] = append(of[kind], name)
		}
	}
	if spec.ServiceAccountName != "default" {
		add("service account", spec.ServiceAccountName)
	}
	for _, s := range spec.ImagePullSecrets {
		add("secret", s.Name)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil {
				add("secret", e.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				add("secret", e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	for _, v := range spec.Volumes {
		switch {
		case v.Secret != nil:
			add("secret", v.Secret.SecretName)
		case v.ConfigMap != nil:
			add("configmap", v.ConfigMap.Name)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.Secret != nil {
					add("secret", s.Secret.Name)
				}
				if s.ConfigMap != nil {
					add("configmap", s.ConfigMap.Name)
				}
			}
		case v.PersistentVolumeClaim != nil:
			add("claim", v.PersistentVolumeClaim.ClaimName)
		case v.HostPath != nil:
			add("host path", v.HostPath.Path)
		case v.EmptyDir == nil && v.Ephemeral == nil && v.DownwardAPI == nil:
			add("volume", v.Name) // of a driver that it is not for us to know
		}
	}
	for _, name := range m.KeptForAdmission {
		add("label", name)
	}
	var parts []string
	for _, kind := range []string{"label", "service account", "secret", "configmap", "claim", "host path", "volume"} {
		names := of[kind]
		slices.Sort(names)
		switch {
		case len(names) == 1:
			parts = append(parts, kind+" "+names[0])
		case len(names) > 1:
			parts = append(parts, kind+"s "+strings.Join(names, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// claimTemplates warns that empty volumes replace the claims of a StatefulSet.
func (m *noticeMaker) claimTemplates() {
	claims, _, _ := unstructured.NestedSlice(m.Workload.Object.Object, "spec", "volumeClaimTemplates")
	var names []string
	for _, c := range claims {
		if claim, ok := c.(jsonObject); ok {
			name, _, _ := unstructured.NestedString(claim, "metadata", "name")
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		m.warn("each pod of %s gets empty volumes of its own in place of those claimed for the baseline: %s", plan.DeploymentName(m.Deployment.GetName()), strings.Join(names, ", "))
	}
}

// aimed warns that placement rules now apply to the fork's own pods: see fork.Deployment.
func (m *noticeMaker) aimed() {
	own, _, _ := unstructured.NestedStringMap(m.Deployment.Object, "spec", "selector", "matchLabels")
	var what []string
	about := func(rule string, s *metav1.LabelSelector) {
		if s != nil && maps.Equal(s.MatchLabels, own) && !slices.Contains(what, rule) {
			what = append(what, rule)
		}
	}
	terms := func(rule string, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for _, t := range required {
			about(rule, t.LabelSelector)
		}
		for _, t := range preferred {
			about(rule, t.PodAffinityTerm.LabelSelector)
		}
	}
	if a := m.pod.Spec.Affinity; a != nil {
		if to := a.PodAffinity; to != nil {
			terms("affinity", to.RequiredDuringSchedulingIgnoredDuringExecution, to.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if to := a.PodAntiAffinity; to != nil {
			terms("anti-affinity", to.RequiredDuringSchedulingIgnoredDuringExecution, to.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	for _, t := range m.pod.Spec.TopologySpreadConstraints {
		about("topology spread", t.LabelSelector)
	}
	if len(what) > 0 {
		m.warn("the %s of %s is among its own pods, not with the baseline's", strings.Join(what, " and "), plan.DeploymentName(m.Deployment.GetName()))
	}
}

// written reports whether any container may write to the volume.
func (m *noticeMaker) written(volume string) bool {
	for _, c := range slices.Concat(m.pod.Spec.InitContainers, m.pod.Spec.Containers) {
		for _, v := range c.VolumeMounts {
			if v.Name == volume && !v.ReadOnly {
				return true
			}
		}
		if slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == volume }) {
			return true
		}
	}
	return false
}

// instead returns the flag that replaces the volumes of the fork, which come from source, by empty ones.
func instead(source string, volumes ...string) string {
	list := make([]jsonObject, len(volumes))
	for i, v := range volumes {
		list[i] = jsonObject{"name": v, source: nil, "emptyDir": jsonObject{}}
	}
	return patchFlag(jsonObject{"spec": jsonObject{"volumes": list}})
}

func (m *noticeMaker) claims() {
	for _, v := range m.pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		name := v.PersistentVolumeClaim.ClaimName
		at := slices.IndexFunc(m.objects.Claims, func(c corev1.PersistentVolumeClaim) bool { return c.Name == name })
		var modes []corev1.PersistentVolumeAccessMode
		if at >= 0 {
			modes = m.objects.Claims[at].Spec.AccessModes
		}
		has := func(mode corev1.PersistentVolumeAccessMode) bool { return slices.Contains(modes, mode) }
		writes := m.written(v.Name) && !v.PersistentVolumeClaim.ReadOnly
		var happens []string
		switch {
		case has(corev1.ReadWriteMany), len(modes) == 1 && has(corev1.ReadOnlyMany):
		case has(corev1.ReadWriteOncePod):
			happens = append(happens, "goes to one pod at a time (ReadWriteOncePod), so the fork's waits for the baseline's to end")
			writes = false
		case has(corev1.ReadWriteOnce):
			happens = append(happens, "is mounted on one node at a time (ReadWriteOnce), so the fork's pods start on the node of the baseline's alone")
		default:
			happens = append(happens, "may be one that is mounted on one node at a time (its access modes could not be read)")
		}
		if writes {
			happens = append(happens, "is written to by fork and baseline alike")
		}
		if len(happens) > 0 {
			m.warn("claim %s %s; an empty volume instead: %s", name, strings.Join(happens, ", and "), instead("persistentVolumeClaim", v.Name))
		}
	}
}

func (m *noticeMaker) hostPaths() {
	var volumes, paths []string
	for _, v := range m.pod.Spec.Volumes {
		if v.HostPath != nil && m.written(v.Name) {
			volumes, paths = append(volumes, v.Name), append(paths, v.HostPath.Path)
		}
	}
	if len(volumes) > 0 {
		m.warn("on a node where both run, fork and baseline write to the same %s (hostPath); an empty volume instead: %s",
			strings.Join(paths, ", "), instead("hostPath", volumes...))
	}
}

// network warns of host ports and of the host network.
func (m *noticeMaker) network() {
	var ports []string
	patches := map[string][]jsonObject{}
	lists := map[string][]corev1.Container{"containers": m.pod.Spec.Containers, "initContainers": m.pod.Spec.InitContainers}
	for _, list := range []string{"initContainers", "containers"} {
		for _, c := range lists[list] {
			var taken []jsonObject
			for _, p := range c.Ports {
				if p.HostPort != 0 {
					ports = append(ports, strconv.Itoa(int(p.HostPort)))
					taken = append(taken, jsonObject{"containerPort": p.ContainerPort, "hostPort": nil})
				}
			}
			if len(taken) > 0 {
				patches[list] = append(patches[list], jsonObject{"name": c.Name, "ports": taken})
			}
		}
	}
	spec := jsonObject{}
	for list, containers := range patches {
		spec[list] = containers
	}
	switch {
	case m.pod.Spec.HostNetwork:
		spec["hostNetwork"] = nil
		m.warn("the fork's pods listen on their node's own ports, as the baseline's do (hostNetwork): on one node both can't; a network of their own instead: %s", patchFlag(jsonObject{"spec": spec}))
	case len(ports) > 0:
		m.warn("the fork's pods take port %s of their node (hostPort): where the baseline's run they stay Pending, and elsewhere they get what comes to that port; without it: %s",
			strings.Join(ports, ", "), patchFlag(jsonObject{"spec": spec}))
	}
}

func (m *noticeMaker) node() {
	if n := m.pod.Spec.NodeName; n != "" {
		m.warn("the fork's pods are bound to node %s past the scheduler (nodeName), and fail where it has no room for them; scheduled instead: %s", n, patchFlag(jsonObject{"spec": jsonObject{"nodeName": nil}}))
	}
}

// fixesAddress reports whether a pod annotation gives the pod an address that no other pod can have. The known ones
// are those of Calico (ipAddrs, ipAddrsNoIpam, floatingIPs, hwAddr), Kube-OVN (ip_address, ip_pool, mac_address, with
// the network's name in front for further networks), Cilium (mac-address), Antrea (pod-ips) and Multus (ips and mac
// in a list of networks).
func fixesAddress(name, value string) bool {
	switch name {
	case "cni.projectcalico.org/ipAddrs", "cni.projectcalico.org/ipAddrsNoIpam", "cni.projectcalico.org/floatingIPs", "cni.projectcalico.org/hwAddr",
		"cni.cilium.io/mac-address", "ipam.antrea.io/pod-ips":
		return true
	case "k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network":
		var networks []struct {
			IPs []string `json:"ips"`
			MAC string   `json:"mac"`
		}
		// A plain list of names is not JSON and requests no address.
		return json.Unmarshal([]byte(value), &networks) == nil &&
			slices.ContainsFunc(networks, func(n struct {
				IPs []string `json:"ips"`
				MAC string   `json:"mac"`
			}) bool {
				return len(n.IPs) > 0 || n.MAC != ""
			})
	}
	domain, field, _ := strings.Cut(name, "/")
	return (domain == "ovn.kubernetes.io" || strings.HasSuffix(domain, ".ovn.kubernetes.io")) &&
		slices.Contains([]string{"ip_address", "ip_pool", "mac_address"}, field)
}

func (m *noticeMaker) addresses() {
	var names []string
	without := jsonObject{}
	for _, name := range slices.Sorted(maps.Keys(m.pod.Annotations)) {
		if fixesAddress(name, m.pod.Annotations[name]) {
			names, without[name] = append(names, name), nil
		}
	}
	if len(names) > 0 {
		m.warn("annotation %s asks for the address that the baseline's pods have: the fork's do not start, or take it from them; without it: %s",
			strings.Join(names, ", "), patchFlag(jsonObject{"metadata": jsonObject{"annotations": without}}))
	}
}
