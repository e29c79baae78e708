package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const configuration = "kubectl-sandbox"

var (
	service    = types.NamespacedName{Namespace: "ns", Name: "hook"}
	secretName = types.NamespacedName{Namespace: "ns", Name: "ca"}
)

// A bed is a cluster with a webhook configuration, for replicas to run in. Its API server is controller-runtime's
// in-memory one, which has resource versions and JSON patches of the real one; TLS is real.
type bed struct {
	*testing.T
	client  client.Client
	clock   *clocktesting.FakeClock
	patches atomic.Int64
}

func newBed(t *testing.T) *bed {
	b := &bed{T: t, clock: clocktesting.NewFakeClock(epoch)}
	webhook := func(name, service string) admissionv1.MutatingWebhook {
		return admissionv1.MutatingWebhook{Name: name, ClientConfig: admissionv1.WebhookClientConfig{
			Service: &admissionv1.ServiceReference{Namespace: "ns", Name: service}}}
	}
	b.client = fake.NewClientBuilder().WithObjects(&admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: configuration},
		Webhooks:   []admissionv1.MutatingWebhook{webhook("baseline", "hook"), webhook("other", "other"), webhook("fork", "hook")},
	}).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			b.patches.Add(1)
			return c.Patch(ctx, o, p, opts...)
		},
	}).Build()
	return b
}

// A replica is a Manager with what it told its routers, and a TLS server on loopback.
type replica struct {
	*Manager
	trusted atomic.Pointer[[]byte]
	address string
}

func (b *bed) replica(source Source) *replica {
	b.Helper()
	r := &replica{}
	m, err := New(Options{
		Source: source, Client: b.client, Configuration: configuration, Service: service,
		Trust: func(pem []byte) { r.trusted.Store(&pem) },
		Clock: b.clock, Log: testr.New(b.T), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		b.Fatal(err)
	}
	r.Manager = m
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: m.GetCertificate})
	if err != nil {
		b.Fatal(err)
	}
	r.address = listener.Addr().String()
	b.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if conn.(*tls.Conn).HandshakeContext(b.Context()) == nil {
					conn.Write([]byte("ok"))
				}
			}()
		}
	}()
	return r
}

func (b *bed) own(validity, leaf time.Duration) *Own {
	return &Own{Client: b.client, Secret: secretName, Validity: validity, LeafValidity: leaf}
}

// step steps replicas until none has anything to do.
func (b *bed) step(replicas ...*replica) {
	b.Helper()
	for range 3 {
		var last error
		for _, r := range replicas {
			if err := r.step(b.Context()); err != nil {
				last = err
			}
		}
		if last == nil {
			return
		}
	}
	b.Fatal("replicas can't agree")
}

// bundle is what the API server verifies the i-th webhook by.
func (b *bed) bundle(i int) []byte {
	b.Helper()
	config := &admissionv1.MutatingWebhookConfiguration{}
	if err := b.client.Get(b.Context(), types.NamespacedName{Name: configuration}, config); err != nil {
		b.Fatal(err)
	}
	return config.Webhooks[i].ClientConfig.CABundle
}

