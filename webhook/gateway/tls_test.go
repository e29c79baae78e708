package gateway

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// Before it knows the cluster, the gateway says so, and waits for nothing.
func TestStarting(t *testing.T) {
	r := newRig(t, nil, ready()...)
	r.synced.Store(false)
	if answer, body := r.get(host, "/"); answer.StatusCode != 503 || r.counted() != 0 {
		t.Errorf("%s: %s", answer.Status, body)
	}
}

// certificate writes one, with its key, to a directory.
func certificate(t *testing.T) string {
	t.Helper()
	made := httptest.NewTLSServer(http.NotFoundHandler())
	defer made.Close()
	c := made.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, "tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TLS may end at the gateway. A browser is not talked into HTTP/2 where the Service does not speak it; a client that
// speaks nothing else gets it.
func TestTLS(t *testing.T) {
	h2c, token := "kubernetes.io/h2c", share.NewToken()
	cm := aSandbox(shop, "pr-1", "key-1")
	r := newRig(t, func(o *Options) { o.CertificatesDir = certificate(t) }, ready(aShare(cm, token, "web", time.Hour),
		aService(shop, "rpc", func(s *corev1.Service) { s.Spec.Ports[0].AppProtocol = &h2c }))...)
	for _, test := range []struct {
		host  string
		offer []string
		want  string
	}{
		{host, []string{"h2", "http/1.1"}, "http/1.1"}, {host, []string{"h2"}, "h2"}, {host, nil, ""},
		{"rpc--pr-1--shop." + domain, []string{"h2", "http/1.1"}, "h2"}, {"elsewhere.test", []string{"h2", "http/1.1"}, "http/1.1"},
	} {
		conn, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: test.host, NextProtos: test.offer, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != test.want {
			t.Errorf("%s, %v: agreed on %q, want %q", test.host, test.offer, got, test.want)
		}
		conn.Close()
	}
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: " + host + "\r\n" + bearer(token) + "\r\n\r\n"))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != 200 || r.last().Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("%v, %v", answer, err)
	}
}
