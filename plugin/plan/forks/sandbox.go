package forks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// planSandbox plans the ConfigMap. The forks are still to be planned.
func (r *request) planSandbox() (*Plan, warnings, error) {
	forced := *r.Options
	forced.Force = true
	p := &Plan{
		Sandbox: r.Sandbox, Namespace: r.state.Namespace, rebase: r.Rebase, force: forced.command(r.workloads...),
		Unrouted: unrouted(r.workloads, r.state.Services),
	}
	var said warnings
	old := r.state.Sandbox
	if old == nil {
		p.CreatedBy = r.state.User
		p.KeyMayChange = r.Key == ""
		if err := r.checkKey(); err != nil {
			return nil, nil, err
		}
		p.Key, said = r.newKey()
	} else {
		if err := checkSandbox(r.Options, r.workloads, old); err != nil {
			return nil, nil, err
		}
		p.Exists, p.Key, p.CreatedBy = string(old.UID), old.Data[sandbox.DataKey], old.Data[sandbox.DataCreatedBy]
		if p.CreatedBy != "" && r.state.User != "" && p.CreatedBy != r.state.User {
			said.add("sandbox %q was created by %s", r.Sandbox, p.CreatedBy)
		}
	}
	p.Expires = expires(r.Options, old, r.state.DefaultTTL)
	p.ConfigMap = &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name:      sandbox.ConfigMapName(r.Sandbox),
			Namespace: r.state.Namespace,
			Labels: map[string]string{
				sandbox.LabelSandbox: r.Sandbox, sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelKey: p.Key,
			},
		},
		Data: map[string]string{sandbox.DataKey: p.Key},
	}
	if p.CreatedBy != "" {
		p.ConfigMap.Data[sandbox.DataCreatedBy] = p.CreatedBy
	}
	if !p.Expires.IsZero() {
		p.ConfigMap.Data[sandbox.DataExpires] = p.Expires.Format(time.RFC3339)
	}
	return p, said, nil
}

// checkKey returns a *Problem if another sandbox has the key that was asked for.
func (r *request) checkKey() error {
	if other := r.sandboxOf(r.Key); r.Key != "" && other != nil {
		return keyInUse(r.Options, r.workloads, other)
	}
	return nil
}

// newKey returns the key of a new sandbox: the requested one; else the sandbox's name; else, if another sandbox has
// that key, a random one.
func (r *request) newKey() (key string, said warnings) {
	key = r.OwnKey()
	other := r.sandboxOf(key)
	if other == nil {
		return key, nil
	}
	said.add("key %s is in use by sandbox %q, so that sandbox %q gets a random one: %s",
		key, other.Labels[sandbox.LabelSandbox], r.Sandbox, r.NewKey)
	return r.NewKey, said
}

// sandboxOf returns the sandbox that has the key; nil if none has.
func (r *request) sandboxOf(key string) *corev1.ConfigMap {
	i := slices.IndexFunc(r.state.Sandboxes, func(c corev1.ConfigMap) bool { return c.Data[sandbox.DataKey] == key })
	if i < 0 {
		return nil
	}
	return &r.state.Sandboxes[i]
}

// expires returns when the sandbox ends, in UTC and whole seconds; zero means never. Only --ttl can shorten the
// lifetime of a sandbox.
func expires(o *Options, old *corev1.ConfigMap, byDefault *time.Duration) time.Time {
	if o.Rebase {
		return keptExpiry(old)
	}
	now := o.Now.UTC().Truncate(time.Second)
	if o.TTL != nil {
		if *o.TTL == 0 {
			return time.Time{}
		}
		return now.Add(*o.TTL)
	}
	ttl := plan.DefaultTTL
	if byDefault != nil {
		ttl = *byDefault
	}
	if ttl == 0 && old == nil {
		return time.Time{}
	}
	renewed := now.Add(ttl)
	if old == nil {
		return renewed
	}
	before, err := time.Parse(time.RFC3339, old.Data[sandbox.DataExpires])
	switch {
	case old.Data[sandbox.DataExpires] == "":
		return time.Time{}
	case err == nil && (before.After(renewed) || ttl == 0):
		return before
	}
	return renewed
}

// keptExpiry returns the unchanged expiry of a sandbox.
func keptExpiry(old *corev1.ConfigMap) time.Time {
	at, _ := time.Parse(time.RFC3339, old.Data[sandbox.DataExpires])
	return at
}

// checkSandbox returns a *Problem if the existing ConfigMap can't be the sandbox.
func checkSandbox(o *Options, workloads []*plan.Workload, c *corev1.ConfigMap) error {
	other := *o
	other.Sandbox = strings.TrimRight(o.Sandbox[:min(len(o.Sandbox), sandbox.MaxName-2)], "-") + "-2"
	switch key := c.Data[sandbox.DataKey]; {
	case c.Labels[sandbox.LabelRole] != sandbox.RoleSandbox || c.Labels[sandbox.LabelSandbox] != o.Sandbox:
		return &plan.Problem{
			What: fmt.Sprintf("--name %s is taken: configmap/%s exists and is no sandbox of kubectl-sandbox", o.Sandbox, c.Name),
			Hint: "choose another name", Fix: other.command(workloads...),
		}
	case c.DeletionTimestamp != nil:
		return &plan.Problem{
			What: fmt.Sprintf("sandbox %q is being deleted", o.Sandbox),
			Hint: "wait until it is deleted, then fork again", Fix: plan.Kubectl("wait", "--for=delete", "configmap/"+c.Name),
		}
	case sandbox.ValidateKey(key) != nil:
		return &plan.Problem{
			What: fmt.Sprintf("sandbox %q is damaged: configmap/%s holds no valid %s", o.Sandbox, c.Name, sandbox.DataKey),
			Hint: "delete it, and fork again", Fix: plan.Kubectl("sandbox", "delete", o.Sandbox),
		}
	case o.Key != "" && o.Key != key:
		other.Sandbox, other.Key = o.Sandbox, ""
		return &plan.Problem{
			What: fmt.Sprintf("--key %s: sandbox %q has the key %s, and a sandbox keeps its key", o.Key, o.Sandbox, key),
			Hint: "use the key it has", Fix: other.command(workloads...),
		}
	}
	return nil
}

func keyInUse(o *Options, workloads []*plan.Workload, c *corev1.ConfigMap) *plan.Problem {
	what := fmt.Sprintf("--key %s is in use by sandbox %q", o.Key, c.Labels[sandbox.LabelSandbox])
	if by := c.Data[sandbox.DataCreatedBy]; by != "" {
		what += ", made by " + by
	}
	other := *o
	other.Key = ""
	return &plan.Problem{What: what, Hint: "have a key generated", Fix: other.command(workloads...)}
}

// Renewal returns the merge patch that writes the expiry to the existing ConfigMap, identified by its uid. For a
// rebase, the patch changes nothing.
func (p *Plan) Renewal() []byte {
	var expires any // null removes it
	if v, ok := p.ConfigMap.Data[sandbox.DataExpires]; ok {
		expires = v
	}
	patch := map[string]any{"metadata": map[string]any{"uid": p.Exists}}
	if !p.rebase {
		patch["data"] = map[string]any{sandbox.DataExpires: expires}
	}
	b, err := json.Marshal(patch)
	if err != nil {
		panic(err) // strings always encode
	}
	return b
}
