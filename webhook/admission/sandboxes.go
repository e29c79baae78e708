package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/go-logr/logr"
	jsonpatch "gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// SandboxesPath is the path to which the MutatingWebhookConfiguration sends sandboxes' ConfigMaps and forks'
// Deployments.
const SandboxesPath = "/admit-sandboxes"

// Sandboxes handles admission reviews of sandboxes and forks, whichever client creates them. It refuses a second
// sandbox with the same key, and more sandboxes than the limit. It records who created a sandbox. See registrar.
type Sandboxes struct {
	*registrar
	rights    Rights
	namespace string // its own
	log       logr.Logger
}

// Rights reports whether a user may fork, and so create sandboxes, in a namespace.
type Rights func(ctx context.Context, namespace string, user authenticationv1.UserInfo) (bool, error)

// NewSandboxes returns the handler of sandboxes for a webhook that runs in namespace. cache holds sandboxes as
// StripSandbox leaves them. limit is the most sandboxes of a namespace, 0 for no limit. A request by a user without the
// right, which policies refuse later, takes no key and does not count towards the limit.
func NewSandboxes(namespace string, cache, api client.Reader, rights Rights, limit int, clock clock.PassiveClock, log logr.Logger) *Sandboxes {
	return &Sandboxes{
		registrar: &registrar{cache: cache, api: api, limit: limit, clock: clock, admitted: map[types.NamespacedName]holder{}},
		rights:    rights, namespace: namespace, log: log,
	}
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

// sandbox decides on a ConfigMap.
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
	w := claim{namespace: req.Namespace, name: name, key: key, by: req.UserInfo.Username}
	w.isNew = req.Operation == admissionv1.Create || !wasSandbox(req.OldObject.Raw)
	if w.isNew && (req.DryRun == nil || !*req.DryRun) {
		may, err := r.rights(ctx, req.Namespace, req.UserInfo)
		if err != nil {
			return admission.Errored(http.StatusServiceUnavailable, err)
		}
		w.reserves = may
	}
	if refused := r.decide(ctx, w); refused != nil {
		return *refused
	}
	if req.Operation != admissionv1.Create || cm.Data[sandbox.DataCreatedBy] == req.UserInfo.Username {
		return admission.Allowed("")
	}
	return admission.Patched("", jsonpatch.NewOperation("add", "/data/"+sandbox.DataCreatedBy, req.UserInfo.Username))
}

// fork decides on a Deployment: routes are built from its key.
func (r *Sandboxes) fork(ctx context.Context, req admission.Request, d *metav1.PartialObjectMetadata) admission.Response {
	name, key := d.Labels[sandbox.LabelSandbox], d.Annotations[sandbox.AnnotationKey]
	if err := sandbox.ValidateName(name); err != nil {
		return refused(sandbox.CauseMalformed, "label %s %q %v", sandbox.LabelSandbox, name, err)
	}
	if err := sandbox.ValidateKey(key); err != nil {
		return refused(sandbox.CauseMalformed, "annotation %s %q %v", sandbox.AnnotationKey, key, err)
	}
	if refused := r.decide(ctx, claim{namespace: req.Namespace, name: name, key: key}); refused != nil {
		return *refused
	}
	return admission.Allowed("")
}

// Watch informs the registrar of the sandboxes that its cache receives.
func (r *Sandboxes) Watch(ctx context.Context, c cache.Cache) error {
	informer, err := c.GetInformer(ctx, &corev1.ConfigMap{})
	if err != nil {
		return fmt.Errorf("watch sandboxes: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: r.seen})
	return err
}

// StripSandbox keeps the fields of a sandbox's ConfigMap that the registrar decides by.
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

// refused returns a refusal, with a message for people and a cause for programs.
func refused(cause, format string, args ...any) admission.Response {
	message := fmt.Sprintf(format, args...)
	r := admission.Denied(message)
	r.Result.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseType(cause), Message: message}}}
	return r
}
