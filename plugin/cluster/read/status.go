package read

import (
	"context"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Status is a sandbox as `status` shows it.
type Status struct {
	plan.Sandbox
	Forks    []plan.ForkStatus // in the order of Sandbox.Forks
	Previews []string          // URLs at the gateway, if there is one
	// Counted means that Sandbox.Counts are current, except for the routers in Uncounted.
	Counted   bool
	Uncounted string
	Standings []plan.BaselineState // in the order of Sandbox.Forks; the zero Standing where it is not known
}

// Status reads everything that `status` shows of one sandbox. If it does not exist, the error is a *plan.Problem.
func (c *Reader) Status(ctx context.Context, name string) (*Status, error) {
	var (
		cm       *corev1.ConfigMap
		forks    *appsv1.DeploymentList
		sets     *appsv1.ReplicaSetList
		pods     *corev1.PodList
		services *corev1.ServiceList
		domain   string
		policies *networkingv1.NetworkPolicyList
	)
	of := metav1.ListOptions{LabelSelector: sandbox.LabelSandbox + "=" + name + "," + sandbox.LabelRole + "=" + sandbox.RoleFork}
	ns := c.Namespace
	counted := false
	err := cluster.InParallel(
		func() (err error) {
			cm, err = c.SandboxConfigMap(ctx, name)
			if err == nil && IsSandbox(cm, name) && cm.DeletionTimestamp == nil {
				cm, counted = c.Counted(ctx, cm)
			}
			return err
		},
		func() (err error) { forks, err = c.Kube.AppsV1().Deployments(ns).List(ctx, of); return err },
		func() (err error) { policies, err = c.ForkPolicies(ctx, AnyOf([]string{name})); return err },
		func() (err error) { sets, err = c.Kube.AppsV1().ReplicaSets(ns).List(ctx, of); return err },
		func() (err error) { pods, err = c.Kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{}); return err },
		func() (err error) { domain, err = c.Gateway(ctx); return err },
		func() (err error) {
			services, err = c.Kube.CoreV1().Services(ns).List(ctx, metav1.ListOptions{})
			return err
		},
	)
	if err != nil {
		return nil, cluster.Explain(err)
	}
	var configMaps []corev1.ConfigMap
	if IsSandbox(cm, name) {
		configMaps = append(configMaps, *cm)
	}
	all := plan.AddPolicies(plan.Sandboxes(configMaps, forks.Items), policies.Items)
	if len(all) == 0 {
		return nil, plan.NoSandbox(name, ns)
	}
	s := &Status{Sandbox: all[0], Counted: counted}
	if counted {
		s.Uncounted = cm.Annotations[sandbox.AnnotationFlushMissing]
	}
	states, err := c.baselineStates(ctx, s.Sandbox.Forks)
	if err != nil {
		return nil, err
	}
	for i := range s.Sandbox.Forks {
		d := &s.Sandbox.Forks[i]
		standing, known := states[ns+"/"+d.Name]
		s.Standings = append(s.Standings, standing)
		facts := plan.ForkFacts(d, sets.Items, pods.Items, time.Now())
		facts.Baseline = plan.BaselineFacts(d, pods.Items, services.Items)
		if known {
			facts.Baseline.Gone, facts.Baseline.Marked, facts.Baseline.Behind = &standing.Gone, new(!standing.Unmarked), &standing.Behind
		}
		if cm != nil {
			facts.Published = health.ParsePublished(cm.Data[sandbox.DataHealth])[d.Name]
		}
		s.Forks = append(s.Forks, plan.Diagnose(facts))
	}
	mine := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.Labels[sandbox.LabelRole] != sandbox.RoleBaseline || !slices.ContainsFunc(s.Sandbox.Forks, func(d appsv1.Deployment) bool {
			return d.Labels[sandbox.LabelWorkload] == p.Labels[sandbox.LabelWorkload]
		})
	})
	s.Previews = plan.PreviewURLs(domain, &s.Sandbox, services.Items, mine)
	return s, nil
}
