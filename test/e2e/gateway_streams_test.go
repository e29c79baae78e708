package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func passesStreams(t *testing.T, g *gatewayWithin) {
	s := g.space
	size := int64(1 << 30)
	if testing.Short() {
		size >>= 4
	}
	bin := httpbin("bin", 1)
	bin.Spec.Template.Spec.Containers[0].Args = append(bin.Spec.Template.Spec.Containers[0].Args, "-max-body-size="+strconv.FormatInt(size, 10), "-max-duration=10m")
	s.create(bin, service("bin", app("bin"), port("http", 80, 8080)), sink("sink"), podinfoService("sink"), simple("interop", 1, corev1.Container{
		Name: "app", Image: apps.GRPC, Ports: []corev1.ContainerPort{{ContainerPort: 10000}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstrFrom(10000)}}, PeriodSeconds: 1},
		Resources:      requests(),
	}), service("interop", app("interop"), port("grpc", 10000, 10000)))
	tokens := map[string]string{}
	for _, name := range []string{"bin", "sink", "interop"} {
		s.available(name)
		s.sandbox("route", "deploy/"+name)
	}
	for _, name := range []string{"bin", "sink", "interop"} {
		s.sandbox("fork", "deploy/"+name, "--name=pr-1", "--env=X=1")
		tokens[name] = g.token(s, "pr-1", "svc/"+name)
	}
	host := func(name string) string { return name + "--pr-1--" + s.name + "." + previewDomain }
	g.answers(host("bin"), tokens["bin"], 200)
	g.answers(host("sink"), tokens["sink"], 200)

	events, err := g.client.Do(g.request(t.Context(), http.MethodGet, host("bin"), "/sse?count=3&duration=1500ms&delay=0s", nil, tokens["bin"]))
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
		t.Errorf("events came at %v: %s", at, events.Status)
	}

	g.calls(host("interop"), tokens["interop"])

	within := g.memory()
	idle := within("VmRSS")
	g.webSocket(host("bin"), tokens["bin"])
	resp, err := g.client.Do(g.request(t.Context(), http.MethodGet, host("bin"), fmt.Sprintf("/range/%d", size), nil, tokens["bin"]))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil || n != size {
		t.Errorf("fetched %d of %d bytes: %s %v", n, size, resp.Status, err)
	}
	for kind, length := range map[string]int64{"of known length": size, "in chunks": -1} {
		q := g.request(t.Context(), http.MethodPost, host("sink"), upload, symbols(size), tokens["sink"])
		q.ContentLength = length
		uploaded(t, g.client, q, kind)
	}
	peak := within("VmHWM")
	for pod := range idle {
		t.Logf("memory of %s: %d KiB idle, %d KiB at most", pod, idle[pod]>>10, peak[pod]>>10)
		if peak[pod] == 0 || peak[pod] > idle[pod]+16<<20 {
			t.Errorf("memory of %s rose by %d KiB", pod, (peak[pod]-idle[pod])>>10)
		}
	}
}

