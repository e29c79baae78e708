package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Sandboxes reads the sandboxes of the namespace, or of all if it is empty, whose ConfigMaps the label selector
// selects. An empty selector selects all.
func (c *Client) Sandboxes(ctx context.Context, namespace, selector string) ([]sandboxes.Sandbox, error) {
	if selector == "" {
		return c.selected(ctx, namespace, "")
	}
	configMaps, err := c.sandboxes(ctx, namespace, selector)
	if err != nil || len(configMaps) == 0 {
		return nil, Explain(err)
	}
	// Forks do not have the labels that the caller put on the ConfigMap.
	forks, err := c.forks(ctx, namespace, "")
	if err != nil {
		return nil, Explain(err)
	}
	return slices.DeleteFunc(sandboxes.Group(configMaps, forks), func(s sandboxes.Sandbox) bool { return s.ConfigMap == nil }), nil
}

// selected reads the sandboxes whose ConfigMaps and forks the selector selects.
func (c *Client) selected(ctx context.Context, namespace, selector string) ([]sandboxes.Sandbox, error) {
	var configMaps []corev1.ConfigMap
	var forks []appsv1.Deployment
	err := inParallel(
		func() (err error) { configMaps, err = c.sandboxes(ctx, namespace, selector); return err },
		func() (err error) { forks, err = c.forks(ctx, namespace, selector); return err },
	)
	if err != nil {
		return nil, Explain(err)
	}
	return sandboxes.Group(configMaps, forks), nil
}

// forks returns the forks of all sandboxes that the label selector selects.
func (c *Client) forks(ctx context.Context, namespace, selector string) ([]appsv1.Deployment, error) {
	only := sandbox.LabelSandbox + "," + sandbox.LabelRole + "=" + sandbox.RoleFork
	if selector != "" {
		only += "," + selector
	}
	list, err := c.Kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: only})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

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

// Status reads everything that `status` shows of one sandbox. If it does not exist, the error is a *plan.Problem.
func (c *Client) Status(ctx context.Context, name string) (*Status, error) {
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
	err := inParallel(
		func() (err error) {
			cm, err = c.sandboxConfigMap(ctx, name)
			if err == nil && isSandbox(cm, name) && cm.DeletionTimestamp == nil {
				cm, counted = c.counted(ctx, cm)
			}
			return err
		},
		func() (err error) { forks, err = c.Kube.AppsV1().Deployments(ns).List(ctx, of); return err },
		func() (err error) { policies, err = c.forkPolicies(ctx, anyOf([]string{name})); return err },
		func() (err error) { sets, err = c.Kube.AppsV1().ReplicaSets(ns).List(ctx, of); return err },
		func() (err error) { pods, err = c.Kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{}); return err },
		func() (err error) { domain, err = c.Gateway(ctx); return err },
		func() (err error) {
			services, err = c.Kube.CoreV1().Services(ns).List(ctx, metav1.ListOptions{})
			return err
		},
	)
	if err != nil {
		return nil, Explain(err)
	}
	var configMaps []corev1.ConfigMap
	if isSandbox(cm, name) {
		configMaps = append(configMaps, *cm)
	}
	all := sandboxes.AddPolicies(sandboxes.Group(configMaps, forks.Items), policies.Items)
	if len(all) == 0 {
		return nil, plan.NoSandbox(name, ns)
	}
	s := &Status{Sandbox: all[0], Counted: counted}
	if counted {
		s.Uncounted = cm.Annotations[sandbox.AnnotationFlushMissing]
	}
	states, err := c.BaselineStates(ctx, s.Sandbox.Forks)
	if err != nil {
		return nil, err
	}
	for i := range s.Sandbox.Forks {
		d := &s.Sandbox.Forks[i]
		standing, known := states[ns+"/"+d.Name]
		s.Standings = append(s.Standings, standing)
		facts := sandboxes.ForkFacts(d, sets.Items, pods.Items, time.Now())
		facts.Baseline = sandboxes.BaselineFacts(d, pods.Items, services.Items)
		if known {
			facts.Baseline.Gone, facts.Baseline.Marked, facts.Baseline.Behind = &standing.Gone, new(!standing.Unmarked), &standing.Behind
		}
		if cm != nil {
			facts.Published = health.ParsePublished(cm.Data[sandbox.DataHealth])[d.Name]
		}
		s.Forks = append(s.Forks, sandboxes.Diagnose(facts))
	}
	mine := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.Labels[sandbox.LabelRole] != sandbox.RoleBaseline || !slices.ContainsFunc(s.Sandbox.Forks, func(d appsv1.Deployment) bool {
			return d.Labels[sandbox.LabelWorkload] == p.Labels[sandbox.LabelWorkload]
		})
	})
	s.Previews = sandboxes.PreviewURLs(domain, &s.Sandbox, services.Items, mine)
	return s, nil
}

func isSandbox(cm *corev1.ConfigMap, name string) bool {
	return cm != nil && cm.Labels[sandbox.LabelRole] == sandbox.RoleSandbox && cm.Labels[sandbox.LabelSandbox] == name
}

