package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// How an experiment is one client's.
//
// Two that ran the same checks at once would count each other's requests. So the ConfigMap names a holder, who writes every now and then
// that it is still there, and whose writes are made on condition that it is the holder. Another client takes over where nothing was heard
// for long enough, by its own clock: clocks are not compared.
const (
	dataHolder = "holder"
	dataHeard  = "heard" // another value each time

	heartbeat  = 5 * time.Second
	silentTime = 4 * heartbeat // without anything heard, until a holder is taken for gone
)

// ErrNotHolder is that an experiment is not this client's to run, or to delete, any more.
var ErrNotHolder = errors.New("not the experiment's holder")

// Hold writes that the experiment's holder is still there, until ctx ends or it is so no more: that is the error.
func (c *Client) Hold(ctx context.Context, e *Experiment) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.writeHeld(ctx, e, map[string]string{dataHeard: rand.Text()}); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// Release lets another client go on with an experiment at once. Where it fails, that one has to wait.
func (c *Client) Release(ctx context.Context, e *Experiment) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	_ = c.writeHeld(ctx, e, map[string]string{dataHolder: ""})
}

// takeOver makes e this client's, when nothing was heard of its holder for some time.
func (c *Client) takeOver(ctx context.Context, e *Experiment) error {
	holder, heard := e.ConfigMap.Data[dataHolder], e.ConfigMap.Data[dataHeard]
	if holder != "" {
		alive, err := c.heardOf(ctx, e.ConfigMap)
		if err != nil {
			return err
		}
		if alive {
			return &plan.Problem{
				What: fmt.Sprintf("experiment %q is being run by another client; choose another --id, or wait for that one", e.Report.ID),
				Say:  "wait for it", Fix: plan.Kubectl("sandbox", "report", e.Report.ID, "--wait"),
			}
		}
	}
	e.holder = rand.Text()
	return c.writeIf(ctx, e, map[string]string{dataHolder: holder, dataHeard: heard}, map[string]string{dataHolder: e.holder, dataHeard: rand.Text()})
}

// heardOf says whether the holder that cm names writes anything within the time that it has for that.
func (c *Client) heardOf(ctx context.Context, cm *corev1.ConfigMap) (bool, error) {
	for end := time.Now().Add(silentTime); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(persistBetween):
		}
		now, err := c.Kube.CoreV1().ConfigMaps(cm.Namespace).Get(ctx, cm.Name, metav1.GetOptions{})
		switch {
		case transient(err):
		case err != nil:
			return false, Explain(err)
		case now.Data[dataHolder] != cm.Data[dataHolder] || now.Data[dataHeard] != cm.Data[dataHeard]:
			return now.Data[dataHolder] != "", nil
		}
	}
	return false, nil
}

// writeHeld writes data of the experiment's ConfigMap, on condition that this client is the experiment's holder.
func (c *Client) writeHeld(ctx context.Context, e *Experiment, data map[string]string) error {
	return c.writeIf(ctx, e, map[string]string{dataHolder: e.holder}, data)
}

func (c *Client) writeIf(ctx context.Context, e *Experiment, is, data map[string]string) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value"`
	}
	operations := []operation{{"test", "/metadata/uid", string(e.ConfigMap.UID)}}
	for key, value := range is {
		if _, ok := e.ConfigMap.Data[key]; ok || value != "" {
			operations = append(operations, operation{"test", "/data/" + key, value})
		}
	}
	for key, value := range data {
		operations = append(operations, operation{"add", "/data/" + key, value})
	}
	patch, err := json.Marshal(operations)
	if err != nil {
		return err
	}
	err = persist(ctx, func() error {
		_, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Patch(ctx, e.ConfigMap.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: sandbox.FieldManager})
		return err
	})
	if apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
		return &plan.Problem{
			What: fmt.Sprintf("experiment %q was deleted, or another client goes on with it", e.Report.ID), Err: ErrNotHolder,
			Say: "what it finds", Fix: plan.Kubectl("sandbox", "report", e.Report.ID, "--wait"),
		}
	}
	return Explain(err)
}
