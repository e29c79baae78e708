// Package apply writes what package plan planned of sandboxes, and deletes what it wrote of it if the rest fails.
package apply

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Writer writes sandboxes of the namespace of a client.
type Writer struct {
	*cluster.Client
	read *read.Reader
}

// New returns a Writer for the client's cluster and namespace.
func New(c *cluster.Client) *Writer { return &Writer{c, read.New(c)} }

// Apply writes obj by server-side apply as sandbox.FieldManager. Without force, a field that another manager owns
// with another value is a conflict (apierrors.IsConflict), and nothing changes. With dryRun the API server does
// everything but store it.
func (c *Writer) Apply(
	ctx context.Context,
	resource schema.GroupVersionResource,
	obj *unstructured.Unstructured,
	force, dryRun bool,
) (*unstructured.Unstructured, error) {
	options := metav1.ApplyOptions{FieldManager: sandbox.FieldManager, Force: force}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	objects := c.Dynamic.Resource(resource).Namespace(obj.GetNamespace())
	applied, err := objects.Apply(ctx, obj.GetName(), obj, options)
	if formersOwn(err) {
		options.Force = true
		return objects.Apply(ctx, obj.GetName(), obj, options)
	}
	return applied, err
}

// formersOwn reports whether an earlier version of this program owns all fields that an apply conflicts with.
func formersOwn(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	causes := status.Status().Details.Causes
	return len(causes) > 0 && !slices.ContainsFunc(causes, func(c metav1.StatusCause) bool {
		return c.Type != metav1.CauseTypeFieldManagerConflict ||
			!strings.Contains(c.Message, strconv.Quote(sandbox.FormerFieldManager))
	})
}
