// Package fork creates a fork's Deployment from a baseline and a patch. It is pure, so that the plugin, which plans
// forks, and the controller, which rebases them, get the same result.
package fork

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Options are the properties of a fork beside its baseline.
type Options struct {
	Name        string // of the Deployment: sandbox.ForkName or ForkNameHashed
	Sandbox     string
	Key         string
	WhenUnready string // sandbox.WhenUnreadyError or WhenUnreadyBaseline
	Replicas    int64
	// Patch is the change, an RFC 6902 patch of the baseline's current pod template. Empty means "[]".
	Patch []byte
	// TemplatePath is the path of the baseline's pod template; empty: DefaultTemplatePath.
	TemplatePath string
	// KeepLabels are the names of labels of the template that the fork's pods keep, if the template has them.
	KeepLabels []string
	// DropLabels are the names of labels that the user asked to drop, even if something selects by them.
	DropLabels []string
	// EnvFrom is the value of sandbox.AnnotationEnvFrom: what is known about variables from envFrom.
	EnvFrom string
	// RestartedAt is when the user last restarted the fork without a change (RFC 3339); empty: never.
	RestartedAt string
	// OwnerUID is the uid of the sandbox's ConfigMap; if it is empty, because it is unknown, the fork has no owner.
	OwnerUID string
	// Follow makes the controller rebase the fork whenever its baseline changes.
	Follow bool
}

// Values of a fork's Deployment that differ from the defaults of the API server.
const (
	revisionHistoryLimit    = 2
	progressDeadlineSeconds = 300
)

// Deployment returns the fork of baseline, any object with a pod template at o.TemplatePath. It keeps the parts of the
// template that it does not know. It replaces the labels, so that no selector of the baseline matches the fork, and
// retargets terms about the baseline's pods to the fork's (aim). It drops annotations of tools that manage the
// baseline. The volumeClaimTemplates of a StatefulSet become ephemeral volumes. References of the template to its own
// labels and annotations keep their values. It fails if the patch does not fit.
func Deployment(baseline *unstructured.Unstructured, o Options) (*unstructured.Unstructured, error) {
	d, err := deployment(baseline, o)
	if err != nil {
		return nil, err
	}
	hash, err := Hash(baseline, o)
	if err != nil {
		return nil, err
	}
	return d, unstructured.SetNestedField(d.Object, hash, "metadata", "annotations", sandbox.AnnotationBaseline)
}

// annotationsOf returns the annotations of a fork's Deployment that record its options.
func annotationsOf(o Options) map[string]any {
	patch := string(o.Patch)
	if patch == "" {
		patch = "[]"
	}
	about := map[string]any{
		sandbox.AnnotationPatch:       patch,
		sandbox.AnnotationKey:         o.Key,
		sandbox.AnnotationWhenUnready: o.WhenUnready,
	}
	if o.TemplatePath != "" {
		about[sandbox.AnnotationTemplate] = o.TemplatePath
	}
	if len(o.DropLabels) > 0 {
		about[sandbox.AnnotationDropLabels] = strings.Join(o.DropLabels, ",")
	}
	if o.Follow {
		about[sandbox.AnnotationFollow] = sandbox.FollowOn
	}
	return about
}

// annotatePods adds the annotations to a fork's pods that admission and previews read.
func annotatePods(annotations map[string]any, o Options) {
	annotations[sandbox.AnnotationKey] = o.Key
	annotations[sandbox.AnnotationWhenUnready] = o.WhenUnready
	if o.RestartedAt != "" {
		annotations[sandbox.AnnotationRestartedAt] = o.RestartedAt
	}
	if o.EnvFrom != "" {
		annotations[sandbox.AnnotationEnvFrom] = o.EnvFrom
	}
}

