package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// A fingerprint identifies a certificate.
type fingerprint [sha256.Size]byte

func identify(c *x509.Certificate) fingerprint { return sha256.Sum256(c.Raw) }

func encodeCertificates(certs []*x509.Certificate) []byte {
	var buf bytes.Buffer
	for _, c := range certs {
		buf.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return buf.Bytes()
}

// decodeCertificates returns all certificates of a PEM bundle that can be parsed. It skips others, as verifiers do.
func decodeCertificates(data []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			return certs
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, c)
		}
	}
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// A ledger records since when this process has seen certificates in the published bundle.
type ledger struct {
	published map[fingerprint]time.Time // in the bundle, without a break
	foreign   map[fingerprint]time.Time // in the bundle, but not this replica's
}

// foreignGrace is how long a certificate that this replica does not know stays in the bundle. Replicas differ during a
// rollout that changes the source of certificates, or while kubelets update a Secret on one node after another. Each
// adds its own, and removes another's only once no replica can still serve with it.
const foreignGrace = 10 * time.Minute

// merge returns the bundle to publish, from the published one and this replica's certificates: the valid ones of these,
// and those of others that have been unknown for less than foreignGrace.
func (l *ledger) merge(existing, own []*x509.Certificate, now time.Time) []*x509.Certificate {
	ours := make(map[fingerprint]bool, len(own))
	var merged []*x509.Certificate
	for _, c := range own {
		if !ours[identify(c)] && !now.After(c.NotAfter) {
			merged = append(merged, c)
		}
		ours[identify(c)] = true
	}
	foreign := map[fingerprint]time.Time{}
	for _, c := range existing {
		id := identify(c)
		if ours[id] || now.After(c.NotAfter) {
			continue
		}
		since, ok := l.foreign[id]
		if !ok {
			since = now
		}
		if _, twice := foreign[id]; !twice && now.Sub(since) < foreignGrace {
			merged = append(merged, c)
		}
		foreign[id] = since
	}
	l.foreign = foreign
	// All replicas use the same order, or they would never stop correcting each other.
	slices.SortFunc(merged, func(a, b *x509.Certificate) int {
		if c := a.NotBefore.Compare(b.NotBefore); c != 0 {
			return c
		}
		return bytes.Compare(a.Raw, b.Raw)
	})
	return merged
}

// note records what is published now.
func (l *ledger) note(published []*x509.Certificate, now time.Time) {
	next := make(map[fingerprint]time.Time, len(published))
	for _, c := range published {
		since, ok := l.published[identify(c)]
		if !ok {
			since = now
		}
		next[identify(c)] = since
	}
	l.published = next
}

// settled returns the published certificates that every API server can be assumed to know.
func (l *ledger) settled(published []*x509.Certificate, now time.Time, settle time.Duration) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(published), func(c *x509.Certificate) bool {
		return now.Sub(l.published[identify(c)]) < settle
	})
}
