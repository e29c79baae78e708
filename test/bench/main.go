// Command bench measures, on a real cluster with cached images, how long it takes from `kubectl sandbox fork` to the first
// keyed request that the fork answers; beside a plain `kubectl create deployment` and the first request that its pod
// answers. The two take turns, so that whatever else the machine does falls on both. Then it counts the API calls of a fork,
// alone and beside many sandboxes. And it measures what the ways into a sandbox add to a request, beside nginx on the same way; and
// what the variants of an experiment cost, beside copies of the whole application.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func main() {
	root := flag.String("root", ".", "root of the repository, whose cluster is used")
	pairs := flag.Int("n", 20, "how many of each")
	readme := flag.String("readme", "", "file in which to replace the results")
	only := flag.String("only", "", `what alone to measure: "forks", "previews" or "variants"`)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *pairs, *readme, *only); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, root string, pairs int, readme, only string) (err error) {
	b, err := prepare(ctx, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clean()) }()
	for _, part := range []struct {
		name    string
		measure func() (string, error)
	}{
		{"forks", func() (string, error) { return b.forks(ctx, pairs) }},
		{"previews", func() (string, error) { return b.previews(ctx, root, pairs) }},
		{"variants", func() (string, error) { return b.variants(ctx, max(1, pairs/10)) }},
	} {
		if only != "" && only != part.name {
			continue
		}
		text, err := part.measure()
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		text = machine() + "\n\n" + text
		fmt.Println(text) //nolint:forbidigo // the program's output
		if readme != "" {
			if err := replaceResults(readme, part.name, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// forks measures what forks take.
func (b *bench) forks(ctx context.Context, pairs int) (string, error) {
	var plain, fork []time.Duration
	for i := range pairs + 1 {
		p, err := b.plain(ctx, i)
		if err != nil {
			return "", fmt.Errorf("plain: %w", err)
		}
		f, err := b.fork(ctx, i)
		if err != nil {
			return "", fmt.Errorf("fork: %w", err)
		}
		if i == 0 {
			continue // the first pair warms up: file caches, connections
		}
		fmt.Fprintf(os.Stderr, "%2d  plain %-8s fork %s\n", i, p.Round(time.Millisecond), f.Round(time.Millisecond))
		plain, fork = append(plain, p), append(fork, f)
	}
	counted, err := b.calls(ctx, sandboxes)
	if err != nil {
		return "", fmt.Errorf("calls: %w", err)
	}
	return results(plain, fork) + "\n" + callResults(counted), nil
}

const (
	port     = 9898 // podinfo's own default
	interval = 5 * time.Millisecond
	patience = 60 * time.Second
	// sandboxes are how many there are where the calls of a fork are counted among many.
	sandboxes = 200
)

type bench struct {
	programs, kubeconfig, namespace string
	client                          kubernetes.Interface
	address                         string // of the baseline's Service
}

// prepare makes a namespace with a routed baseline, which is made as the plain Deployments are.
func prepare(ctx context.Context, root string) (*bench, error) {
	c, err := cluster.New(cluster.Config{Root: root, Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	programs, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	b := &bench{programs: programs, kubeconfig: c.Kubeconfig()}
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	builder, err := apps.Builder(root, progress.New(os.Stderr))
	if err != nil {
		return nil, err
	}
	archives, err := apps.Archives(ctx, builder, apps.Catalogue())
	if err != nil {
		return nil, err
	}
	if err := c.Load(ctx, archives...); err != nil {
		return nil, err
	}
	ns, err := b.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	b.namespace = ns.Name
	for _, args := range [][]string{
		{"create", "deployment", "api", "--image=" + apps.Podinfo(0)},
		{"expose", "deployment", "api", "--port=80", fmt.Sprintf("--target-port=%d", port)},
		{"rollout", "status", "deployment/api", "--timeout=60s"},
		{"sandbox", "route", "deployment/api"},
	} {
		if err := b.kubectl(ctx, args...); err != nil {
			return nil, errors.Join(err, b.clean())
		}
	}
	service, err := b.client.CoreV1().Services(b.namespace).Get(ctx, "api", metav1.GetOptions{})
	if err != nil {
		return nil, errors.Join(err, b.clean())
	}
	b.address = service.Spec.ClusterIP + ":80"
	return b, nil
}

// clean removes the namespace with all that is in it.
func (b *bench) clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.client.CoreV1().Namespaces().Delete(ctx, b.namespace, metav1.DeleteOptions{})
}

func (b *bench) kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(b.programs, "kubectl"), append(args, "--namespace="+b.namespace)...) //nolint:gosec // ours
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.kubeconfig, "PATH="+b.programs+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// fork measures from the start of `kubectl sandbox fork` to the first answer of the fork to a keyed request.
func (b *bench) fork(ctx context.Context, i int) (time.Duration, error) {
	name := fmt.Sprintf("b%d", i)
	start := time.Now()
	answered := b.first(ctx, name, func() string { return b.address })
	if err := b.kubectl(ctx, "sandbox", "fork", "deployment/api", "--name="+name, "--key="+name, "--image="+apps.Podinfo(1)); err != nil {
		return 0, err
	}
	at, err := answered()
	if err != nil {
		return 0, err
	}
	return at.Sub(start), errors.Join(b.kubectl(ctx, "sandbox", "delete", name), b.gone(ctx, sandbox.LabelSandbox+"="+name))
}

// plain measures from the start of `kubectl create deployment` to the first answer of its pod.
func (b *bench) plain(ctx context.Context, i int) (time.Duration, error) {
	name := fmt.Sprintf("plain-%d", i)
	w, err := b.client.CoreV1().Pods(b.namespace).Watch(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	address := ""
	start := time.Now()
	answered := b.first(ctx, "", func() string {
		for address == "" {
			select {
			case e := <-w.ResultChan():
				if pod, ok := e.Object.(*corev1.Pod); ok && pod.Status.PodIP != "" {
					address = fmt.Sprintf("%s:%d", pod.Status.PodIP, port)
				}
			default:
				return ""
			}
		}
		return address
	})
	if err := b.kubectl(ctx, "create", "deployment", name, "--image="+apps.Podinfo(1)); err != nil {
		return 0, err
	}
	at, err := answered()
	if err != nil {
		return 0, err
	}
	return at.Sub(start), errors.Join(b.kubectl(ctx, "delete", "deployment", name), b.gone(ctx, "app="+name))
}

// first asks, every interval, until the new release answers, and tells when that was. While address returns nothing there is
// nobody to ask.
func (b *bench) first(ctx context.Context, key string, address func() string) func() (time.Time, error) {
	type outcome struct {
		at  time.Time
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		last := errors.New("nobody to ask")
		for {
			if a := address(); a != "" {
				last = ask(ctx, transport, a, key)
				if last == nil {
					done <- outcome{at: time.Now()}
					return
				}
			}
			select {
			case <-ctx.Done():
				done <- outcome{err: fmt.Errorf("%w: %w", ctx.Err(), last)}
				return
			case <-time.After(interval):
			}
		}
	}()
	return func() (time.Time, error) { o := <-done; return o.at, o.err }
}

// ask returns nil when the new release answered.
func ask(ctx context.Context, transport *http.Transport, address, key string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/info", nil)
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set(sandbox.DefaultHeader, key)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var info struct{ Message string }
	if err := json.Unmarshal(body, &info); resp.StatusCode != http.StatusOK || err != nil || info.Message != apps.Release(1) {
		return fmt.Errorf("%s %s", resp.Status, body)
	}
	return nil
}

// gone waits until no pod matches the selector, so that the next measurement has the machine to itself.
func (b *bench) gone(ctx context.Context, selector string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		list, err := b.client.CoreV1().Pods(b.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil || len(list.Items) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("pods %s are not gone: %w", selector, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