// deployment is Deployment without the hash of the baseline.
func deployment(baseline *unstructured.Unstructured, o Options) (*unstructured.Unstructured, error) {
	template, err := Template(baseline, o.TemplatePath, o.Patch)
	if err != nil {
		return nil, err
	}
	spec, _, _ := unstructured.NestedMap(template, "spec")
	if spec == nil {
		spec = map[string]any{}
	}
	if err := addClaims(spec, baseline); err != nil {
		return nil, err
	}
	marks := map[string]any{
		sandbox.LabelSandbox:  o.Sandbox,
		sandbox.LabelRole:     sandbox.RoleFork,
		sandbox.LabelWorkload: sandbox.WorkloadLabel(baseline.GetKind(), baseline.GetName()),
	}
	was, err := PodTemplate(baseline, o.TemplatePath)
	if err != nil {
		return nil, err
	}
	aim(spec, baseline.GetNamespace(), marks, labelsOf(was), labelsOf(template))
	annotations, podLabels := inherited(template), podLabels(template, marks, o.KeepLabels)
	(&owner{
		baseline: map[string]map[string]any{"labels": field(template, "labels"), "annotations": field(template, "annotations")},
		fork:     map[string]map[string]any{"labels": podLabels, "annotations": annotations},
	}).own(spec)
	runOn(spec)
	annotatePods(annotations, o)
	about := annotationsOf(o)
	nameBaseline(about, baseline)
	metadata := map[string]any{
		"name":        o.Name,
		"namespace":   baseline.GetNamespace(),
		"labels":      maps.Clone(marks),
		"annotations": about,
	}
	if o.OwnerUID != "" {
		metadata["ownerReferences"] = []any{map[string]any{
			"apiVersion": "v1",
			"kind":       "ConfigMap",
			"name":       sandbox.ConfigMapName(o.Sandbox),
			"uid":        o.OwnerUID,
		}}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1",
		"kind":       "Deployment",
		"metadata":   metadata,
		"spec": map[string]any{
			"replicas":                o.Replicas,
			"revisionHistoryLimit":    int64(revisionHistoryLimit),
			"progressDeadlineSeconds": int64(progressDeadlineSeconds),
			// A broken update leaves the last good pod serving.
			"strategy": map[string]any{
				"type":          "RollingUpdate",
				"rollingUpdate": map[string]any{"maxUnavailable": int64(0), "maxSurge": int64(1)},
			},
			"selector": map[string]any{"matchLabels": maps.Clone(marks)},
			"template": map[string]any{
				"metadata": map[string]any{"labels": podLabels, "annotations": annotations},
				"spec":     spec,
			},
		},
	}}, nil
}

// Template returns the baseline's pod template at path (empty: DefaultTemplatePath) with the patch applied: what the
// fork runs, except for labels and annotations.
func Template(baseline *unstructured.Unstructured, path string, patch []byte) (map[string]any, error) {
	template, err := PodTemplate(baseline, path)
	if err != nil || len(patch) == 0 {
		return template, err
	}
	if template, err = Apply(template, patch); err != nil {
		return nil, err
	}
	normalize(template) // patches of earlier versions replace whole lists
	return template, nil
}

// field returns the labels or annotations of a template.
func field(template map[string]any, name string) map[string]any {
	m, _, _ := unstructured.NestedMap(template, "metadata", name)
	return m
}

// runOn removes from a pod spec what a Deployment does not accept: settings by which its pods end.
func runOn(spec map[string]any) {
	if _, ok := spec["restartPolicy"]; ok {
		spec["restartPolicy"] = "Always"
	}
	delete(spec, "activeDeadlineSeconds")
}

func labelsOf(template map[string]any) labels.Set {
	l, _, _ := unstructured.NestedStringMap(template, "metadata", "labels")
	return l
}

// inherited returns the template's annotations that a fork keeps.
func inherited(template map[string]any) map[string]any {
	all, _, _ := unstructured.NestedMap(template, "metadata", "annotations")
	kept := map[string]any{}
	for name, value := range all {
		if inherits(name) {
			kept[name] = value
		}
	}
	return kept
}

// inherits reports whether a fork's pods keep the pod template annotation of that name. It excludes those by which Argo
// CD, Flux and Helm track objects, and kubectl's own records. Of ours it keeps only the ports and the switch of the
// outgoing proxy.
func inherits(name string) bool {
	switch name {
	case sandbox.AnnotationPorts, sandbox.AnnotationOutgoing:
		return true
	case "kubectl.kubernetes.io/last-applied-configuration", "kubectl.kubernetes.io/restartedAt", "kubernetes.io/change-cause":
		return false
	}
	domain, _, _ := strings.Cut(name, "/")
	if domain+"/" == sandbox.Prefix {
		return false
	}
	return !managed(domain)
}

// addClaims turns each volumeClaimTemplate of a StatefulSet into an ephemeral volume, which lives as long as the pod.
// As in a StatefulSet's pods, it replaces a volume with the same name.
func addClaims(spec map[string]any, baseline *unstructured.Unstructured) error {
	// If a custom kind has a field with that name and another type, it is ignored.
	claims, _, _ := unstructured.NestedSlice(baseline.Object, "spec", "volumeClaimTemplates")
	if len(claims) == 0 {
		return nil
	}
	volumes, _, err := unstructured.NestedSlice(spec, "volumes")
	if err != nil {
		return fmt.Errorf("spec.volumes of the pod template: %w", err)
	}
	for _, c := range claims {
		claim, ok := c.(map[string]any)
		if !ok {
			continue
		}
		name, _, _ := unstructured.NestedString(claim, "metadata", "name")
		volume := map[string]any{
			"name":      name,
			"ephemeral": map[string]any{"volumeClaimTemplate": map[string]any{"spec": claim["spec"]}},
		}
		volumes = slices.DeleteFunc(volumes, func(v any) bool {
			m, ok := v.(map[string]any)
			return ok && m["name"] == name
		})
		volumes = append(volumes, volume)
	}
	spec["volumes"] = volumes
	return nil
}
