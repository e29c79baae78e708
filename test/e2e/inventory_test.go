package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// An inventory is what a namespace holds, of every type that the API server knows: "RESOURCE.GROUP/NAME uid" and labels.
// Events are left out: they tell of what was, and go by themselves.
type inventory map[string]map[string]string

// A ledger takes inventories.
type ledger struct {
	client    metadata.Interface
	resources []schema.GroupVersionResource
}

// newLedger asks the API server for all its namespaced types that can be listed.
func (w *world) newLedger(t *testing.T) *ledger {
	t.Helper()
	config := rest.CopyConfig(w.config)
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{} // of deprecated types
	client, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := discovery.ServerPreferredNamespacedResources(w.client.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{client: client}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if slices.Contains(r.Verbs, "list") && r.Name != "events" {
				l.resources = append(l.resources, gv.WithResource(r.Name))
			}
		}
	}
	if len(l.resources) < 20 {
		t.Fatalf("only these types are listed: %v", l.resources)
	}
	return l
}

// take lists all types in the namespaces.
func (l *ledger) take(ctx context.Context, namespaces ...string) (inventory, error) {
	var (
		mu    sync.Mutex
		all   = inventory{}
		first error
		wg    sync.WaitGroup
	)
	for _, ns := range namespaces {
		for _, r := range l.resources {
			wg.Go(func() {
				list, err := l.client.Resource(r).Namespace(ns).List(ctx, metav1.ListOptions{})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err):
				case err != nil:
					first = fmt.Errorf("list %s: %w", r.Resource, err)
				default:
					for i := range list.Items {
						o := &list.Items[i]
						all[fmt.Sprintf("%s %s/%s %s", ns, r.GroupResource(), o.Name, o.UID)] = o.Labels
					}
				}
			})
		}
	}
	wg.Wait()
	return all, first
}

// against says what there is that was not there before, and the other way round; empty where there is no difference.
func (now inventory) against(before inventory) string {
	var lines []string
	for name := range now {
		if _, ok := before[name]; !ok {
			lines = append(lines, "left: "+name)
		}
	}
	for name := range before {
		if _, ok := now[name]; !ok {
			lines = append(lines, "gone: "+name)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// restored waits until the namespaces hold what they held before, and nothing else: what a sandbox owns is the garbage
// collector's to delete, which takes a moment.
func (l *ledger) restored(t *testing.T, within time.Duration, before inventory, namespaces ...string) {
	t.Helper()
	eventually(t, within, "nothing is left", func(ctx context.Context) error {
		now, err := l.take(ctx, namespaces...)
		if err != nil {
			return err
		}
		if d := now.against(before); d != "" {
			return fmt.Errorf("the namespace differs:\n%s", tail(d, 4000))
		}
		return nil
	})
}
