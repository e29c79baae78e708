package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// The gRPC project's own interoperability client has a case for each kind of call and of failure.
func TestEveryKindOfGRPCCallReachesForkOrBaselineByItsKeyAndWorksAsWithoutARouter(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(simple("interop", 1, corev1.Container{
		Name: "app", Image: apps.GRPC, Ports: []corev1.ContainerPort{{ContainerPort: 10000}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstrFrom(10000)}}, PeriodSeconds: 1},
		Resources:      requests(),
	}), service("interop", app("interop"), port("grpc", 10000, 10000)))
	s.available("interop")
	s.sandbox("route", "deploy/interop")
	s.sandbox("fork", "deploy/interop", "--name=pr-1", "--key=key-1", "--env=X=1")
	host, number, err := net.SplitHostPort(s.address("interop", "grpc"))
	if err != nil {
		t.Fatal(err)
	}
	fork := s.pods(sandbox.LabelSandbox + "=pr-1")[0]
	for _, test := range []struct {
		name    string
		atLeast int64 // bytes that the case sends; -1: it may be over before any is sent
	}{
		{"empty_unary", 0},
		{"large_unary", 271828},
		{"client_streaming", 27182 + 8 + 1828 + 45904},
		{"server_streaming", 0},
		{"ping_pong", 27182 + 8 + 1828 + 45904},
		{"empty_stream", 0},
		{"timeout_on_sleeping_server", -1},
		{"cancel_after_begin", -1},
		{"cancel_after_first_response", -1},
		{"status_code_and_message", 0},
		{"special_status_message", 0},
		{"custom_metadata", 0},
		{"unimplemented_method", 0},
		{"unimplemented_service", 0},
	} {
		for _, keyed := range []bool{false, true} {
			args := []string{"--server_host=" + host, "--server_port=" + number, "--test_case=" + test.name}
			if keyed {
				args = append(args, "--additional_metadata="+sandbox.DefaultHeader+":key-1")
			}
			before := received(t, fork)
			r := run(s.commandAt(t.Context(), s.interop, args...))
			if r.err != nil {
				t.Errorf("%s, keyed %t: %v", test.name, keyed, r)
				continue
			}
			// The interop server tells nobody who it is; the bytes that reached the fork's pod do.
			got := received(t, fork) - before
			switch {
			case keyed && test.atLeast >= 0 && got < max(test.atLeast, 100):
				t.Errorf("%s, keyed: only %d bytes reached the fork", test.name, got)
			case !keyed && test.atLeast > 0 && got >= test.atLeast:
				t.Errorf("%s, unkeyed: %d bytes reached the fork", test.name, got)
			}
		}
	}
}

// received returns how many bytes reached a pod's interface since it started: tests run on the node.
func received(t *testing.T, pod corev1.Pod) int64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", routerProcess(t, pod)))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && name == "eth0" {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no eth0 in pod %s:\n%s", pod.Name, raw)
	return 0
}

func TestAWebSocketConnectionGoesWhereTheKeyOfItsHandshakeSays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	for _, test := range []struct {
		what  string
		carry carrier
		hosts []string
	}{
		{"unkeyed", carrier{}, s.hosts("app=api")},
		{"keyed", carrier{sandbox.DefaultHeader, "key-1"}, s.hosts(sandbox.LabelSandbox + "=pr-1")},
		{"keyed by baggage", carriers("key-1")[1], s.hosts(sandbox.LabelSandbox + "=pr-1")},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			header := http.Header{}
			if test.carry.name != "" {
				header.Set(test.carry.name, test.carry.value)
			}
			c, _, err := websocket.Dial(ctx, "ws://"+s.address("api", "http")+"/ws/echo", &websocket.DialOptions{HTTPHeader: header})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			c.SetReadLimit(1 << 20)
			large := strings.Repeat("x", 300_000)
			for _, message := range []string{"hello", large, ""} {
				if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
					t.Fatal(err)
				}
			}
			// Podinfo echoes every message, and every 5 s it says which pod it is.
			var echoed []string
			server := ""
			for len(echoed) < 3 || server == "" {
				_, raw, err := c.Read(ctx)
				if err != nil {
					t.Fatal(err)
				}
				var m struct{ Msg, Server *string }
				if err := json.Unmarshal(raw, &m); err != nil {
					t.Fatal(err)
				}
				if m.Server != nil {
					server = *m.Server
				}
				if m.Msg != nil {
					echoed = append(echoed, *m.Msg)
				}
			}
			if echoed[0] != "hello" || echoed[1] != large || echoed[2] != "" {
				t.Errorf("echoed %d messages, changed", len(echoed))
			}
			if server != test.hosts[0] {
				t.Errorf("connected to %s, want %s", server, test.hosts[0])
			}
			if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func TestEventsTrailersAndContinuePassAsTheyCome(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(httpbin("bin", 1), service("bin", app("bin"), port("http", 80, 8080)))
	s.available("bin")
	s.sandbox("route", "deploy/bin")
	s.sandbox("fork", "deploy/bin", "--name=pr-1", "--key=key-1", "--env=HTTPBIN_ENV_WHO=fork")
	address := s.address("bin", "http")
	fork := s.hosts(sandbox.LabelSandbox + "=pr-1")[0]
	do := func(t *testing.T, keyed bool, method, path, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if keyed {
			req.Header.Set(sandbox.DefaultHeader, "key-1")
		}
		if body != "" {
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := (&http.Transport{ExpectContinueTimeout: 10 * time.Second}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		want := ""
		if keyed {
			want = fork
		}
		if by := resp.Header.Get(sandbox.HeaderServedBy); by != want {
			t.Errorf("%s: served by %q, want %q", path, by, want)
		}
		return resp
	}
	for _, keyed := range []bool{false, true} {
		t.Run(fmt.Sprintf("keyed %t", keyed), func(t *testing.T) {
			t.Parallel()
			resp := do(t, keyed, "GET", "/sse?count=5&duration=2s&delay=0s", "")
			var at []time.Time
			for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "data:") {
					at = append(at, time.Now())
				}
			}
			// All at once would mean that they were held back until the last.
			if len(at) != 5 || at[4].Sub(at[0]) < time.Second {
				t.Errorf("%d events came, %v", len(at), at)
			}

			resp = do(t, keyed, "GET", "/trailers?checksum=abc", "")
			readAll(resp.Body)
			if got := resp.Trailer.Get("checksum"); got != "abc" {
				t.Errorf("trailer is %q, of %v", got, resp.Trailer)
			}

			// Had 100 Continue been swallowed, the client would have waited 10 s before it sent the body.
			start := time.Now()
			resp = do(t, keyed, "POST", "/post", "body")
			if body := readAll(resp.Body); !strings.Contains(body, "text=body") && !strings.Contains(body, "Ym9keQ==") || time.Since(start) > 5*time.Second {
				t.Errorf("POST with Expect took %s and was answered %s", time.Since(start), body)
			}

			resp = do(t, keyed, "GET", "/hostname", "")
			if body := readAll(resp.Body); keyed != strings.Contains(body, fork) {
				t.Errorf("keyed %t answered by %s", keyed, body)
			}
		})
	}
}

