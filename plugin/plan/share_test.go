package plan

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

func TestParseShared(t *testing.T) {
	for in, want := range map[string]string{
		"svc/web": "web", "service/web": "web", "svc/web.shop": "web", "svc/web.lobby": "web.lobby",
		"web": "", "svc/": "", "svc/web.": "", "svc/.shop": "", "deploy/web": "", "svc/web.a.b": "", "svc/Web": "", "svc/web:80": "",
	} {
		if got, err := ParseShared(in, "shop"); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v", in, got, err)
		}
	}
}

func TestPreviewURL(t *testing.T) {
	if got := PreviewURL("preview.test", "web.shop", "pr-1", "shop"); got != "https://web--pr-1--shop.preview.test/" {
		t.Error(got)
	}
	if got := PreviewURL("preview.test", "web.lobby", "pr-1", "shop"); !strings.HasPrefix(got, "https://web-lobby-pr-1-") || strings.Contains(got, "--") {
		t.Error(got)
	}
}

func TestShared(t *testing.T) {
	service := func(name string, kind corev1.ServiceType) corev1.Service {
		return corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: kind, Selector: map[string]string{"a": name}}}
	}
	for name, test := range map[string]struct {
		services []corev1.Service
		want     string
	}{
		"the only one":      {[]corev1.Service{service("web", "")}, "web"},
		"the one that open": {[]corev1.Service{service("api", ""), service("web", corev1.ServiceTypeNodePort)}, "web"},
		"not clear":         {[]corev1.Service{service("api", ""), service("web", "")}, ""},
		"none":              {[]corev1.Service{service("ext", corev1.ServiceTypeExternalName)}, ""},
	} {
		got, err := Shared(test.services, "pr-1", "shop")
		var p *Problem
		if got != test.want || (test.want == "") != errors.As(err, &p) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// What is written is what the gateway reads, and does not hold the token.
func TestNewShare(t *testing.T) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sandbox-pr-1", UID: "u", Labels: map[string]string{sandbox.LabelSandbox: "pr-1"}}}
	token, expires := share.NewToken(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	made := NewShare(cm, token, "web", "ann", expires)
	got, err := share.Parse(made.Data)
	if err != nil || got != (share.Share{Hash: share.Hash(token), Service: "web", Expires: expires, CreatedBy: "ann"}) {
		t.Errorf("read as %+v, %v", got, err)
	}
	for value := range maps.Values(made.Data) {
		if strings.Contains(value, token) {
			t.Errorf("holds the token: %v", made.Data)
		}
	}
	if made.OwnerReferences[0].UID != "u" || made.Labels[sandbox.LabelRole] != sandbox.RoleShare || strings.Contains(made.Name, token[8:]) {
		t.Errorf("made %+v", made.ObjectMeta)
	}
}
