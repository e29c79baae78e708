package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

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
func (c *Client) WaitForks(ctx context.Context, sandboxName string, targets []Target, progress func(name string, s sandboxes.ForkStatus)) (map[string]sandboxes.ForkStatus, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan func(*Forks) error)
	selector := metav1.ListOptions{LabelSelector: sandbox.LabelSandbox + "=" + sandboxName + "," + sandbox.LabelRole + "=" + sandbox.RoleFork}
	ns := c.Namespace
	go watchObjects(ctx, selector, c.Kube.AppsV1().Deployments(ns).Watch, events, func(f *Forks) { f.Deployments, f.gone = map[string]*appsv1.Deployment{}, map[string]bool{} }, (*Forks).updateDeployment)
	go watchObjects(ctx, selector, c.Kube.AppsV1().ReplicaSets(ns).Watch, events, func(f *Forks) { f.sets = map[string]appsv1.ReplicaSet{} }, (*Forks).updateReplicaSet)
	go watchObjects(ctx, selector, c.Kube.CoreV1().Pods(ns).Watch, events, func(f *Forks) { f.pods = map[string]corev1.Pod{} }, (*Forks).updatePod)
	itself := metav1.ListOptions{FieldSelector: "metadata.name=" + sandbox.ConfigMapName(sandboxName)}
	go watchObjects(ctx, itself, c.watchSandbox, events, func(f *Forks) { f.published = nil }, (*Forks).updateSandbox)

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

// watchSandbox watches ConfigMaps. A caller who may not gets no published health, but the forks' own objects still
// show their state.
func (c *Client) watchSandbox(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
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

// watchObjects sends the events of a watch, as changes to the known state, until ctx ends. A watch without a resource
// version begins with all existing objects, so no list is needed. If the API server ends the watch, watchObjects
// resets the state and starts another.
func watchObjects[Known, T any](
	ctx context.Context, options metav1.ListOptions,
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
	events chan<- func(*Known) error, reset func(*Known), see func(*Known, T, bool),
) {
	send := func(event func(*Known) error) bool {
		select {
		case events <- event:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for ctx.Err() == nil {
		w, err := open(ctx, options)
		if err != nil {
			send(func(*Known) error { return Explain(err) })
			return
		}
		send(func(k *Known) error { reset(k); return nil })
		for event := range w.ResultChan() {
			if event.Type == watch.Error {
				if err := apierrors.FromObject(event.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
					send(func(*Known) error { return Explain(err) })
				}
				break
			}
			if object, ok := event.Object.(T); ok && !send(func(k *Known) error { see(k, object, event.Type == watch.Deleted); return nil }) {
				break
			}
		}
		w.Stop()
	}
}

// withLog returns the status's Problem with the end of the log that explains it.
func (c *Client) withLog(ctx context.Context, s sandboxes.ForkStatus) *plan.Problem {
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
	p.Lines = plan.LogTail(printable(body))
	return &p
}

// printable returns the non-empty lines of an app's output without control characters, because they go to a terminal.
func printable(r io.Reader) []string {
	var out []string
	for s := bufio.NewScanner(r); s.Scan(); {
		line := strings.Map(func(r rune) rune {
			switch {
			case r == '\t':
				return ' '
			case !unicode.IsPrint(r):
				return -1
			}
			return r
		}, s.Text())
		if strings.TrimSpace(line) != "" {
			out = append(out, line)
		}
	}
	return out
}

// lastWarning returns the latest warning among the events that a field selector selects; empty if there is none, or
// the caller may not read events.
func (c *Client) lastWarning(ctx context.Context, namespace, events string) string {
	list, err := c.Kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning," + events})
	if err != nil || len(list.Items) == 0 {
		return ""
	}
	last := slices.MaxFunc(list.Items, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	lines := printable(strings.NewReader(last.Message))
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

func eventTime(e corev1.Event) time.Time {
	if e.Series != nil {
		return e.Series.LastObservedTime.Time
	}
	if !e.LastTimestamp.IsZero() {
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

// ExplainWait returns what the forks of p that are not ready wait for.
func (c *Client) ExplainWait(ctx context.Context, p *forks.Plan, statuses map[string]sandboxes.ForkStatus, after time.Duration) error {
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
			if warning := c.lastWarning(ctx, s.Pods[i].Namespace, events); warning != "" {
				reason += " (" + warning + ")"
				break
			}
		}
		reasons = append(reasons, reason)
	}
	return p.TimedOut(after, reasons)
}
