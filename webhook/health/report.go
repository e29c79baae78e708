package health

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Facts are what is known about one fork and what leads to it. A nil pointer means unknown: the Report then says so,
// and states no cause for it.
type Facts struct {
	Now time.Time
	// Deployment is the fork's; nil: the API server does not have it (yet).
	Deployment *appsv1.Deployment
	// Revisions are those of the Deployment's ReplicaSets, by UID: see Revisions.
	Revisions map[types.UID]int64
	// Pods are the fork's, of all revisions.
	Pods []*corev1.Pod
	// Baseline is the workload that was forked.
	Baseline *Baseline
	// Routing is the control plane's own state.
	Routing *Routing
	// Published is the state that the control plane last published for others; zero if none.
	Published Truth
}

// A Baseline is what is known about the workload that was forked, and what leads to its pods.
type Baseline struct {
	// Gone, Marked and Behind are nil if nobody read the workload. Gone: it does not exist. Marked: its pod template has
	// the marks of `route`. Behind: what the fork inherits has changed since the fork was created or rebased.
	Gone, Marked, Behind *bool
	// Pods have the labels of the baseline. Their labels and ports decide which Services lead to them.
	Pods []*corev1.Pod
	// Services are those of the namespace; nil: unknown.
	Services *[]*corev1.Service
	// Others are the other pods of the namespace: Services may lead to them as well. nil: unknown.
	Others *[]*corev1.Pod
}

// Routing is what only the control plane knows about a fork: tables, acknowledgements, attempts to connect. Its JSON
// form is in a sandbox's ConfigMap.
type Routing struct {
	// Claim is why the fork has no route of its own: code KeyTaken or KeyInvalid. Zero: it has one.
	Claim Claim `json:"claim,omitzero"`
	// Serving are the names of the fork's pods to which routers send the key's requests.
	Serving []string `json:"serving,omitempty"`
	// Routers holds, by the name of a ready pod, the routers that do not route the key yet. Those that do are only counted
	// in Routes.
	Routers map[string]RouterState `json:"routers,omitempty"`
	Routes  int                    `json:"routes"` // routers that acknowledged the route
	// Ports holds, by the name of a fork's pod, the result of connecting to its ports: empty if a router connected,
	// otherwise the error. It lacks pods that no router has tried yet.
	Ports map[string]string `json:"ports,omitempty"`
	// Tries means that the routers report Ports.
	Tries bool `json:"tries,omitempty"`
	// Shared are the names of ready pods of other workloads behind the baseline's Services whose routers acknowledged the
	// route.
	Shared []string `json:"shared,omitempty"`

	published bool // read from a ConfigMap, so of a moment ago
}

// A Claim is why a fork's key is not routed to it.
type Claim struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// A RouterState is why a router does not route a key yet.
type RouterState string

// States of routers.
const (
	RouterAbsent       RouterState = "no router"
	RouterUnconnected  RouterState = "not connected"    // since the control plane started: whether it has a table is unknown
	RouterUnacked      RouterState = "not acknowledged" // connected, without an acknowledgement yet
	RouterDisconnected RouterState = "disconnected"     // before it acknowledged
	RouterTooOld       RouterState = "table too old"    // disconnected for so long that it answers keyed requests with 503
)

// A State summarises a Report in one word.
type State string

// States.
const (
	StateRouted    State = "Routed"    // requests with the key reach the fork
	StateRunning   State = "Running"   // it has no ports, and runs
	StateWaiting   State = "Waiting"   // it starts, as usual
	StateNotRouted State = "NotRouted" // it may run, and requests do not all reach it
	StateFailed    State = "Failed"    // it does not run
)

// A Report is the result for one fork.
type Report struct {
	State State
	// Causes are why some or all requests do not reach the fork, the worst first. Empty if all do.
	Causes []Cause
	// Notes are worth reporting and keep no request from the fork.
	Notes []Cause
	// Unknown lists what is unknown, a clause each.
	Unknown []string
	// Pods are those of the newest template that are not being deleted, sorted by name.
	Pods []*corev1.Pod
}

// OK reports that requests reach the fork, or that it runs and takes none.
func (r Report) OK() bool { return len(r.Causes) == 0 }

// Cause returns the worst Cause; if requests reach the fork, one with the code Routed or Running.
func (r Report) Cause() Cause {
	if len(r.Causes) > 0 {
		return r.Causes[0]
	}
	if r.State == StateRunning {
		return Cause{Code: Running, Message: "the fork runs; it has no ports to which requests could be routed"}
	}
	return Cause{Code: Routed, Message: "requests with the key reach the fork"}
}

// Revisions returns the revisions of ReplicaSets, as numbered by the Deployment controller, by UID.
func Revisions[T any](sets []T, read func(*T) (types.UID, map[string]string)) map[types.UID]int64 {
	revisions := make(map[types.UID]int64, len(sets))
	for i := range sets {
		uid, annotations := read(&sets[i])
		if r, err := parseRevision(annotations[AnnotationRevision]); err == nil {
			revisions[uid] = r
		}
	}
	return revisions
}

// AnnotationRevision is where the Deployment controller numbers templates, on the Deployment and its ReplicaSets.
const AnnotationRevision = "deployment.kubernetes.io/revision"

// sorted sorts causes by severity, the worst first.
func sorted(causes []Cause) []Cause {
	slices.SortStableFunc(causes, func(a, b Cause) int { return int(b.Outlook) - int(a.Outlook) })
	return causes
}
