// Package certs manages the webhook's TLS. It always has a serving certificate that the API server and the routers can
// verify, and distributes what verifies it before it is used.
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

// Options are the settings of a Manager.
type Options struct {
	Source Source
	Client client.Client
	// Configuration is the name of the MutatingWebhookConfiguration whose caBundles are kept.
	Configuration string
	// Service is what its webhooks call. The certificate is for NAME.NAMESPACE.svc.
	Service types.NamespacedName
	// Trust is called with the PEM bundle to trust, at the start and on every change.
	Trust func(bundle []byte)
	// Changed receives a value whenever the Secret or the configuration changed.
	Changed <-chan struct{}
	Clock   clock.Clock
	Log     logr.Logger
	Metrics prometheus.Registerer
}

// A Manager holds what is served and trusted now. It works the same on every replica.
type Manager struct {
	o         Options
	publisher publisher
	leaf      atomic.Pointer[tls.Certificate]
	bundle    atomic.Pointer[[]byte]
	unready   atomic.Pointer[error]
	expiry    prometheus.Gauge
	every     time.Duration // the longest time between steps
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

// ServerName returns the name in certificates for a Service.
func ServerName(service types.NamespacedName) string {
	return service.Name + "." + service.Namespace + ".svc"
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica serves.
func (m *Manager) NeedLeaderElection() bool { return false }

// Start runs until ctx ends. It logs errors and retries: the previous certificate stays valid meanwhile.
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

// report logs an error if it is new: steps are frequent, and some errors last.
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

// step reconciles everything. Its parts are independent: a bundle that cannot be published does not keep routers from
// being served, or the other way round.
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

// shortest returns the shortest life of the certificates, which sets the interval of steps if it is below days.
func shortest(certs []*x509.Certificate) time.Duration {
	life := time.Duration(math.MaxInt64)
	for _, c := range certs {
		life = min(life, c.NotAfter.Sub(c.NotBefore))
	}
	return life
}

// judge decides on readiness. If the published bundle could not be read, a ready replica stays ready while its
// certificate is valid.
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

// verify checks that a peer that trusts roots accepts cert for name.
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

// GetCertificate is for tls.Config. API server and routers trust every valid authority, so one certificate is enough.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if leaf := m.leaf.Load(); leaf != nil {
		return leaf, nil
	}
	return nil, errors.New("no certificate yet")
}

// Bundle returns what verifies the certificate, as PEM; nil until there is one.
func (m *Manager) Bundle() []byte {
	if b := m.bundle.Load(); b != nil {
		return *b
	}
	return nil
}

// Ready is a healthz.Checker: nil once the API server can verify the serving certificate.
func (m *Manager) Ready(*http.Request) error {
	if err := m.unready.Load(); err != nil {
		return *err
	}
	return nil
}
