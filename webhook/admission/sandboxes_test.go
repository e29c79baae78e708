package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func sandboxOf(namespace, name, key, by string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: sandbox.ConfigMapName(name), Labels: map[string]string{
			sandbox.LabelSandbox: name, sandbox.LabelRole: sandbox.RoleSandbox,
		}},
		Data: map[string]string{sandbox.DataKey: key},
	}
	if by != "" {
		cm.Data[sandbox.DataCreatedBy] = by
	}
	return cm
}

func forkOf(name, key string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "api-" + name, Annotations: map[string]string{sandbox.AnnotationKey: key},
		Labels: map[string]string{sandbox.LabelSandbox: name, sandbox.LabelRole: sandbox.RoleFork},
	}}
}

// newRegistrar has a cache that knows what the API server does, until the two are set apart.
func newRegistrar(t *testing.T, limit int, there ...client.Object) *Sandboxes {
	t.Helper()
	c := fake.NewClientBuilder().WithObjects(there...).Build()
	return NewSandboxes("own", c, c, AnybodysRights, limit, clocktesting.NewFakeClock(time.Unix(0, 0)), testr.New(t))
}

func request(t *testing.T, o, old client.Object) admission.Request {
	t.Helper()
	raw := func(o client.Object) runtime.RawExtension {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: b}
	}
	req := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Namespace: o.GetNamespace(), Name: o.GetName(), Operation: admissionv1.Create, Object: raw(o),
		Kind: metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, UserInfo: authenticationv1.UserInfo{Username: "jane"},
	}}
	if _, ok := o.(*appsv1.Deployment); ok {
		req.Kind = metav1.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	}
	if old != nil {
		req.Operation, req.OldObject = admissionv1.Update, raw(old)
	}
	return req
}

// refusal is an answer in a line: the cause and the message of a refusal, "" of a yes.
func refusal(r admission.Response) string {
	if r.Allowed {
		return ""
	}
	cause := fmt.Sprint(r.Result.Code)
	if r.Result.Details != nil {
		cause = string(r.Result.Details.Causes[0].Type)
	}
	return cause + ": " + r.Result.Message
}

