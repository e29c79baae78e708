package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
)

var update = flag.Bool("update", false, "write what failures print to testdata/failures")

// A mishap is a command that fails, for a reason that the command it prints mends.
type mishap struct {
	name    string // of the golden file
	setup   func(*space)
	args    []string
	mended  func(*space) // nil: the same command succeeds after the printed one was pasted
	already bool         // the printed command does all that was asked for
	serial  bool         // it takes something away from everybody
}

func routedAPI(s *space) {
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
}

func plainAPI(s *space) {
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
}

func noSandboxes(s *space) {
	if r := s.sandbox("list"); strings.Contains(r.stdout, "pr-1") {
		s.t.Errorf("the sandbox is still there: %v", r)
	}
}

func mishaps() []mishap {
	forkPR1 := []string{"fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image=" + apps.Podinfo(1)}
	return []mishap{
		{name: "unrouted-baseline", setup: plainAPI, args: forkPR1},
		{name: "wrong-container", setup: routedAPI, args: []string{"fork", "deploy/api", "--name=pr-1", "--image=web=" + apps.Podinfo(1)}, already: true},
		{name: "no-such-workload", setup: routedAPI, args: []string{"fork", "deploy/apo", "--name=pr-1", "--image=" + apps.Podinfo(1)},
			mended: func(s *space) { s.sandbox(forkPR1...) }},
		{name: "name-taken", setup: func(s *space) {
			routedAPI(s)
			s.kubectl("create", "configmap", "sandbox-pr-1")
		}, args: forkPR1, already: true},
		{name: "key-in-use", setup: func(s *space) {
			routedAPI(s)
			s.sandbox(forkPR1...)
		}, args: []string{"fork", "deploy/api", "--name=pr-2", "--key=key-1", "--image=" + apps.Podinfo(2)}, already: true},
		{name: "image-not-pulled", setup: routedAPI,
			args:   []string{"fork", "deploy/api", "--name=pr-1", "--image=127.0.0.1:1/podinfo:nope", "--timeout=10s"},
			mended: noSandboxes},
		{name: "crash-loop", setup: routedAPI,
			args:   []string{"fork", "deploy/api", "--name=pr-1", "--env=PODINFO_RANDOM_DELAY_UNIT=years", "--timeout=60s"},
			mended: noSandboxes},
		{name: "quota", setup: func(s *space) {
			routedAPI(s)
			_, err := s.client.CoreV1().ResourceQuotas(s.name).Create(s.t.Context(), &corev1.ResourceQuota{
				ObjectMeta: metav1.ObjectMeta{Name: "pods"},
				Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}},
			}, metav1.CreateOptions{})
			if err != nil {
				s.t.Fatal(err)
			}
			time.Sleep(settle) // the quota is in force once its controller has counted
		}, args: forkPR1},
		{name: "no-rights", setup: func(s *space) {
			routedAPI(s)
			s.env = []string{"KUBECONFIG=" + s.powerless()}
		}, args: forkPR1},
		{name: "no-such-context", setup: routedAPI, args: append([]string{"--context=nope"}, forkPR1...), mended: func(s *space) { s.sandbox(forkPR1...) }},
		{name: "api-server-away", setup: routedAPI, args: append([]string{"--server=https://127.0.0.1:1"}, forkPR1...), mended: func(s *space) { s.sandbox(forkPR1...) }},
		{name: "paused", setup: func(s *space) {
			s.create(podinfo("api", 1, func(d *appsv1.Deployment) { d.Spec.Paused = false }), podinfoService("api"))
			s.available("api")
			s.kubectl("rollout", "pause", "deploy/api")
		}, args: []string{"route", "deploy/api"}},
		{name: "on-delete", setup: func(s *space) {
			s.create(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "api"}, Spec: appsv1.DaemonSetSpec{
				Selector:       &metav1.LabelSelector{MatchLabels: app("api")},
				UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType},
				Template:       corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app("api")}, Spec: podinfoPod()},
			}}, podinfoService("api"))
			s.rolled("daemonset", "api")
		}, args: []string{"route", "daemonset/api"}},
		{name: "partitioned", setup: func(s *space) {
			s.create(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "api"}, Spec: appsv1.StatefulSetSpec{
				Selector: &metav1.LabelSelector{MatchLabels: app("api")},
				UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
					RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr(int32(1))}},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app("api")}, Spec: podinfoPod()},
			}}, podinfoService("api"))
			s.rolled("statefulset", "api")
		}, args: []string{"route", "statefulset/api"}},
		{name: "service-over-two-workloads", setup: func(s *space) {
			s.create(podinfo("api", 1, inGroup), podinfo("api-canary", 1, inGroup), service("api", map[string]string{"group": "api"}, port("http", 80, httpPort)))
			s.available("api")
			s.available("api-canary")
		}, args: []string{"route", "deploy/api"}, already: true},
		{name: "replicaset-of-a-deployment", setup: func(s *space) {
			plainAPI(s)
			sets, err := s.client.AppsV1().ReplicaSets(s.name).List(s.t.Context(), metav1.ListOptions{})
			if err != nil {
				s.t.Fatal(err)
			}
			s.env = append(s.env, "RS="+sets.Items[0].Name)
		}, args: []string{"route", "rs/$RS"}, already: true},
		{name: "fork-of-a-fork", setup: func(s *space) {
			routedAPI(s)
			s.sandbox(forkPR1...)
		}, args: []string{"fork", "deploy/api-pr-1", "--name=pr-2", "--image=" + apps.Podinfo(2)}, already: true},
		{name: "webhook-without-replicas", serial: true, setup: func(s *space) {
			routedAPI(s)
			s.scaleWebhook(s.t, 0)
			s.t.Cleanup(func() { s.scaleWebhook(s.t, 2) })
		}, args: append(forkPR1[:len(forkPR1):len(forkPR1)], "--timeout=10s"), mended: func(s *space) {
			s.webhookReady(s.t)
			s.sandbox(forkPR1...)
		}},
		{name: "webhook-not-installed", serial: true, setup: func(s *space) {
			routedAPI(s)
			s.tagAsReleased()
			reinstall := s.uninstall()
			s.t.Cleanup(reinstall)
		}, args: forkPR1},
	}
}

