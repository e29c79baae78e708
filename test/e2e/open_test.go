package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// opened is a `kubectl sandbox open` that runs.
type opened struct {
	t                                   *testing.T
	cmd                                 *exec.Cmd
	URL, BaselineURL, PlainURL, Service string
	Port                                int
	client                              *http.Client
	said                                *lockedBuffer // standard error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// open runs `kubectl sandbox open` until the test ends. The machine need not resolve names under localhost: the client does.
func (s *space) open(args ...string) *opened {
	s.t.Helper()
	cmd := s.command(context.Background(), "kubectl", append([]string{"sandbox", "-n", s.name, "open", "--port=0", "-o", "json"}, args...)...)
	cmd.Env = append(cmd.Env, s.env...)
	o := &opened{t: s.t, cmd: cmd, said: &lockedBuffer{}}
	cmd.Stderr = o.said
	out := must[io.ReadCloser](s.t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("open ended by an interrupt: %v\n%s", err, o.said)
		}
	})
	if err := json.NewDecoder(out).Decode(o); err != nil {
		s.t.Fatalf("open %v: %v\n%s", args, err, o.said)
	}
	o.client = &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", o.Port))
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return o
}

// get asks once, with headers given as NAME, VALUE.
func (o *opened) get(url string, headers ...string) (*http.Response, string) {
	o.t.Helper()
	resp, body, err := o.try(url, headers...)
	if err != nil {
		o.t.Fatalf("%v\n%s", err, o.said)
	}
	return resp, body
}

func (o *opened) try(url string, headers ...string) (*http.Response, string, error) {
	ctx, cancel := context.WithTimeout(o.t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	return resp, readAll(resp.Body), nil
}

func TestASandboxIsOpenedByAnEntryOfItsOwnNamespaceOrOfAnother(t *testing.T) {
	t.Parallel()
	s, edge := newSpace(t), newSpace(t)
	s.hotrodBehind(edge)
	s.sandbox("route", "deploy/customer")
	s.sandbox("fork", "deploy/customer", "--name=fast", "--key=fast-key", "--image="+apps.HotrodFast)
	s.sandbox("fork", "deploy/customer", "--name=other", "--env=X=1")

	if r := s.trySandbox("open", "fast"); r.err == nil || !strings.Contains(r.stderr, "there is customer, driver, frontend, route") {
		t.Errorf("no entry is clear: %v", r)
	}
	for _, entry := range []string{"svc/frontend", "svc/frontend." + edge.name} {
		o := s.open("fast", entry)
		for url, want := range map[string]string{
			o.URL: "fast", o.PlainURL: "fast", o.BaselineURL: "", strings.Replace(o.URL, "fast.", "other.", 1): "other",
		} {
			o.rides(s, url, want)
		}
		if entry == "svc/frontend" {
			o.refusals()
		}
	}

	// Any test tool, one line.
	r := s.trySandbox("open", "fast", "svc/frontend", "--", "sh", "-c", `curl -sf "$SANDBOX_URL/" | grep -qi hotrod && echo "$SANDBOX_NAME $SANDBOX_KEY" && exit 7`)
	var exit *exec.ExitError
	if !errors.As(r.err, &exit) || exit.ExitCode() != 7 || r.stdout != "fast fast-key\n" || r.stderr != "" {
		t.Errorf("a command that ends with 7: %v", r)
	}
	if r := s.trySandbox("open", "fast", "svc/frontend", "--", "true"); r.err != nil {
		t.Errorf("a command that succeeds: %v", r)
	}
	r = s.trySandbox("open", "fast", "svc/frontend", "--", "sh", "-c", "kill -9 $$")
	if !errors.As(r.err, &exit) || exit.ExitCode() != 137 {
		t.Errorf("a command that is killed: %v", r)
	}
}

// hotrodBehind runs HotROD, and its frontend once more in another namespace, which calls the services of the first.
func (s *space) hotrodBehind(edge *space) {
	s.t.Helper()
	deployments, services := hotrod.Objects()
	for _, d := range deployments {
		s.create(d)
		if d.Name == hotrod.Frontend {
			there := d.DeepCopy()
			args := there.Spec.Template.Spec.Containers[0].Args
			for i, a := range args {
				if strings.HasSuffix(a, "-service-hostname="+strings.TrimPrefix(strings.SplitN(a, "-service", 2)[0], "--")) {
					args[i] = a + "." + s.name
				}
			}
			edge.create(there)
		}
	}
	s.create(services)
	for _, svc := range services {
		if svc.Name == hotrod.Frontend {
			edge.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: svc.Name}, Spec: svc.Spec})
		}
	}
	for _, name := range hotrod.Services() {
		s.available(name)
	}
	edge.available(hotrod.Frontend)
}

