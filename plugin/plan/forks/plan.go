// Package forks decides what `fork` and `rebase` write. From options, workloads and the state of their namespace it
// plans a sandbox's ConfigMap, its forks and their NetworkPolicies, or returns a Problem.
package forks

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/notices"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// State is the state of the namespace, as it was read, that a fork is planned against.
type State struct {
	Namespace string
	User      string // who runs the command, as the API server knows them; empty where it would not say
	// NoWebhook means that the webhook is known to be missing.
	NoWebhook bool
	// DefaultTTL is the cluster's lifetime of a sandbox without --ttl; 0 means forever, nil unknown.
	DefaultTTL *time.Duration
	Sandbox    *corev1.ConfigMap // sandbox.ConfigMapName of the sandbox, whatever it is; nil: there is none
	// Sandboxes are those of the namespace whose key a new sandbox would have by default: Options.OwnKey.
	Sandboxes []corev1.ConfigMap
	Forks     []unstructured.Unstructured // Deployments that carry the sandbox's labels
	// Taken holds the names, out of Names, that existing Deployments have.
	Taken    map[string]bool
	Services []corev1.Service
	// EnvFrom are the objects of EnvSourceRefs.
	EnvFrom   EnvSources
	Objects   plan.NamespaceObjects
	Admission Admission
	Policies  policies.View
}

// A Plan is what `fork` writes, in this order: the ConfigMap, then the forks' policies, then the forks.
type Plan struct {
	Sandbox, Namespace, Key string
	CreatedBy               string
	// KeyMayChange means that a new sandbox may get another key, if another sandbox takes this one first.
	KeyMayChange bool
	Expires      time.Time         // zero: never
	ConfigMap    *corev1.ConfigMap // the desired state
	// Exists is the uid of the existing ConfigMap, of which only the expiry may change. If empty, the ConfigMap is
	// created.
	Exists   string
	Forks    []Fork
	Warnings []string
	force    []string // the command that asks for the same with Options.Force
	rebase   bool     // not of `fork`: the ConfigMap stays as it is
	// Unrouted are the workloads to route before planning again, with Options.Route. Without it, they are a
	// Problem.
	Unrouted []*plan.Workload
}

// A Fork is one Deployment of a Plan.
type Fork struct {
	Workload *plan.Workload
	// Deployment is the object to apply. The owner reference is added once the ConfigMap's uid is known.
	Deployment *unstructured.Unstructured
	// Replaces is the generation of the existing fork; 0 if there is none.
	Replaces int64
	// Force takes over fields of the existing fork that others have written. It never takes over an object that this
	// program does not own.
	Force bool
	// Rebased means, for a rebase, that the fork was behind its baseline.
	Rebased bool
	// Gated means that its pods wait for the baseline's routers.
	Gated bool
	// Reach lists where a request with the key can enter, best first.
	Reach []plan.Endpoint
	// Inherits lists what the fork's pods share with the baseline's and with no other pods, such as Secrets; often
	// empty.
	Inherits string
	// KeptForAdmission are the labels that its pods keep from the baseline's because admission webhooks read them.
	KeptForAdmission []string
	// Lacks is what the baseline's kind gives its pods and a Deployment does not, if the template does not visibly
	// rely on it; often empty.
	Lacks string
	// Policies are its NetworkPolicies, and Obsolete the existing ones that it no longer needs.
	Policies []policies.Policy
	Obsolete []*networkingv1.NetworkPolicy
}

// Name returns the name of the fork's Deployment.
func (f *Fork) Name() string { return f.Deployment.GetName() }

// Names returns the Deployment names that the workloads' forks may get. Planning needs to know which of them are
// taken.
func Names(name string, workloads []*plan.Workload, forks []unstructured.Unstructured) []string {
	var names []string
	for _, w := range workloads {
		if plan.ForkOf(w, name, forks) == nil {
			names = append(names, sandbox.ForkName(w.Label(), w.Name(), name))
		}
	}
	return names
}

