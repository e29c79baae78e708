package sandboxes

import (
	"cmp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An Inventory is a snapshot of the sandboxes and routed workloads of one namespace, or of all.
type Inventory struct {
	Now            time.Time
	ConfigMaps     []corev1.ConfigMap // of sandboxes
	Forks          []appsv1.Deployment
	Sets           []appsv1.ReplicaSet      // of forks
	Pods           []corev1.Pod             // of forks and of baselines
	Services       *[]corev1.Service        // nil: they may not be read
	BaselineStates map[string]BaselineState // by "NAMESPACE/NAME" of the fork
	// Routed are the workloads that have routers, or that an interrupted `route` or `unroute` left in between.
	Routed []*plan.Workload
	// Gateway is the domain of previews; empty if there is none, or it was not read.
	Gateway string
	// Current means that the counts are up to date, except for those of Missing.
	Current bool
	Missing string
}

// Sandboxes returns the sandboxes of the inventory, in order of namespace and name.
func (v *Inventory) Sandboxes() []Sandbox { return Group(v.ConfigMaps, v.Forks) }

// Only removes sandboxes whose ConfigMaps the selector does not select, and forks without a ConfigMap.
func (v *Inventory) Only(selector labels.Selector) {
	v.ConfigMaps = slices.DeleteFunc(v.ConfigMaps, func(c corev1.ConfigMap) bool { return !selector.Matches(labels.Set(c.Labels)) })
	v.Forks = slices.DeleteFunc(v.Forks, func(d appsv1.Deployment) bool {
		return !slices.ContainsFunc(v.ConfigMaps, func(c corev1.ConfigMap) bool {
			return c.Namespace == d.Namespace && c.Name == sandbox.ConfigMapName(d.Labels[sandbox.LabelSandbox])
		})
	})
}

// Ready counts the forks of a sandbox that requests reach, and those that run and receive no requests.
func (v *Inventory) Ready(s *Sandbox) int {
	n := 0
	for i := range s.Forks {
		if v.Report(&s.Forks[i]).OK() {
			n++
		}
	}
	return n
}

// Word is the state as a table shows it.
func (f Finding) Word() string {
	if f.Unknown {
		return StateUnknown
	}
	return f.State
}

// Report returns whether requests reach a fork, and if not, why.
func (v *Inventory) Report(d *appsv1.Deployment) health.Report { return health.Fork(v.facts(d)) }

// facts returns the facts about one fork.
func (v *Inventory) facts(d *appsv1.Deployment) health.Facts {
	f := health.Facts{Now: v.Now, Deployment: d, Baseline: v.baseline(d)}
	f.Revisions = health.Revisions(v.Sets, func(s *appsv1.ReplicaSet) (types.UID, map[string]string) { return s.UID, s.Annotations })
	for i := range v.Pods {
		p := &v.Pods[i]
		if p.Namespace == d.Namespace && p.Labels[sandbox.LabelRole] == sandbox.RoleFork && p.Labels[sandbox.LabelSandbox] == d.Labels[sandbox.LabelSandbox] &&
			p.Labels[sandbox.LabelWorkload] == d.Labels[sandbox.LabelWorkload] {
			f.Pods = append(f.Pods, p)
		}
	}
	for i := range v.ConfigMaps {
		if cm := &v.ConfigMaps[i]; cm.Namespace == d.Namespace && cm.Name == sandbox.ConfigMapName(d.Labels[sandbox.LabelSandbox]) {
			f.Published = health.ParsePublished(cm.Data[sandbox.DataHealth])[d.Name]
		}
	}
	return f
}

// baseline returns the facts about the baseline of a fork.
func (v *Inventory) baseline(d *appsv1.Deployment) *health.Baseline {
	b := &health.Baseline{Pods: v.baselinePods(d.Namespace, d.Labels[sandbox.LabelWorkload])}
	if v.Services != nil {
		services := []*corev1.Service{}
		for i := range *v.Services {
			if s := &(*v.Services)[i]; s.Namespace == d.Namespace {
				services = append(services, s)
			}
		}
		b.Services = &services
	}
	baselineState, known := v.BaselineStates[d.Namespace+"/"+d.Name]
	if !known {
		return b
	}
	b.Gone, b.Marked, b.Behind = &baselineState.Gone, new(!baselineState.Unmarked), &baselineState.Behind
	return b
}

func (v *Inventory) baselinePods(namespace, workload string) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range v.Pods {
		p := &v.Pods[i]
		if p.Namespace == namespace && p.Labels[sandbox.LabelRole] == sandbox.RoleBaseline && p.Labels[sandbox.LabelWorkload] == workload {
			pods = append(pods, p)
		}
	}
	return pods
}

// States of a sandbox and of a routed workload, besides those of forks (package health).
const (
	StateEmpty    = "Empty"    // nothing is forked
	StateExpired  = "Expired"  // its time is over, and it is about to be deleted
	StateDeleting = "Deleting" // it is being deleted
	StateUnknown  = "Unknown"  // unknown because an object could not be read
	StateRouting  = "Routing"  // `route` or `unroute` is under way, or was interrupted
)

// A Finding is a state and its cause.
type Finding struct {
	State string
	health.Cause
	// Unknown means that the state is an earlier one, and it is unknown whether it still holds.
	Unknown bool
	// Fork is the Deployment that the finding is about; empty if it is about the whole sandbox.
	Fork string
}

