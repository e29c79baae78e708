package cluster

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// WatchObjects sends the events of a watch, as changes to the known state, until ctx ends. A watch without a resource
// version begins with all existing objects, so no list is needed. If the API server ends the watch, WatchObjects
// resets the state and starts another.
func WatchObjects[Known, T any](
	ctx context.Context, options metav1.ListOptions,
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
	events chan<- func(*Known) error, reset func(*Known), see func(*Known, T, bool),
) {
	send := func(event func(*Known) error) bool {
		select {
		case events <- event:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for ctx.Err() == nil {
		w, err := open(ctx, options)
		if err != nil {
			send(func(*Known) error { return Explain(err) })
			return
		}
		send(func(k *Known) error { reset(k); return nil })
		for event := range w.ResultChan() {
			if event.Type == watch.Error {
				if err := apierrors.FromObject(event.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
					send(func(*Known) error { return Explain(err) })
				}
				break
			}
			if object, ok := event.Object.(T); ok &&
				!send(func(k *Known) error { see(k, object, event.Type == watch.Deleted); return nil }) {
				break
			}
		}
		w.Stop()
	}
}
