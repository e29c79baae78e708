package fork

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// hashBytes is how much of a hash distinguishes pod templates of one baseline: 64 bits.
const hashBytes = 8

// Hash returns a short hash of what a fork with these options inherits from its baseline's pod template, before the
// patch. It excludes labels and annotations that forks do not inherit, and what belongs to the sandbox.
func Hash(baseline *unstructured.Unstructured, o Options) (string, error) {
	o.Patch, o.RestartedAt, o.Sandbox, o.Key, o.WhenUnready, o.EnvFrom = nil, "", "", "", "", ""
	d, err := deployment(baseline, o)
	if err != nil {
		return "", err
	}
	template, _, err := unstructured.NestedFieldNoCopy(d.Object, "spec", "template")
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(template)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:hashBytes]), nil
}

// OptionsOf returns the options from which Deployment created d, except for the owner's uid. It fails if d is not a
// fork.
func OptionsOf(d *unstructured.Unstructured) (Options, error) {
	a := d.GetAnnotations()
	o := Options{
		Name: d.GetName(), Sandbox: d.GetLabels()[sandbox.LabelSandbox], Key: a[sandbox.AnnotationKey],
		WhenUnready: a[sandbox.AnnotationWhenUnready], Patch: []byte(a[sandbox.AnnotationPatch]),
		TemplatePath: a[sandbox.AnnotationTemplate], KeepLabels: Kept(d), Follow: a[sandbox.AnnotationFollow] == sandbox.FollowOn, Replicas: 1,
	}
	if d.GetLabels()[sandbox.LabelRole] != sandbox.RoleFork || o.Sandbox == "" {
		return o, fmt.Errorf("deployment.apps/%s is no fork: it lacks the labels of one", d.GetName())
	}
	if o.WhenUnready == "" {
		o.WhenUnready = sandbox.WhenUnreadyError
	}
	if n, ok, _ := unstructured.NestedInt64(d.Object, "spec", "replicas"); ok {
		o.Replicas = n
	}
	if drop := a[sandbox.AnnotationDropLabels]; drop != "" {
		o.DropLabels = strings.Split(drop, ",")
	}
	template, _, _ := unstructured.NestedMap(d.Object, "spec", "template")
	pods := field(template, "annotations")
	o.RestartedAt, _ = pods[sandbox.AnnotationRestartedAt].(string)
	o.EnvFrom, _ = pods[sandbox.AnnotationEnvFrom].(string)
	return o, nil
}

// Behind reports whether the baseline has changed, in what d inherits, since the fork d was created or rebased.
func Behind(d, baseline *unstructured.Unstructured) (bool, error) {
	o, err := OptionsOf(d)
	if err != nil {
		return false, err
	}
	hash, err := Hash(baseline, o)
	return err == nil && hash != d.GetAnnotations()[sandbox.AnnotationBaseline], err
}

// Rebase returns the fork of the current baseline with the options o. It applies o.Patch (Apply), and records the
// resulting patch in the fork. The result is that of Deployment.
func Rebase(baseline *unstructured.Unstructured, o Options) (*unstructured.Unstructured, error) {
	template, err := PodTemplate(baseline, o.TemplatePath)
	if err != nil {
		return nil, err
	}
	changed, err := Template(baseline, o.TemplatePath, o.Patch)
	if err != nil {
		return nil, err
	}
	if o.Patch, err = Diff(template, changed); err != nil {
		return nil, err
	}
	return Deployment(baseline, o)
}
