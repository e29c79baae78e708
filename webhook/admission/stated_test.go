package admission

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A statement is a request that writes a routed Service: who states which number, and how.
type statement struct {
	manager, operation string
	target             string
	force              bool
	conflicts          string // the managers with whom it conflicts
	owners             string // of the number, afterwards
}

// put performs statements one after another, as the API server does: the entry of the manager owns the targetPort, if that is another
// value than before, or if it is a server-side apply.
func TestUpdates_ReportConflictsOverTargetPortsAsTheAPIServerDoes(t *testing.T) {
	const a, b, client = "flux", "helm", "kubectl-client-side-apply"
	for name, all := range map[string][]statement{
		"the same number by another":     {{a, "Apply", "8080", false, "", a + " Apply," + client + " Update"}},
		"another number by another":      {{a, "Apply", "9090", false, client, ""}},
		"another number, by force":       {{a, "Apply", "9090", true, "", a + " Apply"}, {b, "Apply", "9091", false, a, ""}},
		"another number of one's own":    {{a, "Apply", "9090", true, "", a + " Apply"}, {a, "Apply", "9091", false, "", a + " Apply"}},
		"two who state it":               {{a, "Apply", "8080", false, "", a + " Apply," + client + " Update"}, {b, "Apply", "9090", false, a + "," + client, ""}},
		"an update takes it":             {{"kubectl-edit", "Update", "9090", false, "", "kubectl-edit Update"}, {a, "Apply", "8080", false, "kubectl-edit", ""}},
		"an update restates it":          {{"kubectl-edit", "Update", "8080", false, "", client + " Update"}},
		"the same manager's two entries": {{client, "Apply", "9090", false, client, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			updates, err := NewUpdates("own", nil, clocktesting.NewFakePassiveClock(time.Unix(0, 0)), prometheus.NewRegistry(), logr.Discard())
			if err != nil {
				t.Fatal(err)
			}
			stored := object(t, plainService)
			manage(t, stored, client, "Update", 0)
			routed := object(t, routedService)
			routed.SetManagedFields(stored.GetManagedFields())
			disownTarget(t, routed) // route wrote another value
			stored = review(t, updates, stored, routed, metav1.PatchOptions{FieldManager: sandbox.FieldManager}).object
			for i, s := range all {
				after := stored.DeepCopy()
				ports, _, _ := unstructured.NestedSlice(after.Object, "spec", "ports")
				var number int64
				if err := json.Unmarshal([]byte(s.target), &number); err != nil {
					t.Fatal(err)
				}
				ports[0].(map[string]any)["targetPort"] = number
				_ = unstructured.SetNestedSlice(after.Object, ports, "spec", "ports")
				manage(t, after, s.manager, s.operation, i+1)
				options := metav1.PatchOptions{FieldManager: s.manager}
				if s.force {
					options.Force = &s.force
				}
				got := review(t, updates, stored, after, options)
				if conflicts := strings.Join(got.conflicts, ","); conflicts != s.conflicts {
					t.Fatalf("%+v: conflicts with %q", s, conflicts)
				}
				if s.conflicts != "" {
					break
				}
				owners := readOwners(got.object.GetAnnotations()[sandbox.AnnotationTargetPortOwners])["TCP-80"]
				if text := strings.Join(owners, ","); text != s.owners {
					t.Errorf("%+v: owned by %q", s, text)
				}
				stored = got.object
			}
		})
	}
}

// manage gives an object's targetPort to the entry of a manager.
func manage(t *testing.T, u *unstructured.Unstructured, manager, operation string, second int) {
	t.Helper()
	entries := slices.DeleteFunc(u.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == manager && string(e.Operation) == operation
	})
	at := metav1.NewTime(time.Unix(int64(second), 0))
	u.SetManagedFields(append(entries, metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationType(operation), APIVersion: "v1", FieldsType: "FieldsV1", Time: &at,
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:targetPort":{}}}}}`),
	}))
}

// disownTarget takes the targetPort from all managers, as the API server does when another writes another value.
func disownTarget(t *testing.T, u *unstructured.Unstructured) {
	t.Helper()
	s := &corev1.Service{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, s); err != nil {
		t.Fatal(err)
	}
	if err := disown(u, targetPortPath(&s.Spec.Ports[0])); err != nil {
		t.Fatal(err)
	}
}

type reviewed struct {
	object    *unstructured.Unstructured
	conflicts []string
}

// review asks about a write, and again about what was answered, as the API server may.
func review(t *testing.T, updates *Updates, before, after *unstructured.Unstructured, options metav1.PatchOptions) reviewed {
	t.Helper()
	raw := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var out reviewed
	for again := range 2 {
		req := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
			Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Service"}, Namespace: "ns", Name: "api", Operation: admissionv1.Update,
			OldObject: runtime.RawExtension{Raw: raw(before.Object)}, Object: runtime.RawExtension{Raw: raw(after.Object)},
			Options: runtime.RawExtension{Raw: raw(options)},
		}}
		response := updates.Handle(t.Context(), req)
		if !response.Allowed {
			err := &apierrors.StatusError{ErrStatus: *response.Result}
			if response.Result.Code != http.StatusConflict || !apierrors.IsConflict(err) || !apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) {
				t.Errorf("refused by %+v", response.Result)
			}
			for _, c := range response.Result.Details.Causes {
				if c.Field != `.spec.ports[port=80,protocol="TCP"].targetPort` {
					t.Errorf("conflict over %s", c.Field)
				}
				out.conflicts = append(out.conflicts, strings.Split(c.Message, `"`)[1])
			}
			return out
		}
		kept, _, err := KeepService(before, after, Write{Writer: writer(&req.AdmissionRequest, after)})
		if err != nil {
			t.Fatal(err)
		}
		if again == 1 && len(difference(after, kept)) > 0 {
			t.Errorf("a second review changes its own output: %v", difference(after, kept))
		}
		out.object, after = kept, kept
	}
	return out
}

// A selector that pods match which have the names is no reason to pass the routers by.
func TestKeepService_AnotherSelectorOfPodsThatHaveTheNames(t *testing.T) {
	after := object(t, strings.NewReplacer("selector: {app: api}", "selector: {app: api, tier: web}", "targetPort: sbx-8080", "targetPort: 8080").Replace(routedService))
	for want, has := range map[string]bool{"80=sbx-8080 TCP-80=8080/sbx-8080": true, "80=8080 TCP-80=8080/sbx-8080 back": false} {
		asked := ""
		kept, _, err := KeepService(object(t, routedService), after, Write{Now: "2026-01-02T03:04:05Z", Named: func(s *corev1.Service) bool {
			asked = s.Spec.Ports[0].TargetPort.String() + " of " + s.Annotations[sandbox.AnnotationWorkloads] + " tier " + s.Spec.Selector["tier"]
			return has
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got := describeService(t, kept); got != want || asked != "sbx-8080 of deployment.api tier web" {
			t.Errorf("pods have the names %t: got %q, want %q; asked for %s", has, got, want, asked)
		}
	}
}
