package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/endpointslice"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A guardAction is a change that the guard makes to a Service.
type guardAction string

const (
	guardRestore guardAction = "put back" // names become numbers: a pod lacks the name
	guardForward guardAction = "forward"  // numbers become names again: all pods have them
	guardRelease guardAction = "release"  // names become numbers, and the record is dropped: the workloads are gone
	guardForget  guardAction = "forget"   // the remaining labels and annotations of a released Service are removed
)

// A guardDecision is an action and its result.
type guardDecision struct {
	action  guardAction                // empty: no change is needed
	targets map[int]intstr.IntOrString // new targetPorts, by index of the Service's port
	record  sandbox.TargetPorts        // after the action
	reason  string
	// named reports whether all recorded ports refer to names after the action.
	named bool
	// strays are pods that the Service selects but cannot reach: they lack the name, which the routed workloads' pods
	// have.
	strays []string
}

// decideService decides what the guard does to a Service whose selector matches pods. gone reports whether a workload,
// named as in AnnotationWorkloads, does not exist.
//
// Pods that are being deleted or have finished do not count. If the Service selects pods of routed workloads, only
// these decide; otherwise all do. A pod that fails to start gets no requests, so it causes no switch to numbers. But
// the Service keeps its numbers until that pod has the name as well, so that a crash loop does not switch it back and
// forth.
func decideService(s *corev1.Service, pods []corev1.Pod, gone func(workload string) bool) (guardDecision, error) {
	text := s.Annotations[sandbox.AnnotationTargetPorts]
	if text == "" {
		return guardDecision{action: guardForget}, nil
	}
	record, err := sandbox.ParseTargetPorts(text)
	if err != nil {
		return guardDecision{}, err
	}
	if len(record) == 0 {
		return guardDecision{action: guardForget}, nil
	}
	workloads := sandbox.ParseWorkloads(s.Annotations[sandbox.AnnotationWorkloads])
	if len(workloads) > 0 && !slices.ContainsFunc(workloads, func(w string) bool { return !gone(w) }) {
		return release(s, record, strings.Join(workloads, ", ")+" deleted"), nil
	}
	if len(s.Spec.Selector) == 0 {
		return guardDecision{}, nil
	}
	return decidePorts(s, record, sortPods(workloads, pods)), nil
}

func release(s *corev1.Service, record sandbox.TargetPorts, reason string) guardDecision {
	d := guardDecision{action: guardRelease, targets: map[int]intstr.IntOrString{}, record: sandbox.TargetPorts{}, reason: reason}
	for i := range s.Spec.Ports {
		if target, ok := recorded(record, &s.Spec.Ports[i]); ok && s.Spec.Ports[i].TargetPort == intstr.FromString(target.Name) {
			d.targets[i] = intstr.FromInt32(int32(target.Number))
		}
	}
	return d
}

func decidePorts(s *corev1.Service, record sandbox.TargetPorts, pods guardedPods) guardDecision {
	d := guardDecision{targets: map[int]intstr.IntOrString{}, record: maps.Clone(record), named: true}
	forward := map[int]sandbox.TargetPort{}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		target, ok := recorded(record, p)
		switch {
		case !ok:
		case p.TargetPort == intstr.FromString(target.Name):
			if pod := pods.lacking(p); pod != "" {
				d.targets[i] = intstr.FromInt32(int32(target.Number))
				d.reason = fmt.Sprintf("pod %s has no port named %s", pod, target.Name)
			}
			for _, pod := range pods.others {
				if _, err := endpointslice.FindPort(pod, p); err != nil && !slices.Contains(d.strays, pod.Name) {
					d.strays = append(d.strays, pod.Name)
				}
			}
		case p.TargetPort.Type == intstr.Int:
			number := uint16(p.TargetPort.IntVal) //nolint:gosec // the API server admits 1 to 65535
			if name := pods.name(p, number, target.Name); name != "" {
				forward[i] = sandbox.TargetPort{Number: number, Name: name}
			} else {
				d.named = false
			}
		}
	}
	switch {
	case len(d.targets) > 0:
		d.action, d.named = guardRestore, false
	case len(forward) > 0:
		d.action = guardForward
		for i, target := range forward {
			d.targets[i] = intstr.FromString(target.Name)
			d.record[sandbox.PortKey(string(s.Spec.Ports[i].Protocol), s.Spec.Ports[i].Port)] = target
		}
	}
	return d
}

