package e2e

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// The chart's example of a proxy that signs people in, on the cluster: the manifest as it is, but for the image, the domain, and who
// signs people in, a file of passwords for want of a provider.
func TestPreviewsBehindAProxyThatSignsPeopleIn(t *testing.T) {
	s := newSpace(t)
	s.create(httpbin("web", 1), service("web", app("web"), port("http", 80, 8080)))
	s.available("web")
	s.sandbox("route", "deploy/web")
	s.sandbox("fork", "deploy/web", "--name=pr-1", "--key=key-1", "--env=X=1")
	s.sandbox("fork", "deploy/web", "--name=pr-2", "--key=key-2", "--env=X=2")
	s.signsIn("ann", "let-ann-in")
	g := s.gatewayWithin("gateway.signIn.proxyPasswordSecret=preview-proxy")
	direct, address := g.http, s.inRelease("oauth2-proxy", 4180)
	host := func(name string) string { return "web--" + name + "--" + s.name + "." + previewDomain }

	g.http = address
	eventually(t, time.Minute, "the proxy asks to sign in", func(ctx context.Context) error {
		answer, body, err := g.try(ctx, host("pr-1"), "/headers")
		if err == nil && (answer.StatusCode != http.StatusForbidden || !strings.Contains(body, "/oauth2/sign_in")) {
			err = fmt.Errorf("%s: %s", answer.Status, body)
		}
		return err
	})
	form := strings.NewReader(url.Values{"username": {"ann"}, "password": {"let-ann-in"}, "rd": {"/headers"}}.Encode())
	answer, err := g.client.Do(g.request(t.Context(), http.MethodPost, host("pr-1"), "/oauth2/sign_in", form, "Content-Type: application/x-www-form-urlencoded"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	cookies := answer.Cookies()
	i := slices.IndexFunc(cookies, func(c *http.Cookie) bool { return c.Name == "_oauth2_proxy" })
	if i < 0 || !cookies[i].Secure || !cookies[i].HttpOnly || strings.TrimPrefix(cookies[i].Domain, ".") != previewDomain {
		t.Fatalf("signing in: %s, %v", answer.Status, cookies)
	}
	session := "Cookie: " + cookies[i].Name + "=" + cookies[i].Value + "; theme=dark"
	// One session for all previews, of which the app learns nothing but who it is.
	for name, key := range map[string]string{"pr-1": "key-1", "pr-2": "key-2"} {
		answer, body := g.get(host(name), "/headers", session, "x-sandbox-key: nobodys")
		if answer.StatusCode != http.StatusOK || answer.Header.Get(sandbox.HeaderServedBy) == "" || !strings.Contains(body, key) || !strings.Contains(body, host(name)) ||
			!strings.Contains(body, "theme=dark") || strings.Contains(body, cookies[i].Value) || strings.Contains(body, "Authorization") || strings.Contains(body, "nobodys") {
			t.Errorf("%s: %s by %q: %s", name, answer.Status, answer.Header.Get(sandbox.HeaderServedBy), body)
		}
	}
	// Past the proxy nobody gets in: not with its session, nor by a link.
	g.http = direct
	for _, header := range []string{session, "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann:let-ann-in")), g.token(s, "pr-1", "svc/web")} {
		if answer, body := g.get(host("pr-1"), "/headers", header); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("past the proxy: %s: %s", answer.Status, body)
		}
	}
}

// signsIn runs the proxy of the example beside the gateway until the test ends. It lets one person in.
func (s *space) signsIn(name, password string) {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.chart(), "examples", "oidc", "oauth2-proxy.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	_, manifests, _ := strings.Cut(strings.ReplaceAll(string(raw), "preview.example.com", previewDomain), "\napiVersion: ")
	first, second, _ := strings.Cut("apiVersion: "+manifests, "\n---\n")
	var door corev1.Service
	var proxy appsv1.Deployment
	for text, into := range map[string]any{first: &door, second: &proxy} {
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			s.t.Fatal(err)
		}
	}
	sum := sha1.Sum([]byte(password))
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "preview-proxy"}, StringData: map[string]string{
		"client-id": "previews", "client-secret": "none", "cookie-secret": strings.Repeat("c", 32), "password": strings.Repeat("p", 48),
		"people": name + ":{SHA}" + base64.StdEncoding.EncodeToString(sum[:]) + "\n",
	}}
	pod := &proxy.Spec.Template.Spec
	pod.Volumes = []corev1.Volume{{Name: "people", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret.Name}}}}
	c := &pod.Containers[0]
	c.Image = apps.OAuth2Proxy
	c.VolumeMounts = []corev1.VolumeMount{{Name: "people", MountPath: "/people"}}
	c.Args = append(c.Args, "--htpasswd-file=/people/people", "--skip-oidc-discovery", "--login-url=https://idp.example.com/a",
		"--redeem-url=https://idp.example.com/t", "--oidc-jwks-url=https://idp.example.com/k")
	core, deployments := s.client.CoreV1(), s.client.AppsV1().Deployments(s.release)
	_, err = core.Secrets(s.release).Create(s.t.Context(), secret, metav1.CreateOptions{})
	must[*corev1.Service](s.t)(core.Services(s.release).Create(s.t.Context(), &door, metav1.CreateOptions{}))
	must[*appsv1.Deployment](s.t)(deployments.Create(s.t.Context(), &proxy, metav1.CreateOptions{}))
	s.t.Cleanup(func() {
		ctx, o := context.Background(), metav1.DeleteOptions{}
		for _, err := range []error{deployments.Delete(ctx, proxy.Name, o), core.Services(s.release).Delete(ctx, door.Name, o), core.Secrets(s.release).Delete(ctx, secret.Name, o)} {
			if err != nil {
				s.t.Error(err)
			}
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// inRelease returns the address of a Service of the release's namespace.
func (s *space) inRelease(name string, port int) string {
	s.t.Helper()
	service := must[*corev1.Service](s.t)(s.client.CoreV1().Services(s.release).Get(s.t.Context(), name, metav1.GetOptions{}))
	return fmt.Sprintf("%s:%d", service.Spec.ClusterIP, port)
}
