package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An apiServer lists objects by resource, has no news of them, and forwards to pods that echo.
type apiServer struct {
	objects map[string][]any
	refuses map[string]bool // resources
	silent  bool            // pods have nobody who listens
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := path.Base(r.URL.Path)
	switch {
	case s.refuses[resource]:
		answer(w, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no")).Status())
	case resource == "portforward":
		s.forward(w, r)
	case r.URL.Query().Get("sendInitialEvents") != "":
		answer(w, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil).Status())
	case r.URL.Query().Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		items := s.objects[resource]
		if items == nil {
			items = []any{}
		}
		kinds := map[string]string{
			"configmaps": "ConfigMapList", "services": "ServiceList", "pods": "PodList", "deployments": "DeploymentList",
			"endpointslices": "EndpointSliceList",
		}
		group := strings.Trim(strings.TrimPrefix(strings.Split(r.URL.Path, "/namespaces/")[0], "/apis"), "/")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": strings.TrimPrefix(group, "api/"), "kind": kinds[resource],
			"metadata": map[string]any{"resourceVersion": "1"}, "items": items,
		})
	}
}

func answer(w http.ResponseWriter, status metav1.Status) {
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_ = json.NewEncoder(w).Encode(status)
}

// forward echoes what is sent to port 8080, by SPDY alone, as API servers before KEP-4006 do.
func (s *apiServer) forward(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), streamspdy.HeaderSpdy31) {
		http.Error(w, "SPDY alone", http.StatusBadRequest)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
		return
	}
	ended := make(chan struct{})
	conn := streamspdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
		go func() {
			<-replied
			switch kind := stream.Headers().Get(corev1.StreamType); {
			case kind == corev1.StreamTypeError && s.silent:
				_, _ = io.WriteString(stream, "nobody listens on port "+stream.Headers().Get(corev1.PortHeader))
				_ = stream.Close()
			case kind == corev1.StreamTypeData && !s.silent:
				_, _ = io.Copy(stream, stream)
				_ = stream.Close()
			}
		}()
		return nil
	})
	if conn == nil {
		return
	}
	go func() { <-conn.CloseChan(); close(ended) }()
	<-ended
}

// newForwarder returns a Forwarder for the namespace shop of an API server.
func newForwarder(t *testing.T, s *apiServer) *Forwarder {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	config := &rest.Config{Host: server.URL}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return New(&cluster.Client{Namespace: "shop", Kube: kube, Config: config})
}

func endpointSlice(ready bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-x", Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}},
		Endpoints: []discoveryv1.Endpoint{{
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: "web-1"},
		}},
	}
}

func objects(ready bool) map[string][]any {
	return map[string][]any{
		"configmaps": {&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: sandbox.ConfigMapName("a"), Labels: map[string]string{
				sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelSandbox: "a",
			}},
			Data: map[string]string{sandbox.DataKey: "key-a"},
		}},
		"services":       {&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}},
		"endpointslices": {endpointSlice(ready)},
	}
}

func TestWatch_KnowsSandboxesAndServices(t *testing.T) {
	p, err := newForwarder(t, &apiServer{objects: objects(true), refuses: map[string]bool{"deployments": true}}).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := p.Key("a"); key != "key-a" || !ok {
		t.Errorf("key %q, %t", key, ok)
	}
	if key, ok := p.Key("gone"); ok {
		t.Errorf("a sandbox that does not exist has key %q", key)
	}
	for _, tt := range []struct {
		namespace, name string
		want            bool
	}{{"shop", "web", true}, {"shop", "gone", false}, {"elsewhere", "web", false}} {
		if _, ok := p.Service(tt.namespace, tt.name); ok != tt.want {
			t.Errorf("%s/%s: %t", tt.namespace, tt.name, ok)
		}
	}
	if b := p.Waiting("a"); b != nil {
		t.Errorf("forks may not be read, and wait for %v", b)
	}
}

func TestWatch_ExplainsWhatMayNotBeRead(t *testing.T) {
	_, err := newForwarder(t, &apiServer{refuses: map[string]bool{"endpointslices": true}}).Watch(t.Context())
	var p *plan.Problem
	if !errors.As(err, &p) || !strings.Contains(p.What, "not allowed: endpointslices") {
		t.Errorf("got %v", err)
	}
}

func TestDial(t *testing.T) {
	for _, tt := range []struct {
		name    string
		server  *apiServer
		service string
		reads   string // what is sent
		err     string
	}{
		{"a ready pod", &apiServer{objects: objects(true)}, "web", "hello", ""},
		{"no pod that is not ready", &apiServer{objects: objects(false)}, "web", "", "no pod of service web.shop is ready"},
		{"no pod of a Service that does not exist", &apiServer{objects: objects(true)}, "gone", "",
			"no pod of service gone.shop is ready"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := newForwarder(t, tt.server).Watch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			limit := 10 * time.Second // what works takes no time
			if strings.HasPrefix(tt.err, "no pod") {
				limit = 20 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			conn, err := p.Dial(ctx, "shop", tt.service, "http")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, tt.reads)
			b := make([]byte, len(tt.reads))
			if _, err := io.ReadFull(conn, b); err != nil || string(b) != tt.reads || conn.RemoteAddr().String() != "pod/web-1:8080" {
				t.Errorf("%s: got %q, %v", conn.RemoteAddr(), b, err)
			}
		})
	}
}

func TestForwardPod_SaysWhatTheKubeletSays(t *testing.T) {
	conn, err := newForwarder(t, &apiServer{silent: true}).ForwardPod(t.Context(), "shop", "web-1", 9)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Read(make([]byte, 1)); err == nil || err.Error() != "pod/web-1:9: nobody listens on port 9" {
		t.Errorf("got %v", err)
	}
}

func TestForwardPod_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := newForwarder(t, &apiServer{silent: true}).ForwardPod(ctx, "shop", "web-1", 9); err == nil {
		_ = conn.Close() // it may have been as fast
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