func TestWhatFailuresPrintIsAsRecordedAndThePrintedCommandMendsThem(t *testing.T) {
	t.Parallel()
	for _, m := range mishaps() {
		if m.serial {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			m.test(t)
		})
	}
}

// The same of failures that take something away from everybody.
func TestWhatTheWebhooksFailuresPrintIsAsRecordedAndThePrintedCommandMendsThem(t *testing.T) {
	for _, m := range mishaps() {
		if m.serial {
			t.Run(m.name, m.test)
		}
	}
}

func (m mishap) test(t *testing.T) {
	s := newSpace(t)
	m.setup(s)
	args := make([]string, len(m.args))
	for i, a := range m.args {
		for _, e := range s.env {
			name, value, _ := strings.Cut(e, "=")
			a = strings.ReplaceAll(a, "$"+name, value)
		}
		args[i] = a
	}
	r := s.trySandbox(args...)
	if r.err == nil {
		t.Fatalf("it did not fail: %v", r)
	}
	if r.stdout != "" {
		t.Errorf("a failure printed to standard output: %q", r.stdout)
	}
	got := "$ " + s.scrub(strings.Join(r.args, " ")) + "\n" + s.scrub(r.stderr)
	golden := filepath.Join("testdata", "failures", m.name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it printed\n%s\nrecorded in %s is\n%s", got, golden, want)
	}

	command := printedCommand(r.stderr)
	if command == "" {
		t.Fatalf("it printed no command: %v", r)
	}
	pasted := s.shell(command)
	t.Logf("pasted: %v", pasted)
	if pasted.err != nil {
		t.Fatalf("the printed command fails: %v", pasted)
	}
	s.env = nil // rights and the like that were taken away by it
	switch {
	case m.already:
	case m.mended != nil:
		m.mended(s)
	default:
		s.sandbox(args...)
	}
}

// printedCommand returns the command of the hint line, from its first word that is a program's name on.
func printedCommand(stderr string) string {
	for line := range strings.Lines(stderr) {
		rest, ok := strings.CutPrefix(line, "hint: ")
		if !ok {
			continue
		}
		if i := strings.LastIndex(rest, ": "); i >= 0 && !strings.HasPrefix(rest, "kubectl ") {
			rest = rest[i+2:]
		}
		return strings.TrimSpace(rest)
	}
	return ""
}

var volatile = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`), "TIME"},
	{regexp.MustCompile(`-[0-9a-f]{8,10}-[a-z0-9]{5}\b`), "-HASH-POD"},
	{regexp.MustCompile(`-[0-9a-f]{8,10}\b`), "-HASH"},
	{regexp.MustCompile(`\b10\.\d+\.\d+\.\d+\b`), "ADDRESS"},
}

// scrub replaces what differs from run to run.
func (s *space) scrub(text string) string {
	text = strings.ReplaceAll(text, s.name, "NAMESPACE")
	for _, v := range volatile {
		text = v.find.ReplaceAllString(text, v.with)
	}
	return text
}

// powerless returns a kubeconfig of somebody with no rights.
func (s *space) powerless() string {
	s.t.Helper()
	ctx := s.t.Context()
	if _, err := s.client.CoreV1().ServiceAccounts(s.name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "jane"}}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	token, err := s.client.CoreV1().ServiceAccounts(s.name).CreateToken(ctx, "jane", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, u := range raw.AuthInfos {
		u.ClientCertificate, u.ClientCertificateData, u.ClientKey, u.ClientKeyData = "", nil, "", nil
		u.Token = token.Status.Token
	}
	path := filepath.Join(s.t.TempDir(), "jane")
	if err := clientcmd.WriteToFile(*raw, path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *space) rolled(kind, name string) {
	s.t.Helper()
	eventually(s.t, 60*time.Second, kind+"/"+name+" is up", func(context.Context) error {
		for _, p := range s.pods("app=" + name) {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					return nil
				}
			}
		}
		return fmt.Errorf("no pod is ready")
	})
}
