package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/browser"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// previewDomain is the gateway's. No resolver knows it.
const previewDomain = "preview.test"

// gatewayOverTLS has the release serve previews until the test ends, as gatewayWithin, with TLS of its own and ribbons on pages, so that
// a browser can open them.
func (s *space) gatewayOverTLS() *gatewayWithin {
	s.t.Helper()
	secret, cert := certificate(s.t)
	secrets := s.client.CoreV1().Secrets(s.release)
	if _, err := secrets.Create(s.t.Context(), secret, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := secrets.Delete(context.Background(), secret.Name, metav1.DeleteOptions{}); err != nil {
			s.t.Error(err)
		}
	})
	g := s.gatewayWithin("gateway.tls.at=gateway", "gateway.tls.secretName="+secret.Name, "gateway.ribbon=true")
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	g.cert = cert
	g.client.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", g.https)
		},
	}
	return g
}

// The gateway with TLS of its own, in a browser.
func TestGatewayInABrowser(t *testing.T) {
	g := newSpace(t).gatewayOverTLS()
	t.Run("a page books a ride with the fork", func(t *testing.T) { aPageBooksARideWithTheFork(t, g.within(t)) })
	t.Run("a page that calls its API elsewhere reaches the fork or is named", func(t *testing.T) {
		aPageThatCallsItsAPIElsewhereReachesTheForkOrIsNamed(t, g.within(t))
	})
	t.Run("its own pages are for people", func(t *testing.T) { ownPagesOfTheGatewayAreForPeople(t, g.within(t)) })
}

// browser starts one that finds the previews, and knows the names given as localhost's.
func (g *gatewayWithin) browser(local ...string) *browser.Browser {
	g.t.Helper()
	address, _, err := net.SplitHostPort(g.https)
	if err != nil {
		g.t.Fatal(err)
	}
	resolve := map[string]string{"*." + previewDomain: address}
	for _, name := range local {
		resolve[name] = "127.0.0.1"
	}
	return browser.Start(g.t, browser.Options{Resolve: resolve, Trust: g.cert})
}

// previewed returns the preview of a sandbox by a Service of its namespace, without a slash at the end.
func (s *space) previewed(name, service string) string {
	return "https://" + preview.Label(service, name, s.name) + "." + previewDomain
}

// link returns one that signs in to a preview, whether there is such a Service or not, once the gateway knows of it.
func (g *gatewayWithin) link(name, service string) string {
	g.t.Helper()
	token := share.NewToken()
	g.tokens = append(g.tokens, token)
	g.share(name, service, token, time.Now().Add(time.Hour))
	return g.known(g.previewed(name, service)+"/?"+share.Parameter+"="+token, http.StatusSeeOther)
}

// known waits until the gateway answers a URL with a status in each of its pods, so far as requests by the Service tell, and returns
// the URL.
func (g *gatewayWithin) known(address string, status int) string {
	g.t.Helper()
	eventually(g.t, 30*time.Second, fmt.Sprintf("%s answers %d", address, status), func(ctx context.Context) error {
		for range 8 {
			g.client.CloseIdleConnections()
			q, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
			if err != nil {
				return err
			}
			answer, err := g.client.Do(q)
			if err != nil {
				return err
			}
			body := readAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode != status {
				return fmt.Errorf("%s: %s", answer.Status, body)
			}
		}
		return nil
	})
	return address
}

// share makes what `kubectl sandbox share` does, until any time.
func (s *space) share(name, service, token string, expires time.Time) {
	s.t.Helper()
	owner, err := s.client.CoreV1().ConfigMaps(s.name).Get(s.t.Context(), sandbox.ConfigMapName(name), metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:            sandbox.ShareName(name, share.Hash(token)[:8]),
			Labels:          map[string]string{sandbox.LabelRole: sandbox.RoleShare, sandbox.LabelSandbox: name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}},
		},
		Data: share.Share{Hash: share.Hash(token), Service: service, Expires: expires}.Data(),
	})
}

// certificate returns one for all previews, signed by itself, and the Secret that holds it.
func certificate(t *testing.T) (*corev1.Secret, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: previewDomain}, DNSNames: []string{"*." + previewDomain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "previews-e2e"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}}, must[*x509.Certificate](t)(x509.ParseCertificate(der))
}
