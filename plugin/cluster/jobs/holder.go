package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An experiment has one holder at a time.
//
// Two clients that ran the same checks at once would count each other's requests. So the ConfigMap names a holder,
// which writes a heartbeat periodically, and whose writes are conditional on being the holder. Another client takes
// over after it has seen no heartbeat for holderTimeout by its own clock: clocks are not compared.
const (
	dataHolder    = "holder"
	dataHeartbeat = "heard" // the heartbeat: another value each time

	heartbeatInterval = 5 * time.Second
	holderTimeout     = 4 * heartbeatInterval // without a heartbeat, before another client takes over
)

// ErrNotHolder means that this client may no longer run or delete the experiment.
var ErrNotHolder = errors.New("not the experiment's holder")

// SendHeartbeats writes the holder's heartbeat until ctx ends, or until this client is no longer the holder, which is
// an error.
func (c *Experiments) SendHeartbeats(ctx context.Context, e *Experiment) error {
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.patchAsHolder(ctx, e, map[string]string{dataHeartbeat: rand.Text()}); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// Release lets another client resume an experiment at once. If it fails, the other client has to wait for
// holderTimeout.
func (c *Experiments) Release(ctx context.Context, e *Experiment) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apply.CleanUpTime)
	defer cancel()
	_ = c.patchAsHolder(ctx, e, map[string]string{dataHolder: ""})
}

// takeOver makes this client the holder of e, once the present holder has released it or its heartbeat has stopped.
func (c *Experiments) takeOver(ctx context.Context, e *Experiment) error {
	if err := c.waitReleased(ctx, e); err != nil {
		return err
	}
	is := map[string]string{dataHolder: e.ConfigMap.Data[dataHolder], dataHeartbeat: e.ConfigMap.Data[dataHeartbeat]}
	e.holder = rand.Text()
	err := c.patchIf(ctx, e, is, map[string]string{dataHolder: e.holder, dataHeartbeat: rand.Text()})
	if errors.Is(err, ErrNotHolder) { // if an answer was lost, this client's own write made the retry fail
		now, again := c.Experiment(ctx, e.Report.ID)
		if again == nil && now.ConfigMap.UID == e.ConfigMap.UID && now.ConfigMap.Data[dataHolder] == e.holder {
			return nil
		}
	}
	return err
}

// waitReleased waits until the holder has released the experiment, or its heartbeat has stopped for holderTimeout. A
// heartbeat is a *plan.Problem, and so is the end of the experiment.
func (c *Experiments) waitReleased(ctx context.Context, e *Experiment) error {
	if e.ConfigMap.Data[dataHolder] == "" {
		return nil
	}
	// During an outage a heartbeat may be missed, or may not be written. So the timeout starts again after it.
	for end := time.Now().Add(holderTimeout); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(cluster.RetryInterval):
		}
		now, err := c.Experiment(ctx, e.Report.ID)
		switch {
		case cluster.IsTransient(err):
			end = time.Now().Add(holderTimeout)
			continue
		case err != nil:
			return err
		case !now.Report.Window.Ended.IsZero():
			return hasEnded(now.Report)
		}
		silent := now.ConfigMap.Data[dataHolder] == e.ConfigMap.Data[dataHolder] &&
			now.ConfigMap.Data[dataHeartbeat] == e.ConfigMap.Data[dataHeartbeat]
		e.ConfigMap, e.Report = now.ConfigMap, now.Report
		switch {
		case e.ConfigMap.Data[dataHolder] == "":
			return nil // it was released
		case !silent:
			return &plan.Problem{
				What: fmt.Sprintf(
					"experiment %q is being run by another client; choose another --id, or wait for that one",
					e.Report.ID,
				),
				Hint: "wait for it",
				Fix:  plan.Kubectl("sandbox", "report", e.Report.ID, "--wait"),
			}
		}
	}
	return nil
}

// hasEnded returns the Problem of an experiment that can't be resumed because it has ended.
func hasEnded(r *experiment.Report) error {
	return &plan.Problem{
		What: fmt.Sprintf(
			"experiment %q has ended, at %s; for another one, choose another --id",
			r.ID,
			r.Window.Ended.Format(time.RFC3339),
		),
		Hint: "see its report",
		Fix:  plan.Kubectl("sandbox", "report", r.ID),
	}
}

// patchAsHolder writes data of the experiment's ConfigMap, on condition that this client is the holder.
func (c *Experiments) patchAsHolder(ctx context.Context, e *Experiment, data map[string]string) error {
	return c.patchIf(ctx, e, map[string]string{dataHolder: e.holder}, data)
}

func (c *Experiments) patchIf(ctx context.Context, e *Experiment, is, data map[string]string) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value"`
	}
	operations := []operation{{"test", "/metadata/uid", string(e.ConfigMap.UID)}}
	for key, value := range is {
		operations = append(operations, operation{"test", "/data/" + key, value})
	}
	for key, value := range data {
		operations = append(operations, operation{"add", "/data/" + key, value})
	}
	patch, err := json.Marshal(operations)
	if err != nil {
		return err
	}
	err = cluster.Retry(ctx, func() error {
		_, err := c.Kube.CoreV1().
			ConfigMaps(c.Namespace).
			Patch(ctx, e.ConfigMap.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: sandbox.FieldManager})
		return err
	})
	if apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
		return &plan.Problem{
			What: fmt.Sprintf("experiment %q was deleted, or another client runs it now", e.Report.ID), Err: ErrNotHolder,
			Hint: "see its report", Fix: plan.Kubectl("sandbox", "report", e.Report.ID, "--wait"),
		}
	}
	return cluster.Explain(err)
}