// rides books a ride at url and checks which sandbox's customer had a part in it. A key that comes in counts for nothing.
func (o *opened) rides(s *space, url, want string) {
	o.t.Helper()
	s.rides(url, func(id string) (*http.Response, string) {
		return o.get(url+"/dispatch?customer=123", "traceparent", "00-"+id+"-00f067aa0ba902b7-01",
			sandbox.DefaultHeader, "other", "baggage", "session=7,sandbox-key=other")
	}, want)
}

// rides books a ride and checks which sandbox's customer had a part in it, by its own log.
func (s *space) rides(at string, book func(id string) (*http.Response, string), want string) {
	s.t.Helper()
	id := newTrace()
	resp, body := book(id)
	if resp.StatusCode != http.StatusOK {
		s.t.Errorf("%s: %s %s", at, resp.Status, body)
		return
	}
	eventually(s.t, 20*time.Second, "customer logs the ride", func(ctx context.Context) error {
		all, err := hotrod.HopsLogged(ctx, s.client, s.name, id)
		for _, h := range all[id] {
			if h.Service == hotrod.Customer {
				if h.Sandbox != want {
					s.t.Errorf("%s: customer was %s of sandbox %q, want %q", at, h.Pod, h.Sandbox, want)
				}
				return nil
			}
		}
		return fmt.Errorf("%v: %w", all[id], err)
	})
}

// refusals checks that what no preview is for reaches nobody.
func (o *opened) refusals() {
	o.t.Helper()
	for _, test := range []struct {
		status  int
		headers []string
	}{
		{421, []string{"Host", "attacker.example"}},
		{421, []string{"Host", "fast.localhost.attacker.example"}},
		{404, []string{"Host", "nobody.localhost"}},
		{404, []string{"Host", "nothing.fast.localhost"}},
		{404, []string{"Host", "kubernetes.default.fast.localhost"}},
		{403, []string{"Origin", "https://attacker.example"}},
		{403, []string{"Origin", "null"}},
		{403, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}},
		{200, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}},
		{200, []string{"Origin", "http://localhost:3000"}},
		{400, []string{"Connection", "x-sandbox-key"}},
	} {
		resp, body := o.get(o.URL+"/", test.headers...)
		if resp.StatusCode != test.status || (test.status != 200) != (resp.Header.Get(sandbox.HeaderError) != "") {
			o.t.Errorf("%v: %s %s", test.headers, resp.Status, body)
		}
	}
}

func TestOpenPassesWebSocketsEventsAndLargeBodies(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	size := int64(1 << 30)
	if testing.Short() {
		size >>= 4
	}
	bin := httpbin("bin", 1)
	c := &bin.Spec.Template.Spec.Containers[0]
	c.Args = append(c.Args, "-max-body-size="+strconv.FormatInt(size, 10), "-max-duration=10m")
	s.create(bin, service("bin", app("bin"), port("http", 80, 8080)))
	s.available("bin")
	s.sandbox("route", "deploy/bin")
	s.sandbox("fork", "deploy/bin", "--name=pr-1", "--key=key-1", "--env=X=1")
	fork := s.hosts(sandbox.LabelSandbox + "=pr-1")[0]
	o := s.open("pr-1") // the only Service there is

	resp, body := o.get(o.URL + "/headers")
	if by := resp.Header.Get(sandbox.HeaderServedBy); by != fork || !strings.Contains(body, `"sandbox-key=key-1"`) {
		t.Errorf("served by %q, want %q: %s", by, fork, body)
	}
	resp, body = o.get(o.BaselineURL+"/headers", "baggage", "a=b,sandbox-key=key-1", sandbox.DefaultHeader, "key-1")
	if by := resp.Header.Get(sandbox.HeaderServedBy); by != "" || strings.Contains(body, "key-1") || !strings.Contains(body, `"a=b"`) {
		t.Errorf("served by %q, want the baseline: %s", by, body)
	}

	// A redirect to the Service's own name in the cluster goes to its preview; one that leaves is named.
	resp, _ = o.get(o.URL + "/redirect-to?status_code=302&url=http://bin." + s.name + ".svc.cluster.local/get?x=1")
	if to := resp.Header.Get("Location"); to != o.URL+"/get?x=1" {
		t.Errorf("redirected to %q", to)
	}
	resp, _ = o.get(o.URL + "/redirect-to?status_code=302&url=https://shop.example/login")
	if to := resp.Header.Get("Location"); to != "https://shop.example/login" {
		t.Errorf("redirected to %q", to)
	}
	eventually(t, 60*time.Second, "the host that escaped is named", func(context.Context) error {
		if said := o.said.String(); !strings.Contains(said, "redirects to https://shop.example, which is no preview") {
			return fmt.Errorf("said %q", said)
		}
		return nil
	})

	events, err := o.client.Get(o.URL + "/sse?count=3&duration=1500ms&delay=0s")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	var at []time.Time
	for lines := bufio.NewScanner(events.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data:") {
			at = append(at, time.Now())
		}
	}
	if len(at) != 3 || at[2].Sub(at[0]) < 500*time.Millisecond {
		t.Errorf("events came at %v", at)
	}

	o.large(size)
}

