package wait

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// settle is how long a Problem that may pass by itself must last before it is reported: longer than a webhook takes
// to start, and the controller to retry pods.
const settle = 10 * time.Second

// Forks is what is known of the forks of one sandbox.
type Forks struct {
	Deployments map[string]*appsv1.Deployment // by name
	gone        map[string]bool               // Deployments seen to be deleted
	sets        map[string]appsv1.ReplicaSet
	pods        map[string]corev1.Pod
	published   health.Published // what the control plane says of them
}

// Status diagnoses the fork of that name.
func (f *Forks) Status(name string) sandboxes.ForkStatus {
	d := f.Deployments[name]
	if d == nil {
		return sandboxes.Diagnose(health.Facts{})
	}
	facts := sandboxes.ForkFacts(d, slices.Collect(maps.Values(f.sets)), slices.Collect(maps.Values(f.pods)), time.Now())
	facts.Published = f.published[name]
	return sandboxes.Diagnose(facts)
}

// A Target is a fork to wait for.
type Target struct {
	Name       string // of its Deployment
	Generation int64  // the least that counts
}

// WaitForks watches the forks of a sandbox until all targets are ready, and returns their last known status by name.
// It returns early with the first *plan.Problem that waiting does not fix, or with ctx's error. progress is called on
// every change of a status.
func (c *Waiter) WaitForks(
	ctx context.Context,
	sandboxName string,
	targets []Target,
	progress func(name string, s sandboxes.ForkStatus),
) (map[string]sandboxes.ForkStatus, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan func(*Forks) error)
	c.watchForks(ctx, sandboxName, events)
	known := &Forks{}
	statuses := map[string]sandboxes.ForkStatus{}
	var doubt <-chan time.Time // fires when a passing Problem has lasted
	for {
		select {
		case <-ctx.Done():
			return statuses, ctx.Err()
		case event := <-events:
			if err := event(known); err != nil {
				return statuses, err
			}
		case <-doubt:
			for _, s := range statuses {
				if s.Problem != nil {
					return statuses, s.Problem
				}
			}
			doubt = nil
		}
		ready, passing := 0, false
		for _, t := range targets {
			d := known.Deployments[t.Name]
			if known.gone[t.Name] {
				return statuses, &plan.Problem{
					What: fmt.Sprintf("deployment.apps/%s was deleted while it was waited for", t.Name),
					Hint: "what is left of the sandbox", Fix: plan.Kubectl("sandbox", "status", sandboxName),
				}
			}
			if d == nil || d.Generation < t.Generation {
				continue
			}
			s := known.Status(t.Name)
			if s.Ready && len(s.Pods) < int(d.Status.UpdatedReplicas) {
				continue // the watches of ReplicaSets and pods have not caught up with that of Deployments
			}
			if was, ok := statuses[t.Name]; progress != nil && (!ok || was.Waiting != s.Waiting) {
				progress(t.Name, s)
			}
			statuses[t.Name] = s
			switch {
			case s.Ready:
				ready++
			case s.Problem != nil && !s.Passing:
				return statuses, c.withLog(ctx, s)
			case s.Problem != nil:
				passing = true
			}
		}
		if ready == len(targets) {
			return statuses, nil
		}
		if !passing {
			doubt = nil
		} else if doubt == nil {
			doubt = time.After(settle)
		}
	}
}

func (f *Forks) updateDeployment(d *appsv1.Deployment, gone bool) {
	f.gone[d.Name] = gone
	if f.Deployments[d.Name] = d; gone {
		delete(f.Deployments, d.Name)
	}
}

func (f *Forks) updateReplicaSet(s *appsv1.ReplicaSet, gone bool) {
	if f.sets[s.Name] = *s; gone {
		delete(f.sets, s.Name)
	}
}

func (f *Forks) updatePod(p *corev1.Pod, gone bool) {
	if f.pods[p.Name] = *p; gone {
		delete(f.pods, p.Name)
	}
}