// State sums up a sandbox: its state is that of its worst fork.
func (v *Inventory) State(s *Sandbox) Finding {
	switch {
	case s.ConfigMap != nil && s.ConfigMap.DeletionTimestamp != nil:
		return Finding{State: StateDeleting, Cause: health.Cause{Code: health.ForkDeleting, Message: "the sandbox is being deleted"}}
	case !s.Expires.IsZero() && s.Expires.Before(v.Now):
		return Finding{State: StateExpired, Cause: health.Cause{Code: codeExpired, Message: "the sandbox has expired"}}
	case len(s.Forks) == 0:
		return Finding{State: StateEmpty, Cause: health.Cause{Code: codeNoForks, Message: "nothing is forked in the sandbox"}}
	}
	var worst Finding
	for i := range s.Forks {
		f := v.ForkState(&s.Forks[i])
		if i == 0 || graver(f, worst) {
			worst = f
		}
	}
	return worst
}

// Codes of a sandbox as a whole.
const (
	codeExpired health.Code = "Expired"
	codeNoForks health.Code = "NoForks"
)

// graver orders findings: broken, then unknown, then waiting, then working.
func graver(a, b Finding) bool {
	rank := func(f Finding) int {
		r := slices.Index([]string{
			string(health.StateRunning), string(health.StateRouted), string(health.StateWaiting), string(health.StateNotRouted), string(health.StateFailed),
		}, f.State)
		if f.Unknown {
			return max(r, 1)*2 + 1
		}
		return r * 2
	}
	return rank(a) > rank(b)
}

// publishedWithin is the time after a fork's creation within which the control plane publishes its health, if it does
// so at all.
const publishedWithin = 30 * time.Second

// ForkState returns the state of one fork.
func (v *Inventory) ForkState(d *appsv1.Deployment) Finding {
	facts := v.facts(d)
	r := health.Fork(facts)
	published := facts.Published.Of == d.UID && facts.Published.Code != ""
	return Finding{
		State: string(r.State), Cause: r.Cause(), Fork: d.Name,
		Unknown: r.State == health.StateRouted && !published && v.Now.Sub(d.CreationTimestamp.Time) > publishedWithin,
	}
}

// RoutedWorkloads returns, in order, those workloads that `route` has changed or begun to change (see Touched),
// without forks.
func RoutedWorkloads(workloads []*plan.Workload) []*plan.Workload {
	out := slices.DeleteFunc(slices.Clone(workloads), func(w *plan.Workload) bool {
		return !plan.Touched(w) || w.Object.GetLabels()[sandbox.LabelRole] == sandbox.RoleFork
	})
	slices.SortFunc(out, func(a, b *plan.Workload) int {
		return cmp.Or(strings.Compare(a.Namespace(), b.Namespace()), strings.Compare(a.Arg(), b.Arg()))
	})
	return out
}

// RouteState returns whether a workload's pods route requests to forks.
func (v *Inventory) RouteState(w *plan.Workload) Finding {
	pods := v.baselinePods(w.Namespace(), w.Label())
	var bare []string
	declined := health.Cause{}
	for _, p := range pods {
		if !plan.Live(p) || health.HasRouter(p) {
			continue
		}
		bare = append(bare, p.Name)
		if code, why := health.Declined(p); code != "" {
			declined = health.Cause{Code: health.RouterDeclined, Message: "admission put no router into pod/" + p.Name + " (" + code + "): " + why,
				Say: "route the workload as it is now", Fix: plan.Kubectl("sandbox", "route", w.Arg())}
		}
	}
	message, done, err := plan.RolledOut(w)
	switch {
	case !w.Routed():
		return Finding{State: StateRouting, Cause: health.Cause{Code: health.BaselineNotRouted, Message: "`route` or `unroute` of it was begun, and its pod template lacks the marks",
			Say: "go on", Fix: plan.Kubectl("sandbox", "route", w.Arg())}}
	case declined.Code != "":
		return Finding{State: string(health.StateNotRouted), Cause: declined}
	case len(bare) > 0:
		return Finding{State: string(health.StateNotRouted), Cause: health.Cause{Code: health.RouterMissing,
			Message: "pods without a router, which keep all requests that reach them: " + strings.Join(bare[:min(len(bare), 3)], ", "),
			Say:     "with the webhook running, create them anew", Fix: plan.Kubectl("rollout", "restart", w.Arg())}}
	case err != nil:
		return Finding{State: string(health.StateFailed), Cause: health.Cause{Code: health.NoBaselinePod, Message: err.Error()}}
	case !done:
		return Finding{State: string(health.StateWaiting), Cause: health.Cause{Code: health.NoBaselinePod, Message: message}}
	}
	return Finding{State: string(health.StateRouted), Cause: health.Cause{Code: health.Routed, Message: "its pods route requests that carry a sandbox's key"}}
}

// A WorkloadRef names a workload of any kind.
type WorkloadRef struct{ Namespace, APIVersion, Kind, Name string }

// CustomBaselines returns the controllers of baselines' pods that are of custom kinds.
func CustomBaselines(v *Inventory) []WorkloadRef {
	var refs []WorkloadRef
	for i := range v.Pods {
		p := &v.Pods[i]
		owner := metav1.GetControllerOf(p)
		if p.Labels[sandbox.LabelRole] != sandbox.RoleBaseline || owner == nil || strings.HasPrefix(owner.APIVersion, "apps/") {
			continue
		}
		ref := WorkloadRef{p.Namespace, owner.APIVersion, owner.Kind, owner.Name}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}
