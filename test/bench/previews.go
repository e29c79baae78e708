package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

const (
	previewed = "pr-1"         // the sandbox that is entered
	entry     = "web"          // the Service that it is entered by
	domain    = "preview.test" // the gateway's
	perBurst  = 400            // requests of one measurement
)

// A way is a way into the sandbox, which all lead to the same pod.
type way struct {
	name    string
	address string // where requests are sent
	host    string
	pids    []int // of the processes whose CPU time counts
}

// previews measures what the ways into a sandbox add to a request, in turn, so that whatever else the machine does falls on all.
func (b *bench) previews(ctx context.Context, root string, rounds int) (text string, err error) {
	var ended []func()
	defer func() {
		for _, end := range slices.Backward(ended) {
			end()
		}
	}()
	start := func(name string, args ...string) (int, io.Reader, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+b.kubeconfig, "PATH="+b.programs+":"+os.Getenv("PATH"))
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, nil, err
		}
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			return 0, nil, fmt.Errorf("%s: %w", name, err)
		}
		ended = append(ended, func() {
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait()
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s:\n%s\n", name, said.String())
			}
		})
		return cmd.Process.Pid, out, nil
	}
	token, err := b.entered(ctx)
	if err != nil {
		return "", err
	}
	service, err := b.client.CoreV1().Services(b.namespace).Get(ctx, entry, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	direct := service.Spec.ClusterIP + ":80"

	ports, err := free(5)
	if err != nil {
		return "", err
	}
	at := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[i]) }
	dir, err := os.MkdirTemp("", "bench-previews-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	program := filepath.Join(dir, "sandbox-webhook")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./cmd/sandbox-webhook")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	gateway, _, err := start(program, "gateway", "--domain="+domain, "--address="+at(0), "--admin-address="+at(1))
	if err != nil {
		return "", err
	}
	forward, _, err := start(filepath.Join(b.programs, "kubectl"), "port-forward", "--namespace="+b.namespace, "service/"+entry, strconv.Itoa(ports[2])+":80")
	if err != nil {
		return "", err
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, []byte(nginxConfig(dir, map[string]string{at(3): direct, at(4): at(2)})), 0o600); err != nil {
		return "", err
	}
	nginx, _, err := start("nginx", "-c", config, "-p", dir, "-e", filepath.Join(dir, "error.log"))
	if err != nil {
		return "", fmt.Errorf("%w (Debian's package nginx-light has it)", err)
	}
	opened, out, err := start(filepath.Join(b.programs, "kubectl-sandbox"), "open", previewed, "svc/"+entry, "--namespace="+b.namespace, "--port=0", "-o", "json")
	if err != nil {
		return "", err
	}
	var addresses struct{ Port int }
	if err := json.NewDecoder(out).Decode(&addresses); err != nil {
		return "", fmt.Errorf("open: %w", err)
	}
	label := preview.Label(entry, previewed, b.namespace) + "." + domain
	ways := []*way{
		{name: "none: the Service itself", address: direct},
		{name: "nginx", address: at(3), pids: []int{nginx}},
		{name: "gateway", address: at(0), pids: []int{gateway}},
		{name: "nginx before `kubectl port-forward`", address: at(4), pids: []int{nginx, forward}},
		{name: "`kubectl sandbox open`", address: "127.0.0.1:" + strconv.Itoa(addresses.Port), host: fmt.Sprintf("%s.localhost:%d", previewed, addresses.Port), pids: []int{opened}},
	}
	for _, w := range ways {
		if w.host == "" {
			w.host = label
		}
	}
	return b.compare(ctx, ways, token, rounds)
}

