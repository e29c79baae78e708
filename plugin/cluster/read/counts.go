package read

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// flushTimeout bounds the wait for requested counts: the lease holder gives the routers a second.
const flushTimeout = 3 * time.Second

// countAll makes the routers write their counts to the ConfigMaps of several sandboxes now, and updates these in
// place. It returns whether all counts are current, and which routers did not answer.
func (c *Reader) countAll(ctx context.Context, sandboxes []corev1.ConfigMap) (current bool, missing string) {
	fresh := make([]bool, len(sandboxes))
	var requested errgroup.Group
	for i := range sandboxes {
		requested.Go(func() error {
			cm, ok := c.Counted(ctx, &sandboxes[i])
			sandboxes[i], fresh[i] = *cm, ok
			return nil
		})
	}
	_ = requested.Wait() // none returns an error
	var silent []string
	for i := range sandboxes {
		if names := sandboxes[i].Annotations[sandbox.AnnotationFlushMissing]; names != "" && !slices.Contains(silent, names) {
			silent = append(silent, names)
		}
	}
	return !slices.Contains(fresh, false), strings.Join(silent, ", ")
}

// Counted makes the routers write their counts to the ConfigMap of a sandbox or an experiment now. It returns the
// ConfigMap with them, and whether they are current. They are not, but some seconds old, if the caller may not patch
// the ConfigMap or no webhook answers.
func (c *Reader) Counted(ctx context.Context, cm *corev1.ConfigMap) (*corev1.ConfigMap, bool) {
	nonce := rand.Text()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": cm.UID, "annotations": map[string]string{sandbox.AnnotationFlush: nonce},
	}})
	if err != nil {
		panic(err) // strings always encode
	}
	configMaps := c.Kube.CoreV1().ConfigMaps(cm.Namespace)
	options := metav1.PatchOptions{FieldManager: sandbox.FieldManager}
	if _, err := configMaps.Patch(ctx, cm.Name, types.MergePatchType, patch, options); err != nil {
		return cm, false
	}
	flushed := func(ctx context.Context) (bool, error) {
		now, err := configMaps.Get(ctx, cm.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if now.UID != cm.UID || now.Annotations[sandbox.AnnotationFlushed] != nonce {
			return false, nil
		}
		cm = now
		return true, nil
	}
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, flushTimeout, false, flushed)
	return cm, err == nil
}
