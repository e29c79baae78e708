package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Routing takes the steps that put routers in front of workloads of one namespace, or remove them.
type Routing struct {
	client  *Client
	targets []*plan.Workload
	fixed   routes.View // what is read once

	webhook *admissionv1.MutatingWebhook // that for baselines; nil: there is none, or
	unseen  bool                         // the caller may not know
	guarded bool                         // marks of baselines take a right of their own
}

// A RouteObserver is notified of what a Routing does. Both functions may be nil.
type RouteObserver struct {
	Wrote   func(write *routes.Write, object *unstructured.Unstructured)
	Waiting func(step *routes.Step)
}

// maxRefusals bounds how often in a row the steps are planned again because objects changed between reading and
// writing.
const maxRefusals = 10

// recheck is how often everything is read again during a rollout whose status does not show its end.
const recheck = time.Second

// Run takes steps until none is left or, without wait, until only the last rollout is. It returns the last view.
// After an error, the steps so far stay; calling Run again resumes from there, in either direction.
func (r *Routing) Run(ctx context.Context, next func(*routes.View) (*routes.Step, error), wait bool, o RouteObserver) (*routes.View, error) {
	for refusals := 0; ; {
		view, err := r.View(ctx)
		if err != nil {
			return nil, err
		}
		step, err := next(view)
		switch {
		case err != nil:
			return view, err
		case step.Done, step.Last && !wait:
			return view, nil
		case len(step.Writes) == 0:
			if err := r.await(ctx, step, o); err != nil {
				return view, err
			}
			continue
		}
		err = r.writeAll(ctx, step, o)
		if err == nil {
			refusals = 0
			continue
		}
		if refusals++; !refused(err) || refusals > maxRefusals {
			return view, r.explain(ctx, err)
		}
	}
}

func (r *Routing) writeAll(ctx context.Context, step *routes.Step, o RouteObserver) error {
	for i := range step.Writes {
		object, err := r.write(ctx, &step.Writes[i], nil)
		if err != nil {
			return err
		}
		if o.Wrote != nil {
			o.Wrote(&step.Writes[i], object)
		}
	}
	return nil
}

// refused reports whether the API server found an object changed since it was read: then reading again helps. A patch
// whose test fails is answered with 422, as is an invalid object.
func refused(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err)
}

// DryRun makes the API server process all the steps without storing them. It returns each object once, with all
// changes of the steps.
func (r *Routing) DryRun(ctx context.Context, steps []*routes.Step, wrote func(*routes.Write, *unstructured.Unstructured)) error {
	for _, w := range routes.MergeSteps(steps) {
		object, err := r.write(ctx, &w, []string{metav1.DryRunAll})
		if err != nil {
			return r.explain(ctx, err)
		}
		if w.Forgets {
			object = w.After
		}
		wrote(&w, object)
	}
	return nil
}

// write does one write, and returns the object as the API server stored it. For a deletion, the object has only a
// name.
func (r *Routing) write(ctx context.Context, w *routes.Write, dryRun []string) (*unstructured.Unstructured, error) {
	objects := r.client.Dynamic.Resource(w.Resource).Namespace(w.Namespace)
	switch {
	case w.Create != nil:
		return objects.Create(ctx, w.Create, metav1.CreateOptions{FieldManager: sandbox.FieldManager, DryRun: dryRun})
	case w.Delete != "":
		err := objects.Delete(ctx, w.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &w.Delete}, DryRun: dryRun})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return w.Before, err
	}
	ops, err := encode(w.Patch)
	if err != nil {
		return nil, err
	}
	return objects.Patch(ctx, w.Name, types.JSONPatchType, ops, metav1.PatchOptions{FieldManager: sandbox.FieldManager, DryRun: dryRun})
}

func encode(ops []jsonpatch.Operation) ([]byte, error) {
	b, err := json.Marshal(ops)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	return b, nil
}

