package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A Source provides certificates: Own or Mounted.
type Source interface {
	// sync returns the authorities to trust, and the leaf to serve with once one of them is known to verify it. It is
	// called repeatedly, and may read and write its storage.
	sync(ctx context.Context, now time.Time, names []string) (trusted []*x509.Certificate, leaf *tls.Certificate, err error)
}

// SecretType is the type of the Secret that holds own authorities; one of another type is never written to.
const SecretType corev1.SecretType = "kubectl-sandbox.dev/ca" //nolint:gosec // a type

// Keys of the Secret.
const (
	// SecretAuthorities holds certificates and their private keys, PEM.
	SecretAuthorities = "authorities.pem"
	// SecretBundle holds only the certificates, PEM, for clients that check the route stream or the webhook.
	SecretBundle = "ca.crt"
)

// Own creates authorities in a Secret that all replicas share. There is no leader: each replica that sees that the
// Secret is missing, or that a new authority is due, writes it, and optimistic concurrency lets one of them win.
type Own struct {
	Client client.Client
	Secret types.NamespacedName
	// Validity is an authority's; LeafValidity that of the certificates that each replica creates in memory.
	Validity, LeafValidity time.Duration

	leaf   *tls.Certificate
	signer fingerprint
}

func (o *Own) sync(ctx context.Context, now time.Time, names []string) ([]*x509.Certificate, *tls.Certificate, error) {
	all, err := o.authorities(ctx, now)
	if err != nil {
		return nil, nil, err
	}
	signer := all.signer(now)
	if id := identify(signer.cert); o.leaf == nil || o.signer != id || within(o.leaf.Leaf, now, renewAt) {
		leaf, err := signer.leaf(now, o.LeafValidity, names)
		if err != nil {
			return nil, nil, fmt.Errorf("mint certificate: %w", err)
		}
		o.leaf, o.signer = leaf, id
	}
	return all.certificates(), o.leaf, nil
}

// authorities returns the valid authorities of the Secret, at least one, after creating those that are due.
func (o *Own) authorities(ctx context.Context, now time.Time) (authorities, error) {
	secret := &corev1.Secret{}
	err := o.Client.Get(ctx, o.Secret, secret)
	absent := apierrors.IsNotFound(err)
	if err != nil && !absent {
		return nil, fmt.Errorf("read secret %s: %w", o.Secret, err)
	}
	if !absent && secret.Type != SecretType {
		return nil, fmt.Errorf("secret %s is of type %q, not %q: it is somebody else's; name another one with --ca-secret", o.Secret, secret.Type, SecretType)
	}
	all, err := decodeAuthorities(secret.Data[SecretAuthorities])
	if err != nil {
		return nil, fmt.Errorf("secret %s: key %s: %w: delete the secret to have it made anew", o.Secret, SecretAuthorities, err)
	}
	if all = all.valid(now); !all.due(now) {
		return all, nil
	}
	next, err := newAuthority(now, o.Validity)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	all = append(all, next)
	if secret.Data, err = data(all); err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	if absent {
		secret.Namespace, secret.Name, secret.Type = o.Secret.Namespace, o.Secret.Name, SecretType
		secret.Labels = map[string]string{"app.kubernetes.io/name": "sandbox-webhook", "app.kubernetes.io/managed-by": "sandbox-webhook"}
		err = o.Client.Create(ctx, secret)
	} else {
		err = o.Client.Update(ctx, secret)
	}
	if err != nil {
		// Another replica may have written first: the next call reads its result.
		return nil, fmt.Errorf("write secret %s: %w", o.Secret, err)
	}
	return all, nil
}

func data(all authorities) (map[string][]byte, error) {
	pem, err := all.encode()
	if err != nil {
		return nil, err
	}
	return map[string][]byte{SecretAuthorities: pem, SecretBundle: encodeCertificates(all.certificates())}, nil
}

// Mounted serves with the files tls.crt and tls.key of Dir, a mounted Secret that cert-manager or another program
// maintains. ca.crt there verifies the certificate.
type Mounted struct{ Dir string }

func (m Mounted) sync(context.Context, time.Time, []string) ([]*x509.Certificate, *tls.Certificate, error) {
	file := func(name string) string { return filepath.Join(m.Dir, name) }
	leaf, err := tls.LoadX509KeyPair(file("tls.crt"), file("tls.key"))
	if err != nil {
		return nil, nil, fmt.Errorf("--certificates-dir: %w", err)
	}
	bundle, err := os.ReadFile(file("ca.crt"))
	if err != nil {
		return nil, nil, fmt.Errorf("--certificates-dir: %w: the secret must have it, for the API server and for routers", err)
	}
	trusted := decodeCertificates(bundle)
	if len(trusted) == 0 {
		return nil, nil, errors.New("--certificates-dir: ca.crt holds no certificate")
	}
	return trusted, &leaf, nil
}
