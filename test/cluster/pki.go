package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// validity of all certificates: longer than any cluster of this kind lives.
const validity = 10 * 365 * 24 * time.Hour

// subject is whom a certificate is for.
type subject struct {
	name   string
	groups []string
	dns    []string // for servers
	ips    []string // for servers
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

// newPKI makes all keys and certificates of a cluster, PEM, by file name.
func newPKI(now time.Time) (map[string][]byte, error) {
	files := map[string][]byte{}
	put := func(name string, certificate []byte, key crypto.Signer) error {
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		files[name+".crt"] = certificate
		files[name+".key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
		return nil
	}
	authorities := map[string]authority{}
	for _, name := range []string{"ca", "front-proxy-ca"} {
		a, err := newAuthority("kubectl-sandbox "+name, now)
		if err != nil {
			return nil, err
		}
		authorities[name] = a
		if err := put(name, a.pem, a.key); err != nil {
			return nil, err
		}
	}
	issue := func(ca, name string, s subject) error {
		certificate, key, err := authorities[ca].issue(s, now)
		if err != nil {
			return fmt.Errorf("certificate of %s: %w", name, err)
		}
		return put(name, certificate, key)
	}
	leaves := map[string]subject{
		"apiserver": {
			name: "kube-apiserver",
			dns: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc." + domain},
			ips: []string{nodeIP, kubernetesIP, "127.0.0.1"},
		},
		"apiserver-kubelet": {name: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		"kubelet-server":    {name: "system:node:" + nodeName, dns: []string{nodeName}, ips: []string{nodeIP, "127.0.0.1"}},
	}
	for user, s := range users() {
		leaves[user] = s
	}
	for name, s := range leaves {
		if err := issue("ca", name, s); err != nil {
			return nil, err
		}
	}
	if err := issue("front-proxy-ca", "front-proxy", subject{name: "front-proxy"}); err != nil {
		return nil, err
	}
	return files, serviceAccountKey(files)
}

// serviceAccountKey adds the key pair that signs ServiceAccount tokens.
func serviceAccountKey(files map[string][]byte) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	files["service-account.key"] = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	files["service-account.pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	return nil
}

func newAuthority(name string, now time.Time) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	certificate, err := template509(subject{name: name}, now)
	if err != nil {
		return authority{}, err
	}
	certificate.IsCA, certificate.BasicConstraintsValid = true, true
	certificate.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	certificate.ExtKeyUsage = nil
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	certificate, err = x509.ParseCertificate(der)
	return authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
}

// issue returns a certificate for the subject, PEM, and its key.
func (a authority) issue(s subject, now time.Time) ([]byte, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := template509(s, now)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, a.certificate, key.Public(), a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, err
}

func template509(s subject, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.name, Organization: s.groups},
		NotBefore:    now.Add(-time.Hour), // clocks that are set back
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:     s.dns,
	}
	for _, ip := range s.ips {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip))
	}
	if len(s.dns)+len(s.ips) > 0 {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	return c, nil
}
