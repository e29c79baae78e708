// Package forks decides what `fork` and `rebase` write. From options, workloads and the state of their namespace it plans
// a sandbox's ConfigMap, its forks and their NetworkPolicies, or returns a Problem.
package forks

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/notices"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
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

// unrouted returns the workloads that are behind a Service and whose pods have no router. Requests could not reach
// their forks.
func unrouted(workloads []*plan.Workload, services []corev1.Service) []*plan.Workload {
	return slices.DeleteFunc(slices.Clone(workloads), func(w *plan.Workload) bool {
		return w.Routed() || len(plan.Endpoints(w, services)) == 0
	})
}

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

func planned(o *Options, workloads []*plan.Workload, state *State) (*Plan, error) {
	if state.NoWebhook {
		return nil, plan.NoWebhook()
	}
	workloads = distinct(workloads)
	for _, w := range workloads {
		if err := forkable(o, w); err != nil {
			return nil, err
		}
	}
	p := &Plan{Sandbox: o.Sandbox, Namespace: state.Namespace, rebase: o.Rebase, Unrouted: unrouted(workloads, state.Services)}
	if len(p.Unrouted) > 0 && !o.Route {
		return nil, unroutedProblem(p.Unrouted)
	}
	forced := *o
	forced.Force = true
	p.force = forced.command(workloads...)
	if err := p.planSandbox(o, workloads, state); err != nil {
		return nil, err
	}
	if err := o.keepable(workloads); err != nil {
		return nil, err
	}
	images, err := assignImages(o, workloads)
	if err != nil {
		return nil, err
	}
	taken := maps.Clone(state.Taken)
	if taken == nil {
		taken = map[string]bool{}
	}
	var conflicts []*conflict
	for _, w := range workloads {
		f, err := p.planFork(o, w, workloads, images[w], state, taken)
		var c *conflict
		switch {
		case errors.As(err, &c):
			conflicts = append(conflicts, c)
			continue
		case err != nil:
			return nil, err
		}
		if err := p.captured(o, workloads, f, state); err != nil {
			return nil, err
		}
		p.watchers(f, workloads, &state.Objects)
		p.Forks = append(p.Forks, *f)
	}
	if len(conflicts) > 0 {
		return nil, conflictProblem(o, conflicts)
	}
	if err := o.noContainer(workloads, p.Forks); err != nil {
		return nil, err
	}
	p.unread(state.Objects.Unread)
	return p, nil
}

// planSandbox plans the ConfigMap.
func (p *Plan) planSandbox(o *Options, workloads []*plan.Workload, state *State) error {
	old := state.Sandbox
	if old == nil {
		p.CreatedBy = state.User
		if err := p.chooseKey(o, workloads, state); err != nil {
			return err
		}
	} else {
		if err := ownSandbox(o, workloads, old); err != nil {
			return err
		}
		p.Exists, p.Key, p.CreatedBy = string(old.UID), old.Data[sandbox.DataKey], old.Data[sandbox.DataCreatedBy]
		if p.CreatedBy != "" && state.User != "" && p.CreatedBy != state.User {
			p.warn("sandbox %q was created by %s", o.Sandbox, p.CreatedBy)
		}
	}
	p.Expires = expires(o, old, state.DefaultTTL)
	p.ConfigMap = &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name:      sandbox.ConfigMapName(o.Sandbox),
			Namespace: state.Namespace,
			Labels:    map[string]string{sandbox.LabelSandbox: o.Sandbox, sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelKey: p.Key},
		},
		Data: map[string]string{sandbox.DataKey: p.Key},
	}
	if p.CreatedBy != "" {
		p.ConfigMap.Data[sandbox.DataCreatedBy] = p.CreatedBy
	}
	if !p.Expires.IsZero() {
		p.ConfigMap.Data[sandbox.DataExpires] = p.Expires.Format(time.RFC3339)
	}
	return nil
}

// chooseKey sets the key of a new sandbox: the requested one; else the sandbox's name; else, if another sandbox has
// that key, a random one.
func (p *Plan) chooseKey(o *Options, workloads []*plan.Workload, state *State) error {
	p.Key, p.KeyMayChange = o.OwnKey(), o.Key == ""
	i := slices.IndexFunc(state.Sandboxes, func(c corev1.ConfigMap) bool { return c.Data[sandbox.DataKey] == p.Key })
	switch {
	case i < 0:
		return nil
	case o.Key != "":
		return keyInUse(o, workloads, &state.Sandboxes[i])
	}
	p.warn("key %s is in use by sandbox %q, so that sandbox %q gets a random one: %s", p.Key, state.Sandboxes[i].Labels[sandbox.LabelSandbox], o.Sandbox, o.NewKey)
	p.Key = o.NewKey
	return nil
}

// OwnKey returns the default key of a new sandbox. Every sandbox name is a valid key.
func (o *Options) OwnKey() string {
	if o.Key != "" {
		return o.Key
	}
	return o.Sandbox
}

// expires returns when the sandbox ends, in UTC and whole seconds; zero means never. Only --ttl can shorten the
// lifetime of a sandbox.
func expires(o *Options, old *corev1.ConfigMap, byDefault *time.Duration) time.Time {
	if o.Rebase {
		return keptExpiry(old)
	}
	now := o.Now.UTC().Truncate(time.Second)
	if o.TTL != nil {
		if *o.TTL == 0 {
			return time.Time{}
		}
		return now.Add(*o.TTL)
	}
	ttl := plan.DefaultTTL
	if byDefault != nil {
		ttl = *byDefault
	}
	if ttl == 0 && old == nil {
		return time.Time{}
	}
	renewed := now.Add(ttl)
	if old == nil {
		return renewed
	}
	before, err := time.Parse(time.RFC3339, old.Data[sandbox.DataExpires])
	switch {
	case old.Data[sandbox.DataExpires] == "":
		return time.Time{}
	case err == nil && (before.After(renewed) || ttl == 0):
		return before
	}
	return renewed
}

