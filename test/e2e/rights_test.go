package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// The rights of the webhook's account are cluster-wide, and RBAC can't tell objects apart by label: an admission policy does.
func TestTheWebhooksAccountChangesNothingThatIsNotASandboxs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	config := rest.CopyConfig(s.config)
	config.Impersonate.UserName = "system:serviceaccount:" + s.release + ":sandbox-webhook"
	webhook, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, patch := t.Context(), []byte(`{"metadata":{"annotations":{"a":"b"}}}`)
	condition := []byte(`{"status":{"conditions":[{"type":"example.test/x","status":"True"}]}}`)
	for what, tt := range map[string]struct {
		ours   string // role of what it may change
		create func(metav1.ObjectMeta)
		change func(name string) error
	}{
		"patch of a ConfigMap": {sandbox.RoleSandbox,
			func(m metav1.ObjectMeta) {
				s.create(&corev1.ConfigMap{ObjectMeta: m, Data: map[string]string{sandbox.DataKey: m.Name}})
			},
			func(name string) error {
				_, err := webhook.CoreV1().ConfigMaps(s.name).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			}},
		"deletion of a ConfigMap": {sandbox.RoleSandbox,
			func(m metav1.ObjectMeta) {
				s.create(&corev1.ConfigMap{ObjectMeta: m, Data: map[string]string{sandbox.DataKey: m.Name}})
			},
			func(name string) error {
				return webhook.CoreV1().ConfigMaps(s.name).Delete(ctx, name, metav1.DeleteOptions{})
			}},
		"patch of a Service": {sandbox.RoleService,
			func(m metav1.ObjectMeta) {
				s.create(&corev1.Service{ObjectMeta: m, Spec: podinfoService(m.Name).Spec})
			},
			func(name string) error {
				_, err := webhook.CoreV1().Services(s.name).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			}},
		"patch of a Deployment": {sandbox.RoleFork,
			func(m metav1.ObjectMeta) {
				s.create(&appsv1.Deployment{ObjectMeta: m, Spec: podinfo(m.Name, 0).Spec})
			},
			func(name string) error {
				_, err := webhook.AppsV1().Deployments(s.name).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			}},
		"patch of a NetworkPolicy": {sandbox.RoleFork,
			func(m metav1.ObjectMeta) {
				_, err := s.client.NetworkingV1().NetworkPolicies(s.name).Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: m}, metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
			},
			func(name string) error {
				_, err := webhook.NetworkingV1().NetworkPolicies(s.name).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			}},
		"patch of a pod's status": {sandbox.RoleFork,
			func(m metav1.ObjectMeta) {
				s.create(&corev1.Pod{ObjectMeta: m, Spec: podinfoPod()})
			},
			func(name string) error {
				_, err := webhook.CoreV1().Pods(s.name).Patch(ctx, name, types.StrategicMergePatchType, condition, metav1.PatchOptions{}, "status")
				return err
			}},
	} {
		for i, role := range []string{"", "other", tt.ours} {
			m := metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", strings.Map(letter, strings.ToLower(what)), i), Namespace: s.name, Labels: map[string]string{}}
			if role != "" {
				m.Labels[sandbox.LabelRole] = role
			}
			switch role { // admission wants them whole
			case sandbox.RoleSandbox:
				m.Labels[sandbox.LabelSandbox] = m.Name
				m.Name = sandbox.ConfigMapName(m.Name)
			case sandbox.RoleFork:
				m.Labels[sandbox.LabelSandbox], m.Annotations = "pr-1", map[string]string{sandbox.AnnotationKey: "key-1"}
			}
			tt.create(m)
			err := tt.change(m.Name)
			if role == tt.ours && err != nil {
				t.Errorf("%s with role %q is refused: %v", what, role, err)
			}
			if role != tt.ours && (err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'sandbox-webhook'")) {
				t.Errorf("%s with role %q: got %v, want the policy's refusal", what, role, err)
			}
		}
	}
}

// letter keeps what a name may hold.
func letter(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return '-'
}

// as returns kubectl's flags to act as a user.
func as(user string) []string { return []string{"--as=" + user, "--as-group=system:authenticated"} }

func TestSomebodyWithTheUsersRoleAloneWorksWithSandboxesAndRoutesNothing(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.grant("sandbox-user", "dev")
	s.grant("sandbox-admin", "owner")
	dev, owner := as("dev@example.test"), as("owner@example.test")

	refused := s.trySandbox(append([]string{"route", "deploy/api"}, dev...)...)
	if refused.err == nil || !strings.Contains(refused.stderr, "services") {
		t.Errorf("route by a user without the right: %v", refused)
	}
	if d := s.kubectl("get", "deployment", "api", "-o", "jsonpath={.spec.template.metadata.labels}"); strings.Contains(d, sandbox.Prefix) {
		t.Errorf("a refused route left %s", d)
	}
	s.sandbox(append([]string{"route", "deploy/api"}, owner...)...)
	for _, args := range [][]string{
		{"fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image=" + apps.Podinfo(1)},
		{"list"},
		{"status", "pr-1"},
		{"fork", "deploy/api", "--name=pr-1", "--image=" + apps.Podinfo(2)},
		{"delete", "pr-1"},
		{"version"},
	} {
		if r := s.trySandbox(append(args, dev...)...); r.err != nil {
			t.Errorf("by a user with sandbox-user: %v", r)
		}
	}
	s.sandbox(append([]string{"unroute", "deploy/api"}, owner...)...)
}

// grant gives a user, NAME@example.test, a ClusterRole in the namespace.
func (s *space) grant(role, user string) {
	s.t.Helper()
	_, err := s.client.RbacV1().RoleBindings(s.name).Create(s.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user + "@example.test"}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestTheCertificateOfAGivenSecretIsServedAndTrusted(t *testing.T) {
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	values := s.values()
	certificate, key := certificateFor(t, "sandbox-webhook."+s.release+".svc")
	const name = "given-tls"
	secrets := s.client.CoreV1().Secrets(s.release)
	_, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key, corev1.ServiceAccountRootCAKey: certificate},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--wait", "--timeout=90s")
		if err := secrets.Delete(context.WithoutCancel(s.t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--set=certificates.mode=secret", "--set=certificates.secretName="+name,
		"--wait", "--timeout=90s")
	s.helm("test", s.helmRelease(), "--timeout=2m")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	c := newH1(s.address("api", "http"))
	defer c.close()
	if a, err := c.call(t.Context(), carriers("key-1")[0]); err != nil || a.Message != apps.Release(1) {
		t.Errorf("keyed: %+v, %v", a, err)
	}
}

// certificateFor returns a self-signed serving certificate and its key, PEM.
func certificateFor(t *testing.T, host string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