// entered makes a sandbox, a Service by which it is entered, whose pods have no router, and a share of it; it returns the token.
func (b *bench) entered(ctx context.Context) (string, error) {
	for _, args := range [][]string{
		{"create", "deployment", entry, "--image=" + apps.Podinfo(0)},
		{"expose", "deployment", entry, "--port=80", fmt.Sprintf("--target-port=%d", port)},
		{"rollout", "status", "deployment/" + entry, "--timeout=60s"},
		{"sandbox", "fork", "deployment/api", "--name=" + previewed, "--key=" + previewed, "--image=" + apps.Podinfo(1)},
	} {
		if err := b.kubectl(ctx, args...); err != nil {
			return "", err
		}
	}
	maps := b.client.CoreV1().ConfigMaps(b.namespace)
	owner, err := maps.Get(ctx, sandbox.ConfigMapName(previewed), metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	token := share.NewToken()
	_, err = maps.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:            sandbox.ShareName(previewed, share.Hash(token)[:8]),
			Labels:          map[string]string{sandbox.LabelRole: sandbox.RoleShare, sandbox.LabelSandbox: previewed},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}},
		},
		Data: share.Share{Hash: share.Hash(token), Service: entry, Expires: time.Now().Add(time.Hour)}.Data(),
	}, metav1.CreateOptions{})
	return token, err
}

// nginxConfig has nginx do what the ways in do to a head: the key in, other baggage kept, the customary forwarding fields. It takes
// no key out that came in, and asks nobody for a token. Servers are addresses, with where they lead.
func nginxConfig(dir string, servers map[string]string) string {
	var c strings.Builder
	fmt.Fprintf(&c, "daemon off;\nmaster_process off;\nworker_processes 1;\npid %s/pid;\nerror_log %s/error.log;\n", dir, dir)
	fmt.Fprintf(&c, "events { worker_connections 1024; }\nhttp {\n  access_log off;\n  keepalive_requests 1000000;\n")
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&c, "  %s_temp_path %s/%s;\n", kind, dir, kind)
	}
	fmt.Fprintf(&c, "  map $http_baggage $members { '' '%s=%s'; default '%s=%s,$http_baggage'; }\n",
		sandbox.DefaultMember, previewed, sandbox.DefaultMember, previewed)
	i := 0
	for at, to := range servers {
		i++
		fmt.Fprintf(&c, "  upstream u%d { server %s; keepalive 64; keepalive_requests 1000000; }\n", i, to)
		fmt.Fprintf(&c, "  server { listen %s; location / {\n    proxy_pass http://u%d; proxy_http_version 1.1; proxy_set_header Connection '';\n", at, i)
		for _, f := range [][2]string{{"Host", "$http_host"}, {sandbox.DefaultHeader, previewed}, {"baggage", "$members"}, {"X-Forwarded-For", "$remote_addr"},
			{"X-Forwarded-Host", "$http_host"}, {"X-Forwarded-Proto", "$scheme"}, {"Authorization", ""}} {
			fmt.Fprintf(&c, "    proxy_set_header %s '%s';\n", f[0], f[1])
		}
		fmt.Fprint(&c, "    add_header X-Robots-Tag 'noindex, nofollow';\n  } }\n")
	}
	return c.String() + "}\n"
}

// free returns ports of this machine that were free a moment ago.
func free(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		address, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, errors.New("no TCP address")
		}
		ports = append(ports, address.Port)
	}
	return ports, nil
}

// A client is one kept-alive connection that sends the same request again and again, as a browser would head it.
type client struct {
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
}

func (w *way) dial(ctx context.Context, token string) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.address)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn), []byte("GET /healthz HTTP/1.1\r\nHost: " + w.host + "\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36\r\n" +
		"Accept: application/json, */*;q=0.1\r\nAccept-Language: en\r\nAccept-Encoding: gzip, deflate\r\nSec-Fetch-Site: same-origin\r\n" +
		"Sec-Fetch-Mode: cors\r\nCookie: theme=dark; session=0123456789abcdef\r\nBaggage: session=7,user=ann\r\nAuthorization: " +
		share.Scheme + " " + token + "\r\n\r\n")}, nil
}

// ask sends the request once and waits for the whole answer.
func (c *client) ask() (time.Duration, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	begun := time.Now()
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(resp.Body)
	took := time.Since(begun)
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s", resp.Status, body)
	}
	return took, errors.Join(err, resp.Body.Close())
}

// cpu returns the CPU time that the processes have used, of all their threads.
func (w *way) cpu() (time.Duration, error) {
	var total time.Duration
	for _, pid := range w.pids {
		var t unix.Timespec
		// The clock of another process's CPU time, to the nanosecond: clock_getcpuclockid(3), whose numbers Linux makes so.
		if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
			return 0, fmt.Errorf("CPU time of process %d of %s: %w", pid, w.name, err)
		}
		total += time.Duration(t.Nano())
	}
	return total, nil
}
