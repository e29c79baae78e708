package admission

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const managedFieldsPath = "/metadata/managedFields"

// webhookManager is the field manager of the controller's own writes: the default is the first part of its user agent.
const webhookManager = "sandbox-webhook"

// disown removes fields of an object's spec from their field managers: the whole spec from the managers of this
// product, and the given paths from all managers. A server-side apply by kubectl, Helm or Flux conflicts if another
// manager owns a field with another value. So nobody may own a field that `route` keeps at another value than the
// owner's manifest has. The API server computes managedFields before it calls admission, and stores them as admission
// returns them.
func disown(u *unstructured.Unstructured, shared ...fieldpath.Path) error {
	entries := u.GetManagedFields()
	var kept []metav1.ManagedFieldsEntry
	changed := false
	for _, entry := range entries {
		if entry.FieldsV1 == nil || entry.Subresource != "" {
			kept = append(kept, entry)
			continue
		}
		set := &fieldpath.Set{}
		if err := set.FromJSON(entry.FieldsV1.GetRawReader()); err != nil {
			return fmt.Errorf("managedFields of %s: %w", entry.Manager, err)
		}
		taken := fieldpath.NewSet(shared...)
		switch entry.Manager {
		case sandbox.FieldManager, sandbox.FormerFieldManager, webhookManager:
			taken.Insert(fieldpath.MakePathOrDie("spec"))
		}
		left := set.RecursiveDifference(taken)
		if left.Equals(set) {
			kept = append(kept, entry)
			continue
		}
		changed = true
		if left.Empty() {
			continue
		}
		raw, err := left.ToJSON()
		if err != nil {
			return fmt.Errorf("managedFields of %s: %w", entry.Manager, err)
		}
		entry.FieldsV1 = metav1.NewFieldsV1(string(raw))
		kept = append(kept, entry)
	}
	if changed {
		u.SetManagedFields(kept)
	}
	return nil
}
