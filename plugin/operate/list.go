package operate

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
)

// A ListReader reads sandboxes, and watches them.
type ListReader interface {
	InventoryReader
	// WatchInventory sends whenever an Inventory has changed, until ctx ends. An error is the last value.
	WatchInventory(ctx context.Context, namespace string) <-chan error
}

// A List reads sandboxes, once or whenever they change.
type List struct {
	Read ListReader
	// Show receives the sandboxes as they are at first.
	Show func(v *sandboxes.Inventory) error
	// Update receives those that have changed since.
	Update func(v *sandboxes.Inventory, changed []sandboxes.Sandbox) error
}

// ListOptions select the sandboxes.
type ListOptions struct {
	Namespace string          // empty: all of them
	Selector  labels.Selector // nil: all of the namespace
	Watch     bool            // until ctx ends
}

// Run reads the sandboxes.
func (l *List) Run(ctx context.Context, o ListOptions) error {
	var changes <-chan error
	if o.Watch {
		// Before the first listing: what changes after it is not missed.
		changes = l.Read.WatchInventory(ctx, o.Namespace)
	}
	v, err := l.read(ctx, o)
	if err != nil {
		return err
	}
	if err := l.Show(v); err != nil || !o.Watch {
		return err
	}
	seen := seenSandboxes{}
	seen.news(v)
	for err := range changes {
		if err == nil {
			v, err = l.read(ctx, o)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how a watch ends
		}
		if err == nil {
			if changed := seen.news(v); len(changed) > 0 {
				err = l.Update(v, changed)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads the sandboxes that the selector selects.
func (l *List) read(ctx context.Context, o ListOptions) (*sandboxes.Inventory, error) {
	v, err := l.Read.Inventory(ctx, o.Namespace)
	if err == nil && o.Selector != nil {
		v.Only(o.Selector)
	}
	return v, err
}

// seenSandboxes hold what was last said of each sandbox, by namespace and name.
type seenSandboxes map[string]string

// news returns the sandboxes that have changed since the last call.
func (seen seenSandboxes) news(v *sandboxes.Inventory) (changed []sandboxes.Sandbox) {
	for _, s := range v.Sandboxes() {
		id := s.Namespace + "/" + s.Name
		found := v.State(&s)
		behind := s.Behind(v.BaselineStates)
		now := fmt.Sprint(s.Key, s.Expires, found.Word(), found.Message, v.Ready(&s), s.Workloads(), behind)
		if seen[id] != now {
			seen[id] = now
			changed = append(changed, s)
		}
	}
	return changed
}