func TestTLSPassesThroughTheRouterUntouched(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	pool, secret := s.certificate()
	d := podinfo("api", 1)
	pod := &d.Spec.Template.Spec
	pod.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
	c := &pod.Containers[0]
	c.Args = append(c.Args, "--secure-port=9443", "--cert-path=/tls")
	c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: 9443})
	c.VolumeMounts = []corev1.VolumeMount{{Name: "tls", MountPath: "/tls"}}
	s.create(d, service("api", app("api"), port("http", 80, httpPort), port("https", 443, 9443)))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, ServerName: "api.example.test", MinVersion: tls.VersionTLS13},
		ForceAttemptHTTP2: true,
	}}
	for range 3 {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.address("api", "https")+"/api/info", nil)
		req.Header.Set(sandbox.DefaultHeader, "key-1")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		// The key is inside, where nobody but the app can read it: the baseline answers, over its own certificate.
		if body := readAll(resp.Body); !strings.Contains(body, fmt.Sprintf("%q", baselineMessage)) {
			t.Errorf("answered %s", body)
		}
		resp.Body.Close()
	}
}

// certificate makes a Secret with a certificate for api.example.test, and returns the pool that trusts it.
func (s *space) certificate() (*x509.CertPool, string) {
	s.t.Helper()
	key := must[*ecdsa.PrivateKey](s.t)(ecdsa.GenerateKey(elliptic.P256(), crand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"api.example.test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der := must[[]byte](s.t)(x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key))
	keyDER := must[[]byte](s.t)(x509.MarshalECPrivateKey(key))
	pool := x509.NewCertPool()
	pool.AddCert(must[*x509.Certificate](s.t)(x509.ParseCertificate(der)))
	_, err := s.client.CoreV1().Secrets(s.name).Create(s.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			"tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return pool, "tls"
}

// NATS speaks first: its client waits for the server's greeting before it sends a byte, so nothing tells the router that
// this is not HTTP.
func TestAProtocolInWhichTheServerSpeaksFirstPassesThrough(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(simple("nats", 1, corev1.Container{
		Name: "app", Image: apps.NATS, Ports: []corev1.ContainerPort{{ContainerPort: 4222}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstrFrom(4222)}}, PeriodSeconds: 1},
		Resources:      requests(),
	}), service("nats", app("nats"), port("client", 4222, 4222)))
	s.available("nats")
	s.sandbox("route", "deploy/nats")
	s.available("nats")
	start := time.Now()
	c, err := nats.Connect("nats://"+s.address("nats", "client"), nats.Timeout(10*time.Second), nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Logf("connected after %s", time.Since(start).Round(time.Millisecond))
	sub, err := c.SubscribeSync("greet")
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"hello", strings.Repeat("x", 500_000)} {
		if err := c.Publish("greet", []byte(message)); err != nil {
			t.Fatal(err)
		}
		m, err := sub.NextMsg(10 * time.Second)
		if err != nil || string(m.Data) != message {
			t.Fatalf("%v, %v", m, err)
		}
	}
}
