package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/inject"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// reviewer sends reviews as the API server does.
type reviewer struct {
	*testing.T
	url     string
	metrics *prometheus.Registry
}

func newReviewer(t *testing.T, config func(context.Context, string) inject.Config) *reviewer {
	t.Helper()
	r := &reviewer{T: t, metrics: prometheus.NewRegistry()}
	a, err := NewPods("own", config, r.metrics, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&admission.Webhook{Handler: a})
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func testConfig(context.Context, string) inject.Config {
	return inject.Config{Version: "v1", Image: "router:1", Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember}
}

func (r *reviewer) review(req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	r.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: req})
	if err != nil {
		r.Fatal(err)
	}
	answer, err := http.Post(r.url, "application/json", bytes.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	defer answer.Body.Close()
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(answer.Body).Decode(&review); err != nil {
		r.Fatal(err)
	}
	if review.Response == nil || review.Response.UID != req.UID {
		r.Fatalf("answer is not to this request: %+v", review.Response)
	}
	return review.Response
}

// counted holds the counter to exactly one pod of the labels, or to none at all.
func (r *reviewer) counted(role, outcome, reason string) {
	r.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.Metric {
			line := f.GetName()
			for _, l := range m.Label {
				line += " " + l.GetName() + "=" + l.GetValue()
			}
			got = append(got, fmt.Sprint(line, " ", m.Counter.GetValue()))
		}
	}
	var want []string
	if outcome != "" {
		want = []string{fmt.Sprintf("sandbox_webhook_pods_total outcome=%s reason=%s role=%s 1", outcome, reason, role)}
	}
	if !slices.Equal(got, want) {
		r.Errorf("counted %q, want %q", got, want)
	}
}

func creation(t testing.TB, change func(*corev1.Pod)) *admissionv1.AdmissionRequest {
	t.Helper()
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	pod.Name = "api"
	pod.Labels = map[string]string{sandbox.LabelRole: sandbox.RoleBaseline, sandbox.LabelSandbox: "pr-42"}
	pod.Annotations = map[string]string{sandbox.AnnotationPorts: "http=8080", sandbox.AnnotationKey: "pr-42"}
	pod.Spec.Containers = []corev1.Container{{Name: "api", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	if change != nil {
		change(pod)
	}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return &admissionv1.AdmissionRequest{
		UID: types.UID("u-1"), Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: "team", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw},
	}
}

func fork(p *corev1.Pod) { p.Labels[sandbox.LabelRole] = sandbox.RoleFork }

func TestAdmission_InjectsARouter(t *testing.T) {
	r := newReviewer(t, testConfig)
	req := creation(t, nil)
	req.Object.Raw = bytes.Replace(req.Object.Raw, []byte(`"spec":{`), []byte(`"spec":{"newerThanUs":{"kept":true},`), 1)
	response := r.review(req)
	if !response.Allowed || len(response.Warnings) > 0 {
		t.Fatalf("got %+v", response)
	}
	patch, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	result, err := patch.Apply(req.Object.Raw)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := json.Unmarshal(result, &pod); err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.InitContainers) != 1 || pod.Spec.InitContainers[0].Name != sandbox.RouterContainer {
		t.Errorf("no router in %s", result)
	}
	if !bytes.Contains(result, []byte(`"newerThanUs":{"kept":true}`)) {
		t.Errorf("an unknown field is gone from %s", result)
	}
	r.counted("baseline", "injected", "")
}

func TestAdmission_AllowsWhatItDoesNotInject(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*corev1.Pod)
		request func(*admissionv1.AdmissionRequest)
		warning string
		counted [3]string
		patched bool
	}{
		{name: "declined", change: func(p *corev1.Pod) { p.Spec.HostNetwork = true }, patched: true,
			warning: "kubectl-sandbox leaves this pod as it is: it uses its node's network, where a router's ports would be the node's",
			counted: [3]string{"baseline", "declined", "host-network"}},
		{name: "nothing to do", change: func(p *corev1.Pod) { p.Annotations[sandbox.AnnotationPorts] = "" },
			counted: [3]string{"baseline", "unchanged", ""}},
		{name: "kube-system", request: func(r *admissionv1.AdmissionRequest) { r.Namespace = "kube-system" }},
		{name: "own namespace", request: func(r *admissionv1.AdmissionRequest) { r.Namespace = "own" }},
		{name: "own namespace, fork", change: fork, request: func(r *admissionv1.AdmissionRequest) { r.Namespace = "own" }},
		{name: "update", request: func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update }},
		{name: "not a pod", request: func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = "ReplicaSet" }},
		{name: "subresource", request: func(r *admissionv1.AdmissionRequest) { r.SubResource = "eviction" }},
		{name: "dry run", request: func(r *admissionv1.AdmissionRequest) { r.DryRun = ptr.To(true) }, patched: true},
		{name: "check", change: func(p *corev1.Pod) { p.Labels[sandbox.LabelRole] = sandbox.RoleCheck }, patched: true, counted: [3]string{"check", "injected", ""}},
		{name: "role of its own making", change: func(p *corev1.Pod) { p.Labels[sandbox.LabelRole] = "made-up" }, patched: true,
			warning: "kubectl-sandbox leaves this pod as it is: label kubectl-sandbox.dev/role=made-up is no role that admission knows",
			counted: [3]string{"other", "declined", "role-unknown"}},
		{name: "undecodable baseline", request: func(r *admissionv1.AdmissionRequest) {
			r.Object.Raw = []byte(`{"metadata":{"labels":{"kubectl-sandbox.dev/role":"baseline"}},"spec":{"containers":3}}`)
		}, warning: "kubectl-sandbox leaves this pod as it is: decode pod: json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type []v1.Container",
			counted: [3]string{"baseline", "failed", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReviewer(t, testConfig)
			req := creation(t, tt.change)
			if tt.request != nil {
				tt.request(req)
			}
			response := r.review(req)
			if !response.Allowed {
				t.Errorf("refused: %v", response.Result)
			}
			if got := len(response.Patch) > 0; got != tt.patched {
				t.Errorf("patched: %v, want %v: %s", got, tt.patched, response.Patch)
			}
			var warnings []string
			if tt.warning != "" {
				warnings = []string{tt.warning}
			}
			if !slices.Equal(response.Warnings, warnings) {
				t.Errorf("got warnings %q, want %q", response.Warnings, warnings)
			}
			r.counted(tt.counted[0], tt.counted[1], tt.counted[2])
		})
	}
}

func TestAdmission_RefusesAForkItCouldNotLookAt(t *testing.T) {
	r := newReviewer(t, testConfig)
	req := creation(t, fork)
	req.Object.Raw = []byte(`{"metadata":{"labels":{"kubectl-sandbox.dev/role":"fork"}},"spec":{"containers":3}}`)
	response := r.review(req)
	if response.Allowed || response.Result.Code != http.StatusInternalServerError {
		t.Errorf("got %+v, want an error", response)
	}
	r.counted("fork", "failed", "")
}

func TestAdmission_APanicIsNoDenialOfABaseline(t *testing.T) {
	for role, allowed := range map[string]bool{sandbox.RoleBaseline: true, sandbox.RoleFork: false} {
		r := newReviewer(t, func(context.Context, string) inject.Config { panic("a bug") })
		response := r.review(creation(t, func(p *corev1.Pod) { p.Labels[sandbox.LabelRole] = role }))
		if response.Allowed != allowed || len(response.Patch) > 0 {
			t.Errorf("%s: got %+v", role, response)
		}
		r.counted(role, "failed", "")
	}
}