// Delete starts the deletion of a sandbox of the client's namespace: by uid, so that a recreated one of the same name
// stays. The garbage collector deletes what the ConfigMap owns; Delete deletes the rest. With dryRun the API server
// does everything but delete.
func (c *Client) Delete(ctx context.Context, s *sandboxes.Sandbox, dryRun bool) error {
	if s.ConfigMap != nil {
		if err := c.deleteSandbox(ctx, s.ConfigMap, dryRun); err != nil {
			return Explain(err)
		}
	}
	for i := range s.Forks {
		f := &s.Forks[i]
		if s.ConfigMap != nil && ownedBy(f.OwnerReferences, s.ConfigMap.UID) {
			continue
		}
		err := c.Kube.AppsV1().Deployments(f.Namespace).Delete(ctx, f.Name, deleteOptions(f.UID, dryRun))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return Explain(err)
		}
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		if s.ConfigMap != nil && ownedBy(p.OwnerReferences, s.ConfigMap.UID) {
			continue
		}
		if err := c.deletePolicy(ctx, p.Name, p.UID, dryRun); err != nil {
			return Explain(err)
		}
	}
	return nil
}

// deleteOptions returns options that delete only the object with that uid: another object of its name is a conflict.
func deleteOptions(uid types.UID, dryRun bool) metav1.DeleteOptions {
	background := metav1.DeletePropagationBackground
	o := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background}
	if dryRun {
		o.DryRun = []string{metav1.DryRunAll}
	}
	return o
}

// WaitDeleted waits until no Deployment, policy or pod of the sandboxes is left. If ctx ends first, left says what
// remains.
func (c *Client) WaitDeleted(ctx context.Context, names []string) (left []string, err error) {
	for {
		deployments, policies, pods, err := c.remains(ctx, names)
		if err != nil {
			return left, err
		}
		left = left[:0]
		for _, d := range deployments.Items {
			left = append(left, "deployment.apps/"+d.Name)
		}
		for _, p := range policies.Items {
			left = append(left, "networkpolicy.networking.k8s.io/"+p.Name)
		}
		for _, p := range pods.Items {
			left = append(left, "pod/"+p.Name)
		}
		var w watch.Interface
		switch options := (metav1.ListOptions{LabelSelector: remainsOf(names)}); {
		case len(left) == 0:
			return nil, nil
		case len(pods.Items) > 0:
			options.ResourceVersion = pods.ResourceVersion
			w, err = c.Kube.CoreV1().Pods(c.Namespace).Watch(ctx, options)
		case len(deployments.Items) > 0:
			options.ResourceVersion = deployments.ResourceVersion
			w, err = c.Kube.AppsV1().Deployments(c.Namespace).Watch(ctx, options)
		default:
			options.ResourceVersion = policies.ResourceVersion
			w, err = c.Kube.NetworkingV1().NetworkPolicies(c.Namespace).Watch(ctx, options)
		}
		if err != nil {
			return left, err
		}
		untilDeleted(w, max(len(pods.Items), 1))
		w.Stop()
	}
}

// untilDeleted returns when n objects were deleted, or the watch ends.
func untilDeleted(w watch.Interface, n int) {
	for event := range w.ResultChan() {
		switch event.Type {
		case watch.Error:
			return
		case watch.Deleted:
			if n--; n == 0 {
				return
			}
		}
	}
}

// remains lists what is left of sandboxes.
func (c *Client) remains(ctx context.Context, names []string) (*appsv1.DeploymentList, *networkingv1.NetworkPolicyList, *corev1.PodList, error) {
	options := metav1.ListOptions{LabelSelector: remainsOf(names)}
	deployments, err := c.Kube.AppsV1().Deployments(c.Namespace).List(ctx, options)
	if err != nil {
		return nil, nil, nil, err
	}
	policies, err := c.forkPolicies(ctx, anyOf(names))
	if err != nil {
		return nil, nil, nil, err
	}
	pods, err := c.Kube.CoreV1().Pods(c.Namespace).List(ctx, options)
	return deployments, policies, pods, err
}

// WithPolicies adds the forks' policies to sandboxes of the client's namespace, and adds sandboxes of which only
// policies are left.
func (c *Client) WithPolicies(ctx context.Context, found []sandboxes.Sandbox) ([]sandboxes.Sandbox, error) {
	policies, err := c.forkPolicies(ctx, "")
	if err != nil {
		return nil, Explain(err)
	}
	return sandboxes.AddPolicies(found, policies.Items), nil
}

// remainsOf selects the objects that are deleted with one of the sandboxes. The Jobs and pods of checks are deleted
// with their experiment.
func remainsOf(names []string) string {
	return anyOf(names) + "," + sandbox.LabelRole + "!=" + sandbox.RoleCheck
}

// anyOf selects what belongs to one of the sandboxes.
func anyOf(names []string) string {
	return fmt.Sprintf("%s in (%s)", sandbox.LabelSandbox, strings.Join(names, ","))
}

// SandboxesNamed reads sandboxes of the client's namespace by name, and returns the names that do not exist.
func (c *Client) SandboxesNamed(ctx context.Context, names []string) (found []sandboxes.Sandbox, missing []string, err error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var all []sandboxes.Sandbox
	var policies *networkingv1.NetworkPolicyList
	err = inParallel(
		func() (err error) { all, err = c.selected(ctx, c.Namespace, anyOf(names)); return err },
		func() (err error) { policies, err = c.forkPolicies(ctx, anyOf(names)); return Explain(err) },
	)
	if err != nil {
		return nil, nil, err
	}
	all = sandboxes.AddPolicies(all, policies.Items)
	for _, name := range names {
		if i := slices.IndexFunc(all, func(s sandboxes.Sandbox) bool { return s.Name == name }); i >= 0 {
			found = append(found, all[i])
		} else {
			missing = append(missing, name)
		}
	}
	return found, missing, nil
}

// SandboxNames returns the names of the sandboxes of the client's namespace.
func (c *Client) SandboxNames(ctx context.Context) ([]string, error) {
	list, err := c.sandboxes(ctx, c.Namespace, "")
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Labels[sandbox.LabelSandbox]
	}
	return names, nil
}
