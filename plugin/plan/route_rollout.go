package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/kubectl/pkg/polymorphichelpers"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// RolledOut reports whether all pods of a workload are available and of its current template, by the rules of
// `kubectl rollout status`; or else what is missing. An error means that the rollout can't complete. For kinds that
// kubectl does not know it reads the status fields that custom kinds share with Deployments, if present.
func RolledOut(w *Workload) (message string, done bool, err error) {
	if viewer, err := polymorphichelpers.StatusViewerFor(w.Object.GroupVersionKind().GroupKind()); err == nil {
		message, done, err := viewer.Status(w.Object, 0)
		message = strings.TrimPrefix(strings.TrimSuffix(strings.TrimSpace(message), "..."), "Waiting for ")
		return message, done && err == nil, err
	}
	get := func(path ...string) (int64, bool) {
		v, ok, _ := unstructured.NestedFieldNoCopy(w.Object.Object, path...)
		switch v := v.(type) {
		case string: // Argo Rollouts write observedGeneration so
			n, err := strconv.ParseInt(v, 10, 64)
			return n, err == nil
		case int64, float64:
			return asInt(v), ok
		}
		return 0, false
	}
	if observed, ok := get("status", "observedGeneration"); ok && observed < w.Object.GetGeneration() {
		return "its controller has not seen the change", false, nil
	}
	if isRollout(w) {
		if phase, _, _ := unstructured.NestedString(w.Object.Object, "status", "phase"); phase != "Healthy" {
			message, _, _ := unstructured.NestedString(w.Object.Object, "status", "message")
			message = strings.TrimSpace(fmt.Sprintf("its phase is %s %s", phase, message))
			if phase == "Degraded" {
				return "", false, errors.New(message)
			}
			return message, false, nil
		}
	}
	want, ok := get("spec", "replicas")
	if !ok {
		want = 1
	}
	for _, field := range []string{"updatedReplicas", "availableReplicas"} {
		if n, ok := get("status", field); ok && n < want {
			return fmt.Sprintf("%d of %d replicas: status.%s", n, want, field), false, nil
		}
	}
	return "", true, nil
}

func isRollout(w *Workload) bool {
	return w.Resource.Group == "argoproj.io" && w.Kind() == "Rollout"
}

// checkKind returns a Problem for a workload whose pods do not follow its own template.
func checkKind(w *Workload) *Problem {
	owner := metav1.GetControllerOf(w.Object)
	switch {
	case w.Object.GetLabels()[sandbox.LabelRole] == sandbox.RoleFork:
		return &Problem{
			What: w.String() + " is a fork: routers stand in front of baselines",
			Hint: "baselines and their routes",
			Fix:  Kubectl("sandbox", "route"),
		}
	case w.Kind() == "ReplicaSet" && w.Resource.Group == "apps" && owner != nil:
		return &Problem{
			What: fmt.Sprintf("%s belongs to %s/%s, which recreates it on every change", w, strings.ToLower(owner.Kind), owner.Name),
			Hint: "route that",
			Fix:  Kubectl("sandbox", "route", strings.ToLower(owner.Kind)+"/"+owner.Name),
		}
	case w.Kind() == "ReplicaSet" && w.Resource.Group == "apps", w.Kind() == "ReplicationController" && w.Resource.Group == "":
		return &Problem{
			What: fmt.Sprintf("%s replaces no pod when its template changes, so that it can't be routed without an outage; a Deployment with the same selector and template can", w),
			Hint: "see its template, to create a Deployment from it",
			Fix:  Kubectl("get", w.Arg(), "-o", "yaml"),
		}
	case slices.Contains([]string{"Job", "CronJob"}, w.Kind()):
		return &Problem{What: w.String() + " runs to completion: nothing sends it requests to route"}
	case owner != nil:
		return &Problem{
			What: fmt.Sprintf("%s is managed by %s/%s, whose controller would undo the change", w, strings.ToLower(owner.Kind), owner.Name),
			Hint: "see whether its owner can carry the labels and annotations for the pod template",
			Fix:  Kubectl("describe", strings.ToLower(owner.Kind), owner.Name),
		}
	}
	if hostNetwork, _, _ := unstructured.NestedBool(w.Object.Object, w.templateFields("spec", "hostNetwork")...); hostNetwork {
		return &Problem{
			What: fmt.Sprintf("%s uses its node's network (hostNetwork), where a router's port would be everybody's", w),
			Hint: "give it a network of its own, if that works for it",
			Fix:  Kubectl("edit", w.Arg()),
		}
	}
	return nil
}

// checkRollout returns a Problem for a target that still has to roll out and does not do so by itself.
func (t *routeTarget) checkRollout() *Problem {
	_, done, _ := RolledOut(t.Workload)
	marks, changes := t.writeMarks()
	if done && len(t.add) == 0 && (!changes || marks.Rolls == nil) {
		return nil
	}
	return gate(t.Workload)
}

// gate returns a Problem for a workload that does not roll out a new template by itself.
func gate(w *Workload) *Problem {
	str := func(path ...string) string {
		s, _, _ := unstructured.NestedString(w.Object.Object, append([]string{"spec"}, path...)...)
		return s
	}
	if paused, _, _ := unstructured.NestedBool(w.Object.Object, "spec", "paused"); paused {
		if isRollout(w) {
			return &Problem{
				What: fmt.Sprintf("%s is paused, and its pods would not change", w),
				Hint: "resume it",
				Fix:  Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"paused":false}}`),
			}
		}
		return &Problem{
			What: fmt.Sprintf("%s is paused, and its pods would not change", w),
			Hint: "resume it",
			Fix:  Kubectl("rollout", "resume", w.Arg()),
		}
	}
	switch {
	case str("updateStrategy", "type") == "OnDelete":
		return &Problem{
			What: fmt.Sprintf("%s has the update strategy OnDelete: its pods change only when somebody deletes them", w),
			Hint: "have it replace its pods",
			Fix:  Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}`),
		}
	case isRollout(w):
		return gateRollout(w)
	}
	partition, _, _ := unstructured.NestedFieldNoCopy(w.Object.Object, "spec", "updateStrategy", "rollingUpdate", "partition")
	if n := asInt(partition); n > 0 {
		return &Problem{
			What: fmt.Sprintf("%s is partitioned: its pods below %d would keep the template they have", w, n),
			Hint: "let all of them change",
			Fix:  Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}`),
		}
	}
	return nil
}

// gateRollout returns a Problem for an Argo Rollout that waits for a manual step, or whose template is in another
// object.
func gateRollout(w *Workload) *Problem {
	if auto, found, _ := unstructured.NestedBool(w.Object.Object, "spec", "strategy", "blueGreen", "autoPromotionEnabled"); found && !auto {
		return &Problem{
			What: fmt.Sprintf("%s waits for a promotion by hand (autoPromotionEnabled: false), twice during this command", w),
			Hint: "have it promote by itself meanwhile",
			Fix:  Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"strategy":{"blueGreen":{"autoPromotionEnabled":true}}}}`),
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
			return &Problem{
				What: fmt.Sprintf("%s stops at step %d of its canary until somebody promotes it, twice during this command", w, i+1),
				Hint: "remove the steps meanwhile",
				Fix:  Kubectl("patch", w.Arg(), "--type=merge", "-p", `{"spec":{"strategy":{"canary":{"steps":null}}}}`),
			}
		}
	}
	return nil
}

// ofArgo reports whether Argo CD syncs an object from Git.
func ofArgo(labels, annotations map[string]string) bool {
	return annotations["argocd.argoproj.io/tracking-id"] != "" || labels["argocd.argoproj.io/instance"] != ""
}
