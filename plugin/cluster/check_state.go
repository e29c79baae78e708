package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// observe reads the state of sandboxes. It makes the same few calls for any number, so that it disturbs the
// measurement little. With exact, the routers report their counts first; without, the state may be a moment old and
// has no counts.
func (c *Client) observe(ctx context.Context, names []string, exact bool) ([]experiment.State, error) {
	var (
		forks    *appsv1.DeploymentList
		sets     *appsv1.ReplicaSetList
		pods     *corev1.PodList
		services *corev1.ServiceList
	)
	every := metav1.ListOptions{ResourceVersion: "0"} // from the API server's cache
	if exact {
		every.ResourceVersion = ""
	}
	of := every
	of.LabelSelector = anyOf(names) + "," + sandbox.LabelRole + "=" + sandbox.RoleFork
	ns := c.Namespace
	calls := []func() error{
		func() (err error) { forks, err = c.Kube.AppsV1().Deployments(ns).List(ctx, of); return err },
		func() (err error) { sets, err = c.Kube.AppsV1().ReplicaSets(ns).List(ctx, of); return err },
		func() (err error) { pods, err = c.Kube.CoreV1().Pods(ns).List(ctx, every); return err },
		func() (err error) { services, err = c.Kube.CoreV1().Services(ns).List(ctx, every); return err },
	}
	states := make([]experiment.State, len(names))
	for i, name := range names {
		if exact {
			calls = append(calls, func() error { return c.count(ctx, name, &states[i]) })
		}
	}
	if err := inParallel(calls...); err != nil {
		return nil, Explain(err)
	}
	for i, name := range names {
		s := &states[i]
		for j := range forks.Items {
			if d := &forks.Items[j]; d.DeletionTimestamp == nil && d.Labels[sandbox.LabelSandbox] == name {
				s.Forks = append(s.Forks, forkState(d, sets.Items, pods.Items))
			}
		}
		s.Routers, s.Routerless, s.Beside = baselines(s.Forks, pods.Items, services.Items)
		s.Elsewhere = elsewhere(s.Forks, pods.Items)
	}
	return states, nil
}

// count reads a sandbox's ConfigMap into s, with current counts.
func (c *Client) count(ctx context.Context, name string, s *experiment.State) error {
	cm, err := c.sandboxConfigMap(ctx, name)
	if err != nil || !isSandbox(cm, name) || cm.DeletionTimestamp != nil {
		return err
	}
	cm, counted := c.counted(ctx, cm)
	s.Exists, s.UID, s.Counted = true, string(cm.UID), counted
	if counted {
		s.Uncounted = cm.Annotations[sandbox.AnnotationFlushMissing]
		_ = json.Unmarshal([]byte(cm.Data[sandbox.DataEnded]), &s.Ended) // of nonsense, none is known to have handed over
	}
	if sandboxes := sandboxes.Group([]corev1.ConfigMap{*cm}, nil); len(sandboxes) > 0 {
		s.Counts = sandboxes[0].Counts
	}
	return nil
}

func forkState(d *appsv1.Deployment, sets []appsv1.ReplicaSet, pods []corev1.Pod) experiment.ForkState {
	status := sandboxes.Diagnose(sandboxes.ForkFacts(d, sets, pods, time.Now()))
	f := experiment.ForkState{
		Name: d.Name, Workload: d.Labels[sandbox.LabelWorkload], UID: string(d.UID),
		Revision: d.Annotations["deployment.kubernetes.io/revision"], Ready: status.Ready, Waiting: status.Waiting,
	}
	for i := range status.Pods {
		p := &status.Pods[i]
		fp := experiment.ForkPod{UID: string(p.UID), Name: p.Name}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			fp.Restarts += c.RestartCount
		}
		for _, r := range plan.RunningImages(p) {
			fp.Images = append(fp.Images, experiment.Image{Container: r.Container, Image: r.Image, Digest: r.Digest})
		}
		f.Pods = append(f.Pods, fp)
	}
	return f
}

// baselines identifies the routers in front of the forks' baselines, and names what else could receive the requests.
// bare are ready pods without a router: of these baselines, or of any workload that their Services select. beside are
// routed workloads without a fork that these Services select.
func baselines(forks []experiment.ForkState, pods []corev1.Pod, services []corev1.Service) (routers, bare, beside []string) {
	var selectors []labels.Selector
	for i := range pods {
		p := &pods[i]
		if !isBaseline(p) || !isForked(forks, p) {
			continue
		}
		if id := routerLife(p); id != "" {
			routers = append(routers, id)
		}
		for _, s := range services {
			if len(s.Spec.Selector) == 0 {
				continue
			}
			if selector := labels.SelectorFromSet(s.Spec.Selector); selector.Matches(labels.Set(p.Labels)) {
				selectors = append(selectors, selector)
			}
		}
		if ready(p) && !health.HasRouter(p) {
			bare = append(bare, "pod/"+p.Name)
		}
	}
	for i := range pods {
		p := &pods[i]
		selected := slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(p.Labels)) })
		if !selected || over(p) || !ready(p) {
			continue
		}
		switch workload := p.Labels[sandbox.LabelWorkload]; {
		case !health.HasRouter(p) && !slices.Contains(bare, "pod/"+p.Name):
			bare = append(bare, "pod/"+p.Name)
		case isBaseline(p) && !isForked(forks, p) && !slices.Contains(beside, workload):
			beside = append(beside, workload)
		}
	}
	slices.Sort(routers)
	slices.Sort(bare)
	slices.Sort(beside)
	return routers, bare, beside
}

// elsewhere identifies the routers in front of workloads that are not forked, by the workload's label.
func elsewhere(forks []experiment.ForkState, pods []corev1.Pod) map[string][]string {
	routers := map[string][]string{}
	for i := range pods {
		p := &pods[i]
		if id := routerLife(p); id != "" && isBaseline(p) && !isForked(forks, p) {
			workload := p.Labels[sandbox.LabelWorkload]
			routers[workload] = append(routers[workload], id)
		}
	}
	return routers
}

func isBaseline(p *corev1.Pod) bool {
	return p.Labels[sandbox.LabelRole] == sandbox.RoleBaseline && !over(p)
}

func isForked(forks []experiment.ForkState, baseline *corev1.Pod) bool {
	return slices.ContainsFunc(forks, func(f experiment.ForkState) bool { return f.Workload == baseline.Labels[sandbox.LabelWorkload] })
}

// routerLife identifies one run of a pod's router, as "POD/UID/RESTARTS"; empty if the pod has none.
func routerLife(p *corev1.Pod) string {
	if s := routerStatus(p); s != nil {
		return fmt.Sprintf("%s/%s/%d", p.Name, p.UID, s.RestartCount)
	}
	return ""
}

func over(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