// dial does a handshake as somebody who trusts bundle.
func (b *bed) dial(r *replica, bundle []byte) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: ServerName(service), Time: b.clock.Now})
	if _, err := c.Read(make([]byte, 2)); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func (b *bed) mustDial(r *replica, bundle []byte) *x509.Certificate {
	b.Helper()
	c, err := b.dial(r, bundle)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func TestManager_ReplicasAgreeOnOneAuthority(t *testing.T) {
	b := newBed(t)
	first, second := b.replica(b.own(day, time.Hour)), b.replica(b.own(day, time.Hour))
	if first.Ready(nil) == nil {
		t.Error("ready before it has a certificate")
	}
	b.step(first, second)
	for _, r := range []*replica{first, second} {
		if err := r.Ready(nil); err != nil {
			t.Error(err)
		}
		for _, webhook := range []int{0, 2} {
			b.mustDial(r, b.bundle(webhook))
		}
		b.mustDial(r, *r.trusted.Load())
	}
	if n := len(decodeCertificates(b.bundle(0))); n != 1 {
		t.Errorf("there are %d authorities, want 1", n)
	}
	if len(b.bundle(1)) != 0 {
		t.Error("a webhook of another service was touched")
	}
}

func TestManager_RestoresTheBundle(t *testing.T) {
	b := newBed(t)
	r := b.replica(b.own(day, time.Hour))
	b.step(r)
	want := string(b.bundle(0))
	config := &admissionv1.MutatingWebhookConfiguration{}
	if err := b.client.Get(t.Context(), types.NamespacedName{Name: configuration}, config); err != nil {
		t.Fatal(err)
	}
	config.Webhooks[0].ClientConfig.CABundle = nil
	config.Webhooks[2].ClientConfig.CABundle = []byte("Cg==")
	if err := b.client.Update(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	b.step(r)
	if string(b.bundle(0)) != want || string(b.bundle(2)) != want {
		t.Error("the bundle is not what it was")
	}
	if patches := b.patches.Load(); patches != 2 {
		t.Errorf("%d patches, want 2", patches)
	}
	b.step(r)
	if b.patches.Load() != 2 {
		t.Error("it patches what is as it should be")
	}
}

func TestManager_LeavesSomebodyElsesSecretAlone(t *testing.T) {
	b := newBed(t)
	theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: secretName.Namespace, Name: secretName.Name}, Type: corev1.SecretTypeTLS}
	if err := b.client.Create(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	r := b.replica(b.own(day, time.Hour))
	err := r.step(t.Context())
	if want := `secret ns/ca is of type "kubernetes.io/tls", not "kubectl-sandbox.dev/ca": it is somebody else's; name another one with --ca-secret`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if r.Ready(nil) == nil {
		t.Error("ready without a certificate")
	}
}

// Twenty authorities come and go while clients of all kinds shake hands without a break: an API server that is a step
// behind, a router that was told of each new bundle, one that was told of every third only, and new routers with what
// was trusted when they started.
func TestManager_TwentyRotationsFailNobody(t *testing.T) {
	const validity = 40 * time.Hour
	b := newBed(t)
	replicas := []*replica{b.replica(b.own(validity, validity/2)), b.replica(b.own(validity, validity/2))}
	b.step(replicas...)

	bundle := func() *atomic.Pointer[[]byte] {
		p, first := new(atomic.Pointer[[]byte]), b.bundle(0)
		p.Store(&first)
		return p
	}
	clients := map[string]*atomic.Pointer[[]byte]{
		"API server": bundle(), "router": bundle(), "router that misses most": bundle(), "new router": bundle(),
	}
	var handshakes atomic.Int64
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for name, trusted := range clients {
		for _, r := range replicas {
			wg.Go(func() {
				for ctx.Err() == nil {
					if _, err := b.dial(r, *trusted.Load()); err != nil {
						t.Errorf("%s, on %s: %v", name, b.clock.Now(), err)
						return
					}
					handshakes.Add(1)
				}
			})
		}
	}
	signers := map[string]bool{}
	for i := 0; len(signers) <= 20 && !t.Failed(); i++ {
		if i > 2000 {
			t.Fatal("it does not rotate")
		}
		before := b.bundle(0)
		b.clock.Step(validity / 24)
		// One replica may be well behind the other.
		b.step(replicas[i%2])
		if i%3 == 0 {
			b.step(replicas[(i+1)%2])
		}
		clients["API server"].Store(&before)
		clients["router"].Store(replicas[i%2].trusted.Load())
		if i%5 == 4 {
			clients["router that misses most"].Store(replicas[0].trusted.Load())
		}
		if i%5 == 0 {
			now := replicas[i%2].Bundle()
			clients["new router"].Store(&now)
		}
		for _, r := range replicas {
			signers[b.mustDial(r, b.bundle(0)).Issuer.CommonName] = true
			if err := r.Ready(nil); err != nil {
				t.Error(err)
			}
		}
		// Every client shakes hands at every step.
		for had := handshakes.Load(); handshakes.Load() < had+8 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d signers, %d handshakes, %d patches", len(signers), handshakes.Load(), b.patches.Load())
	if n := len(decodeCertificates(b.bundle(0))); n > 2 {
		t.Errorf("%d authorities are left, want at most 2", n)
	}
}

// Who deletes the Secret wants a new authority at once. The API server still must not miss a beat.
func TestManager_DeletedSecretFailsNoAdmission(t *testing.T) {
	b := newBed(t)
	r := b.replica(b.own(400*day, day))
	b.step(r)
	old := b.mustDial(r, b.bundle(0)).Issuer.CommonName
	behind := b.bundle(0)
	if err := b.client.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: secretName.Namespace, Name: secretName.Name}}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		b.step(r)
		b.mustDial(r, behind)
		behind = b.bundle(0)
		b.clock.Step(5 * time.Second)
	}
	if got := b.mustDial(r, b.bundle(0)).Issuer.CommonName; got == old {
		t.Error("still served by the old authority")
	}
	for range 2 {
		b.clock.Step(foreignGrace / 2)
		b.step(r)
	}
	b.clock.Step(time.Minute)
	b.step(r)
	if n := len(decodeCertificates(b.bundle(0))); n != 1 {
		t.Errorf("%d authorities are published, want the new one alone", n)
	}
	b.mustDial(r, b.bundle(0))
}

