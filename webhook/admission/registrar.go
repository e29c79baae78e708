package admission

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const (
	// admittedFor bounds how long a sandbox that was admitted, and that no watch has told of yet, counts as one: the
	// API server may have refused it for another reason after that.
	admittedFor = 5 * time.Second
	// settled is when one that the API server does not have either is given up for whoever else wants its place.
	// Until then it may be on its way there.
	settled = time.Second
	// maxLooks bounds how often a decision begins anew because what the cache told was not so any more.
	maxLooks = 10
)

// A registrar knows which sandboxes hold which keys.
//
// It decides by a cache, to which it adds what it admitted itself and has not seen there yet. So within one replica
// it is exact; of two that are asked at the same moment, neither knows of the other's until a watch tells it, some
// milliseconds later. Two sandboxes may then come to one key: routes go to the older fork, and the younger's problem
// says so. What it is about to refuse it looks up, so that it never refuses for the sake of what has just been
// deleted, or was never stored. Nothing is locked while it does: a namespace for which the API server is slow to
// answer holds up no other.
type registrar struct {
	cache client.Reader // sandboxes alone, as StripSandbox leaves them
	api   client.Reader
	limit int // the most sandboxes of a namespace; 0: any number
	clock clock.PassiveClock

	mu       sync.Mutex
	serial   int
	admitted map[types.NamespacedName]holder
}

// A holder is a sandbox that holds its key.
type holder struct {
	name, key, by string
	id            string    // another sandbox of the name has another
	since         time.Time // when it was admitted, of one that the cache may not hold yet; zero of one that it holds
}

// A wish is to be a sandbox, or to have a fork in one.
type wish struct {
	namespace, name, key, by string
	isNew                    bool // one more sandbox of the namespace
	reserves                 bool // it holds its key from now on, before a watch tells of it
}

// What the API server said of what is known, by the holders' ids and the ConfigMaps' names.
type asked struct {
	gone  map[string]bool // holds its key no more
	known map[string]bool // what there was when it was asked for all: it is in there, or it is no more
	there map[string]bool // all that it has; nil where it was not asked
}

// decide returns why a wish is refused; nil: it is not.
func (r *registrar) decide(ctx context.Context, w wish) *admission.Response {
	a := asked{gone: map[string]bool{}}
	for range maxLooks {
		others, by, err := r.take(ctx, w, a)
		switch {
		case err != nil:
			return errored(err)
		case by != nil:
			if r.holds(ctx, w.namespace, *by) {
				return keyInUse(w.key, *by)
			}
			a.gone[by.id] = true
		case others == nil:
			return nil
		case a.there != nil:
			no := refused(sandbox.CauseTooMany,
				"namespace %q has %d of at most %d sandboxes (chart value sandboxes.maxPerNamespace)",
				w.namespace, len(a.count(others)), r.limit)
			return &no
		default:
			if err := r.ask(ctx, w, others, &a); err != nil {
				return errored(err)
			}
		}
	}
	return errored(fmt.Errorf("sandboxes of namespace %s change too fast to tell who holds key %s: try again",
		w.namespace, w.key))
}

// take grants a wish, and returns neither others nor a holder; or who holds the key; or all others where there are
// too many. It asks nobody.
func (r *registrar) take(ctx context.Context, w wish, a asked) (others []holder, by *holder, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, err := r.others(ctx, w.namespace, w.name)
	if err != nil {
		return nil, nil, err
	}
	for i := range all {
		if all[i].key == w.key && !a.gone[all[i].id] {
			return nil, &all[i], nil
		}
	}
	if w.isNew && r.limit > 0 && len(all) >= r.limit && (a.there == nil || len(a.count(all)) >= r.limit) {
		return all, nil, nil
	}
	if w.reserves {
		r.serial++
		at := types.NamespacedName{Namespace: w.namespace, Name: sandbox.ConfigMapName(w.name)}
		r.admitted[at] = holder{w.name, w.key, w.by, at.Name + "#" + strconv.Itoa(r.serial), r.clock.Now()}
	}
	return nil, nil, nil
}

// others returns the sandboxes of a namespace but for the one named. The caller holds r.mu.
func (r *registrar) others(ctx context.Context, namespace, name string) ([]holder, error) {
	var list corev1.ConfigMapList
	if err := r.cache.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("sandboxes of namespace %s are not known yet: %w", namespace, err)
	}
	var others []holder
	known := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		cm := &list.Items[i]
		known[cm.Name] = true
		if of := cm.Labels[sandbox.LabelSandbox]; of != name {
			others = append(others, holder{
				name: of, key: cm.Data[sandbox.DataKey], by: cm.Data[sandbox.DataCreatedBy],
				id: cm.Name + "@" + string(cm.UID),
			})
		}
	}
	now := r.clock.Now()
	for at, h := range r.admitted {
		switch {
		case now.Sub(h.since) >= admittedFor:
			delete(r.admitted, at)
		case at.Namespace == namespace && h.name != name && !known[at.Name]:
			others = append(others, h)
		}
	}
	return others, nil
}

// holds asks the API server whether a sandbox holds its key. One that it does not have yet does for a moment after it
// was admitted.
func (r *registrar) holds(ctx context.Context, namespace string, h holder) bool {
	var now corev1.ConfigMap
	err := r.api.Get(ctx, types.NamespacedName{Namespace: namespace, Name: sandbox.ConfigMapName(h.name)}, &now)
	gone := apierrors.IsNotFound(err) ||
		err == nil && (now.DeletionTimestamp != nil || now.Data[sandbox.DataKey] != h.key)
	return !gone || r.coming(h)
}

// coming reports whether a sandbox may be on its way to the API server.
func (r *registrar) coming(h holder) bool {
	return !h.since.IsZero() && r.clock.Since(h.since) < settled
}

// ask asks the API server for the sandboxes of a namespace.
func (r *registrar) ask(ctx context.Context, w wish, others []holder, a *asked) error {
	a.known, a.there = map[string]bool{}, map[string]bool{}
	for _, h := range others {
		a.known[h.id] = !r.coming(h)
	}
	var list metav1.PartialObjectMetadataList
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	err := r.api.List(ctx, &list, client.InNamespace(w.namespace),
		client.MatchingLabels{sandbox.LabelRole: sandbox.RoleSandbox})
	if err != nil {
		return fmt.Errorf("count the sandboxes of namespace %s: %w", w.namespace, err)
	}
	for i := range list.Items {
		if list.Items[i].Name != sandbox.ConfigMapName(w.name) {
			a.there[list.Items[i].Name] = true
		}
	}
	return nil
}

// count returns the names of those that the API server has, and of the others that were not known when it was asked.
func (a *asked) count(others []holder) map[string]bool {
	all := make(map[string]bool, len(a.there)+len(others))
	for name := range a.there {
		all[name] = true
	}
	for _, h := range others {
		if !a.known[h.id] {
			all[sandbox.ConfigMapName(h.name)] = true
		}
	}
	return all
}

// seen forgets a sandbox that the cache tells of from now on.
func (r *registrar) seen(o any) {
	cm, ok := o.(*corev1.ConfigMap)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.admitted, client.ObjectKeyFromObject(cm))
}

func keyInUse(key string, by holder) *admission.Response {
	what := fmt.Sprintf("key %s is in use by sandbox %q", key, by.name)
	if by.by != "" {
		what += ", made by " + by.by
	}
	no := refused(sandbox.CauseKeyInUse, "%s", what)
	return &no
}

func errored(err error) *admission.Response {
	r := admission.Errored(http.StatusServiceUnavailable, err)
	return &r
}
