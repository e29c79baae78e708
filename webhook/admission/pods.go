// Package admission holds the handlers of admission reviews: for pods (routers), sandboxes (keys), and updates of
// routed objects, whose marks it keeps. Each handler decodes, decides by a pure function, and answers with a patch.
package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/inject"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// PodsPath is the path to which the MutatingWebhookConfiguration sends pods.
const PodsPath = "/mutate-pods"

// Pods handles admission reviews of pods. It makes no API call, and has no side effect.
type Pods struct {
	config    func(ctx context.Context, namespace string) inject.Config
	namespace string // its own
	log       logr.Logger
	pods      *prometheus.CounterVec
}

// NewPods returns the handler of pods for a webhook that runs in namespace. config returns the configuration of routers
// in a namespace.
func NewPods(namespace string, config func(context.Context, string) inject.Config, metrics prometheus.Registerer, log logr.Logger) (*Pods, error) {
	pods := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sandbox_webhook_pods_total",
		Help: "Pods reviewed, dry runs left out, by role, outcome (injected, unchanged, declined, failed) and, where declined, reason.",
	}, []string{"role", "outcome", "reason"})
	return &Pods{config, namespace, log, pods}, metrics.Register(pods)
}

// Handle implements admission.Handler. A pod that should get a router and does not is admitted with a warning. Only a
// pod of a fork that could not be processed is refused: without its key it would act as another sandbox or as the
// baseline. Its creator retries.
func (a *Pods) Handle(ctx context.Context, req admission.Request) (response admission.Response) {
	role := ""
	defer func() {
		if p := recover(); p != nil {
			a.log.Error(fmt.Errorf("%v", p), "panic in admission", "stack", string(debug.Stack()))
			response = a.failed(req, role, fmt.Errorf("internal error: %v", p))
		}
	}()
	// The configuration excludes these too, but cluster admins may edit it, and a webhook that depends on itself cannot
	// start.
	if req.Namespace == metav1.NamespaceSystem || req.Namespace == a.namespace {
		return admission.Allowed("")
	}
	if req.Operation != admissionv1.Create || req.Kind.Group != "" || req.Kind.Kind != "Pod" || req.SubResource != "" {
		return admission.Allowed("")
	}
	var meta metav1.PartialObjectMetadata
	if err := json.Unmarshal(req.Object.Raw, &meta); err != nil {
		return a.failed(req, role, fmt.Errorf("decode pod: %w", err))
	}
	role = meta.Labels[sandbox.LabelRole]
	before := &corev1.Pod{}
	if err := json.Unmarshal(req.Object.Raw, before); err != nil {
		return a.failed(req, role, fmt.Errorf("decode pod: %w", err))
	}
	after, reason := inject.Pod(before, a.config(ctx, req.Namespace))
	patch, err := inject.Patch(before, after)
	if err != nil {
		return a.failed(req, role, err)
	}
	response = admission.Patched("", patch...)
	switch {
	case reason != nil:
		response.Warnings = []string{"kubectl-sandbox leaves this pod as it is: " + reason.Detail}
		a.count(req, role, "declined", string(reason.Code))
	case len(patch) > 0:
		a.count(req, role, "injected", "")
	default:
		a.count(req, role, "unchanged", "")
	}
	return response
}

func (a *Pods) failed(req admission.Request, role string, err error) admission.Response {
	a.count(req, role, "failed", "")
	if role == sandbox.RoleFork {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.Allowed("").WithWarnings("kubectl-sandbox leaves this pod as it is: " + err.Error())
}

// count increases the counter of reviews. It bounds the label's values, because users choose the role.
func (a *Pods) count(req admission.Request, role, outcome, reason string) {
	switch role {
	case sandbox.RoleBaseline, sandbox.RoleFork, sandbox.RoleCheck:
	default:
		role = "other"
	}
	a.log.V(1).Info("reviewed pod", "namespace", req.Namespace, "name", req.Name, "role", role, "outcome", outcome, "reason", reason)
	if req.DryRun == nil || !*req.DryRun {
		a.pods.WithLabelValues(role, outcome, reason).Inc()
	}
}