// watchForks sends the changes of all that is known of a sandbox's forks, until ctx ends.
func (c *Waiter) watchForks(ctx context.Context, sandboxName string, events chan<- func(*Forks) error) {
	forks := metav1.ListOptions{
		LabelSelector: sandbox.LabelSandbox + "=" + sandboxName + "," + sandbox.LabelRole + "=" + sandbox.RoleFork,
	}
	itself := metav1.ListOptions{FieldSelector: "metadata.name=" + sandbox.ConfigMapName(sandboxName)}
	apps, core := c.Kube.AppsV1(), c.Kube.CoreV1()
	go cluster.WatchObjects(ctx, forks, apps.Deployments(c.Namespace).Watch, events, func(f *Forks) {
		f.Deployments, f.gone = map[string]*appsv1.Deployment{}, map[string]bool{}
	}, (*Forks).updateDeployment)
	go cluster.WatchObjects(ctx, forks, apps.ReplicaSets(c.Namespace).Watch, events, func(f *Forks) {
		f.sets = map[string]appsv1.ReplicaSet{}
	}, (*Forks).updateReplicaSet)
	go cluster.WatchObjects(ctx, forks, core.Pods(c.Namespace).Watch, events, func(f *Forks) {
		f.pods = map[string]corev1.Pod{}
	}, (*Forks).updatePod)
	go cluster.WatchObjects(ctx, itself, c.watchSandbox, events, func(f *Forks) {
		f.published = nil
	}, (*Forks).updateSandbox)
}

// watchSandbox watches ConfigMaps. A caller who may not gets no published health, but the forks' own objects still
// show their state.
func (c *Waiter) watchSandbox(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	w, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Watch(ctx, options)
	if !apierrors.IsForbidden(err) {
		return w, err
	}
	none := watch.NewFake()
	context.AfterFunc(ctx, none.Stop)
	return none, nil
}

func (f *Forks) updateSandbox(cm *corev1.ConfigMap, _ bool) {
	f.published = health.ParsePublished(cm.Data[sandbox.DataHealth])
}

// withLog returns the status's Problem with the end of the log that explains it.
func (c *Waiter) withLog(ctx context.Context, s sandboxes.ForkStatus) *plan.Problem {
	if s.Log == nil {
		return s.Problem
	}
	tail, limit := int64(30), int64(16<<10)
	body, err := c.Kube.CoreV1().Pods(c.Namespace).GetLogs(s.Log.Pod, &corev1.PodLogOptions{
		Container: s.Log.Container, Previous: s.Log.Previous, TailLines: &tail, LimitBytes: &limit,
	}).Stream(ctx)
	if err != nil {
		return s.Problem // the hint names the log; nothing is lost but convenience
	}
	defer func() { _ = body.Close() }()
	p := *s.Problem
	p.Lines = plan.LogTail(cluster.PrintableLines(body))
	return &p
}

// ExplainWait returns what the forks of p that are not ready wait for.
func (c *Waiter) ExplainWait(
	ctx context.Context,
	p *forks.Plan,
	statuses map[string]sandboxes.ForkStatus,
	after time.Duration,
) error {
	var reasons []string
	for i := range p.Forks {
		name := p.Forks[i].Name()
		s, ok := statuses[name]
		switch {
		case s.Ready:
			continue
		case !ok:
			s.Waiting = health.Fork(health.Facts{}).Cause().Message
		case s.Problem != nil:
			return s.Problem
		}
		reason := "deployment.apps/" + name + ": " + s.Waiting
		for i := range s.Pods {
			events := "involvedObject.uid=" + string(s.Pods[i].UID)
			if s.Pods[i].Spec.NodeName != "" {
				events += ",reason!=FailedScheduling" // a node has taken it since
			}
			if warning := cluster.LastWarning(ctx, c.Client, s.Pods[i].Namespace, events); warning != "" {
				reason += " (" + warning + ")"
				break
			}
		}
		reasons = append(reasons, reason)
	}
	return p.TimedOut(after, reasons)
}
