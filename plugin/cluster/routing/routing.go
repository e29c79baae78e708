// Package routing reads and writes what routing workloads of a namespace needs.
package routing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Routing reads and writes what the steps need that put routers in front of workloads of one namespace, or remove
// them.
type Routing struct {
	client  *cluster.Client
	read    *read.Reader
	targets []*plan.Workload
	fixed   routes.View // what is read once

	webhook *admissionv1.MutatingWebhook // that for baselines; nil: there is none, or
	unseen  bool                         // the caller may not know
	guarded bool                         // marks of baselines take a right of their own
}

// Write does one write, and returns the object as the API server stored it. For a deletion, the object has only a
// name. With dryRun the API server does everything but store it.
func (r *Routing) Write(ctx context.Context, w *routes.Write, dryRun bool) (*unstructured.Unstructured, error) {
	var dry []string
	if dryRun {
		dry = []string{metav1.DryRunAll}
	}
	objects := r.client.Dynamic.Resource(w.Resource).Namespace(w.Namespace)
	switch {
	case w.Create != nil:
		return objects.Create(ctx, w.Create, metav1.CreateOptions{FieldManager: sandbox.FieldManager, DryRun: dry})
	case w.Delete != "":
		err := objects.Delete(
			ctx,
			w.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &w.Delete}, DryRun: dry},
		)
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return w.Before, err
	}
	ops, err := encode(w.Patch)
	if err != nil {
		return nil, err
	}
	return objects.Patch(
		ctx,
		w.Name,
		types.JSONPatchType,
		ops,
		metav1.PatchOptions{FieldManager: sandbox.FieldManager, DryRun: dry},
	)
}

func encode(ops []jsonpatch.Operation) ([]byte, error) {
	b, err := json.Marshal(ops)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	return b, nil
}

// Watch sends the workload each time it changes, until ctx ends.
func (r *Routing) Watch(ctx context.Context, w *plan.Workload, changes chan<- *plan.Workload) {
	events, err := r.client.Dynamic.Resource(w.GroupVersionResource()).
		Namespace(w.Namespace()).
		Watch(ctx, metav1.ListOptions{
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
		pod, err := r.client.Dynamic.Resource(podsResource()).
			Namespace(w.Namespace()).
			Create(ctx, routes.TrialPod(w), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
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

// Explain turns an error into a Problem. For missing rights, it checks all rights that the steps need, so that they
// need not be found out one by one.
func (r *Routing) Explain(ctx context.Context, err error) error {
	explained := cluster.Explain(err)
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
	return lacking(ctx, r.client, needs)
}
