package routes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Baseline names a workload by the label that its pods, its forks and its forks' pods carry.
type Baseline struct {
	Namespace string
	Workload  string // sandbox.WorkloadLabel
}

func (b Baseline) String() string { return b.Namespace + "/" + b.Workload }

// A Fork is what the cluster holds of one fork: all that its route is made from.
type Fork struct {
	Deployment *appsv1.Deployment
	Pods       []*corev1.Pod
	Revisions  map[types.UID]int64 // of the Deployment's ReplicaSets, by UID
}

// A Problem says why a fork has no route of its own.
type Problem struct {
	Reason  string // CamelCase, as in a condition
	Message string
}

// Reasons of a Problem.
const (
	ReasonKeyTaken   = "KeyTaken"
	ReasonKeyInvalid = "KeyInvalid"
)

// Build makes the routes of one baseline from its forks, by routing key. Of two forks with the same key the older has it; a
// fork that got no route is in problems, by its sandbox. Build keeps nothing of forks and changes nothing in them.
func Build(forks []Fork) (routes map[string]route.Fork, problems map[string]Problem) {
	forks = slices.SortedFunc(slices.Values(forks), func(a, b Fork) int {
		return cmp.Or(a.Deployment.CreationTimestamp.Compare(b.Deployment.CreationTimestamp.Time),
			cmp.Compare(a.Deployment.Name, b.Deployment.Name))
	})
	routes = make(map[string]route.Fork, len(forks))
	for _, f := range forks {
		d := f.Deployment
		if d.DeletionTimestamp != nil {
			continue
		}
		key := d.Annotations[sandbox.AnnotationKey]
		var problem Problem
		if err := sandbox.ValidateKey(key); err != nil {
			problem = Problem{ReasonKeyInvalid, fmt.Sprintf("annotation %s %q %v", sandbox.AnnotationKey, key, err)}
		} else if other, taken := routes[key]; taken {
			problem = Problem{ReasonKeyTaken, fmt.Sprintf("key %q is taken by the older fork %s of sandbox %s; delete one of the two",
				key, other.Name, other.Sandbox)}
		} else {
			routes[key] = buildRoute(f)
			continue
		}
		if problems == nil {
			problems = map[string]Problem{}
		}
		problems[d.Labels[sandbox.LabelSandbox]] = problem
	}
	return routes, problems
}

func buildRoute(f Fork) route.Fork {
	r := route.Fork{
		Sandbox:  f.Deployment.Labels[sandbox.LabelSandbox],
		Name:     f.Deployment.Name,
		FallBack: f.Deployment.Annotations[sandbox.AnnotationWhenUnready] == sandbox.WhenUnreadyBaseline,
	}
	serving := newest(f.Pods, f.Revisions, serves)
	if len(serving) == 0 {
		r.Reason = reason(f)
		return r
	}
	r.Pods = make([]route.Pod, len(serving))
	for i, pod := range serving {
		r.Pods[i] = route.Pod{Name: pod.Name, UID: string(pod.UID), IP: pod.Status.PodIP, Ports: ports(pod)}
	}
	return r
}

// newest returns those pods that are ok and of the newest revision that has any such, in order of name. A pod whose
// ReplicaSet has not been seen yet counts as older than all others: it serves as soon as it is seen, and until then the
// pods before it go on.
func newest(pods []*corev1.Pod, revisions map[types.UID]int64, ok func(*corev1.Pod) bool) []*corev1.Pod {
	var found []*corev1.Pod
	best := int64(-1)
	for _, pod := range pods {
		if !ok(pod) {
			continue
		}
		switch revision := revisionOf(pod, revisions); {
		case revision < best:
			continue
		case revision > best:
			best, found = revision, found[:0]
		}
		found = append(found, pod)
	}
	slices.SortFunc(found, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

func revisionOf(pod *corev1.Pod, revisions map[types.UID]int64) int64 {
	for i := range pod.OwnerReferences {
		if r, ok := revisions[pod.OwnerReferences[i].UID]; ok {
			return r
		}
	}
	return 0
}

// serves says whether a fork's pod can take requests. The condition ContainersReady leaves readiness gates out, unlike Ready:
// a pod must be in the tables before its own gate can turn.
func serves(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.PodIP != "" && condition(pod, corev1.ContainersReady) == corev1.ConditionTrue
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return pod.Status.Conditions[i].Status
		}
	}
	return corev1.ConditionUnknown
}

// ports returns where the pod serves the captured ports, by name. They are always listed, not only where they differ from the
// baseline's: while a baseline rolls to other numbers, its pods differ from each other.
func ports(pod *corev1.Pod) map[string]uint16 {
	captured, err := sandbox.ParsePorts(pod.Annotations[sandbox.AnnotationPorts])
	if err != nil {
		return nil // the fork's own template is wrong: its router falls back to the baseline's numbers
	}
	var m map[string]uint16
	for _, want := range captured {
		for i := range pod.Spec.Containers {
			for _, p := range pod.Spec.Containers[i].Ports {
				if p.Name == want.Name && (p.Protocol == corev1.ProtocolTCP || p.Protocol == "") {
					if m == nil {
						m = make(map[string]uint16, len(captured))
					}
					m[p.Name] = uint16(p.ContainerPort) //nolint:gosec // the API server holds it to 1..65535
				}
			}
		}
	}
	return m
}

// Diff returns what turns the routes of from into those of to.
func Diff(from, to *route.Table) *route.Delta {
	d := &route.Delta{Base: from.Version, Version: to.Version}
	for key, f := range to.Routes {
		if old, ok := from.Routes[key]; !ok || !equal(old, f) {
			if d.Set == nil {
				d.Set = map[string]route.Fork{}
			}
			d.Set[key] = f
		}
	}
	for key := range from.Routes {
		if _, ok := to.Routes[key]; !ok {
			d.Remove = append(d.Remove, key)
		}
	}
	slices.Sort(d.Remove)
	return d
}

func equal(a, b route.Fork) bool {
	return a.Sandbox == b.Sandbox && a.Name == b.Name && a.FallBack == b.FallBack && a.Reason == b.Reason &&
		slices.EqualFunc(a.Pods, b.Pods, func(p, q route.Pod) bool {
			return p.Name == q.Name && p.UID == q.UID && p.IP == q.IP && maps.Equal(p.Ports, q.Ports)
		})
}