func recorded(record sandbox.TargetPorts, p *corev1.ServicePort) (sandbox.TargetPort, bool) {
	target, ok := record[sandbox.PortKey(string(p.Protocol), p.Port)]
	return target, ok
}

// guardedPods are the pods of a Service: those that decide, and all others.
type guardedPods struct{ deciding, others []*corev1.Pod }

func sortPods(workloads []string, pods []corev1.Pod) guardedPods {
	var routed []string
	for _, w := range workloads {
		routed = append(routed, sandbox.LabelOf(w))
	}
	for i := range pods {
		if of := pods[i].Labels; of[sandbox.LabelRole] == sandbox.RoleBaseline && len(workloads) == 0 {
			routed = append(routed, of[sandbox.LabelWorkload]) // a Service that an earlier version switched has no list
		}
	}
	var g guardedPods
	for i := range pods {
		switch pod := &pods[i]; {
		case finished(pod):
		case slices.Contains(routed, workloadOf(pod)):
			g.deciding = append(g.deciding, pod)
		default:
			g.others = append(g.others, pod)
		}
	}
	if len(g.deciding) == 0 {
		return guardedPods{deciding: g.others}
	}
	return g
}

// workloadOf returns the workload of a pod in the form of LabelWorkload, by its labels or by its owner. The controllers
// of Deployments and Rollouts name a ReplicaSet after its owner and the hash of its template.
func workloadOf(pod *corev1.Pod) string {
	if pod.Labels[sandbox.LabelRole] == sandbox.RoleBaseline {
		return pod.Labels[sandbox.LabelWorkload]
	}
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return ""
	}
	if owner.Kind == "ReplicaSet" {
		for label, kind := range map[string]string{"pod-template-hash": "Deployment", "rollouts-pod-template-hash": "Rollout"} {
			if name, ok := strings.CutSuffix(owner.Name, "-"+pod.Labels[label]); ok && pod.Labels[label] != "" {
				return sandbox.WorkloadLabel(kind, name)
			}
		}
	}
	return sandbox.WorkloadLabel(owner.Kind, owner.Name)
}

// lacking returns a deciding pod that may get requests and lacks the port's name; empty if there is none.
func (g guardedPods) lacking(p *corev1.ServicePort) string {
	for _, pod := range g.deciding {
		if _, err := endpointslice.FindPort(pod, p); err != nil && !stalled(pod) {
			return pod.Name
		}
	}
	return ""
}

// name returns a port name that refers to number in all deciding pods, preferably wanted; empty if there is none, or no
// pod.
func (g guardedPods) name(p *corev1.ServicePort, number uint16, wanted string) string {
	var names []string
	for i, pod := range g.deciding {
		if i == 0 {
			names = namesOf(pod, p.Protocol, number)
			continue
		}
		also := namesOf(pod, p.Protocol, number)
		names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(also, name) })
	}
	switch {
	case slices.Contains(names, wanted):
		return wanted
	case len(names) > 0:
		return names[0]
	}
	return ""
}

// namesOf returns the names that refer to the app's port of that number, directly or through the router.
func namesOf(pod *corev1.Pod, protocol corev1.Protocol, number uint16) []string {
	var captures []sandbox.Capture
	for i := range pod.Spec.InitContainers {
		for _, env := range pod.Spec.InitContainers[i].Env {
			if pod.Spec.InitContainers[i].Name == sandbox.RouterContainer && env.Name == sandbox.EnvRouterPorts {
				captures, _ = sandbox.ParseCaptures(env.Value) // unreadable: names refer to the router's ports
			}
		}
	}
	var names []string
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for _, port := range containers[i].Ports {
				found, err := endpointslice.FindPort(pod, &corev1.ServicePort{Protocol: protocol, TargetPort: intstr.FromString(port.Name)})
				if port.Name == "" || err != nil {
					continue
				}
				for _, c := range captures {
					if found == int(c.Listen) {
						found = int(c.Number)
						break
					}
				}
				if found == int(number) && !slices.Contains(names, port.Name) {
					names = append(names, port.Name)
				}
			}
		}
	}
	return names
}

