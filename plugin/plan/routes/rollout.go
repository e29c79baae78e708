package routes

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// checkKind returns a Problem for a workload whose pods do not follow its own template.
func checkKind(w *plan.Workload) *plan.Problem {
	owner := metav1.GetControllerOf(w.Object)
	switch {
	case w.Object.GetLabels()[sandbox.LabelRole] == sandbox.RoleFork:
		return &plan.Problem{
			What: w.String() + " is a fork: routers stand in front of baselines",
			Hint: "baselines and their routes",
			Fix:  plan.Kubectl("sandbox", "route"),
		}
	case w.Kind() == "ReplicaSet" && w.Resource.Group == "apps" && owner != nil:
		return &plan.Problem{
			What: fmt.Sprintf("%s belongs to %s/%s, which recreates it on every change", w, strings.ToLower(owner.Kind), owner.Name),
			Hint: "route that",
			Fix:  plan.Kubectl("sandbox", "route", strings.ToLower(owner.Kind)+"/"+owner.Name),
		}
	case w.Kind() == "ReplicaSet" && w.Resource.Group == "apps", w.Kind() == "ReplicationController" && w.Resource.Group == "":
		return &plan.Problem{
			What: fmt.Sprintf("%s replaces no pod when its template changes, so that it can't be routed without an outage; a Deployment with the same selector and template can", w),
			Hint: "see its template, to create a Deployment from it",
			Fix:  plan.Kubectl("get", w.Arg(), "-o", "yaml"),
		}
	case slices.Contains([]string{"Job", "CronJob"}, w.Kind()):
		return &plan.Problem{What: w.String() + " runs to completion: nothing sends it requests to route"}
	case owner != nil:
		return &plan.Problem{
			What: fmt.Sprintf("%s is managed by %s/%s, whose controller would undo the change", w, strings.ToLower(owner.Kind), owner.Name),
			Hint: "see whether its owner can carry the labels and annotations for the pod template",
			Fix:  plan.Kubectl("describe", strings.ToLower(owner.Kind), owner.Name),
		}
	}
	if hostNetwork, _, _ := unstructured.NestedBool(w.Object.Object, w.TemplateFields("spec", "hostNetwork")...); hostNetwork {
		return &plan.Problem{
			What: fmt.Sprintf("%s uses its node's network (hostNetwork), where a router's port would be everybody's", w),
			Hint: "give it a network of its own, if that works for it",
			Fix:  plan.Kubectl("edit", w.Arg()),
		}
	}
	return nil
}

// checkRollout returns a Problem for a target that still has to roll out and does not do so by itself.
func (t *target) checkRollout() *plan.Problem {
	_, done, _ := plan.RolledOut(t.Workload)
	marks, changes := t.writeMarks()
	if done && len(t.add) == 0 && (!changes || marks.Rolls == nil) {
		return nil
	}
	return gate(t.Workload)
}

// gate returns a Problem for a workload that does not roll out a new template by itself.
func gate(w *plan.Workload) *plan.Problem {
	str := func(path ...string) string {
		s, _, _ := unstructured.NestedString(w.Object.Object, append([]string{"spec"}, path...)...)
		return s
	}
	if paused, _, _ := unstructured.NestedBool(w.Object.Object, "spec", "paused"); paused {
		if plan.IsRollout(w) {
			return &plan.Problem{
				What: fmt.Sprintf("%s is paused, and its pods would not change", w),
				Hint: "resume it",
				Fix:  plan.Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"paused":false}}`),
			}
		}
		return &plan.Problem{
			What: fmt.Sprintf("%s is paused, and its pods would not change", w),
			Hint: "resume it",
			Fix:  plan.Kubectl("rollout", "resume", w.Arg()),
		}
	}
	switch {
	case str("updateStrategy", "type") == "OnDelete":
		return &plan.Problem{
			What: fmt.Sprintf("%s has the update strategy OnDelete: its pods change only when somebody deletes them", w),
			Hint: "have it replace its pods",
			Fix:  plan.Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}`),
		}
	case plan.IsRollout(w):
		return gateRollout(w)
	}
	partition, _, _ := unstructured.NestedFieldNoCopy(w.Object.Object, "spec", "updateStrategy", "rollingUpdate", "partition")
	if n := plan.AsInt(partition); n > 0 {
		return &plan.Problem{
			What: fmt.Sprintf("%s is partitioned: its pods below %d would keep the template they have", w, n),
			Hint: "let all of them change",
			Fix:  plan.Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}`),
		}
	}
	return nil
}

// gateRollout returns a Problem for an Argo Rollout that waits for a manual step, or whose template is in another
// object.
func gateRollout(w *plan.Workload) *plan.Problem {
	if auto, found, _ := unstructured.NestedBool(w.Object.Object, "spec", "strategy", "blueGreen", "autoPromotionEnabled"); found && !auto {
		return &plan.Problem{
			What: fmt.Sprintf("%s waits for a promotion by hand (autoPromotionEnabled: false), twice during this command", w),
			Hint: "have it promote by itself meanwhile",
			Fix:  plan.Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"strategy":{"blueGreen":{"autoPromotionEnabled":true}}}}`),
		}
	}
	steps, _, _ := unstructured.NestedSlice(w.Object.Object, "spec", "strategy", "canary", "steps")
	for i, s := range steps {
		step, _ := s.(map[string]any)
		pause, ok := step["pause"]
		if !ok {
			continue
		}
		fields, _ := pause.(map[string]any)
		if _, timed := fields["duration"]; !timed {
			return &plan.Problem{
				What: fmt.Sprintf("%s stops at step %d of its canary until somebody promotes it, twice during this command", w, i+1),
				Hint: "remove the steps meanwhile",
				Fix:  plan.Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"strategy":{"canary":{"steps":null}}}}`),
			}
		}
	}
	return nil
}

// ofArgo reports whether Argo CD syncs an object from Git.
func ofArgo(labels, annotations map[string]string) bool {
	return annotations["argocd.argoproj.io/tracking-id"] != "" || labels["argocd.argoproj.io/instance"] != ""
}
