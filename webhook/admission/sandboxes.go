package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/go-logr/logr"
	jsonpatch "gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// SandboxesPath is where the MutatingWebhookConfiguration sends sandboxes' ConfigMaps and forks' Deployments.
const SandboxesPath = "/admit-sandboxes"

// admittedFor bounds how long a sandbox that was admitted, and that no watch has told of yet, counts as one: the API server may
// have refused it for another reason after that.
const admittedFor = 5 * time.Second

// Sandboxes admits sandboxes and forks to a namespace, whoever makes them, by whatever program: no two sandboxes of one key, and
// no more than there may be. It writes down who makes a sandbox.
//
// It decides by a cache, to which it adds what it admitted itself and has not seen there yet. So within one replica it is exact;
// of two that are asked at the same moment, neither knows of the other's until a watch tells it, some milliseconds later. Two
// sandboxes may then come to one key: routes go to the older fork, and the younger's problem says so. What it is about to
// refuse it looks up, so that it never refuses for the sake of what has just been deleted.
type Sandboxes struct {
	cache     client.Reader // sandboxes alone, as StripSandbox leaves them
	api       client.Reader
	limit     int    // the most sandboxes of a namespace; 0: any number
	namespace string // its own
	clock     clock.PassiveClock
	log       logr.Logger

	mu       sync.Mutex
	admitted map[types.NamespacedName]admitted
}

// admitted is a sandbox that the cache may not hold yet.
type admitted struct {
	name, key, by string
	until         time.Time
}

// NewSandboxes returns the handler of sandboxes for a webhook that runs in namespace. cache holds what StripSandbox leaves of sandboxes;
// limit is the most sandboxes of a namespace, 0 for any number.
func NewSandboxes(namespace string, cache, api client.Reader, limit int, clock clock.PassiveClock, log logr.Logger) *Sandboxes {
	return &Sandboxes{cache: cache, api: api, limit: limit, namespace: namespace, clock: clock, log: log, admitted: map[types.NamespacedName]admitted{}}
}

// Handle implements admission.Handler.
func (r *Sandboxes) Handle(ctx context.Context, req admission.Request) (response admission.Response) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error(fmt.Errorf("%v", p), "panic in admission", "stack", string(debug.Stack()))
			response = admission.Errored(http.StatusInternalServerError, fmt.Errorf("internal error: %v", p))
		}
	}()
	if req.Namespace == metav1.NamespaceSystem || req.Namespace == r.namespace || req.SubResource != "" ||
		req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return admission.Allowed("")
	}
	switch req.Kind.Group + "/" + req.Kind.Kind {
	case "/ConfigMap":
		var cm corev1.ConfigMap
		if err := json.Unmarshal(req.Object.Raw, &cm); err != nil {
			return admission.Errored(http.StatusBadRequest, fmt.Errorf("decode ConfigMap: %w", err))
		}
		if cm.Labels[sandbox.LabelRole] == sandbox.RoleSandbox {
			return r.sandbox(ctx, req, &cm)
		}
	case "apps/Deployment":
		var d metav1.PartialObjectMetadata
		if err := json.Unmarshal(req.Object.Raw, &d); err != nil {
			return admission.Errored(http.StatusBadRequest, fmt.Errorf("decode Deployment: %w", err))
		}
		if d.Labels[sandbox.LabelRole] == sandbox.RoleFork {
			return r.fork(ctx, req, &d)
		}
	}
	return admission.Allowed("")
}

