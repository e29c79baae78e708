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
	// reservationTTL bounds how long an admitted sandbox that is not in the cache yet counts as existing. The API server
	// may have refused it for another reason after admission.
	reservationTTL = 5 * time.Second
	// arrivalGrace is how long an admitted sandbox counts as existing even if the API server does not have it: it may not
	// be stored yet.
	arrivalGrace = time.Second
	// maxAttempts bounds how often a decision is retried because the cache turned out to be out of date.
	maxAttempts = 10
)

// A registrar knows which sandboxes hold which keys.
//
// It decides by a cache, plus the sandboxes that it admitted and that are not in the cache yet. So it is exact within
// one replica. If two replicas are called at the same moment, neither knows the other's sandbox until a watch event
// arrives, milliseconds later. Two sandboxes may then get the same key: the older fork gets the routes, and the younger
// one reports the problem. Before it refuses, it reads from the API server, so that sandboxes that were just deleted or
// never stored cause no refusal. It holds no lock during these reads: a slow read for one namespace delays no other.
type registrar struct {
	cache client.Reader // sandboxes only, as StripSandbox leaves them
	api   client.Reader
	limit int // the most sandboxes of a namespace; 0: no limit
	clock clock.PassiveClock

	mu       sync.Mutex
	serial   int
	admitted map[types.NamespacedName]holder
}

// A holder is a sandbox that holds its key.
type holder struct {
	name, key, by string
	id            string    // unique: a later sandbox of the same name has another
	since         time.Time // when it was admitted, if the cache may lack it; otherwise zero
}

// A claim is a request to create a sandbox, or a fork in one.
type claim struct {
	namespace, name, key, by string
	isNew                    bool // it adds a sandbox to the namespace
	reserves                 bool // it holds its key from now on, before it is in the cache
}

// An apiState is what the API server returned about known sandboxes, by the holders' ids and the ConfigMaps' names.
type apiState struct {
	gone  map[string]bool // holds its key no longer
	known map[string]bool // existed before the list was read: if the list lacks it, it is gone
	there map[string]bool // all that the API server has; nil before it was read
}

// decide returns why a claim is refused; nil if it is admitted.
func (r *registrar) decide(ctx context.Context, w claim) *admission.Response {
	a := apiState{gone: map[string]bool{}}
	for range maxAttempts {
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
			if err := r.readAPI(ctx, w, others, &a); err != nil {
				return errored(err)
			}
		}
	}
	return errored(fmt.Errorf("sandboxes of namespace %s change too fast to tell who holds key %s: try again",
		w.namespace, w.key))
}

// take admits a claim and returns no holder and no others; or it returns the holder of the key; or all others if there
// are too many. It makes no API call.
func (r *registrar) take(ctx context.Context, w claim, a apiState) (others []holder, by *holder, err error) {
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

// others returns all sandboxes of a namespace except the named one. The caller holds r.mu.
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
		case now.Sub(h.since) >= reservationTTL:
			delete(r.admitted, at)
		case at.Namespace == namespace && h.name != name && !known[at.Name]:
			others = append(others, h)
		}
	}
	return others, nil
}

// holds reads from the API server whether a sandbox still holds its key. One that was just admitted counts for a
// moment, even if it is not stored yet.
func (r *registrar) holds(ctx context.Context, namespace string, h holder) bool {
	var now corev1.ConfigMap
	err := r.api.Get(ctx, types.NamespacedName{Namespace: namespace, Name: sandbox.ConfigMapName(h.name)}, &now)
	gone := apierrors.IsNotFound(err) ||
		err == nil && (now.DeletionTimestamp != nil || now.Data[sandbox.DataKey] != h.key)
	return !gone || r.isPending(h)
}

// isPending reports whether a sandbox was just admitted and may not be stored yet.
func (r *registrar) isPending(h holder) bool {
	return !h.since.IsZero() && r.clock.Since(h.since) < arrivalGrace
}

// readAPI reads the sandboxes of a namespace from the API server.
func (r *registrar) readAPI(ctx context.Context, w claim, others []holder, a *apiState) error {
	a.known, a.there = map[string]bool{}, map[string]bool{}
	for _, h := range others {
		a.known[h.id] = !r.isPending(h)
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

// count returns the names of the sandboxes that the API server has, and of the others that are newer than its list.
func (a *apiState) count(others []holder) map[string]bool {
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

// seen forgets an admitted sandbox once the cache has it.
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
