package cluster

import (
	"context"
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ObserveKeys has the routers of the namespace observe keys, besides those that the experiment has observed already; of more than can
// be, those that were asked for last. Routers do so from when Observed has had an answer.
func (c *Client) ObserveKeys(ctx context.Context, e *Experiment, keys []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.observe
	if before == nil {
		before, _ = sandbox.ParseObserve(e.ConfigMap.Data[sandbox.DataObserve]) // what is nonsense is written anew
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
	err = Retry(ctx, func() error {
		_, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Patch(ctx, e.ConfigMap.Name, types.MergePatchType, patch,
			metav1.PatchOptions{FieldManager: sandbox.FieldManager})
		return err
	})
	if err != nil {
		return Explain(err)
	}
	e.observe = all
	return nil
}

// Observed has what the routers observed for an experiment written down now, and returns it, with what is not in it: routers that did
// not answer; and the pods whose routers have ended, after they had handed over what they observed. It is not ok where nobody answered at
// all.
func (c *Client) Observed(ctx context.Context, e *Experiment) (all route.Observed, missing string, ended []string, ok bool) {
	e.mu.Lock() // of two that ask at the same time, the first would not see its answer
	defer e.mu.Unlock()
	cm, ok := c.counted(ctx, e.ConfigMap)
	if !ok || json.Unmarshal([]byte(cm.Data[sandbox.DataObserved]), &all) != nil {
		return nil, "", nil, false
	}
	_ = json.Unmarshal([]byte(cm.Data[sandbox.DataEnded]), &ended) // of nonsense, none is known to have handed over
	return all, cm.Annotations[sandbox.AnnotationFlushMissing], ended, true
}
