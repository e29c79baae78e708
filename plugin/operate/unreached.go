package operate

import (
	"context"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// An InventoryReader reads the sandboxes of a namespace, or of all if it is empty, with the state of their forks.
type InventoryReader interface {
	Inventory(ctx context.Context, namespace string) (*sandboxes.Inventory, error)
}

// An Unreached says that requests with a sandbox's key do not reach all its forks, and why.
type Unreached struct {
	Sandbox string
	State   string // in a word
	Message string
	Fix     []string // the command that fixes it; may be empty
}

// FindUnreached returns why requests with a sandbox's key do not reach all its forks. What can't be read counts as
// reached: callers have another purpose.
func FindUnreached(ctx context.Context, r InventoryReader, namespace, name string) []Unreached {
	v, err := r.Inventory(ctx, namespace)
	if err != nil {
		return nil
	}
	var all []Unreached
	for _, s := range v.Sandboxes() {
		found := v.State(&s)
		if s.Name != name || found.Unknown || found.Code == health.Routed || found.Code == health.Running {
			continue
		}
		about := found.Message
		if found.Fork != "" {
			about = "deployment.apps/" + found.Fork + ": " + about
		}
		all = append(all, Unreached{Sandbox: name, State: found.Word(), Message: about, Fix: found.Fix})
	}
	return all
}

// Reached reports whether requests with the key of the inventory's only sandbox reach all its forks. It is not known
// if the state of the forks is unknown.
func Reached(v *sandboxes.Inventory) (reached, known bool) {
	all := v.Sandboxes()
	found := v.State(&all[0])
	return !found.Unknown && (found.Code == health.Routed || found.Code == health.Running), !found.Unknown
}
