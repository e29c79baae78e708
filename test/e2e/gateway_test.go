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
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// previewDomain is the gateway's. No resolver knows it.
const previewDomain = "preview.test"

// A gatewayBeside is the gateway, at work on the cluster as a process beside it, over TLS.
type gatewayBeside struct {
	port int
	cert *x509.Certificate
}

// gatewayBeside runs a gateway until the test ends.
func (s *space) gatewayBeside() *gatewayBeside {
	s.t.Helper()
	dir := s.t.TempDir()
	g := &gatewayBeside{cert: selfSigned(s.t, dir)}
	program := filepath.Join(dir, "sandbox-webhook")
	build := exec.CommandContext(s.t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./cmd/sandbox-webhook")
	build.Dir, build.Env = filepath.Dir(s.programs), append(os.Environ(), "CGO_ENABLED=0")
	if r := run(build); r.err != nil {
		s.t.Fatal(r)
	}
	var admin int
	g.port, admin = freePort(s.t), freePort(s.t)
	cmd := s.commandAt(context.Background(), program, "gateway", "--domain="+previewDomain, "--certificates-dir="+dir, "--shutdown-delay=0s",
		fmt.Sprintf("--address=127.0.0.1:%d", g.port), fmt.Sprintf("--admin-address=127.0.0.1:%d", admin))
	log := &lockedBuffer{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || s.t.Failed() {
			s.t.Logf("gateway: %v\n%s", err, tail(log.String(), 4000))
		}
	})
	eventually(s.t, time.Minute, "the gateway is ready", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", admin), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", resp.Status, readAll(resp.Body))
		}
		return nil
	})
	return g
}

// previewed returns the preview of a sandbox by a Service of its namespace, without a slash at the end.
func (s *space) previewed(g *gatewayBeside, name, service string) string {
	return fmt.Sprintf("https://%s.%s:%d", preview.Label(service, name, s.name), previewDomain, g.port)
}

// link returns one that signs in to a preview, as `kubectl sandbox share` makes them where the cluster has a gateway.
func (s *space) link(g *gatewayBeside, name, service string) string {
	s.t.Helper()
	token := share.NewToken()
	s.share(name, service, token, time.Now().Add(time.Hour))
	return s.previewed(g, name, service) + "/?" + share.Parameter + "=" + token
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

// selfSigned writes tls.crt and tls.key for all previews, and returns the certificate.
func selfSigned(t *testing.T, dir string) *x509.Certificate {
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
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return must[*x509.Certificate](t)(x509.ParseCertificate(der))
}

// freePort returns a port of this machine that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
