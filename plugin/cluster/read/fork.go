package read

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ReadFork reads the workloads that args name and everything else that planning their forks needs, with as many
// concurrent calls as possible. The number of calls does not depend on what the namespace holds. The amount of data
// does not depend on the number of sandboxes, because other sandboxes' forks are left out.
func (c *Reader) ReadFork(
	ctx context.Context,
	args []string,
	o *forks.Options,
) ([]*plan.Workload, *forks.State, error) {
	state := &forks.State{Namespace: c.Namespace}
	var workloads []*plan.Workload
	reads := []func() error{
		func() (err error) { workloads, err = c.objects(ctx, args, o.TemplatePath); return err },
		func() (err error) { state.Sandbox, err = c.SandboxConfigMap(ctx, o.Sandbox); return err },
		func() error {
			list, err := c.Dynamic.Resource(cluster.Deployments()).Namespace(c.Namespace).List(ctx, metav1.ListOptions{
				LabelSelector: sandbox.LabelSandbox + "=" + o.Sandbox + "," + sandbox.LabelRole + "=" + sandbox.RoleFork,
			})
			if err == nil {
				state.Forks = list.Items
			}
			return err
		},
		func() error {
			list, err := c.Kube.CoreV1().Services(c.Namespace).List(ctx, metav1.ListOptions{})
			if err == nil {
				state.Services = list.Items
			}
			return err
		},
		func() error {
			installed, err := c.installation(ctx)
			state.NoWebhook, state.DefaultTTL = installed.missing, installed.defaultTTL
			return err
		},
		func() error { state.User = c.User(ctx); return nil },
		func() error { return c.readNamespace(ctx, &state.Objects) },
		func() error { return c.policies(ctx, &state.Policies) },
		func() (err error) { state.Admission, err = c.admission(ctx); return err },
	}
	if !o.Rebase {
		reads = append(reads, func() (err error) {
			state.Sandboxes, err = c.sandboxes(ctx, c.Namespace, sandbox.LabelKey+"="+o.OwnKey())
			return err
		})
	}
	if err := cluster.InParallel(reads...); err != nil {
		return nil, nil, cluster.Explain(err)
	}
	for _, w := range workloads {
		w.RememberTemplate(o.Sandbox, state.Forks)
		if err := plan.CheckWorkload(w); err != nil {
			return nil, nil, err
		}
	}
	err := cluster.InParallel(
		func() (err error) {
			state.Taken, err = c.deploymentsNamed(ctx, forks.Names(o.Sandbox, workloads, state.Forks))
			return err
		},
		func() error { return c.readDependents(ctx, workloads, &state.Objects) },
		func() error { return c.furtherPolicies(ctx, state, o.Sandbox) },
		func() (err error) {
			state.EnvFrom, err = c.envSources(ctx, forks.EnvSourceRefs(o, workloads, state.Forks))
			return err
		},
	)
	return workloads, state, cluster.Explain(err)
}

// ReadRebase reads what a rebase is planned from: what ReadFork reads, for the workloads that args name or, without
// args, for all that the sandbox has forks of.
func (c *Reader) ReadRebase(
	ctx context.Context,
	args []string,
	o *forks.Options,
) ([]*plan.Workload, *forks.State, error) {
	if len(args) > 0 {
		return c.ReadFork(ctx, args, o)
	}
	var cm *corev1.ConfigMap
	var forked []appsv1.Deployment
	err := cluster.InParallel(
		func() (err error) { cm, err = c.SandboxConfigMap(ctx, o.Sandbox); return err },
		func() (err error) {
			forked, err = c.forks(ctx, c.Namespace, sandbox.LabelSandbox+"="+o.Sandbox)
			return err
		},
	)
	switch {
	case err != nil:
		return nil, nil, cluster.Explain(err)
	case cm == nil:
		return nil, nil, plan.NoSandbox(o.Sandbox, c.Namespace)
	case len(forked) == 0:
		return nil, nil, forks.NoForks(o.Sandbox)
	}
	for i := range forked {
		ref, err := fork.BaselineOf(&forked[i])
		if err != nil {
			return nil, nil, err
		}
		resource, err := ref.Resource()
		if err != nil {
			return nil, nil, err
		}
		arg := resource.Resource
		if resource.Group != "" {
			arg += "." + resource.Version + "." + resource.Group
		}
		args = append(args, arg+"/"+ref.Name)
	}
	return c.ReadFork(ctx, args, o)
}

// User returns the caller's name as the API server knows it; empty if it does not report one.
func (c *Reader) User(ctx context.Context) string {
	review, err := c.Kube.AuthenticationV1().
		SelfSubjectReviews().
		Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "" // a nicety of the sandbox's description; nothing depends on it
	}
	return review.Status.UserInfo.Username
}
