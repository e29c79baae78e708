package cluster

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Diffs reads the forks of a sandbox and their baselines, those that args name or all, and returns how they differ.
func (c *Client) Diffs(ctx context.Context, name string, args []string) ([]forks.Diff, error) {
	forked, err := c.Dynamic.Resource(deployments()).Namespace(c.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: sandbox.LabelSandbox + "=" + name + "," + sandbox.LabelRole + "=" + sandbox.RoleFork,
	})
	if err != nil {
		return nil, Explain(err)
	}
	if len(forked.Items) == 0 {
		cm, err := c.sandboxConfigMap(ctx, name)
		if err == nil && cm == nil {
			return nil, plan.NoSandbox(name, c.Namespace)
		}
		if err == nil {
			err = forks.NoForks(name)
		}
		return nil, Explain(err)
	}
	if len(args) == 0 {
		for i := range forked.Items {
			baseline, err := fork.BaselineOf(&forked.Items[i])
			if err != nil {
				return nil, err
			}
			args = append(args, baseline.String())
		}
	}
	workloads, err := c.objects(ctx, args, "")
	if err != nil {
		return nil, err
	}
	for _, w := range workloads {
		w.RememberTemplate(name, forked.Items)
	}
	return forks.Diffs(name, workloads, forked.Items)
}
