package admission

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	jsonpatch "gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// UpdatesPath is the path to which the MutatingWebhookConfiguration sends updates of routed workloads and Services.
const UpdatesPath = "/keep-marks"

// Updates handles admission reviews of updates. It keeps on an object what `route` added, whoever writes the object,
// until `unroute` changes the object's own record. It makes no API call, and has no side effect.
type Updates struct {
	namespace string // its own
	named     func(*corev1.Service) bool
	clock     clock.PassiveClock
	log       logr.Logger
	reviewed  *prometheus.CounterVec
}

// NewUpdates returns the handler of updates for a webhook that runs in namespace. named is as in Write.
func NewUpdates(namespace string, named func(*corev1.Service) bool, clock clock.PassiveClock, metrics prometheus.Registerer, log logr.Logger) (*Updates, error) {
	reviewed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sandbox_webhook_updates_total",
		Help: "Updates of routed objects reviewed, dry runs left out, by kind (Service, workload) and outcome (unchanged, kept, failed).",
	}, []string{"kind", "outcome"})
	return &Updates{namespace, named, clock, log, reviewed}, metrics.Register(reviewed)
}

// Handle implements admission.Handler. It refuses nothing: an object that it cannot decide on is stored unchanged.
func (u *Updates) Handle(_ context.Context, req admission.Request) (response admission.Response) {
	kind := "workload"
	if req.Kind.Group == "" && req.Kind.Kind == "Service" {
		kind = "Service"
	}
	defer func() {
		if p := recover(); p != nil {
			u.log.Error(fmt.Errorf("%v", p), "panic in admission", "stack", string(debug.Stack()))
			response = u.failed(req, kind, fmt.Errorf("internal error: %v", p))
		}
	}()
	if req.Namespace == metav1.NamespaceSystem || req.Namespace == u.namespace || req.SubResource != "" || req.Operation != admissionv1.Update {
		return admission.Allowed("")
	}
	before, after := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	for raw, object := range map[*[]byte]*unstructured.Unstructured{&req.OldObject.Raw: before, &req.Object.Raw: after} {
		if err := object.UnmarshalJSON(*raw); err != nil {
			return u.failed(req, kind, fmt.Errorf("decode %s: %w", kind, err))
		}
	}
	kept, err := u.keep(kind, before, after)
	if err != nil {
		return u.failed(req, kind, err)
	}
	patch := difference(after, kept)
	outcome := "unchanged"
	if slices.ContainsFunc(patch, func(op jsonpatch.Operation) bool { return op.Path != managedFieldsPath }) {
		outcome = "kept"
	}
	u.count(req, kind, outcome)
	return admission.Patched("", patch...)
}

func (u *Updates) keep(kind string, before, after *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if kind == "Service" {
		return KeepService(before, after, Write{Now: u.clock.Now().UTC().Format(time.RFC3339), Named: u.named})
	}
	return KeepWorkload(before, after)
}

func (u *Updates) failed(req admission.Request, kind string, err error) admission.Response {
	u.log.Error(err, "can't keep what route put on an object", "namespace", req.Namespace, "name", req.Name, "kind", req.Kind.Kind)
	u.count(req, kind, "failed")
	return admission.Allowed("").WithWarnings("kubectl-sandbox does not keep this object routed: " + err.Error())
}

func (u *Updates) count(req admission.Request, kind, outcome string) {
	u.log.V(1).Info("reviewed update", "namespace", req.Namespace, "name", req.Name, "kind", req.Kind.Kind, "by", req.UserInfo.Username, "outcome", outcome)
	if req.DryRun == nil || !*req.DryRun {
		u.reviewed.WithLabelValues(kind, outcome).Inc()
	}
}