func (p *Plan) planFork(o *Options, w *plan.Workload, workloads []*plan.Workload, images []ImageChange, state *State, taken map[string]bool) (*Fork, error) {
	old := plan.ForkOf(w, o.Sandbox, state.Forks)
	f := &Fork{Workload: w, Reach: plan.Endpoints(w, state.Services)}
	options := fork.Options{
		Sandbox: o.Sandbox, Key: p.Key, OwnerUID: p.Exists,
		Replicas: 1, WhenUnready: sandbox.WhenUnreadyError, TemplatePath: w.TemplatePath(),
	}
	if old == nil {
		options.Name = sandbox.ForkName(w.Label(), w.Name(), o.Sandbox)
		if taken[options.Name] {
			options.Name = sandbox.ForkNameHashed(w.Label(), w.Name(), o.Sandbox)
		}
		taken[options.Name] = true
	} else {
		if err := p.ownFork(old); err != nil {
			return nil, err
		}
		f.Replaces, f.Force = old.GetGeneration(), o.Force
		was, err := fork.OptionsOf(old)
		if err != nil {
			return nil, err
		}
		was.Key, was.OwnerUID, was.TemplatePath = options.Key, options.OwnerUID, options.TemplatePath
		options = was
	}
	options.KeepLabels, options.DropLabels = kept(options.KeepLabels, o.KeepLabels), droppedLabels(options.DropLabels, o.KeepLabels)
	f.KeptForAdmission = p.keepLabels(o, w, workloads, &options, state)
	options.KeepLabels = slices.Sorted(slices.Values(slices.Concat(options.KeepLabels, f.KeptForAdmission)))
	if o.Replicas != nil {
		options.Replicas = *o.Replicas
	}
	if o.WhenUnready != "" {
		options.WhenUnready = o.WhenUnready
	}
	if o.Follow != nil {
		options.Follow = *o.Follow
	}
	if o.Restart && old != nil {
		options.RestartedAt = o.Now.UTC().Format(time.RFC3339)
	}
	template, err := fork.Template(w.Object, options.TemplatePath, options.Patch)
	if err != nil {
		return nil, &conflict{plan.DeploymentName(options.Name), w, err}
	}
	if _, same := setImages(template, images); same && old != nil && !o.Restart && o.none() {
		p.warn("%s runs image %s already, so it does not change; --restart rolls it out", plan.DeploymentName(options.Name), joined(images))
	}
	changed, err := p.applyChange(o, w, len(workloads) > 1, template, images, state.EnvFrom)
	if err != nil {
		return nil, err
	}
	baseline, err := fork.PodTemplate(w.Object, options.TemplatePath)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w, err)
	}
	if options.Patch, err = fork.Diff(baseline, changed); err != nil {
		return nil, fmt.Errorf("%s: %w", w, err)
	}
	options.EnvFrom = p.envFrom(w, changed, options.EnvFrom, state.EnvFrom)
	if f.Deployment, err = fork.Deployment(w.Object, options); err != nil {
		return nil, fmt.Errorf("%s: %w", w, err)
	}
	f.Gated = gated(f.Deployment)
	p.noteBehind(o, f, old)
	said := notices.Of(&notices.Copy{
		Workload: w, Deployment: f.Deployment, Template: changed,
		KeptForAdmission: f.KeptForAdmission, Reached: len(f.Reach) > 0, Gated: f.Gated,
	}, &state.Objects)
	f.Inherits, f.Lacks, p.Warnings = said.Inherits, said.Lacks, append(p.Warnings, said.Warnings...)
	of, err := policies.Of(&policies.Fork{Sandbox: p.Sandbox, OwnerUID: p.Exists, Workload: w, Deployment: f.Deployment}, &state.Policies)
	if err != nil {
		return nil, err
	}
	f.Policies, f.Obsolete, p.Warnings = of.Policies, of.Obsolete, append(p.Warnings, of.Warnings...)
	return f, nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// gated reports whether admission gives the fork's pods the readiness gate: it does if the baseline has captured
// ports.
func gated(d *unstructured.Unstructured) bool {
	ports, _, _ := unstructured.NestedString(d.Object, "spec", "template", "metadata", "annotations", sandbox.AnnotationPorts)
	return ports != ""
}

func distinct(workloads []*plan.Workload) []*plan.Workload {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(workloads), func(w *plan.Workload) bool {
		again := seen[w.String()]
		seen[w.String()] = true
		return again
	})
}

func joined(images []ImageChange) string {
	parts := make([]string, len(images))
	for i, c := range images {
		parts[i] = c.Image
	}
	return strings.Join(parts, ", ")
}

// Renewal returns the merge patch that writes the expiry to the existing ConfigMap, identified by its uid. For a
// rebase, the patch changes nothing.
func (p *Plan) Renewal() []byte {
	var expires any // null removes it
	if v, ok := p.ConfigMap.Data[sandbox.DataExpires]; ok {
		expires = v
	}
	patch := map[string]any{"metadata": map[string]any{"uid": p.Exists}}
	if !p.rebase {
		patch["data"] = map[string]any{sandbox.DataExpires: expires}
	}
	b, err := json.Marshal(patch)
	if err != nil {
		panic(err) // strings always encode
	}
	return b
}