// large sends and fetches size bytes and bounds the memory that takes.
func (o *opened) large(size int64) {
	o.t.Helper()
	idle := o.memory("VmRSS")
	o.forgetPeak()
	begun := time.Now()
	resp, err := o.client.Get(fmt.Sprintf("%s/range/%d", o.URL, size))
	if err != nil {
		o.t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil || n != size {
		o.t.Fatalf("fetched %d of %d bytes: %v", n, size, err)
	}
	o.t.Logf("fetched %d MiB in %s", n>>20, time.Since(begun).Round(time.Millisecond))

	begun = time.Now()
	ctx, cancel := context.WithTimeout(o.t.Context(), 5*time.Minute)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(o.URL, "http")+"/websocket/echo", &websocket.DialOptions{HTTPClient: o.client})
	if err != nil {
		o.t.Fatal(err)
	}
	defer ws.CloseNow()
	const message = 1 << 20
	ws.SetReadLimit(2 * message)
	sent := make([]byte, message)
	_, _ = rand.Read(sent)
	for range size / message {
		if err := ws.Write(ctx, websocket.MessageBinary, sent); err != nil {
			o.t.Fatal(err)
		}
		if _, got, err := ws.Read(ctx); err != nil || !bytes.Equal(got, sent) {
			o.t.Fatalf("echoed %d bytes: %v", len(got), err)
		}
	}
	_ = ws.Close(websocket.StatusNormalClosure, "")
	o.t.Logf("sent %d MiB, and had them echoed, in %s", size>>20, time.Since(begun).Round(time.Millisecond))
	peak := o.memory("VmHWM")
	o.t.Logf("memory: %d KiB idle, %d KiB at most", idle>>10, peak>>10)
	if peak > idle+16<<20 {
		o.t.Errorf("memory rose by %d KiB", (peak-idle)>>10)
	}
}

// forgetPeak forgets the peak of the process's memory that there was so far: proc(5).
func (o *opened) forgetPeak() {
	o.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", o.cmd.Process.Pid), []byte("5"), 0); err != nil {
		o.t.Fatal(err)
	}
}

// memory returns a figure of the process's /proc/PID/status, in bytes.
func (o *opened) memory(name string) int64 {
	o.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.cmd.Process.Pid))
	if err != nil {
		o.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				o.t.Fatal(err)
			}
			return n << 10
		}
	}
	o.t.Fatalf("no %s", name)
	return 0
}

func TestOpenPassesEveryKindOfGRPCCall(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(simple("interop", 1, corev1.Container{
		Name: "app", Image: apps.GRPC, Ports: []corev1.ContainerPort{{ContainerPort: 10000}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstrFrom(10000)}}, PeriodSeconds: 1},
		Resources:      requests(),
	}), service("interop", app("interop"), port("grpc", 10000, 10000)))
	s.available("interop")
	s.sandbox("route", "deploy/interop")
	s.sandbox("fork", "deploy/interop", "--name=pr-1", "--env=X=1")
	fork := s.pods(sandbox.LabelSandbox + "=pr-1")[0]
	for name, atLeast := range map[string]int64{
		"large_unary": 271828, "client_streaming": 75686, "server_streaming": 100, "ping_pong": 75686, "status_code_and_message": 0,
		"custom_metadata": 0, "cancel_after_first_response": 0,
	} {
		before := received(t, fork)
		r := s.trySandbox("open", "pr-1", "--", "sh", "-c",
			s.interop+` --server_host=127.0.0.1 --server_port="${SANDBOX_URL##*:}" --additional_metadata=x-sandbox-key:nobodys --test_case=`+name)
		if r.err != nil {
			t.Errorf("%s: %v", name, r)
		}
		if got := received(t, fork) - before; got < atLeast {
			t.Errorf("%s: only %d bytes reached the fork", name, got)
		}
	}
}

