package cluster

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

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// How an experiment is one client's.
//
// Two that ran the same checks at once would count each other's requests. So the ConfigMap names a holder, who writes every now and then
// that it is still there, and whose writes are made on condition that it is the holder. Another client takes over where nothing was heard
// for long enough, by its own clock: clocks are not compared.
const (
	dataHolder    = "holder"
	dataHeartbeat = "heard" // another value each time

	heartbeatInterval = 5 * time.Second
	holderTimeout     = 4 * heartbeatInterval // without anything heard, until a holder is taken for gone
)

// ErrNotHolder is that an experiment is not this client's to run, or to delete, any more.
var ErrNotHolder = errors.New("not the experiment's holder")

// SendHeartbeats writes that the experiment's holder is still there, until ctx ends or it is so no more: that is the error.
func (c *Client) SendHeartbeats(ctx context.Context, e *Experiment) error {
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

// Release lets another client go on with an experiment at once. Where it fails, that one has to wait.
func (c *Client) Release(ctx context.Context, e *Experiment) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	_ = c.patchAsHolder(ctx, e, map[string]string{dataHolder: ""})
}

// takeOver makes e this client's, when nothing was heard of its holder for some time.
func (c *Client) takeOver(ctx context.Context, e *Experiment) error {
	if err := c.waitReleased(ctx, e); err != nil {
		return err
	}
	is := map[string]string{dataHolder: e.ConfigMap.Data[dataHolder], dataHeartbeat: e.ConfigMap.Data[dataHeartbeat]}
	e.holder = rand.Text()
	err := c.patchIf(ctx, e, is, map[string]string{dataHolder: e.holder, dataHeartbeat: rand.Text()})
	if errors.Is(err, ErrNotHolder) { // where an answer was lost, it was this client that made the next try fail
		if now, again := c.Experiment(ctx, e.Report.ID); again == nil && now.ConfigMap.UID == e.ConfigMap.UID && now.ConfigMap.Data[dataHolder] == e.holder {
			return nil
		}
	}
	return err
}

// waitReleased waits until nothing was heard of an experiment's holder for long enough. Where something is, that is a *plan.Problem; so it is
// where the experiment ends meanwhile.
func (c *Client) waitReleased(ctx context.Context, e *Experiment) error {
	if e.ConfigMap.Data[dataHolder] == "" {
		return nil
	}
	// What can't be read may have been written, or kept from being: silence counts from when it can be again.
	for end := time.Now().Add(holderTimeout); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryInterval):
		}
		now, err := c.Experiment(ctx, e.Report.ID)
		switch {
		case IsTransient(err):
			end = time.Now().Add(holderTimeout)
			continue
		case err != nil:
			return err
		case !now.Report.Window.Ended.IsZero():
			return hasEnded(now.Report)
		}
		silent := now.ConfigMap.Data[dataHolder] == e.ConfigMap.Data[dataHolder] && now.ConfigMap.Data[dataHeartbeat] == e.ConfigMap.Data[dataHeartbeat]
		e.ConfigMap, e.Report = now.ConfigMap, now.Report
		switch {
		case e.ConfigMap.Data[dataHolder] == "":
			return nil // it was let go
		case !silent:
			return &plan.Problem{
				What: fmt.Sprintf("experiment %q is being run by another client; choose another --id, or wait for that one", e.Report.ID),
				Hint: "wait for it", Fix: plan.Kubectl("sandbox", "report", e.Report.ID, "--wait"),
			}
		}
	}
	return nil
}

// hasEnded is the problem that an experiment can't be gone on with: what its images are by now it does not know.
func hasEnded(r *experiment.Report) error {
	return &plan.Problem{
		What: fmt.Sprintf("experiment %q has ended, at %s; for another one, choose another --id", r.ID, r.Window.Ended.Format(time.RFC3339)),
		Hint: "see its report", Fix: plan.Kubectl("sandbox", "report", r.ID),
	}
}

// patchAsHolder writes data of the experiment's ConfigMap, on condition that this client is the experiment's holder.
func (c *Client) patchAsHolder(ctx context.Context, e *Experiment, data map[string]string) error {
	return c.patchIf(ctx, e, map[string]string{dataHolder: e.holder}, data)
}

func (c *Client) patchIf(ctx context.Context, e *Experiment, is, data map[string]string) error {
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
	err = Retry(ctx, func() error {
		_, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Patch(ctx, e.ConfigMap.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: sandbox.FieldManager})
		return err
	})
	if apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
		return &plan.Problem{
			What: fmt.Sprintf("experiment %q was deleted, or another client runs it now", e.Report.ID), Err: ErrNotHolder,
			Hint: "see its report", Fix: plan.Kubectl("sandbox", "report", e.Report.ID, "--wait"),
		}
	}
	return Explain(err)
}
