package suite

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Kinds of objects, all of v1, that a suite may hold besides Jobs.
const (
	KindConfigMap      = "ConfigMap"
	KindSecret         = "Secret"
	KindServiceAccount = "ServiceAccount"
	KindClaim          = "PersistentVolumeClaim"
)

// An Object is an object that Jobs of a suite use by its name.
type Object struct {
	NamedObject
	Kind   string
	Source string // where it is from, for people
}

// A NamedObject is a ConfigMap, a Secret, a ServiceAccount or a PersistentVolumeClaim.
type NamedObject interface {
	metav1.Object
	runtime.Object
}

// newObject returns an empty object of a kind that a suite may hold besides Jobs; nil for any other kind.
func newObject(kind metav1.TypeMeta) NamedObject {
	if kind.APIVersion != "v1" {
		return nil
	}
	switch kind.Kind {
	case KindConfigMap:
		return &corev1.ConfigMap{}
	case KindSecret:
		return &corev1.Secret{}
	case KindServiceAccount:
		return &corev1.ServiceAccount{}
	case KindClaim:
		return &corev1.PersistentVolumeClaim{}
	}
	return nil
}

func validObject(o NamedObject) error {
	if o.GetName() == "" {
		return errors.New("metadata.name: must be set: Jobs use the object by it")
	}
	if s, ok := o.(*corev1.Secret); ok && s.Type == corev1.SecretTypeServiceAccountToken {
		return fmt.Errorf("type: %q: a test's token is that of spec.template.spec.serviceAccountName; "+
			"leave the Secret out", s.Type)
	}
	return nil
}

// renamed reports whether each experiment has the object under its own name, so that two concurrent experiments with
// different versions of a suite each have their own. A ServiceAccount keeps its name, because rights, and identities
// outside the cluster, are granted to that name.
func (o Object) renamed() bool { return o.Kind != KindServiceAccount }

// placed returns the object's name in an experiment.
func (o Object) placed(run *Run) string {
	if !o.renamed() {
		return o.GetName()
	}
	return o.GetName() + "-" + run.ID
}

// Public returns the object without confidential data. It identifies the content of a suite, and stands for an object
// that exists already.
func (o Object) Public() NamedObject {
	c := o.DeepCopyObject().(NamedObject) //nolint:forcetypeassert // a copy of such
	if s, ok := c.(*corev1.Secret); ok {
		s.Data, s.StringData, s.Type = nil, nil, ""
		s.Annotations = nil // that of `kubectl apply` holds the data
	}
	c.GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(o.Kind))
	return c
}

// Place returns the objects as the experiment creates them: each is owned by it, and deleted with it.
func Place(run *Run, objects []Object) []Object {
	out := make([]Object, len(objects))
	for i, o := range objects {
		c := o.DeepCopyObject().(NamedObject) //nolint:forcetypeassert // a copy of such
		c.SetName(o.placed(run))
		c.SetNamespace(run.Namespace)
		c.SetUID("")
		c.SetResourceVersion("")
		c.SetCreationTimestamp(metav1.Time{})
		c.SetManagedFields(nil)
		c.SetOwnerReferences([]metav1.OwnerReference{run.owner()})
		labels := clone(o.GetLabels())
		labels[sandbox.LabelRun] = run.ID
		c.SetLabels(labels)
		out[i] = Object{c, o.Kind, o.Source}
	}
	return out
}

// names maps, by kind, the names of a suite's objects to those in the experiment.
type names map[string]map[string]string

func placedNames(run *Run) names {
	n := names{}
	for _, o := range run.Objects {
		if n[o.Kind] == nil {
			n[o.Kind] = map[string]string{}
		}
		n[o.Kind][o.GetName()] = o.placed(run)
	}
	return n
}

// put replaces a name by that in the experiment. A name that the suite does not hold is of an object in the cluster,
// and stays.
func (n names) put(kind string, name *string) {
	if placed, ok := n[kind][*name]; ok {
		*name = placed
	}
}

// pod replaces all names of objects in a pod's spec.
func (n names) pod(pod *corev1.PodSpec) {
	if len(n) == 0 {
		return
	}
	for i := range pod.ImagePullSecrets {
		n.put(KindSecret, &pod.ImagePullSecrets[i].Name)
	}
	for i := range pod.Volumes {
		n.volume(&pod.Volumes[i])
	}
	for i := range pod.InitContainers {
		n.container(&pod.InitContainers[i])
	}
	for i := range pod.Containers {
		n.container(&pod.Containers[i])
	}
}

func (n names) container(c *corev1.Container) {
	for i := range c.EnvFrom {
		if r := c.EnvFrom[i].ConfigMapRef; r != nil {
			n.put(KindConfigMap, &r.Name)
		}
		if r := c.EnvFrom[i].SecretRef; r != nil {
			n.put(KindSecret, &r.Name)
		}
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if from.ConfigMapKeyRef != nil {
			n.put(KindConfigMap, &from.ConfigMapKeyRef.Name)
		}
		if from.SecretKeyRef != nil {
			n.put(KindSecret, &from.SecretKeyRef.Name)
		}
	}
}

func (n names) volume(v *corev1.Volume) {
	switch {
	case v.ConfigMap != nil:
		n.put(KindConfigMap, &v.ConfigMap.Name)
	case v.Secret != nil:
		n.put(KindSecret, &v.Secret.SecretName)
	case v.PersistentVolumeClaim != nil:
		n.put(KindClaim, &v.PersistentVolumeClaim.ClaimName)
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		n.put(KindSecret, &v.CSI.NodePublishSecretRef.Name)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].ConfigMap; s != nil {
				n.put(KindConfigMap, &s.Name)
			}
			if s := v.Projected.Sources[i].Secret; s != nil {
				n.put(KindSecret, &s.Name)
			}
		}
	}
}