func TestRegistrar(t *testing.T) {
	there := []client.Object{sandboxOf("shop", "pr-1", "key-1", "john"), sandboxOf("other", "pr-9", "key-9", "")}
	unmarked := sandboxOf("shop", "pr-2", "key-2", "")
	unmarked.Labels = nil
	renamed := sandboxOf("shop", "pr-2", "key-2", "")
	renamed.Name = "pr-2"
	for name, tt := range map[string]struct {
		o, old client.Object
		limit  int
		want   string
	}{
		"a new key":                   {o: sandboxOf("shop", "pr-2", "key-2", "")},
		"a key of another namespace":  {o: sandboxOf("shop", "pr-2", "key-9", "")},
		"a key in use":                {o: sandboxOf("shop", "pr-2", "key-1", ""), want: `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1", made by john`},
		"a key taken by a change":     {o: sandboxOf("shop", "pr-2", "key-1", ""), old: sandboxOf("shop", "pr-2", "key-2", ""), want: `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1", made by john`},
		"one's own key":               {o: sandboxOf("shop", "pr-1", "key-1", ""), old: sandboxOf("shop", "pr-1", "key-1", "")},
		"a fork of the sandbox":       {o: forkOf("pr-1", "key-1")},
		"a fork before its sandbox":   {o: forkOf("pr-2", "key-2")},
		"a fork with another's key":   {o: forkOf("pr-2", "key-1"), want: `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1", made by john`},
		"a fork without a key":        {o: forkOf("pr-2", ""), want: `SandboxMalformed: annotation kubectl-sandbox.dev/key "" must not be empty`},
		"the last that may be":        {o: sandboxOf("shop", "pr-2", "key-2", ""), limit: 2},
		"one too many":                {o: sandboxOf("shop", "pr-2", "key-2", ""), limit: 1, want: `TooManySandboxes: namespace "shop" has 1 of at most 1 sandboxes (chart value sandboxes.maxPerNamespace)`},
		"one too many, by a label":    {o: sandboxOf("shop", "pr-2", "key-2", ""), old: unmarked, limit: 1, want: `TooManySandboxes: namespace "shop" has 1 of at most 1 sandboxes (chart value sandboxes.maxPerNamespace)`},
		"a renewal beyond the limit":  {o: sandboxOf("shop", "pr-2", "key-2", ""), old: sandboxOf("shop", "pr-2", "key-2", ""), limit: 1},
		"a fork beyond the limit":     {o: forkOf("pr-1", "key-1"), limit: 1},
		"a ConfigMap of another name": {o: renamed, want: `SandboxMalformed: the ConfigMap of sandbox "pr-2" must be called sandbox-pr-2, and is called "pr-2"`},
		"no valid name":               {o: sandboxOf("shop", "A", "key-2", ""), want: `SandboxMalformed: label kubectl-sandbox.dev/sandbox "A" must consist of`},
		"no valid key":                {o: sandboxOf("shop", "pr-2", "A B", ""), want: `SandboxMalformed: data.key "A B" must consist of`},
		"what is no sandbox":          {o: unmarked, limit: 1},
		"the webhook's own namespace": {o: sandboxOf("own", "pr-2", "A B", "")},
	} {
		t.Run(name, func(t *testing.T) {
			got := refusal(newRegistrar(t, tt.limit, there...).Handle(t.Context(), request(t, tt.o, tt.old)))
			if tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRegistrar_WritesDownWhoMakesASandbox(t *testing.T) {
	for by, patched := range map[string]bool{"": true, "somebody": true, "jane": false} {
		r := newRegistrar(t, 0).Handle(t.Context(), request(t, sandboxOf("shop", "pr-1", "key-1", by), nil))
		if !r.Allowed || (len(r.Patches) == 1) != patched {
			t.Fatalf("made by %q: %+v", by, r)
		}
		if patched && (r.Patches[0].Path != "/data/created-by" || r.Patches[0].Value != "jane") {
			t.Errorf("made by %q: %+v", by, r.Patches)
		}
	}
	one := sandboxOf("shop", "pr-1", "key-1", "john")
	if r := newRegistrar(t, 0, one).Handle(t.Context(), request(t, one, one)); !r.Allowed || len(r.Patches) != 0 {
		t.Errorf("a change by jane of what john made: %+v", r)
	}
}

// A replica admits no more than the limit, though no watch event has arrived.
func TestRegistrar_CountsWhatItAdmittedItself(t *testing.T) {
	r := newRegistrar(t, 2)
	ask := func(name, key string) string {
		return refusal(r.Handle(t.Context(), request(t, sandboxOf("shop", name, key, ""), nil)))
	}
	dry := request(t, sandboxOf("shop", "pr-0", "key-0", ""), nil)
	dry.DryRun = ptr.To(true)
	if got := refusal(r.Handle(t.Context(), dry)); got != "" {
		t.Error(got)
	}
	if got := ask("pr-1", "key-1") + ask("pr-1", "key-1"); got != "" { // the API server may ask twice
		t.Error(got)
	}
	if got := ask("pr-2", "key-1"); got != `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1", made by jane` {
		t.Error(got)
	}
	if got := ask("pr-2", "key-2"); got != "" {
		t.Error(got)
	}
	if got := ask("pr-3", "key-3"); !strings.HasPrefix(got, "TooManySandboxes") {
		t.Errorf("got %q", got)
	}
	// What a watch event shows, and what it never shows, no longer counts against others.
	r.seen(sandboxOf("shop", "pr-1", "key-1", ""))
	if got := ask("pr-3", "key-3"); got != "" {
		t.Error(got)
	}
	r.clock.(*clocktesting.FakeClock).Step(reservationTTL)
	if got := ask("pr-4", "key-2"); got != "" {
		t.Error(got)
	}
}

// A cache that is behind refuses nothing.
func TestRegistrar_LooksUpWhatItIsAboutToRefuse(t *testing.T) {
	r := newRegistrar(t, 1, sandboxOf("shop", "pr-1", "key-1", ""))
	r.api = fake.NewClientBuilder().Build()
	if got := refusal(r.Handle(t.Context(), request(t, sandboxOf("shop", "pr-2", "key-1", ""), nil))); got != "" {
		t.Error(got)
	}
	if got := refusal(r.Handle(t.Context(), request(t, forkOf("pr-2", "key-1"), nil))); got != "" {
		t.Error(got)
	}
}

type noCache struct{ client.Reader }

func (noCache) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("not started")
}

func TestRegistrar_AdmitsNothingBeforeItKnows(t *testing.T) {
	r := newRegistrar(t, 0)
	r.cache = noCache{}
	for _, o := range []client.Object{sandboxOf("shop", "pr-1", "key-1", ""), forkOf("pr-1", "key-1")} {
		if got := refusal(r.Handle(t.Context(), request(t, o, nil))); got != "503: sandboxes of namespace shop are not known yet: not started" {
			t.Errorf("got %q", got)
		}
	}
}