func TestManager_AReadyReplicaOutlivesTheAPIServersAbsence(t *testing.T) {
	b := newBed(t)
	r := b.replica(b.own(day, time.Hour))
	b.step(r)
	// The configuration goes, as when somebody uninstalls in steps.
	if err := b.client.Delete(t.Context(), &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: configuration}}); err != nil {
		t.Fatal(err)
	}
	if r.step(t.Context()) == nil {
		t.Fatal("no error")
	}
	if err := r.Ready(nil); err != nil {
		t.Errorf("turned unready: %v", err)
	}
	late := b.replica(b.own(day, time.Hour))
	if late.step(t.Context()) == nil {
		t.Fatal("no error")
	}
	if late.Ready(nil) == nil {
		t.Error("ready without a published bundle")
	}
	b.mustDial(late, late.Bundle())
}

func TestManager_RunsWithItsClock(t *testing.T) {
	b := newBed(t)
	r := b.replica(b.own(day, 3*time.Hour))
	changed := make(chan struct{})
	r.o.Changed = changed
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Start(ctx) }()
	eventually(t, "ready", func() bool { return r.Ready(nil) == nil })
	first := b.mustDial(r, b.bundle(0))
	for b.mustDial(r, b.bundle(0)).Equal(first) {
		b.clock.Step(15 * time.Minute)
		changed <- struct{}{}
		changed <- struct{}{} // the first step is over when the second begins
	}
	if age := b.clock.Since(epoch); age < 90*time.Minute || age > 150*time.Minute {
		t.Errorf("renewed after %s, want two thirds of three hours", age)
	}
	eventually(t, "a ticker", b.clock.HasWaiters)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s in time", what)
		}
	}
}

// mount writes a certificate of a as a Secret's volume has it.
func mount(t *testing.T, dir string, a authority, now time.Time, names ...string) {
	t.Helper()
	leaf, err := a.leaf(now, 10*day, names)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"tls.crt": encodeCertificates([]*x509.Certificate{leaf.Leaf}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"ca.crt":  encodeCertificates([]*x509.Certificate{a.cert}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Another authority comes by a mounted Secret, to one node a minute after the other.
func TestManager_MountedAuthorityChangesUnderAdmission(t *testing.T) {
	b := newBed(t)
	old, next := mustAuthority(t, epoch, 100*day), mustAuthority(t, epoch, 100*day)
	dirs := []string{t.TempDir(), t.TempDir()}
	var replicas []*replica
	for _, dir := range dirs {
		mount(t, dir, old, epoch, ServerName(service))
		replicas = append(replicas, b.replica(Mounted{dir}))
	}
	b.step(replicas...)
	behind := b.bundle(0)
	patches := b.patches.Load()
	for i := range 30 {
		if i == 2 {
			mount(t, dirs[0], next, b.clock.Now(), ServerName(service))
		}
		if i == 14 {
			mount(t, dirs[1], next, b.clock.Now(), ServerName(service))
		}
		b.step(replicas...)
		for _, r := range replicas {
			b.mustDial(r, behind)
			if err := r.Ready(nil); err != nil {
				t.Error(err)
			}
		}
		behind = b.bundle(0)
		b.clock.Step(5 * time.Second)
	}
	for _, r := range replicas {
		if got := b.mustDial(r, behind).Issuer.CommonName; got != next.cert.Subject.CommonName {
			t.Errorf("served by %s, want the new authority", got)
		}
	}
	if n := b.patches.Load() - patches; n != 1 {
		t.Errorf("%d patches for one change: the replicas correct each other", n)
	}
}

func TestManager_SaysWhatIsWrongWithMountedFiles(t *testing.T) {
	b := newBed(t)
	a := mustAuthority(t, epoch, 100*day)
	for _, tt := range []struct {
		name  string
		spoil func(dir string)
		want  string
	}{
		{"no files", func(dir string) { os.Remove(filepath.Join(dir, "tls.crt")) },
			"--certificates-dir: open DIR/tls.crt: no such file or directory"},
		{"no authority", func(dir string) { os.Remove(filepath.Join(dir, "ca.crt")) },
			"--certificates-dir: open DIR/ca.crt: no such file or directory: the secret must have it, for the API server and for routers"},
		{"empty authority", func(dir string) { os.WriteFile(filepath.Join(dir, "ca.crt"), nil, 0o600) },
			"--certificates-dir: ca.crt holds no certificate"},
		{"other name", func(dir string) { mount(t, dir, a, epoch, "other.ns.svc") },
			"caBundle does not verify the certificate: x509: certificate is valid for other.ns.svc, not hook.ns.svc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			mount(t, dir, a, epoch, ServerName(service))
			tt.spoil(dir)
			r := b.replica(Mounted{dir})
			err := r.step(t.Context())
			if err == nil {
				err = r.Ready(nil)
			}
			if got := fmt.Sprint(err); got != strings.ReplaceAll(tt.want, "DIR", dir) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if r.Ready(nil) == nil {
				t.Error("ready")
			}
		})
	}
}