func TestOpenSurvivesKilledPodsAndLostForwards(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 2), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	between := newBreaker(t, s.config.Host)
	s.env = append(s.env, "KUBECONFIG="+between.kubeconfig(s.kubeconfig))
	o := s.open("pr-1", "svc/api:80")

	pod := func(url string) (string, error) {
		resp, body, err := o.try(url + "/api/info")
		var a answer
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s %s", resp.Status, body)
		}
		if err == nil {
			err = json.Unmarshal([]byte(body), &a)
		}
		if err == nil && (a.Message != baselineMessage) != (url == o.URL) {
			o.t.Errorf("%s was answered by %v", url, a)
		}
		return a.Hostname, err
	}
	// recovers checks that nobody waits longer than 3 s, or fails for longer, until each address is answered by another than gone.
	recovers := func(what, gone string) {
		t.Helper()
		begun := time.Now()
		answered, longest := begun, time.Duration(0)
		var failures []error
		for _, url := range []string{o.BaselineURL, o.URL} {
			eventually(t, 60*time.Second, what, func(context.Context) error {
				by, err := pod(url)
				if err != nil {
					failures = append(failures, err)
					return err
				}
				longest = max(longest, time.Since(answered))
				answered = time.Now()
				if by == gone {
					return fmt.Errorf("still answered by %s", by)
				}
				return nil
			})
		}
		t.Logf("%s: over after %s; longest without an answer: %s; failures: %v", what, time.Since(begun).Round(time.Millisecond), longest.Round(time.Millisecond), failures)
		if longest > 3*time.Second {
			t.Errorf("%s: took %s to recover", what, longest)
		}
	}
	recovers("at first", "")
	for range 2 { // a pod of the baseline, which the forward leads to
		victim, err := pod(o.BaselineURL)
		if err != nil {
			t.Fatal(err)
		}
		s.kubectl("delete", "pod", victim, "--grace-period=1", "--wait=false")
		recovers("pod "+victim+" is killed", victim)
		s.available("api")
	}
	between.cut()
	recovers("all connections to the API server are cut", "")
	between.freeze()
	recovers("all connections to the API server go silent", "")

	// The one pod that there is: requests wait for its successor.
	s.kubectl("scale", "deploy/api", "--replicas=1")
	s.available("api")
	victim, err := pod(o.BaselineURL)
	if err != nil {
		t.Fatal(err)
	}
	s.kubectl("delete", "pod", victim, "--wait=false")
	eventually(t, 60*time.Second, "the successor answers", func(context.Context) error {
		now, err := pod(o.BaselineURL)
		if err == nil && now == victim {
			err = errors.New("still the old one")
		}
		return err
	})
}

// A breaker is a TCP proxy in front of the API server that breaks connections.
type breaker struct {
	t      *testing.T
	l      net.Listener
	server string

	mu    sync.Mutex
	conns []*net.TCPConn
}

func newBreaker(t *testing.T, server string) *breaker {
	t.Helper()
	c := &breaker{t: t, l: must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")), server: strings.TrimPrefix(server, "https://")}
	go func() {
		for {
			in, err := c.l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", c.server)
			if err != nil {
				_ = in.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, in.(*net.TCPConn), out.(*net.TCPConn))
			c.mu.Unlock()
			pass := func(dst, src net.Conn) {
				_, err := io.Copy(dst, src)
				if !errors.Is(err, os.ErrDeadlineExceeded) { // frozen connections are left open, and nothing is read from them
					_ = dst.Close()
					_ = src.Close()
				}
			}
			go pass(out, in)
			go pass(in, out)
		}
	}()
	t.Cleanup(func() {
		_ = c.l.Close()
		c.cut()
	})
	return c
}

// cut ends every connection with a reset.
func (c *breaker) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.SetLinger(0)
		_ = conn.Close()
	}
	c.conns = nil
}

// freeze lets every connection that there is pass nothing any more, for good, as a VPN does that has gone away.
func (c *breaker) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// kubeconfig writes one that leads to the API server by the breaker.
func (c *breaker) kubeconfig(path string) string {
	c.t.Helper()
	config := must[*clientcmdapi.Config](c.t)(clientcmd.LoadFromFile(path))
	host, _, _ := net.SplitHostPort(c.server)
	for _, cluster := range config.Clusters {
		cluster.Server, cluster.TLSServerName = "https://"+c.l.Addr().String(), host
	}
	out := c.t.TempDir() + "/kubeconfig"
	if err := clientcmd.WriteToFile(*config, out); err != nil {
		c.t.Fatal(err)
	}
	return out
}
