package jobs

import (
	"context"
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ObserveKeys makes the routers of the namespace observe keys, besides those that the experiment observes already. If
// there are too many, the latest are kept. Routers have begun to observe them once Observed has returned.
func (c *Experiments) ObserveKeys(ctx context.Context, e *Experiment, keys []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.observe
	if before == nil {
		before, _ = sandbox.ParseObserve(e.ConfigMap.Data[sandbox.DataObserve]) // an invalid value is overwritten
	}
	all := slices.Clone(before)
	for _, key := range keys {
		if !slices.Contains(all, key) {
			all = append(all, key)
		}
	}
	if len(all) == len(before) {
		return nil
	}
	all = all[max(0, len(all)-sandbox.MaxObserve):]
	observe, err := sandbox.FormatObserve(all)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": e.ConfigMap.UID}, "data": map[string]string{sandbox.DataObserve: observe},
	})
	if err != nil {
		return err
	}
	err = cluster.Retry(ctx, func() error {
		_, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Patch(ctx, e.ConfigMap.Name, types.MergePatchType, patch,
			metav1.PatchOptions{FieldManager: sandbox.FieldManager})
		return err
	})
	if err != nil {
		return cluster.Explain(err)
	}
	e.observe = all
	return nil
}

// Observed makes the routers write what they have observed for an experiment, and returns it. missing names routers
// that did not answer. ended are pods whose routers ended after they had handed over their observations. It is not ok
// if nobody answered.
func (c *Experiments) Observed(
	ctx context.Context,
	e *Experiment,
) (all route.Observed, missing string, ended []string, ok bool) {
	e.mu.Lock() // of two concurrent requests, the first would miss its answer
	defer e.mu.Unlock()
	cm, ok := c.read.Counted(ctx, e.ConfigMap)
	if !ok || json.Unmarshal([]byte(cm.Data[sandbox.DataObserved]), &all) != nil {
		return nil, "", nil, false
	}
	_ = json.Unmarshal([]byte(cm.Data[sandbox.DataEnded]), &ended) // an invalid value counts as none
	return all, cm.Annotations[sandbox.AnnotationFlushMissing], ended, true
}
