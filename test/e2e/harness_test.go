package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/audit"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A world is the cluster all tests share, with the product installed on it.
type world struct {
	kubeconfig string
	programs   string // directory of kubectl, kubectl-sandbox and helm
	release    string // namespace of the chart's release
	interop    string // path of the gRPC interop client
	cluster    *cluster.Cluster
	appliers   *appliers.Tools
	config     *rest.Config
	client     kubernetes.Interface
	ledger     audit.Ledger // of failures of the product's own
}

func newWorld(kubeconfig, programs, release string) (*world, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit: many tests share it
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &world{kubeconfig: kubeconfig, programs: programs, release: release, config: config, client: client}, nil
}

// webhookReady waits until every replica of the webhook is ready, and the API server reaches it: kube-proxy learns of a ready
// pod a moment after it is.
func (w *world) webhookReady(t *testing.T) {
	t.Helper()
	defer w.webhookAnswers(t)
	r := run(w.command(context.WithoutCancel(t.Context()), "kubectl", "-n", w.release, "rollout", "status", "deployment/sandbox-webhook", "--timeout=90s"))
	if r.err != nil {
		t.Fatal(r)
	}
}

// webhookAnswers waits until a sandbox that is none is refused by the webhook itself.
func (w *world) webhookAnswers(t *testing.T) {
	t.Helper()
	none := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "sandbox-none", Labels: map[string]string{sandbox.LabelRole: sandbox.RoleSandbox}}}
	reached, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	var last error
	err := wait.PollUntilContextCancel(reached, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, last = w.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, none, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return last != nil && strings.Contains(last.Error(), "denied the request"), nil
	})
	if err != nil {
		t.Fatalf("the webhook does not answer: %v: %v", err, last)
	}
}

// A space is one test's namespace.
type space struct {
	*world
	t    *testing.T
	name string
	env  []string // added to the environment of programs
}

// newSpace makes a namespace for t and deletes it after the test; a failed test's is described first.
func newSpace(t *testing.T, labels ...string) *space {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-", Labels: map[string]string{"e2e": "true"}}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		ns.Labels[k] = v
	}
	made, err := shared.client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &space{world: shared, t: t, name: made.Name}
	shared.ledger.Owns(t.Name(), s.name)
	t.Cleanup(func() {
		if t.Failed() {
			s.describe()
			if os.Getenv("E2E_KEEP") != "" {
				return
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := shared.client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete namespace: %v", err)
		}
	})
	return s
}

// describe logs what a reader needs of a failed test's namespace.
func (s *space) describe() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods,deployments,services,configmaps", "-o", "wide", "--show-labels"},
		{"get", "events", "--sort-by=.lastTimestamp"},
	} {
		out, _ := s.command(ctx, "kubectl", append([]string{"-n", s.name}, args...)...).CombinedOutput()
		s.t.Logf("kubectl %s:\n%s", strings.Join(args, " "), tail(string(out), 12000))
	}
}

// command returns a program of ours set up to talk to the cluster.
func (w *world) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return w.commandAt(ctx, filepath.Join(w.programs, program), args...)
}

func (w *world) commandAt(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.kubeconfig, "PATH="+w.programs+":"+os.Getenv("PATH"), "NO_COLOR=1")
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// A result is what a program printed and how it ended.
type result struct {
	args           []string
	stdout, stderr string
	err            error
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%s\n(%v, %s)\n%s%s", strings.Join(r.args, " "), r.err, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

func run(cmd *exec.Cmd) result {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	start := time.Now()
	err := cmd.Run()
	args := append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...)
	return result{args, out.String(), errOut.String(), err, time.Since(start)}
}

// trySandbox runs `kubectl sandbox` in the namespace.
func (s *space) trySandbox(args ...string) result {
	s.t.Helper()
	cmd := s.command(s.t.Context(), "kubectl", append([]string{"sandbox", "-n", s.name}, args...)...)
	cmd.Env = append(cmd.Env, s.env...)
	return run(cmd)
}

// sandbox runs `kubectl sandbox` in the namespace; it must succeed.
func (s *space) sandbox(args ...string) result {
	s.t.Helper()
	r := s.trySandbox(args...)
	if r.err != nil {
		s.t.Fatalf("%v", r)
	}
	return r
}

