package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// An authority signs leaves.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// authorities are those of a Secret, the oldest first. The schedule of their rotation is a function of their own dates,
// so every replica that reads the same Secret does the same at the same time. With a year's validity:
//
//	month   0    2    4    6    8    10   12   14   16   18   20
//	A       |----- signs --------------|
//	B                           |------|------- signs -----------
//	                            |      |  |
//	                            |      |  A expires, leaves the bundle
//	                            |      B signs, 3 months after it was published
//	                            B is made and published
//
// The oldest signs as long as it can: whoever trusts any of them has had the most time to learn of that one. In
// particular a router that started while it was valid has it in its environment.
type authorities []authority

const (
	renewAt  = 3  // a successor is made when no more than a third of a certificate's life is left
	retireAt = 12 // an authority stops signing, and a leaf is not held on to, when a twelfth of its life is left
)

// within reports whether less than 1/part of a certificate's life is left.
func within(c *x509.Certificate, now time.Time, part time.Duration) bool {
	return !now.Before(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / part))
}

// valid returns the authorities that have not expired.
func (s authorities) valid(now time.Time) authorities {
	return slices.DeleteFunc(slices.Clone(s), func(a authority) bool { return now.After(a.cert.NotAfter) })
}

// due reports whether a new authority must be created.
func (s authorities) due(now time.Time) bool {
	return !slices.ContainsFunc(s, func(a authority) bool { return !within(a.cert, now, renewAt) })
}

// signer returns the authority that signs leaves now; s is not empty.
func (s authorities) signer(now time.Time) authority {
	for _, a := range s {
		if !within(a.cert, now, retireAt) {
			return a
		}
	}
	return s[len(s)-1]
}

func (s authorities) certificates() []*x509.Certificate {
	certs := make([]*x509.Certificate, len(s))
	for i, a := range s {
		certs[i] = a.cert
	}
	return certs
}

// backdate is how far a certificate of this validity is backdated, for peers whose clocks are behind.
func backdate(validity time.Duration) time.Duration { return min(5*time.Minute, validity/10) }

func newAuthority(now time.Time, validity time.Duration) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// Each has its own name, so that there is only one chain to it.
		Subject:               pkix.Name{CommonName: "kubectl-sandbox CA " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate(validity)),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

// leaf returns a new serving certificate for names. It does not outlive the authority.
func (a authority) leaf(now time.Time, validity time.Duration, names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "sandbox-webhook"},
		DNSNames:     names,
		NotBefore:    latest(now.Add(-backdate(validity)), a.cert.NotBefore),
		NotAfter:     earliest(now.Add(validity), a.cert.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}

func newSerial() (*big.Int, error) {
	// RFC 5280 4.1.2.2: positive, at most 20 octets. 16 random ones, the first of them never zero.
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// encode encodes authorities as PEM: each certificate followed by its key.
func (s authorities) encode() ([]byte, error) {
	var buf bytes.Buffer
	for _, a := range s {
		der, err := x509.MarshalPKCS8PrivateKey(a.key)
		if err != nil {
			return nil, err
		}
		buf.Write(encodeCertificates([]*x509.Certificate{a.cert}))
		buf.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	return buf.Bytes(), nil
}

// decodeAuthorities decodes what encode returned.
func decodeAuthorities(data []byte) (authorities, error) {
	var s authorities
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("certificate %d: %w", len(s), err)
			}
			s = append(s, authority{cert: cert})
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("key %d: %w", len(s), err)
			}
			signer, ok := key.(crypto.Signer)
			if !ok || len(s) == 0 || s[len(s)-1].key != nil {
				return nil, errors.New("a key without its certificate before it")
			}
			public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
			if !ok || !public.Equal(s[len(s)-1].cert.PublicKey) {
				return nil, fmt.Errorf("key %d is not that of its certificate", len(s))
			}
			s[len(s)-1].key = signer
		}
	}
	if slices.ContainsFunc(s, func(a authority) bool { return a.key == nil }) {
		return nil, errors.New("a certificate without its key after it")
	}
	slices.SortStableFunc(s, func(a, b authority) int { return a.cert.NotBefore.Compare(b.cert.NotBefore) })
	return s, nil
}