// calls makes gRPC calls of all four kinds.
func (g *gatewayWithin) calls(host, token string) {
	g.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", g.h2c)
		}))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	name, value, _ := strings.Cut(token, ": ")
	ctx := metadata.AppendToOutgoingContext(g.t.Context(), strings.ToLower(name), value, sandbox.DefaultHeader, "nobodys")
	client := testgrpc.NewTestServiceClient(conn)
	eventually(g.t, 30*time.Second, "calls are let in", func(context.Context) error {
		_, err := client.EmptyCall(ctx, &testgrpc.Empty{})
		return err
	})
	fork := g.pods(sandbox.LabelSandbox + "=pr-1," + sandbox.LabelWorkload + "=deployment.interop")
	if len(fork) != 1 {
		g.t.Fatalf("pods of the fork: %d", len(fork))
	}
	before := received(g.t, fork[0])
	const many, large = 20, 50000
	payload := &testgrpc.Payload{Body: make([]byte, large)}
	if got, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: large, Payload: payload}); err != nil || len(got.GetPayload().GetBody()) != large {
		g.t.Errorf("one for one: %d bytes, %v", len(got.GetPayload().GetBody()), err)
	}
	in, err := client.StreamingInputCall(ctx)
	for range many {
		if err == nil {
			err = in.Send(&testgrpc.StreamingInputCallRequest{Payload: payload})
		}
	}
	if err != nil {
		g.t.Fatal(err)
	}
	if got, err := in.CloseAndRecv(); err != nil || got.GetAggregatedPayloadSize() != many*large {
		g.t.Errorf("one for many: %v, %v", got, err)
	}
	wanted := &testgrpc.StreamingOutputCallRequest{Payload: payload}
	for range many {
		wanted.ResponseParameters = append(wanted.ResponseParameters, &testgrpc.ResponseParameters{Size: large})
	}
	out := must[grpc.ServerStreamingClient[testgrpc.StreamingOutputCallResponse]](g.t)(client.StreamingOutputCall(ctx, wanted))
	for i := range many + 1 {
		if got, err := out.Recv(); (err == nil) != (i < many) || err == nil && len(got.GetPayload().GetBody()) != large || err != nil && !errors.Is(err, io.EOF) {
			g.t.Fatalf("many for one: message %d: %v", i, err)
		}
	}
	both := must[grpc.BidiStreamingClient[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse]](g.t)(client.FullDuplexCall(ctx))
	for i := range many { // each message is answered before the next is sent
		err := both.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: large}}, Payload: payload})
		if err != nil {
			g.t.Fatal(err)
		}
		if got, err := both.Recv(); err != nil || len(got.GetPayload().GetBody()) != large {
			g.t.Fatalf("many for many: message %d: %v", i, err)
		}
	}
	_ = both.CloseSend()
	if _, err := both.Recv(); !errors.Is(err, io.EOF) {
		g.t.Errorf("many for many: ended by %v", err)
	}
	if got := received(g.t, fork[0]) - before; got < 271828+2*75686 {
		g.t.Errorf("only %d bytes of the calls reached the fork", got)
	}
}

// webSocket has messages echoed.
func (g *gatewayWithin) webSocket(host, token string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	name, value, _ := strings.Cut(token, ": ")
	ws, _, err := websocket.Dial(ctx, "ws://"+g.http+"/websocket/echo", &websocket.DialOptions{
		HTTPClient: g.client, Host: host, HTTPHeader: http.Header{name: {value}}})
	if err != nil {
		g.t.Error(err)
		return
	}
	defer ws.CloseNow()
	for i := range 100 {
		sent := strings.Repeat(strconv.Itoa(i), 100)
		if err := ws.Write(ctx, websocket.MessageText, []byte(sent)); err != nil {
			g.t.Error(err)
			return
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != sent {
			g.t.Errorf("echoed %q: %v", got, err)
			return
		}
	}
	_ = ws.Close(websocket.StatusNormalClosure, "")
}

// memory forgets the peaks of the gateway's memory so far, and returns what reads a figure of /proc/PID/status, in bytes by pod:
// the cluster runs on this machine.
func (g *gatewayWithin) memory() func(figure string) map[string]int64 {
	g.t.Helper()
	processes := map[string]string{}
	for _, p := range g.gatewayPods() {
		for _, dir := range must[[]string](g.t)(filepath.Glob("/proc/[0-9]*")) {
			cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup")) // it may have ended
			cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			if strings.Contains(string(cgroup), string(p.UID)) && strings.Contains(string(cmdline), "--domain=") {
				processes[p.Name] = dir
			}
		}
		if processes[p.Name] == "" {
			g.t.Fatalf("no process of pod %s on this machine", p.Name)
		}
	}
	for _, dir := range processes {
		if err := os.WriteFile(filepath.Join(dir, "clear_refs"), []byte("5"), 0); err != nil { // proc(5)
			g.t.Fatal(err)
		}
	}
	return func(figure string) map[string]int64 {
		out := map[string]int64{}
		for pod, dir := range processes {
			for line := range strings.Lines(string(must[[]byte](g.t)(os.ReadFile(filepath.Join(dir, "status"))))) {
				if rest, ok := strings.CutPrefix(line, figure+":"); ok {
					out[pod] = must[int64](g.t)(strconv.ParseInt(strings.Fields(rest)[0], 10, 64)) << 10
				}
			}
		}
		return out
	}
}