// Named reports whether all pods that a Service selects have the names of its targetPorts. If it selects pods of routed
// workloads, only these count. It returns false if no pod is known. The reader may strip pods to what package health
// reads.
func Named(ctx context.Context, pods client.Reader, s *corev1.Service) bool {
	if len(s.Spec.Selector) == 0 {
		return false
	}
	var selected corev1.PodList
	err := pods.List(ctx, &selected, client.InNamespace(s.Namespace), client.MatchingLabels(s.Spec.Selector),
		client.MatchingLabels{sandbox.LabelRole: sandbox.RoleBaseline}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return false
	}
	known := sortPods(sandbox.ParseWorkloads(s.Annotations[sandbox.AnnotationWorkloads]), selected.Items)
	for _, pod := range known.deciding {
		for i := range s.Spec.Ports {
			if p := &s.Spec.Ports[i]; p.TargetPort.Type == intstr.String && !hasName(pod, p) {
				return false
			}
		}
	}
	return len(known.deciding) > 0
}

// hasName reports whether a pod has the named targetPort of a Service's port. Admission moves captured names to the
// router, and records them on the pod.
func hasName(pod *corev1.Pod, p *corev1.ServicePort) bool {
	captured, _ := sandbox.ParsePorts(pod.Annotations[sandbox.AnnotationPorts]) // if unreadable, only the containers' ports count
	if health.HasRouter(pod) && slices.ContainsFunc(captured, func(c sandbox.Port) bool { return c.Name == p.TargetPort.StrVal }) {
		return true
	}
	_, err := endpointslice.FindPort(pod, p)
	return err == nil
}

func finished(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// stalled reports whether a pod cannot run: it has no node, or one of its containers fails to start.
func stalled(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return true
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			if w := statuses[i].State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
				return true
			}
		}
	}
	return false
}

// patch returns the JSON patch of the decision. Its tests fail if the Service has changed since.
func (d *guardDecision) patch(s *corev1.Service, note sandbox.Restored) ([]byte, error) {
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	pointer := func(field, key string) string { return "/metadata/" + field + "/" + strings.ReplaceAll(key, "/", "~1") }
	ops := []op{{"test", "/metadata/uid", s.UID}}
	drop := func(field, key string, in map[string]string) {
		if value, ok := in[key]; ok {
			ops = append(ops, op{"test", pointer(field, key), value}, op{"remove", pointer(field, key), nil})
		}
	}
	for _, i := range slices.Sorted(maps.Keys(d.targets)) {
		at := fmt.Sprintf("/spec/ports/%d/", i)
		ops = append(ops,
			op{"test", at + "port", s.Spec.Ports[i].Port},
			op{"test", at + "protocol", s.Spec.Ports[i].Protocol},
			op{"test", at + "targetPort", s.Spec.Ports[i].TargetPort},
			op{"replace", at + "targetPort", d.targets[i]})
	}
	record := pointer("annotations", sandbox.AnnotationTargetPorts)
	if d.action != guardForget {
		ops = append(ops, op{"test", record, s.Annotations[sandbox.AnnotationTargetPorts]}, op{"replace", record, sandbox.FormatTargetPorts(d.record)})
	}
	switch d.action {
	case guardRestore:
		ops = append(ops, op{"add", pointer("annotations", sandbox.AnnotationRestored), sandbox.FormatRestored(note)})
	case guardForward:
		if d.named {
			drop("annotations", sandbox.AnnotationRestored, s.Annotations)
		}
	case guardForget:
		drop("annotations", sandbox.AnnotationTargetPorts, s.Annotations)
		drop("annotations", sandbox.AnnotationRestored, s.Annotations)
		drop("annotations", sandbox.AnnotationWorkloads, s.Annotations)
		drop("labels", sandbox.LabelRole, s.Labels)
	}
	return json.Marshal(ops)
}
