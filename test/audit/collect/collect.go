// Package collect reads what the product's programs in a cluster write and count, for package audit to judge. Pods of tests are
// deleted with their namespaces, so it follows each container from its start.
package collect

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/audit"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// partOf is the label of the chart's own pods.
const partOf = "app.kubernetes.io/part-of"

// programs returns the product's containers in a pod: a router, or those of the chart's Deployments. What `helm test` runs has an exit
// status of its own.
func programs(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == sandbox.RouterContainer {
			names = append(names, sandbox.RouterContainer)
		}
	}
	if pod.Labels[partOf] == "kubectl-sandbox" {
		for i := range pod.Spec.Containers {
			if name := pod.Spec.Containers[i].Name; name == "webhook" || name == "gateway" {
				names = append(names, name)
			}
		}
	}
	return names
}

// A Collector follows all containers of the product in a cluster.
type Collector struct {
	client kubernetes.Interface
	ledger *audit.Ledger
	began  time.Time
	stop   context.CancelFunc
	ctx    context.Context // of everything that runs in the background
	pods   toolscache.SharedIndexInformer
	first  map[audit.Source]audit.Series // of processes that ran before
	wg     sync.WaitGroup

	mu        sync.Mutex
	followers map[container]*follower
	restarts  map[container]int32
}

// A container is one of a pod.
type container struct {
	uid  types.UID
	name string
}

// Start begins to follow. What is written and counted before is not judged.
func Start(ctx context.Context, client kubernetes.Interface, ledger *audit.Ledger) (*Collector, error) {
	ctx, stop := context.WithCancel(ctx)
	c := &Collector{
		client: client, ledger: ledger, began: time.Now(), ctx: ctx, stop: stop,
		followers: map[container]*follower{}, restarts: map[container]int32{},
	}
	first, err := c.scrape(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	c.first = first
	factory := informers.NewSharedInformerFactory(client, 0)
	c.pods = factory.Core().V1().Pods().Informer()
	_, err = c.pods.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.see(o) },
		UpdateFunc: func(_, o any) { c.see(o) },
		DeleteFunc: func(o any) { c.gone(o) },
	})
	if err != nil {
		stop()
		return nil, err
	}
	c.wg.Go(func() { c.pods.Run(ctx.Done()) })
	if !toolscache.WaitForCacheSync(ctx.Done(), c.pods.HasSynced) {
		stop()
		return nil, fmt.Errorf("list pods: %w", context.Cause(ctx))
	}
	return c, nil
}

// see follows each container of the product in a pod that runs, and notes restarts.
func (c *Collector) see(o any) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	names := programs(pod)
	if len(names) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if !slices.Contains(names, status.Name) {
			continue
		}
		one := container{pod.UID, status.Name}
		source := audit.Source{Namespace: pod.Namespace, Pod: pod.Name, Container: status.Name}
		c.restarted(one, source, &status, pod.CreationTimestamp.Time)
		f := c.followers[one]
		switch {
		case f != nil:
			f.poke()
		case status.State.Waiting == nil || status.RestartCount > 0: // it has written something, or may have
			f = newFollower(c.client, c.ledger, source, c.began)
			c.followers[one] = f
			c.wg.Go(func() { f.run(c.ctx) })
		}
	}
}

// restarted adds a finding for each restart that came after the one seen last.
func (c *Collector) restarted(one container, source audit.Source, status *corev1.ContainerStatus, created time.Time) {
	before, known := c.restarts[one]
	if !known && created.Before(c.began.Add(-time.Second)) {
		before = status.RestartCount // it was there before
	}
	if status.RestartCount > before {
		why := "no reason is known"
		if t := status.LastTerminationState.Terminated; t != nil {
			why = fmt.Sprintf("exit code %d, %s %s", t.ExitCode, t.Reason, t.Message)
		}
		c.ledger.Add(audit.Finding{Source: source, Kind: audit.Restart, Time: time.Now(), Text: fmt.Sprintf("restarted (%d): %s", status.RestartCount, why)})
	}
	c.restarts[one] = max(before, status.RestartCount)
}

// gone lets the followers of a deleted pod end with what there is to read.
func (c *Collector) gone(o any) {
	if d, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for one, f := range c.followers {
		if one.uid == pod.UID {
			f.end()
			delete(c.followers, one)
		}
	}
}

// settleTime bounds how long Finish waits for pods that are being deleted.
const settleTime = 90 * time.Second

// Finish waits until what is being deleted has gone, reads metrics and what is left of the logs, and stops.
func (c *Collector) Finish(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, settleTime, true, func(ctx context.Context) (bool, error) {
		namespaces, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		return !slices.ContainsFunc(namespaces.Items, func(n corev1.Namespace) bool { return n.DeletionTimestamp != nil }), nil
	})
	if err != nil && ctx.Err() != nil {
		return err
	}
	at := time.Now()
	last, err := c.scrape(ctx)
	if err != nil {
		return err
	}
	c.stop()
	c.wg.Wait() // metrics come first: whatever they count is in the logs then
	for source, series := range last {
		for _, f := range c.ledger.Metrics(audit.Reading{Source: source, First: c.first[source], Last: series, Since: c.began, At: at}) {
			c.ledger.Add(f)
		}
	}
	return nil
}
