package probe_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const root = "../.."

// patience bounds what takes a moment on an idle machine.
const patience = 2 * time.Minute

func build(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sandbox-probe")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/sandbox-probe")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// binaries builds programs of the catalogue, and returns the path of each image's.
func binaries(t *testing.T, refs ...string) map[string]string {
	t.Helper()
	builder, err := apps.Builder(root, progress.New(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{}
	for _, i := range apps.Only(refs...) {
		folders, err := builder.Ensure(t.Context(), i.Program)
		if err != nil {
			t.Fatal(err)
		}
		paths[i.Ref] = filepath.Join(folders[i.Program.Name], i.Binary)
	}
	return paths
}

// freePort returns a port of loopback that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// start runs a program until the test ends, and waits until it listens.
func start(t *testing.T, port, path string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // t's context has ended by now
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen on %s: %v", path, port, err)
		}
	}
}

// entry sends requests on by their key, as routers do, to ports of loopback; "" is the baseline's.
func entry(t *testing.T, ports map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(sandbox.DefaultHeader)
		if key != "" {
			w.Header().Set(sandbox.HeaderServedBy, "pod-"+key)
		}
		target := &url.URL{Scheme: "http", Host: "127.0.0.1:" + ports[key]}
		(&httputil.ReverseProxy{
			Rewrite:      func(p *httputil.ProxyRequest) { p.SetURL(target) },
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		}).ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// run runs the probe to its end and returns what it printed.
func run(t *testing.T, path string, args ...string) io.Reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("sandbox-probe %s: %v\n%s", strings.Join(args, " "), err, &log)
	}
	return io.MultiReader(&log, &out) // as a pod's log has both
}

