package operate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A SandboxReader reads sandboxes.
type SandboxReader interface {
	// Sandboxes reads those whose ConfigMaps the label selector selects; an empty selector selects all.
	Sandboxes(ctx context.Context, namespace, selector string) ([]sandboxes.Sandbox, error)
	SandboxesNamed(ctx context.Context, names []string) (found []sandboxes.Sandbox, missing []string, err error)
}

// A DeleteReader reads what is to be deleted.
type DeleteReader interface {
	SandboxReader
	// WithPolicies adds the forks' policies, and sandboxes of which only policies are left.
	WithPolicies(ctx context.Context, sandboxes []sandboxes.Sandbox) ([]sandboxes.Sandbox, error)
}

// A DeleteWriter starts the deletion of a sandbox.
type DeleteWriter interface {
	Delete(ctx context.Context, s *sandboxes.Sandbox, dryRun bool) error
}

// A DeleteWaiter waits until nothing of the sandboxes is left. If ctx ends first, left says what remains.
type DeleteWaiter interface {
	WaitDeleted(ctx context.Context, names []string) (left []string, err error)
}

// A Delete deletes sandboxes.
type Delete struct {
	Read  DeleteReader
	Write DeleteWriter
	Wait  DeleteWaiter
}

// A Selection selects sandboxes of a namespace: by name or, without names, by a selector, which may be empty.
type Selection struct {
	Namespace string
	Names     []string
	Selector  string
}

// DeleteOptions are what is to be deleted, and how.
type DeleteOptions struct {
	Selection
	DryRun         DryRun
	IgnoreNotFound bool
	Wait           bool          // until nothing is left
	Timeout        time.Duration // of that; 0 means no limit
}

// Run deletes the sandboxes, and returns them. If the error is that only some were deleted, or that some do not exist,
// done is true: then too, the sandboxes are those that were deleted.
func (d *Delete) Run(ctx context.Context, o DeleteOptions) (deleted []sandboxes.Sandbox, done bool, err error) {
	doomed, missing, err := d.find(ctx, o.Selection)
	if err != nil {
		return nil, false, err
	}
	var names []string
	// A write is never cancelled midway: ctx is checked between writes.
	write := context.WithoutCancel(ctx)
	for i := range doomed {
		if ctx.Err() != nil {
			break
		}
		if o.DryRun != DryRunClient {
			if err := d.Write.Delete(write, &doomed[i], o.DryRun == DryRunServer); err != nil {
				return nil, false, err
			}
		}
		names = append(names, doomed[i].Name)
	}
	if o.Wait && o.DryRun == DryRunNone && len(names) > 0 {
		if err := d.await(ctx, o.Timeout, names); err != nil {
			return nil, false, err
		}
	}
	deleted = doomed[:len(names)]
	if len(names) < len(doomed) {
		return deleted, true, &plan.Problem{
			What: fmt.Sprintf("interrupted; %d of %d sandboxes are deleted", len(names), len(doomed)),
			Hint: "list the remaining ones", Fix: plan.Kubectl("sandbox", "list"), Code: status.CodeInterrupted,
		}
	}
	if len(missing) > 0 && !o.IgnoreNotFound {
		return deleted, true, plan.NoSandbox(missing[0], o.Namespace, missing[1:]...)
	}
	return deleted, true, nil
}

// find returns the selected sandboxes, and the names of those that do not exist.
func (d *Delete) find(ctx context.Context, o Selection) (found []sandboxes.Sandbox, missing []string, err error) {
	if len(o.Names) > 0 {
		return d.Read.SandboxesNamed(ctx, o.Names)
	}
	found, err = d.Read.Sandboxes(ctx, o.Namespace, o.Selector)
	if err != nil {
		return nil, nil, err
	}
	with, err := d.Read.WithPolicies(ctx, found)
	if o.Selector != "" { // policies do not have the labels of the ConfigMap
		with = with[:min(len(found), len(with))]
	}
	return with, nil, err
}

func (d *Delete) await(ctx context.Context, timeout time.Duration, names []string) error {
	waiting := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	left, err := d.Wait.WaitDeleted(waiting, names)
	switch {
	case err == nil:
		return nil
	case waiting.Err() == nil:
		return err
	}
	what, code := fmt.Sprintf("deletion goes on after %s (--timeout)", timeout), status.CodeTimedOut
	if errors.Is(ctx.Err(), context.Canceled) {
		what, code = "interrupted; deletion goes on", status.CodeInterrupted
	}
	if len(left) > 0 {
		what += "; still there: " + strings.Join(left, ", ")
	}
	selector := sandbox.LabelSandbox + " in (" + strings.Join(names, ",") + ")"
	return &plan.Problem{
		What: what, Hint: "see what is left", Code: code,
		Fix: plan.Kubectl("get", "deployments,networkpolicies,pods", "--selector="+selector),
	}
}
