package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"
)

var testTime = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestCertificatesAreForTheirUse(t *testing.T) {
	pki, err := newPKI(testTime)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(name, ca, host string, use x509.ExtKeyUsage) error {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pki[ca])
		_, err := parse(t, pki[name+".crt"]).Verify(x509.VerifyOptions{
			Roots: roots, DNSName: host, CurrentTime: testTime.AddDate(5, 0, 0), KeyUsages: []x509.ExtKeyUsage{use},
		})
		return err
	}
	for _, host := range []string{nodeIP, kubernetesIP, "kubernetes.default.svc"} {
		if err := verify("apiserver", "ca.crt", host, x509.ExtKeyUsageServerAuth); err != nil {
			t.Error(err)
		}
	}
	if err := verify("kubelet-server", "ca.crt", nodeIP, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	for user, want := range users() {
		if err := verify(user, "ca.crt", "", x509.ExtKeyUsageClientAuth); err != nil {
			t.Error(err)
		}
		if got := parse(t, pki[user+".crt"]).Subject; got.CommonName != want.name || len(got.Organization) != len(want.groups) {
			t.Errorf("%s is %s", user, got)
		}
		if _, err := tls.X509KeyPair(pki[user+".crt"], pki[user+".key"]); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	// A user who can present the aggregator's certificate may act as anybody.
	if err := verify("admin", "front-proxy-ca.crt", "", x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("the front proxy's authority vouches for a user")
	}
	if err := verify("front-proxy", "ca.crt", "", x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("the cluster's authority vouches for the front proxy")
	}
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no certificate in %q", data)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