func median(l result.Load, arm int) time.Duration {
	var all []time.Duration
	for _, r := range l.Rounds {
		all = slices.AppendSeq(all, r.Blocks[arm].Latencies.All())
	}
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

// HotROD's customer service: as it is, and with a database that is slower by its own option.
func TestLoad_SeesAVariantOfHotRODThatIsSlower(t *testing.T) {
	path := build(t)
	hotrod := binaries(t, apps.Hotrod)[apps.Hotrod]
	ports := map[string]string{"": freePort(t), "k-same": "", "k-slow": freePort(t), "k-gone": freePort(t)}
	ports["k-same"] = ports[""]
	for key, delay := range map[string]string{"": "10ms", "k-slow": "90ms"} {
		start(t, ports[key], hotrod, "customer", "--customer-service-port="+ports[key], "--fix-db-query-delay="+delay, "--fix-disable-db-conn-mutex",
			"--otel-exporter=stdout")
	}
	list := filepath.Join(t.TempDir(), "targets.txt")
	if err := os.WriteFile(list, []byte("GET /customer?customer=123\n\nGET /customer?customer=392\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := result.ReadLoad(run(t, path, "load", "--url="+entry(t, ports), "--requests="+list, "--rate=40", "--duration=8s", "--warm-up=1s", "--round=1s",
		"--variant=same=k-same", "--variant=slow=k-slow", "--variant=gone=k-gone", "--report-every=1s", "--timeout=30s"))
	if err != nil {
		t.Fatal(err)
	}
	if l.Incomplete != "" || len(l.Rounds) < 7 {
		t.Fatalf("%d rounds, incomplete %q", len(l.Rounds), l.Incomplete)
	}
	const baseline, same, slow, gone = 0, 2, 3, 4
	if d := median(l, slow) - median(l, baseline); d < 40*time.Millisecond {
		t.Errorf("slow is slower by %v in the median, and its database by 80 ms", d)
	}
	for _, r := range l.Rounds {
		for arm, b := range r.Blocks {
			if failed := b.Failed(); arm != gone && failed > 0 || arm == gone && b.Errors[result.ErrorServer] != b.Sent {
				t.Errorf("%s: of %d requests failed %v", l.Arms[arm].Name, b.Sent, b.Errors)
			}
		}
	}
	if pods := l.Totals[same].ServedBy; len(pods) != 1 || pods["pod-k-same"] == 0 {
		t.Errorf("same was served by %v", pods)
	}
}

// The kubelet ends a Job's pod by SIGTERM.
func TestLoad_EndedByASignalPrintsWhatItHas(t *testing.T) {
	path := build(t)
	podinfo := binaries(t, apps.Podinfo(0))[apps.Podinfo(0)]
	port := freePort(t)
	start(t, port, podinfo, "--port="+port)
	cmd := exec.CommandContext(t.Context(), path, "load", "--url=http://127.0.0.1:"+port, "--variant=a=k", "--rate=100", "--duration=1h",
		"--warm-up=0", "--round=100ms", "--report-every=200ms")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	var log bytes.Buffer
	signalled := false
	buffer := make([]byte, 64<<10)
	for {
		n, err := out.Read(buffer)
		log.Write(buffer[:n])
		if l, bad := result.ReadLoad(bytes.NewReader(log.Bytes())); !signalled && bad == nil && len(l.Rounds) > 2 {
			signalled = true
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	l, err := result.ReadLoad(&log)
	if err != nil || !strings.Contains(l.Incomplete, "ended after") || len(l.Rounds) < 3 {
		t.Errorf("%d rounds, incomplete %q, %v", len(l.Rounds), l.Incomplete, err)
	}
}

const versions = `
openapi: 3.0.3
info: {title: podinfo, version: "6"}
paths:
  /version:
    get:
      responses:
        "200":
          description: its version
          content:
            application/json:
              schema: {type: object, required: [version, commit], properties: {version: {type: string}, commit: {type: string}}}
  /status/{code}:
    get:
      parameters: [{name: code, in: path, required: true, schema: {type: integer}, example: 202}]
      responses:
        "202":
          description: what was asked for
          content:
            application/json:
              schema: {type: object, required: [status], properties: {status: {type: integer}}}
`

// podinfo keeps its contract. go-httpbin, which serves other things at the same paths, does not.
func TestContract_TellsWhoKeepsIt(t *testing.T) {
	path := build(t)
	images := binaries(t, apps.Podinfo(0), apps.Httpbin)
	ports := map[string]string{"": freePort(t), "k-other": freePort(t)}
	ports["k-same"] = ports[""]
	start(t, ports[""], images[apps.Podinfo(0)], "--port="+ports[""])
	start(t, ports["k-other"], images[apps.Httpbin], "-host=127.0.0.1", "-port="+ports["k-other"])
	document := filepath.Join(t.TempDir(), "openapi.yaml")
	if err := os.WriteFile(document, []byte(versions), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := result.ReadContract(run(t, path, "contract", "openapi", "--url="+entry(t, ports), "--document="+document,
		"--variant=same=k-same", "--variant=other=k-other", "--timeout=30s"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range c.Findings {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", f.Arm, f.Reason, f.Operation, f.Path)))
	}
	want := []string{
		"other ContentType GET /status/{code} 202", "other FieldGone GET /version /commit", "other FieldGone GET /version /version",
		"other SchemaViolated GET /version /commit", "other SchemaViolated GET /version /version",
	}
	if !slices.Equal(got, want) || c.Incomplete != "" {
		t.Errorf("got %q, incomplete %q; want %q", got, c.Incomplete, want)
	}
}

// podinfo's own gRPC services, by the reflection that it serves.
func TestContract_ReadsGRPCOfPodinfo(t *testing.T) {
	path := build(t)
	podinfo := binaries(t, apps.Podinfo(0))[apps.Podinfo(0)]
	port, grpc := freePort(t), freePort(t)
	start(t, grpc, podinfo, "--port="+port, "--grpc-port="+grpc)
	c, err := result.ReadContract(run(t, path, "contract", "grpc", "--target=127.0.0.1:"+grpc, "--variant=same=k"))
	if err != nil || len(c.Findings) > 0 {
		t.Fatalf("%v, %v", c.Findings, err)
	}
	if !slices.ContainsFunc(c.Operations, func(o result.Operation) bool { return o.Name == "grpc.health.v1.Health/Check" }) {
		t.Errorf("operations %v", c.Operations)
	}
}
