package operate

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
)

// An ExtendReader reads sandboxes, and the lifetime that they have by default.
type ExtendReader interface {
	SandboxReader
	// DefaultTTL returns the cluster's lifetime of a sandbox; 0 means forever, nil unknown.
	DefaultTTL(ctx context.Context) (*time.Duration, error)
}

// An ExtendWriter writes the extension of a sandbox. If the ConfigMap has changed since it was read, the error is a
// conflict; if it is gone, it is not found.
type ExtendWriter interface {
	ApplyExtension(ctx context.Context, s *sandboxes.Sandbox, e *sandboxes.Extension, dryRun bool) (*corev1.ConfigMap, error)
}

// An Extend extends the lifetime of sandboxes.
type Extend struct {
	Read  ExtendReader
	Write ExtendWriter
}

// ExtendOptions are what is to be extended, and how.
type ExtendOptions struct {
	Selection
	TTL    *time.Duration // from Now on; nil: the cluster's default
	Now    time.Time
	DryRun DryRun
}

// An Extended is a sandbox that was extended, with the resulting ConfigMap.
type Extended struct {
	*sandboxes.Extension
	ConfigMap *corev1.ConfigMap
}

// Run extends the sandboxes. After an error, it returns those that were extended before it; nil if none was tried.
// found is the number of sandboxes that are selected; -1 if they could not be read.
func (e *Extend) Run(ctx context.Context, o ExtendOptions) (done []Extended, found int, err error) {
	listed, err := e.find(ctx, o.Selection)
	if err != nil {
		return nil, -1, err
	}
	byDefault, err := e.Read.DefaultTTL(ctx)
	if err != nil {
		return nil, len(listed), err
	}
	extend := func(s *sandboxes.Sandbox) (*sandboxes.Extension, error) {
		return sandboxes.Extend(s, o.TTL, byDefault, o.Now)
	}
	for i := range listed {
		if _, err := extend(&listed[i]); err != nil {
			return nil, len(listed), err // before anything is changed
		}
	}
	done = []Extended{}
	for i := range listed {
		one, err := e.extend(ctx, &listed[i], o.DryRun, extend)
		if err != nil {
			return done, len(listed), err
		}
		done = append(done, *one)
	}
	return done, len(listed), nil
}

// find returns the selected sandboxes. If one that is named does not exist, the error is a *plan.Problem.
func (e *Extend) find(ctx context.Context, o Selection) ([]sandboxes.Sandbox, error) {
	if len(o.Names) == 0 {
		return e.Read.Sandboxes(ctx, o.Namespace, o.Selector)
	}
	found, missing, err := e.Read.SandboxesNamed(ctx, o.Names)
	if err == nil && len(missing) > 0 {
		return nil, plan.NoSandbox(missing[0], o.Namespace, missing[1:]...)
	}
	return found, err
}

// maxExtensions bounds how often an extension is planned again because the ConfigMap changed in between.
const maxExtensions = 5

// extend extends one sandbox. If it has changed since it was read, it is read again.
func (e *Extend) extend(
	ctx context.Context, s *sandboxes.Sandbox, dryRun DryRun, extend func(*sandboxes.Sandbox) (*sandboxes.Extension, error),
) (*Extended, error) {
	for try := 1; ; try++ {
		extension, err := extend(s)
		if err != nil {
			return nil, err
		}
		if extension.Unchanged || dryRun == DryRunClient {
			return &Extended{extension, extension.Extended()}, nil
		}
		cm, err := e.Write.ApplyExtension(ctx, s, extension, dryRun == DryRunServer)
		if err == nil {
			return &Extended{extension, cm}, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) || try == maxExtensions {
			return nil, cluster.Explain(err)
		}
		found, _, err := e.Read.SandboxesNamed(ctx, []string{s.Name})
		if err != nil {
			return nil, err
		}
		if len(found) == 0 || found[0].ConfigMap == nil || found[0].ConfigMap.UID != s.ConfigMap.UID {
			return nil, plan.NoSandbox(s.Name, s.Namespace)
		}
		s = &found[0]
	}
}
