package printer

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// A Fork prints what `fork` or `rebase` did or, in a dry run, would do.
type Fork struct {
	*Objects
	Globals Globals
	Begun   time.Time     // when the command began, and the sandbox's lifetime with it
	Took    time.Duration // until now
	Gateway string        // the domain of its previews, if there is one
}

// PrintForked prints the result.
func (f *Fork) PrintForked(done *operate.Forked) error {
	switch {
	case done.Applied == nil:
		return f.planned(done.Plan)
	case done.Statuses == nil:
		return f.applied(done.Plan, done.Applied)
	}
	return f.routed(done.Plan, done.Applied, done.Statuses)
}

// planned prints what would be applied, without the fields that only the API server sets.
func (f *Fork) planned(p *forks.Plan) error {
	objects := []runtime.Object{p.ConfigMap}
	var verbs []string
	for i := range p.Forks {
		fork := &p.Forks[i]
		for j := range fork.Policies {
			policy := plan.Manifest(fork.Policies[j].Object())
			policy.SetOwnerReferences(nil)
			objects, verbs = append(objects, policy), append(verbs, fork.Policies[j].Verb())
		}
		d := fork.Deployment.DeepCopy()
		d.SetOwnerReferences(nil)
		objects, verbs = append(objects, d), append(verbs, verb(fork, -1))
	}
	if err := f.printObjects(objects, verbs); err != nil || f.Structured() {
		return err
	}
	f.inherits(p)
	return nil
}

// inherits prints what new forks share with their baselines, and what they lack.
func (f *Fork) inherits(p *forks.Plan) {
	for i := range p.Forks {
		n := &p.Forks[i]
		if n.Inherits != "" && n.Replaces == 0 {
			fmt.Fprintf(f.Out, "deployment.apps/%s inherits: %s\n", n.Name(), n.Inherits)
		}
		if n.Lacks != "" && n.Replaces == 0 {
			fmt.Fprintf(f.Out, "deployment.apps/%s lacks: %s\n", n.Name(), n.Lacks)
		}
	}
}

// applied prints what was applied when the command does not wait for it.
func (f *Fork) applied(p *forks.Plan, applied *apply.Applied) error {
	if err := f.printForks(p, applied); err != nil || f.Structured() || f.DryRun != operate.DryRunNone {
		return err
	}
	f.describe(p, "")
	for _, d := range applied.Forks {
		wait := f.Globals.Command(plan.Kubectl("rollout", "status", "deployment/"+d.GetName()))
		fmt.Fprintf(f.Out, "wait until it is routed:\n  %s\n", wait)
	}
	return nil
}

// routed prints the forks and how to reach them.
func (f *Fork) routed(p *forks.Plan, applied *apply.Applied, statuses map[string]sandboxes.ForkStatus) error {
	if err := f.printForks(p, applied); err != nil || f.Structured() {
		return err
	}
	reached := ""
	if state := worstState(statuses); state != "" && rolled(p, applied) {
		reached = fmt.Sprintf(", %s in %s", state, f.Took.Round(10*time.Millisecond))
	}
	f.describe(p, reached)
	var pods []corev1.Pod
	for i := range p.Forks {
		s := statuses[p.Forks[i].Name()]
		pods = append(pods, s.Pods...)
		if len(s.Pods) == 0 {
			continue
		}
		for _, r := range plan.RunningImages(&s.Pods[0]) {
			fmt.Fprintf(f.Out, "container %s runs %s", r.Container, r.Image)
			if r.Digest != "" {
				fmt.Fprintf(f.Out, " (%s)", r.Digest)
			}
			fmt.Fprintln(f.Out)
		}
	}
	f.reach(p, plan.KeyCarriers(pods).Member)
	f.previews(p)
	return nil
}

// worstState returns what is true of all forks: "routed", or "running" where a fork takes no requests. It returns ""
// where a fork has no replicas.
func worstState(statuses map[string]sandboxes.ForkStatus) string {
	state := "routed"
	for _, s := range statuses {
		switch {
		case s.Cause().Code == health.ScaledToZero:
			return ""
		case s.State == health.StateRunning:
			state = "running"
		}
	}
	return state
}

// previews prints where the gateway serves the forks, if there is a gateway.
func (f *Fork) previews(p *forks.Plan) {
	for i := range p.Forks {
		if f.Gateway == "" || len(p.Forks[i].Reach) == 0 {
			continue
		}
		service := p.Forks[i].Reach[0].Service
		url := sandboxes.PreviewURL(f.Gateway, service, p.Sandbox, p.Namespace)
		share := f.Globals.Command(plan.Kubectl("sandbox", "share", p.Sandbox, "svc/"+service))
		fmt.Fprintf(f.Out, "show it to others, at %s:\n  %s\n", url, share)
	}
}

// describe prints the sandbox in one line, after what its new forks inherit.
func (f *Fork) describe(p *forks.Plan, more string) {
	f.inherits(p)
	expires := expiry(p.Expires, f.Begun.Truncate(time.Second))
	fmt.Fprintf(f.Out, "sandbox %s: key %s%s, %s\n", p.Sandbox, p.Key, more, expires)
}

// reach prints how to reach each of the forks: from this machine, which needs no header, and from inside the cluster.
func (f *Fork) reach(p *forks.Plan, member string) {
	var open, inside []string
	for i := range p.Forks {
		if len(p.Forks[i].Reach) == 0 {
			continue
		}
		e := p.Forks[i].Reach[0]
		service := fmt.Sprintf("svc/%s:%d", e.Service, e.Port)
		open = append(open, f.Globals.Command(plan.Kubectl("sandbox", "open", p.Sandbox, service)))
		inside = append(inside, plan.Quote(e.Curl(member, p.Key)))
	}
	if len(open) == 0 {
		return
	}
	fmt.Fprintf(f.Out, "open it here:\n  %s\n", strings.Join(open, "\n  "))
	fmt.Fprintf(f.Out, "reach it from inside the cluster:\n  %s\n", strings.Join(inside, "\n  "))
}

// printForks prints the objects if -o requests them, else a line for each fork.
func (f *Fork) printForks(p *forks.Plan, applied *apply.Applied) error {
	objects := []runtime.Object{typed(applied.ConfigMap)}
	var verbs []string
	for i, d := range applied.Forks {
		for j, policy := range applied.Policies[i] {
			objects, verbs = append(objects, policy), append(verbs, p.Forks[i].Policies[j].Verb())
		}
		objects, verbs = append(objects, d), append(verbs, verb(&p.Forks[i], d.GetGeneration()))
	}
	return f.printObjects(objects, verbs)
}

// printObjects prints a ConfigMap, policies and forks if -o requests objects; else a line with its verb for each but
// the first.
func (f *Fork) printObjects(objects []runtime.Object, verbs []string) error {
	if f.Structured() {
		return f.PrintAll("forked", objects)
	}
	for i, o := range objects[1:] {
		if err := f.Print(verbs[i], o); err != nil {
			return err
		}
	}
	return nil
}

// rolled reports whether any of the forks was created or changed.
func rolled(p *forks.Plan, applied *apply.Applied) bool {
	for i, d := range applied.Forks {
		if p.Forks[i].Replaces != d.GetGeneration() {
			return true
		}
	}
	return false
}

// verb returns what happened to a fork, in the words of `kubectl apply`. A negative generation means unknown.
func verb(f *forks.Fork, generation int64) string {
	switch {
	case f.Replaces == 0:
		return "forked"
	case f.Rebased:
		return "rebased"
	case f.Replaces == generation:
		return "unchanged"
	}
	return "configured"
}
