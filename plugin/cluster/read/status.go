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
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Status is a sandbox as `status` shows it.
type Status struct {
	sandboxes.Sandbox
	Forks    []sandboxes.ForkStatus // in the order of Sandbox.Forks
	Previews []string               // URLs at the gateway, if there is one
	// Counted means that Sandbox.Counts are current, except for the routers in Uncounted.
	Counted   bool
	Uncounted string
	Standings []sandboxes.BaselineState // in the order of Sandbox.Forks; the zero Standing where it is not known
}

// statusObjects are what a Status is made of.
type statusObjects struct {
	cm       *corev1.ConfigMap // nil: there is none
	counted  bool              // its counts are current
	forks    *appsv1.DeploymentList
	sets     *appsv1.ReplicaSetList
	pods     *corev1.PodList
	services *corev1.ServiceList
	domain   string // of the gateway
	policies *networkingv1.NetworkPolicyList
}

func (c *Reader) statusObjects(ctx context.Context, name string) (*statusObjects, error) {
	var o statusObjects
	of := metav1.ListOptions{
		LabelSelector: sandbox.LabelSandbox + "=" + name + "," + sandbox.LabelRole + "=" + sandbox.RoleFork,
	}
	ns := c.Namespace
	err := cluster.InParallel(
		func() (err error) {
			o.cm, err = c.SandboxConfigMap(ctx, name)
			if err == nil && IsSandbox(o.cm, name) && o.cm.DeletionTimestamp == nil {
				o.cm, o.counted = c.Counted(ctx, o.cm)
			}
			return err
		},
		func() (err error) { o.forks, err = c.Kube.AppsV1().Deployments(ns).List(ctx, of); return err },
		func() (err error) { o.policies, err = c.ForkPolicies(ctx, AnyOf([]string{name})); return err },
		func() (err error) { o.sets, err = c.Kube.AppsV1().ReplicaSets(ns).List(ctx, of); return err },
		func() (err error) { o.pods, err = c.Kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{}); return err },
		func() (err error) { o.domain, err = c.Gateway(ctx); return err },
		func() (err error) {
			o.services, err = c.Kube.CoreV1().Services(ns).List(ctx, metav1.ListOptions{})
			return err
		},
	)
	return &o, cluster.Explain(err)
}

// Status reads everything that `status` shows of one sandbox. If it does not exist, the error is a *plan.Problem.
func (c *Reader) Status(ctx context.Context, name string) (*Status, error) {
	o, err := c.statusObjects(ctx, name)
	if err != nil {
		return nil, err
	}
	var configMaps []corev1.ConfigMap
	if IsSandbox(o.cm, name) {
		configMaps = append(configMaps, *o.cm)
	}
	all := sandboxes.AddPolicies(sandboxes.Group(configMaps, o.forks.Items), o.policies.Items)
	if len(all) == 0 {
		return nil, plan.NoSandbox(name, c.Namespace)
	}
	s := &Status{Sandbox: all[0], Counted: o.counted}
	if o.counted {
		s.Uncounted = o.cm.Annotations[sandbox.AnnotationFlushMissing]
	}
	states, err := c.baselineStates(ctx, s.Sandbox.Forks)
	if err != nil {
		return nil, err
	}
	for i := range s.Sandbox.Forks {
		d := &s.Sandbox.Forks[i]
		standing, known := states[c.Namespace+"/"+d.Name]
		s.Standings = append(s.Standings, standing)
		facts := sandboxes.ForkFacts(d, o.sets.Items, o.pods.Items, time.Now())
		facts.Baseline = sandboxes.BaselineFacts(d, o.pods.Items, o.services.Items)
		if known {
			marked := !standing.Unmarked
			facts.Baseline.Gone, facts.Baseline.Marked, facts.Baseline.Behind = &standing.Gone, &marked, &standing.Behind
		}
		if o.cm != nil {
			facts.Published = health.ParsePublished(o.cm.Data[sandbox.DataHealth])[d.Name]
		}
		s.Forks = append(s.Forks, sandboxes.Diagnose(facts))
	}
	mine := slices.DeleteFunc(o.pods.Items, func(p corev1.Pod) bool {
		return p.Labels[sandbox.LabelRole] != sandbox.RoleBaseline ||
			!slices.ContainsFunc(s.Sandbox.Forks, func(d appsv1.Deployment) bool {
				return d.Labels[sandbox.LabelWorkload] == p.Labels[sandbox.LabelWorkload]
			})
	})
	s.Previews = sandboxes.PreviewURLs(o.domain, &s.Sandbox, o.services.Items, mine)
	return s, nil
}