// New plans the forks of workloads in one sandbox. Every error is a *Problem. If it proposes another fork, that one
// is planned too, so that it is not refused in turn.
func New(o *Options, workloads []*plan.Workload, state *State) (*Plan, error) {
	p, err := planned(o, workloads, state)
	return p, provenFork(err, state, plan.MaxHints)
}

// A request is what a plan is made from. No step changes it.
type request struct {
	*Options
	workloads []*plan.Workload // each of them once
	state     *State
}

// planned plans the forks of a request in steps, each of which takes values and returns values. It assigns what was
// asked for to workloads, edits their pod templates, builds the forks that differ so, checks them, and warns. A step
// whose name begins with check only fails, and one whose name begins with warn only warns.
func planned(o *Options, workloads []*plan.Workload, state *State) (*Plan, error) {
	r := &request{o, distinct(workloads), state}
	if err := r.checkForkable(); err != nil {
		return nil, err
	}
	p, said, err := r.planSandbox()
	if err != nil {
		return nil, err
	}
	images, err := r.assign()
	if err != nil {
		return nil, err
	}
	taken := maps.Clone(state.Taken)
	if taken == nil {
		taken = map[string]bool{}
	}
	var conflicts []*conflict
	for _, w := range r.workloads {
		f, more, err := r.planFork(p, w, images[w], taken)
		var c *conflict
		switch {
		case errors.As(err, &c):
			conflicts = append(conflicts, c)
			continue
		case err != nil:
			return nil, err
		}
		p.Forks, said = append(p.Forks, *f), append(said, more...)
	}
	if err := r.checkConflicts(conflicts); err != nil {
		return nil, err
	}
	if err := r.checkContainers(p.Forks); err != nil {
		return nil, err
	}
	p.Warnings = append(said, r.warnOfUnread()...)
	return p, nil
}

// planFork plans one fork of the sandbox p, with its policies. taken holds the names of Deployments that it can't have,
// and gets its own. A *conflict means that the change of the existing fork does not fit its baseline any more.
func (r *request) planFork(
	p *Plan, w *plan.Workload, images []ImageChange, taken map[string]bool,
) (*Fork, warnings, error) {
	b, begun, err := r.begin(p, w, taken)
	if err != nil {
		return nil, nil, err
	}
	changed, edited, err := r.edit(b, images)
	if err != nil {
		return nil, nil, err
	}
	f, err := r.build(b, changed)
	if err != nil {
		return nil, nil, err
	}
	of, err := policies.Of(&policies.Fork{
		Sandbox: p.Sandbox, OwnerUID: p.Exists, Workload: w, Deployment: f.Deployment,
	}, &r.state.Policies)
	if err != nil {
		return nil, nil, err
	}
	f.Policies, f.Obsolete = of.Policies, of.Obsolete
	if err := r.checkSelectors(f); err != nil {
		return nil, nil, err
	}
	pods := notices.Of(&notices.Copy{
		Workload: w, Deployment: f.Deployment, Template: changed,
		KeptForAdmission: f.KeptForAdmission, Reached: len(f.Reach) > 0, Gated: f.Gated,
	}, &r.state.Objects)
	f.Inherits, f.Lacks = pods.Inherits, pods.Lacks
	return f, slices.Concat(begun, edited, r.warnOfEnvFrom(w, changed), r.warnOfRebase(b), pods.Warnings, of.Warnings,
		r.warnOfWatchers(f)), nil
}

// warnings are what the user is told of a plan that does not fail, one sentence each.
type warnings []string

func (s *warnings) add(format string, args ...any) { *s = append(*s, fmt.Sprintf(format, args...)) }

func distinct(workloads []*plan.Workload) []*plan.Workload {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(workloads), func(w *plan.Workload) bool {
		again := seen[w.String()]
		seen[w.String()] = true
		return again
	})
}
