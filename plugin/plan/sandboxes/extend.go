package sandboxes

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An Extension is the change that `extend` makes to one sandbox.
type Extension struct {
	Sandbox *Sandbox
	Expires time.Time // zero: never
	// Unchanged means that the sandbox lives at least as long already: extend never shortens a lifetime.
	Unchanged bool
}

// Extend plans a longer lifetime for a sandbox: ttl from now, or by default the cluster's TTL, which is nil if
// unknown. Zero means forever. Every error is a *Problem.
func Extend(s *Sandbox, ttl, byDefault *time.Duration, now time.Time) (*Extension, error) {
	switch {
	case s.ConfigMap == nil:
		return nil, &plan.Problem{
			What: fmt.Sprintf("sandbox %q has lost its ConfigMap, and with it when it expires", s.Name),
			Hint: "delete what is left of it", Fix: plan.Kubectl("sandbox", "delete", s.Name),
		}
	case s.ConfigMap.DeletionTimestamp != nil:
		return nil, &plan.Problem{
			What: fmt.Sprintf("sandbox %q is being deleted", s.Name),
			Hint: "wait until it is deleted, then fork again", Fix: plan.Kubectl("wait", "--for=delete", "configmap/"+s.ConfigMap.Name),
		}
	}
	life := plan.DefaultTTL
	if byDefault != nil {
		life = *byDefault
	}
	if ttl != nil {
		life = *ttl
	}
	before := s.ConfigMap.Data[sandbox.DataExpires]
	e := &Extension{Sandbox: s}
	if life > 0 {
		e.Expires = now.UTC().Truncate(time.Second).Add(life)
	}
	// An expiry that can't be parsed is overwritten.
	if at, err := time.Parse(time.RFC3339, before); before == "" || err == nil && !e.Expires.IsZero() && !e.Expires.After(at) {
		e.Unchanged, e.Expires = true, at
	}
	return e, nil
}

// Patch returns the merge patch that writes the expiry. It applies only to the version of the ConfigMap that was
// read.
func (e *Extension) Patch() []byte {
	var expires any // null removes it
	if !e.Expires.IsZero() {
		expires = e.Expires.Format(time.RFC3339)
	}
	b, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": e.Sandbox.ConfigMap.UID, "resourceVersion": e.Sandbox.ConfigMap.ResourceVersion},
		"data":     map[string]any{sandbox.DataExpires: expires},
	})
	if err != nil {
		panic(err) // strings always encode
	}
	return b
}

// Extended returns the ConfigMap with the extension applied.
func (e *Extension) Extended() *corev1.ConfigMap {
	cm := e.Sandbox.ConfigMap.DeepCopy()
	if e.Unchanged {
		return cm
	}
	delete(cm.Data, sandbox.DataExpires)
	if !e.Expires.IsZero() {
		cm.Data[sandbox.DataExpires] = e.Expires.Format(time.RFC3339)
	}
	return cm
}
