package gateway

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

const domain = "preview.test"

// A rig is a gateway before a Service's app, both real; what the cluster holds is set by the test.
type rig struct {
	t      *testing.T
	addr   string
	client client.Client
	*Gateway

	mu      sync.Mutex
	dials   []string
	seen    []*http.Request
	logs    bytes.Buffer
	advance time.Duration
	app     http.HandlerFunc // nil: it says hello
}

func (r *rig) serve(app http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.app = app
}

// Write takes log lines.
func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logs.Write(p)
}

func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logs.String()
}

func newRig(t *testing.T, change func(*Options), objects ...client.Object) *rig {
	t.Helper()
	r := &rig{t: t}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.seen = append(r.seen, q.Clone(context.Background()))
		app := r.app
		r.mu.Unlock()
		if app != nil {
			app(w, q)
			return
		}
		_, _ = io.WriteString(w, "hello from the app")
	}))
	t.Cleanup(app.Close)
	builder := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...)
	for _, o := range []client.Object{&corev1.ConfigMap{}, &appsv1.Deployment{}, &corev1.Pod{}} {
		builder = builder.WithIndex(o, indexSandbox, bySandbox)
	}
	r.client = builder.Build()
	o := Options{Domain: domain, KeyHeader: sandbox.DefaultHeader, KeyMember: sandbox.DefaultMember, IdleTimeout: time.Minute}
	if change != nil {
		change(&o)
	}
	var err error
	if r.Gateway, err = New(o, r.client, slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		t.Fatal(err)
	}
	r.synced.Store(true)
	r.handler.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		r.mu.Lock()
		r.dials = append(r.dials, addr)
		r.mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, "tcp", app.Listener.Addr().String())
	}
	now := func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return time.Now().Add(r.advance)
	}
	r.handler.now, r.handler.directory.now = now, now
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	go r.accept(context.Background(), l)
	t.Cleanup(func() {
		_ = l.Close()
		done, cancel := context.WithCancel(context.Background())
		cancel()
		r.engine.Drain(done)
	})
	return r
}

func (r *rig) later(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance += d
}

// counted returns how often the gateway dialed.
func (r *rig) counted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dials)
}

// last returns the last request that the app got.
func (r *rig) last() *http.Request {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) == 0 {
		r.t.Fatal("the app has seen no request")
	}
	return r.seen[len(r.seen)-1]
}

// raw sends bytes and returns the first answer. The connection is closed.
func (r *rig) raw(bytes string) (*http.Response, string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, bytes); err != nil {
		r.t.Fatal(err)
	}
	method, _, _ := strings.Cut(bytes, " ")
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		r.t.Fatalf("%q: %v", bytes, err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer, string(body)
}

// get sends a GET for a host with header lines.
func (r *rig) get(host, target string, lines ...string) (*http.Response, string) {
	r.t.Helper()
	return r.raw("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(lines, "", ""), "\r\n"))
}

func bearer(token string) string { return "Authorization: Bearer " + token }
func cookie(token string) string { return "Cookie: " + share.Cookie + "=" + token }

const (
	shop = "shop"
	host = "web--pr-1--shop." + domain
)

// aSandbox returns a sandbox's ConfigMap.
func aSandbox(namespace, name, key string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: sandbox.ConfigMapName(name), UID: types.UID(namespace + "/" + name),
			Labels: map[string]string{sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelSandbox: name}},
		Data: map[string]string{sandbox.DataKey: key},
	}
}

// aShare returns a share of the sandbox for a Service.
func aShare(of *corev1.ConfigMap, token, service string, left time.Duration) *corev1.ConfigMap {
	name := of.Labels[sandbox.LabelSandbox]
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: of.Namespace, Name: sandbox.ShareName(name, share.Hash(token)[:8]),
			Labels:          map[string]string{sandbox.LabelRole: sandbox.RoleShare, sandbox.LabelSandbox: name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: of.Name, UID: of.UID}}},
		Data: share.Share{Hash: share.Hash(token), Service: service, Expires: time.Now().Add(left)}.Data(),
	}
}

func aService(namespace, name string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Selector: map[string]string{"app": name},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func aNamespace(name string, labels ...string) *corev1.Namespace {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		n.Labels[labels[i]] = labels[i+1]
	}
	return n
}

func aFork() *appsv1.Deployment {
	const name = "api-pr-1"
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name, Labels: map[string]string{
		sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelSandbox: "pr-1", sandbox.LabelWorkload: "deployment." + name}}}
	d.Spec.Template.Annotations = map[string]string{sandbox.AnnotationPorts: "http=8080"}
	return d
}

// aPod returns a pod of the fork that serves, unless it is changed.
func aPod(of *appsv1.Deployment, name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: of.Namespace, Name: name, Labels: of.Labels}}
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: sandbox.ConditionRouted}}
	p.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: sandbox.ConditionRouted, Status: corev1.ConditionTrue}}
	for _, c := range change {
		c(p)
	}
	return p
}

// ready is what there is of a sandbox pr-1 in namespace shop that can be entered by its Service web.
func ready(more ...client.Object) []client.Object {
	fork := aFork()
	return append(more, aSandbox(shop, "pr-1", "key-1"), aService(shop, "web"), fork, aPod(fork, "api-pr-1-x"))
}
