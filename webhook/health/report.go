package health

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Facts are what is known of one fork and of what leads to it. A nil pointer is something that is not known: the Report then says so,
// and states no cause for it.
type Facts struct {
	Now time.Time
	// Deployment is the fork's; nil: the API server does not show it (yet).
	Deployment *appsv1.Deployment
	// Revisions are those of the Deployment's ReplicaSets, by UID: see Revisions.
	Revisions map[types.UID]int64
	// Pods are the fork's, of all revisions.
	Pods []*corev1.Pod
	// Baseline is the workload that was forked.
	Baseline *Baseline
	// Routing is what the control plane knows, to itself.
	Routing *Routing
	// Published is what the control plane wrote of the fork a moment ago, to everybody else. The zero Truth: nothing.
	Published Truth
}

// A Baseline is what is known of the workload that was forked, and of what leads to its pods.
type Baseline struct {
	// Gone, Marked and Behind are nil where nobody read the workload. Gone: it does not exist. Marked: its pod template carries the
	// marks of `route`. Behind: it changed since the fork was made, in what the fork inherits.
	Gone, Marked, Behind *bool
	// Pods carry the labels of the baseline. Their labels and containers' ports are needed to tell which Services lead to them.
	Pods []*corev1.Pod
	// Services are those of the namespace; nil: not known.
	Services *[]*corev1.Service
	// Others are the other pods of the namespace: Services may lead to them as well. nil: not known.
	Others *[]*corev1.Pod
}

// Routing is what only the control plane knows of a fork: tables, acknowledgements, attempts to connect. Its JSON form is in a
// sandbox's ConfigMap.
type Routing struct {
	// Claim says why the fork has no route of its own: code KeyTaken or KeyInvalid. The zero Cause: it has one.
	Claim Claim `json:"claim,omitzero"`
	// Serving are the names of the fork's pods that routers send the key's requests to.
	Serving []string `json:"serving,omitempty"`
	// Routers holds, by the name of a ready pod, the router that does not route the key yet; those that do are only counted in Routing.
	Routers map[string]RouterState `json:"routers,omitempty"`
	Routes  int                    `json:"routes"` // routers that acknowledged the route
	// Ports says, by the name of a fork's pod, what came of connecting to its ports: "" where a router connected, else the error. A pod
	// that no router has tried yet is missing.
	Ports map[string]string `json:"ports,omitempty"`
	// Tries says that the routers report Ports.
	Tries bool `json:"tries,omitempty"`
	// Shared are the names of ready pods of other workloads behind the baseline's Services whose routers acknowledged the route.
	Shared []string `json:"shared,omitempty"`

	published bool // read from a ConfigMap: of a moment ago
}

// A Claim is why a fork's key is not routed to it.
type Claim struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// A RouterState is what keeps a router from routing a key.
type RouterState string

// States of routers.
const (
	RouterAbsent       RouterState = "no router"
	RouterUnconnected  RouterState = "not connected"    // since the control plane started: whether it has a table is not known
	RouterUnacked      RouterState = "not acknowledged" // connected, and has not taken the table yet
	RouterDisconnected RouterState = "disconnected"     // before it acknowledged
	RouterTooOld       RouterState = "table too old"    // disconnected for so long that it answers keyed requests with 503
)

// A State is a Report in one word.
type State string

// States.
const (
	StateRouted    State = "Routed"    // requests with the key reach the fork
	StateRunning   State = "Running"   // it has no ports, and runs
	StateWaiting   State = "Waiting"   // it starts, as usual
	StateNotRouted State = "NotRouted" // it may run, and requests do not all reach it
	StateFailed    State = "Failed"    // it does not run
)

// A Report is the answer about one fork.
type Report struct {
	State State
	// Causes are why requests do not reach the fork, or not all, the gravest first. Empty where they do.
	Causes []Cause
	// Notes are worth telling and keep no request from the fork.
	Notes []Cause
	// Unknown says what is not known, a clause each.
	Unknown []string
	// Pods are those of the newest template that are not being deleted, in order of name.
	Pods []*corev1.Pod
}

// OK says that requests reach the fork, or that it runs and takes none.
func (r Report) OK() bool { return len(r.Causes) == 0 }

// Cause returns the gravest Cause; where requests reach the fork one with the code Routed or Running.
func (r Report) Cause() Cause {
	if len(r.Causes) > 0 {
		return r.Causes[0]
	}
	if r.State == StateRunning {
		return Cause{Code: Running, Message: "the fork runs; it has no ports to which requests could be routed"}
	}
	return Cause{Code: Routed, Message: "requests with the key reach the fork"}
}

// Revisions reads the revisions of ReplicaSets, as the Deployment controller numbers them, by UID.
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

// sorted orders causes by how much they ask for, the gravest first.
func sorted(causes []Cause) []Cause {
	slices.SortStableFunc(causes, func(a, b Cause) int { return int(b.Outlook) - int(a.Outlook) })
	return causes
}