// kubectl runs kubectl in the namespace; it must succeed.
func (s *space) kubectl(args ...string) string {
	s.t.Helper()
	r := run(s.command(s.t.Context(), "kubectl", append([]string{"-n", s.name}, args...)...))
	if r.err != nil {
		s.t.Fatalf("%v", r)
	}
	return r.stdout
}

// shell runs a line as a person would who pastes it: in bash, in the clone, with the programs on PATH.
func (s *space) shell(line string) result {
	s.t.Helper()
	kubeconfig := filepath.Join(s.t.TempDir(), "kubeconfig")
	raw, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := clientcmd.WriteToFile(*raw, kubeconfig); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), "bash", "-euc", line)
	cmd.Dir = filepath.Dir(s.programs) // the clone, where the chart is
	cmd.Env = append(os.Environ(), "PATH="+s.programs+":"+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig)
	return run(cmd)
}

// eventually waits until check returns nil, and fails the test with its last error after the time given.
func eventually(t *testing.T, within time.Duration, what string, check func(context.Context) error) time.Duration {
	t.Helper()
	start := time.Now()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 25*time.Millisecond, within, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: not within %s: %v", what, within, errors.Join(last, err))
	}
	return time.Since(start)
}

// create creates the objects and registers nothing: the namespace's deletion takes them.
func (s *space) create(objects ...any) {
	s.t.Helper()
	ctx := s.t.Context()
	for _, o := range objects {
		var err error
		switch o := o.(type) {
		case *appsv1.Deployment:
			_, err = s.client.AppsV1().Deployments(s.name).Create(ctx, o, metav1.CreateOptions{})
		case *appsv1.StatefulSet:
			_, err = s.client.AppsV1().StatefulSets(s.name).Create(ctx, o, metav1.CreateOptions{})
		case *appsv1.DaemonSet:
			_, err = s.client.AppsV1().DaemonSets(s.name).Create(ctx, o, metav1.CreateOptions{})
		case *corev1.Service:
			_, err = s.client.CoreV1().Services(s.name).Create(ctx, o, metav1.CreateOptions{})
		case *corev1.ConfigMap:
			_, err = s.client.CoreV1().ConfigMaps(s.name).Create(ctx, o, metav1.CreateOptions{})
		case *corev1.Pod:
			_, err = s.client.CoreV1().Pods(s.name).Create(ctx, o, metav1.CreateOptions{})
		case []*corev1.Service:
			for _, one := range o {
				s.create(one)
			}
		default:
			err = fmt.Errorf("can't create a %T", o)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// available waits until the Deployment's rollout is complete and no pod of an older one is left.
func (s *space) available(name string) {
	s.t.Helper()
	eventually(s.t, 90*time.Second, "deployment "+name+" is rolled out", func(ctx context.Context) error {
		d, err := s.client.AppsV1().Deployments(s.name).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		want := *d.Spec.Replicas
		if st := d.Status; st.ObservedGeneration < d.Generation || st.UpdatedReplicas != want || st.AvailableReplicas != want || st.Replicas != want {
			return fmt.Errorf("want %d replicas, status %+v", want, st)
		}
		pods, err := s.client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return err
		}
		if len(pods.Items) != int(want) {
			return fmt.Errorf("want %d pods, there are %d", want, len(pods.Items))
		}
		return nil
	})
}

// pods returns the pods that match a label selector and are not being deleted.
func (s *space) pods(selector string) []corev1.Pod {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		s.t.Fatal(err)
	}
	var live []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			live = append(live, p)
		}
	}
	return live
}

// address returns HOST:PORT of a Service's port, by its cluster address: tests run on the node.
func (s *space) address(service, port string) string {
	s.t.Helper()
	svc, err := s.client.CoreV1().Services(s.name).Get(s.t.Context(), service, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range svc.Spec.Ports {
		if p.Name == port {
			return fmt.Sprintf("%s:%d", svc.Spec.ClusterIP, p.Port)
		}
	}
	s.t.Fatalf("service %s has no port %q", service, port)
	return ""
}

// serving waits until a Service answers on its address.
func (s *space) serving(address string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, address+" answers", func(ctx context.Context) error {
		c := newH1(address)
		defer c.close()
		_, err := c.call(ctx, carrier{})
		return err
	})
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "..." + s[len(s)-n:]
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func readAll(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, 1<<20))
	return string(b)
}