// await returns when a rollout that the step waits for has ended, or after recheck, or with the reason why it never
// will.
func (r *Routing) await(ctx context.Context, step *routes.Step, o RouteObserver) error {
	if o.Waiting != nil {
		o.Waiting(step)
	}
	for _, w := range step.Waits {
		if w.Failed {
			return fmt.Errorf("%s does not roll out: %s", w.Workload, w.Message)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, recheck, errRecheck)
	defer cancel()
	changes := make(chan *plan.Workload)
	for _, w := range step.Waits {
		if w.Workload != nil {
			go r.watch(ctx, w.Workload, changes)
		}
	}
	for {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errRecheck) {
				return err
			}
			return nil
		case w := <-changes:
			if _, done, err := plan.RolledOut(w); done || err != nil {
				return nil
			}
		}
	}
}

var errRecheck = errors.New("look again")

// watch sends the workload each time it changes.
func (r *Routing) watch(ctx context.Context, w *plan.Workload, changes chan<- *plan.Workload) {
	events, err := r.client.Dynamic.Resource(w.GroupVersionResource()).Namespace(w.Namespace()).Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, w.Name()).String(),
		ResourceVersion: w.Object.GetResourceVersion(),
	})
	if err != nil {
		return // everything is read again anyway, only later
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		if !ok || event.Type != watch.Modified {
			continue
		}
		select {
		case changes <- &plan.Workload{Object: object, Resource: w.Resource, TemplateAt: w.TemplateAt}:
		case <-ctx.Done():
			return
		}
	}
}

// Admission checks by a dry run whether the API server would give a pod of each target, as view shows it, a router.
// If not, it returns a *plan.Problem. It returns nil if the caller may not create pods, or such a pod can't be
// created directly: then only the real pods will show it.
func (r *Routing) Admission(ctx context.Context, view *routes.View) error {
	for _, w := range view.Targets {
		pod, err := r.client.Dynamic.Resource(podsResource()).Namespace(w.Namespace()).Create(ctx, routes.TrialPod(w), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			continue
		}
		if p := routes.CheckTrial(w, pod, view.ControlNamespace); p != nil {
			return p
		}
	}
	return nil
}

// explain turns an error into a Problem. For missing rights, it checks all rights that the steps need, so that they
// need not be found out one by one.
func (r *Routing) explain(ctx context.Context, err error) error {
	explained := Explain(err)
	var p *plan.Problem
	if !apierrors.IsForbidden(err) || !errors.As(explained, &p) {
		return explained
	}
	if missing := r.missing(ctx); len(missing) > 0 {
		p.What = fmt.Sprintf("not allowed in namespace %s: %s", r.client.Namespace, strings.Join(missing, ", "))
	}
	return p
}

// missing returns the rights that a Routing needs and the caller lacks, as "VERB RESOURCE".
func (r *Routing) missing(ctx context.Context) []string {
	needs := []Right{
		{Verb: "list", Resource: "services"}, {Verb: "patch", Resource: "services"}, {Verb: "list", Resource: "pods"},
		{Verb: "list", Group: "apps", Resource: "replicasets"}, {Verb: "list", Group: "apps", Resource: "deployments"},
		{Verb: "list", Group: "apps", Resource: "statefulsets"}, {Verb: "list", Group: "apps", Resource: "daemonsets"},
	}
	for _, verb := range []string{"list", "create", "patch", "delete"} {
		needs = append(needs, Right{Verb: verb, Group: "networking.k8s.io", Resource: "networkpolicies"})
	}
	for _, t := range r.targets {
		for _, verb := range []string{"get", "patch"} {
			right := Right{Verb: verb, Group: t.Resource.Group, Resource: t.Resource.Resource}
			if !slices.Contains(needs, right) {
				needs = append(needs, right)
			}
		}
	}
	if r.guarded {
		needs = append(needs, markRight())
	}
	return r.client.Missing(ctx, needs)
}
