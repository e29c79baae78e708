package routes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Baseline identifies a workload by the label that its pods, its forks and its forks' pods carry.
type Baseline struct {
	Namespace string
	Workload  string // sandbox.WorkloadLabel
}

func (b Baseline) String() string { return b.Namespace + "/" + b.Workload }

// A Fork holds the objects of one fork that its route is built from.
type Fork struct {
	Deployment *appsv1.Deployment
	Pods       []*corev1.Pod
	Revisions  map[types.UID]int64 // of the Deployment's ReplicaSets, by UID
}

// claims are the routes that the forks of one baseline claim, one for each fork's key. If two forks have the same key,
// the older one gets the route. A change costs as much as the forks with the same keys, not as all forks.
type claims struct {
	now       func() time.Time
	bySandbox map[string]*claim
	byKey     map[string][]*claim // the oldest first
}

// A claim is the claim of one fork.
type claim struct {
	sandbox string
	name    string // of the Deployment
	guest   bool   // of a neighbour's fork: see neighbours
	created time.Time
	key     string // empty if it is invalid
	invalid string // the reason
	route   route.Fork
}

func newClaims(now func() time.Time) *claims {
	return &claims{now, map[string]*claim{}, map[string][]*claim{}}
}

// set replaces the claim of a sandbox by that of f, or removes it if f is nil. It returns the keys whose routes may
// change. It keeps no reference to f.
func (c *claims) set(sandboxName string, f *Fork) []string { return c.claim(sandboxName, f, nil) }

// claim is like set, for a fork of this baseline or of a neighbour, under an id, restricted to the given ports.
func (c *claims) claim(id string, f *Fork, only []string) []string {
	var changed []string
	if old := c.bySandbox[id]; old != nil {
		delete(c.bySandbox, id)
		if old.key != "" {
			changed = append(changed, old.key)
			rest := slices.DeleteFunc(c.byKey[old.key], func(o *claim) bool { return o == old })
			if c.byKey[old.key] = rest; len(rest) == 0 {
				delete(c.byKey, old.key)
			}
		}
	}
	if f == nil || f.Deployment.DeletionTimestamp != nil {
		return changed
	}
	d := f.Deployment
	n := &claim{
		sandbox: d.Labels[sandbox.LabelSandbox], name: d.Name, guest: only != nil,
		created: d.CreationTimestamp.Time, key: d.Annotations[sandbox.AnnotationKey], route: buildRoute(*f, c.now()),
	}
	c.bySandbox[id], n.route.Only = n, only
	if err := sandbox.ValidateKey(n.key); err != nil {
		n.invalid = fmt.Sprintf("annotation %s %q %v", sandbox.AnnotationKey, n.key, err)
		n.key = ""
		return changed
	}
	c.byKey[n.key] = append(c.byKey[n.key], n)
	slices.SortFunc(c.byKey[n.key], func(a, b *claim) int {
		if a.guest != b.guest { // a baseline's own forks come first
			return map[bool]int{true: 1, false: -1}[a.guest]
		}
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name))
	})
	if !slices.Contains(changed, n.key) {
		changed = append(changed, n.key)
	}
	return changed
}

// route returns the route of a key.
func (c *claims) route(key string) (route.Fork, bool) {
	if all := c.byKey[key]; len(all) > 0 {
		return all[0].route, true
	}
	return route.Fork{}, false
}

// problem returns why the sandbox's claim got no route.
func (c *claims) problem(sandboxName string) (health.Claim, bool) {
	n := c.bySandbox[sandboxName]
	switch {
	case n == nil:
		return health.Claim{}, false
	case n.key == "":
		return health.Claim{Code: health.KeyInvalid, Message: n.invalid}, true
	}
	if first := c.byKey[n.key][0]; first != n {
		return health.Claim{Code: health.KeyTaken, Message: fmt.Sprintf("key %q is taken by the older fork %s of sandbox %s",
			n.key, first.name, first.sandbox)}, true
	}
	return health.Claim{}, false
}

// delta returns the difference that the changed keys make to a table, without a version; nil if there is none.
func (c *claims) delta(t *route.Table, changed []string) *route.Delta {
	d := &route.Delta{Base: t.Version}
	for _, key := range changed {
		old, was := t.Routes[key]
		now, is := c.route(key)
		switch {
		case is && (!was || !equal(old, now)):
			if d.Set == nil {
				d.Set = map[string]route.Fork{}
			}
			d.Set[key] = now
		case was && !is:
			d.Remove = append(d.Remove, key)
		}
	}
	if len(d.Set)+len(d.Remove) == 0 {
		return nil
	}
	return d
}

func buildRoute(f Fork, now time.Time) route.Fork {
	r := route.Fork{
		Sandbox:  f.Deployment.Labels[sandbox.LabelSandbox],
		Name:     f.Deployment.Name,
		UID:      string(f.Deployment.UID),
		FallBack: f.Deployment.Annotations[sandbox.AnnotationWhenUnready] == sandbox.WhenUnreadyBaseline,
	}
	serving := newest(f.Pods, f.Revisions, serves)
	if len(serving) == 0 {
		r.Reason = reason(f, now)
		return r
	}
	r.Pods = make([]route.Pod, len(serving))
	for i, pod := range serving {
		r.Pods[i] = route.Pod{Name: pod.Name, UID: string(pod.UID), IP: pod.Status.PodIP, Ports: ports(pod)}
	}
	return r
}

// newest returns the pods that are ok and of the newest revision that has any such pod, sorted by name. A pod whose
// ReplicaSet is not in the cache yet counts as oldest: until it is, older pods keep serving.
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

// serves reports whether a fork's pod can take requests. The condition ContainersReady ignores readiness gates, unlike
// Ready: a pod must be in the tables before its own gate can turn True.
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

// ports returns the numbers of the captured ports in the pod, by name. It lists all of them, not only those that differ
// from the baseline's: during a rollout of the baseline its pods may differ from each other.
func ports(pod *corev1.Pod) map[string]uint16 {
	captured, err := sandbox.ParsePorts(pod.Annotations[sandbox.AnnotationPorts])
	if err != nil {
		return nil // the fork's own template is wrong: routers use the baseline's numbers
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

// Diff returns the delta that turns from into to.
func Diff(from, to *route.Table) *route.Delta {
	d := &route.Delta{Base: from.Version, Version: to.Version}
	d.Observe, d.Unobserve = without(to.Observe, from.Observe), without(from.Observe, to.Observe)
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
	return a.Sandbox == b.Sandbox && a.Name == b.Name && a.UID == b.UID && a.FallBack == b.FallBack && a.Reason == b.Reason && slices.Equal(a.Only, b.Only) &&
		slices.EqualFunc(a.Pods, b.Pods, func(p, q route.Pod) bool {
			return p.Name == q.Name && p.UID == q.UID && p.IP == q.IP && maps.Equal(p.Ports, q.Ports)
		})
}