// sandbox admits a ConfigMap.
func (r *Sandboxes) sandbox(ctx context.Context, req admission.Request, cm *corev1.ConfigMap) admission.Response {
	name, key := cm.Labels[sandbox.LabelSandbox], cm.Data[sandbox.DataKey]
	if err := sandbox.ValidateName(name); err != nil {
		return refused(sandbox.CauseMalformed, "label %s %q %v", sandbox.LabelSandbox, name, err)
	}
	if want := sandbox.ConfigMapName(name); req.Name != want {
		return refused(sandbox.CauseMalformed, "the ConfigMap of sandbox %q must be called %s, and is called %q", name, want, req.Name)
	}
	if err := sandbox.ValidateKey(key); err != nil {
		return refused(sandbox.CauseMalformed, "data.%s %q %v", sandbox.DataKey, key, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	others, err := r.others(ctx, req.Namespace, name)
	if err != nil {
		return admission.Errored(http.StatusServiceUnavailable, err)
	}
	if other, ok := r.holder(ctx, req.Namespace, key, others); ok {
		return keyInUse(key, other)
	}
	isNew := req.Operation == admissionv1.Create || !wasSandbox(req.OldObject.Raw)
	if isNew && r.limit > 0 && len(others) >= r.limit {
		n, err := r.count(ctx, req.Namespace, name)
		if err != nil {
			return admission.Errored(http.StatusServiceUnavailable, err)
		}
		if n >= r.limit {
			return refused(sandbox.CauseTooMany, "namespace %q has %d of at most %d sandboxes (chart value sandboxes.maxPerNamespace)", req.Namespace, n, r.limit)
		}
	}
	if isNew && (req.DryRun == nil || !*req.DryRun) {
		at := types.NamespacedName{Namespace: req.Namespace, Name: req.Name}
		r.admitted[at] = admitted{name, key, req.UserInfo.Username, r.clock.Now().Add(admittedFor)}
	}
	if req.Operation != admissionv1.Create || cm.Data[sandbox.DataCreatedBy] == req.UserInfo.Username {
		return admission.Allowed("")
	}
	return admission.Patched("", jsonpatch.NewOperation("add", "/data/"+sandbox.DataCreatedBy, req.UserInfo.Username))
}

// fork admits a Deployment: it is its key that routes are made of.
func (r *Sandboxes) fork(ctx context.Context, req admission.Request, d *metav1.PartialObjectMetadata) admission.Response {
	name, key := d.Labels[sandbox.LabelSandbox], d.Annotations[sandbox.AnnotationKey]
	if err := sandbox.ValidateName(name); err != nil {
		return refused(sandbox.CauseMalformed, "label %s %q %v", sandbox.LabelSandbox, name, err)
	}
	if err := sandbox.ValidateKey(key); err != nil {
		return refused(sandbox.CauseMalformed, "annotation %s %q %v", sandbox.AnnotationKey, key, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	others, err := r.others(ctx, req.Namespace, name)
	if err != nil {
		return admission.Errored(http.StatusServiceUnavailable, err)
	}
	if other, ok := r.holder(ctx, req.Namespace, key, others); ok {
		return keyInUse(key, other)
	}
	return admission.Allowed("")
}

// others returns the sandboxes of a namespace but for the one named. The caller holds r.mu.
func (r *Sandboxes) others(ctx context.Context, namespace, name string) ([]admitted, error) {
	var list corev1.ConfigMapList
	if err := r.cache.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("sandboxes of namespace %s are not known yet: %w", namespace, err)
	}
	var others []admitted
	known := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		cm := &list.Items[i]
		known[cm.Name] = true
		if of := cm.Labels[sandbox.LabelSandbox]; of != name {
			others = append(others, admitted{name: of, key: cm.Data[sandbox.DataKey], by: cm.Data[sandbox.DataCreatedBy]})
		}
	}
	now := r.clock.Now()
	for at, a := range r.admitted {
		switch {
		case !now.Before(a.until):
			delete(r.admitted, at)
		case at.Namespace == namespace && a.name != name && !known[at.Name]:
			others = append(others, a)
		}
	}
	return others, nil
}

// holder returns which of the sandboxes has the key. One that the cache has and the API server has not is none.
func (r *Sandboxes) holder(ctx context.Context, namespace, key string, of []admitted) (admitted, bool) {
	for _, a := range of {
		if a.key != key {
			continue
		}
		var now corev1.ConfigMap
		err := r.api.Get(ctx, types.NamespacedName{Namespace: namespace, Name: sandbox.ConfigMapName(a.name)}, &now)
		gone := apierrors.IsNotFound(err) || err == nil && (now.DeletionTimestamp != nil || now.Data[sandbox.DataKey] != key)
		if gone && a.until.IsZero() {
			continue
		}
		return a, true
	}
	return admitted{}, false
}

// count asks the API server how many sandboxes a namespace has but for the one named, and adds those that are on their way there.
func (r *Sandboxes) count(ctx context.Context, namespace, name string) (int, error) {
	var list metav1.PartialObjectMetadataList
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	err := r.api.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{sandbox.LabelRole: sandbox.RoleSandbox})
	if err != nil {
		return 0, fmt.Errorf("count the sandboxes of namespace %s: %w", namespace, err)
	}
	there := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		there[list.Items[i].Name] = true
	}
	for at := range r.admitted {
		if at.Namespace == namespace {
			there[at.Name] = true
		}
	}
	delete(there, sandbox.ConfigMapName(name))
	return len(there), nil
}

// seen forgets a sandbox that the cache tells of from now on.
func (r *Sandboxes) seen(o any) {
	cm, ok := o.(*corev1.ConfigMap)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.admitted, client.ObjectKeyFromObject(cm))
}

// Follow has the registrar told of what its cache learns.
func (r *Sandboxes) Follow(ctx context.Context, c cache.Cache) error {
	informer, err := c.GetInformer(ctx, &corev1.ConfigMap{})
	if err != nil {
		return fmt.Errorf("watch sandboxes: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: r.seen})
	return err
}

// StripSandbox keeps of a sandbox's ConfigMap what the registrar decides by.
func StripSandbox(o any) (any, error) {
	cm, ok := o.(*corev1.ConfigMap)
	if !ok {
		return o, nil
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: cm.Name, Namespace: cm.Namespace, UID: cm.UID, ResourceVersion: cm.ResourceVersion,
			Labels: map[string]string{sandbox.LabelRole: cm.Labels[sandbox.LabelRole], sandbox.LabelSandbox: cm.Labels[sandbox.LabelSandbox]},
		},
		Data: map[string]string{sandbox.DataKey: cm.Data[sandbox.DataKey], sandbox.DataCreatedBy: cm.Data[sandbox.DataCreatedBy]},
	}, nil
}

func wasSandbox(raw []byte) bool {
	var old metav1.PartialObjectMetadata
	return json.Unmarshal(raw, &old) == nil && old.Labels[sandbox.LabelRole] == sandbox.RoleSandbox
}

func keyInUse(key string, by admitted) admission.Response {
	what := fmt.Sprintf("key %s is in use by sandbox %q", key, by.name)
	if by.by != "" {
		what += ", made by " + by.by
	}
	return refused(sandbox.CauseKeyInUse, "%s", what)
}

// refused says no, in words for a person and in a type for a program.
func refused(cause, format string, args ...any) admission.Response {
	message := fmt.Sprintf(format, args...)
	r := admission.Denied(message)
	r.Result.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseType(cause), Message: message}}}
	return r
}
