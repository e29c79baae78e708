package jobs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// CreateObjects creates the objects of a suite other than Jobs, as suite.Place returns them. Objects that the
// experiment created before stay. An existing ServiceAccount is used as it is. If it belongs to another experiment,
// this one becomes an owner too.
func (c *Experiments) CreateObjects(ctx context.Context, objects []suite.Object) error {
	for _, o := range objects {
		err := cluster.Retry(ctx, func() error { return c.createObject(ctx, o) })
		if apierrors.IsAlreadyExists(err) {
			err = c.adoptObject(ctx, o)
		}
		if err != nil {
			return cluster.Explain(err)
		}
	}
	return nil
}

func (c *Experiments) createObject(ctx context.Context, o suite.Object) (err error) {
	options := metav1.CreateOptions{FieldManager: sandbox.FieldManager}
	switch object := o.NamedObject.(type) {
	case *corev1.ConfigMap:
		_, err = c.Kube.CoreV1().ConfigMaps(c.Namespace).Create(ctx, object, options)
	case *corev1.Secret:
		_, err = c.Kube.CoreV1().Secrets(c.Namespace).Create(ctx, object, options)
	case *corev1.PersistentVolumeClaim:
		_, err = c.Kube.CoreV1().PersistentVolumeClaims(c.Namespace).Create(ctx, object, options)
	case *corev1.ServiceAccount:
		_, err = c.Kube.CoreV1().ServiceAccounts(c.Namespace).Create(ctx, object, options)
	default:
		err = fmt.Errorf("%s: a suite's %T can't be created", o.Source, object)
	}
	return err
}

// adoptObject checks the existing object of that name. It must belong to the experiment, or be a ServiceAccount.
func (c *Experiments) adoptObject(ctx context.Context, o suite.Object) error {
	there, err := c.readObject(ctx, o)
	if err != nil {
		return err
	}
	owner := o.GetOwnerReferences()[0]
	switch owners := there.GetOwnerReferences(); {
	case slices.ContainsFunc(owners, func(r metav1.OwnerReference) bool { return r.UID == owner.UID }):
		return nil
	case o.Kind != suite.KindServiceAccount:
		return &plan.Problem{
			What: fmt.Sprintf(
				"%s: %s/%s is there already, and not of this experiment; give it another name in the suite, or choose another --id",
				o.Source,
				strings.ToLower(o.Kind),
				o.GetName(),
			),
		}
	case there.GetLabels()[sandbox.LabelRun] == "":
		return nil // created by a user, who may have granted it rights
	default:
		account := there.(*corev1.ServiceAccount) //nolint:forcetypeassert // by its kind
		account.OwnerReferences = append(account.OwnerReferences, owner)
		_, err := c.Kube.CoreV1().
			ServiceAccounts(c.Namespace).
			Update(ctx, account, metav1.UpdateOptions{FieldManager: sandbox.FieldManager})
		return err
	}
}

func (c *Experiments) readObject(ctx context.Context, o suite.Object) (suite.NamedObject, error) {
	switch name := o.GetName(); o.Kind {
	case suite.KindConfigMap:
		return c.Kube.CoreV1().ConfigMaps(c.Namespace).Get(ctx, name, metav1.GetOptions{})
	case suite.KindSecret:
		return c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, name, metav1.GetOptions{})
	case suite.KindClaim:
		return c.Kube.CoreV1().PersistentVolumeClaims(c.Namespace).Get(ctx, name, metav1.GetOptions{})
	default:
		return c.Kube.CoreV1().ServiceAccounts(c.Namespace).Get(ctx, name, metav1.GetOptions{})
	}
}
