// Package certs keeps the webhook's TLS: it has a serving certificate at every moment that the API server and the routers can
// verify, and tells both what to verify it by, before it is needed.
package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options are a Manager's.
type Options struct {
	Source Source
	Client client.Client
	// Configuration is the name of the MutatingWebhookConfiguration whose caBundles are kept.
	Configuration string
	// Service is what its webhooks call. The certificate is for NAME.NAMESPACE.svc.
	Service types.NamespacedName
	// Trust is called with the PEM bundle to trust, once at first and at every change.
	Trust func(bundle []byte)
	// Changed has something whenever the Secret or the configuration changed.
	Changed <-chan struct{}
	Clock   clock.Clock
	Log     logr.Logger
	Metrics prometheus.Registerer
}

// A Manager holds what is served and trusted at the moment. It works on every replica alike.
type Manager struct {
	o         Options
	publisher publisher
	leaf      atomic.Pointer[tls.Certificate]
	bundle    atomic.Pointer[[]byte]
	unready   atomic.Pointer[error]
	expiry    prometheus.Gauge
	every     time.Duration // between steps, at most
	lastError string
}

// New returns a Manager that serves nothing until it is started.
func New(o Options) (*Manager, error) {
	m := &Manager{
		o:         o,
		publisher: publisher{client: o.Client, name: o.Configuration, service: o.Service},
		every:     time.Second,
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sandbox_webhook_certificate_expiry_timestamp_seconds",
			Help: "When the certificate that is served expires, in seconds since the epoch.",
		}),
	}
	m.fail(errors.New("no certificate yet"))
	return m, o.Metrics.Register(m.expiry)
}

// ServerName returns the name that certificates for a Service are for.
func ServerName(service types.NamespacedName) string {
	return service.Name + "." + service.Namespace + ".svc"
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica serves.
func (m *Manager) NeedLeaderElection() bool { return false }

// Start works until ctx ends. Errors are logged and tried again: what was served before is still good.
func (m *Manager) Start(ctx context.Context) error {
	for {
		m.report(m.step(ctx))
		timer := m.o.Clock.NewTimer(m.every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		case <-m.o.Changed:
			timer.Stop()
		}
	}
}

// report logs an error when it is a new one: steps are frequent, and some errors last.
func (m *Manager) report(err error) {
	switch {
	case err == nil:
		m.lastError = ""
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		m.o.Log.V(1).Info("another replica was faster", "error", err.Error())
	case err.Error() != m.lastError:
		m.lastError = err.Error()
		m.o.Log.Error(err, "keep certificates")
	}
}

// step brings everything to where it should be now. Each part goes as far as it can: a bundle that can't be published does not
// keep routers from being served, nor the other way round.
func (m *Manager) step(ctx context.Context) error {
	now := m.o.Clock.Now()
	name := ServerName(m.o.Service)
	trusted, candidate, err := m.o.Source.sync(ctx, now, []string{name})
	if err != nil {
		m.judge(now, name, nil, true)
		return err
	}
	published, err := m.publisher.publish(ctx, trusted, now)
	if err == nil {
		trusted = published
	}
	if pem := encodeCertificates(trusted); m.bundle.Load() == nil || string(*m.bundle.Load()) != string(pem) {
		m.bundle.Store(&pem)
		m.o.Trust(pem)
	}
	serving := m.leaf.Load()
	life := shortest(append(slices.Clone(trusted), candidate.Leaf))
	if serving != nil {
		life = min(life, shortest([]*x509.Certificate{serving.Leaf}))
	}
	m.every = min(10*time.Second, life/50)
	settled := m.publisher.ledger.settled(published, now, min(30*time.Second, life/8))
	switch {
	case serving != nil && bytes.Equal(serving.Certificate[0], candidate.Certificate[0]):
	case serving == nil, within(serving.Leaf, now, retireAt), verify(serving, published, now, name) != nil, verify(candidate, settled, now, name) == nil:
		m.leaf.Store(candidate)
		m.expiry.Set(float64(candidate.Leaf.NotAfter.Unix()))
		m.o.Log.Info("serve with a new certificate", "authority", candidate.Leaf.Issuer.CommonName, "expires", candidate.Leaf.NotAfter)
	}
	m.judge(now, name, published, err != nil)
	return err
}

// shortest returns the shortest life of certificates: what paces everything, but for the usual ones of days and years.
func shortest(certs []*x509.Certificate) time.Duration {
	life := time.Duration(math.MaxInt64)
	for _, c := range certs {
		life = min(life, c.NotAfter.Sub(c.NotBefore))
	}
	return life
}

// judge decides on readiness. Where the published bundle could not be read, a replica that was ready stays so as long as its
// certificate is valid: it is no reason to turn away what works.
func (m *Manager) judge(now time.Time, name string, published []*x509.Certificate, unknown bool) {
	leaf := m.leaf.Load()
	switch {
	case leaf == nil:
	case unknown && m.unready.Load() == nil && now.Before(leaf.Leaf.NotAfter):
	case unknown:
		m.fail(errors.New("caBundle not published"))
	default:
		if err := verify(leaf, published, now, name); err != nil {
			m.fail(fmt.Errorf("caBundle does not verify the certificate: %w", err))
			return
		}
		m.unready.Store(nil)
	}
}

func (m *Manager) fail(err error) { m.unready.Store(&err) }

// verify says whether whoever trusts roots accepts cert for name.
func verify(cert *tls.Certificate, roots []*x509.Certificate, now time.Time, name string) error {
	intermediates := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(c)
		}
	}
	_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool(roots), Intermediates: intermediates, CurrentTime: now, DNSName: name})
	return err
}

// GetCertificate is for tls.Config. Both the API server and routers trust every valid authority, so one certificate does.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if leaf := m.leaf.Load(); leaf != nil {
		return leaf, nil
	}
	return nil, errors.New("no certificate yet")
}

// Bundle returns what to verify the certificate by, PEM; nil until there is one.
func (m *Manager) Bundle() []byte {
	if b := m.bundle.Load(); b != nil {
		return *b
	}
	return nil
}

// Ready is a healthz.Checker: nil once the API server can verify the certificate that is served.
func (m *Manager) Ready(*http.Request) error {
	if err := m.unready.Load(); err != nil {
		return *err
	}
	return nil
}
