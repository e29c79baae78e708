package sandboxes

import (
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
