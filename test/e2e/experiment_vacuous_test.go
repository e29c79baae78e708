package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A vacuousWay is a way in which a test exits with 0 without having tested the variant.
type vacuousWay struct {
	name string // as plugin/experiment/README.md has it
	job  *job
	fork []string // arguments of the variant's fork; none: the fork of customer that those of its kind share
	// spoil makes the way what it is, once the test's pod runs. fork is the variant's name.
	spoil func(s *space, fork string)
	want  experiment.Code
}

// ask is a test that ignores what comes of its requests; askAnd goes on for a while after it.
const (
	ask    = `curl -s -o /dev/null "$SANDBOX_URL/customer?customer=123"; `
	askAnd = ask + "sleep 6; " + ask + "true"
)

// vacuousWays returns the ways that are tried on the cluster. s has HotROD, nginx in front of it, and a copy of customer elsewhere.
func (s *space) vacuousWays(elsewhere, baseline string) []vacuousWay {
	shell := shellJob
	none := shell("no-pods", "customer", ask)
	none.Spec.Completions, none.Spec.Parallelism = new(int32(0)), new(int32(0))
	customer := func(more ...string) []string {
		return append([]string{"deploy/customer", "--image=" + apps.HotrodEven}, more...)
	}
	return []vacuousWay{
		{name: "the test exits with 0 at once", job: shell("at-once", "customer", "exit 0"), want: experiment.NothingSent},
		{name: "the Job completes without a pod", job: none, want: experiment.NotRun},
		{name: "wrong port, and the test ignores the error", job: shell("port", "customer", "curl -s http://customer:9/customer; true"), want: experiment.NotReached},
		{name: "wrong namespace", job: shell("namespace", "customer", "curl -sS http://customer."+elsewhere+":8081/customer?customer=123"), want: experiment.NotReached},
		{name: "the variant's workload is not on the way", job: shell("elsewhere", "route", `curl -sS "$SANDBOX_URL/route?pickup=1,1&dropoff=2,2"`), want: experiment.NotReached},
		{name: "a proxy on the way drops the key", job: shell("drops", "web:drops", `curl -fsS "$SANDBOX_URL/customer?customer=123"`), want: experiment.NotReached},
		{name: "a cache on the way answers", job: shell("cached", "web:cache", `curl -fsS "$SANDBOX_URL/customer?customer=392"`), want: experiment.NotReached},
		{name: "a stand-in on the way answers", job: shell("stand-in", "web:stand-in", `curl -fsS "$SANDBOX_URL/customer?customer=123"`), want: experiment.NotReached},
		{name: "TLS hides the key", job: shell("tls", "web:tls", `curl -fsSk "https${SANDBOX_URL#http}/customer?customer=123"`), want: experiment.NothingSent},
		{name: "the test brings another key", job: shell("other-key", "customer", `curl -fsS -H 'x-sandbox-key: nobodys' "$SANDBOX_URL/customer?customer=123"`), want: experiment.OtherKey},
		{name: "the test goes to the baseline's pod", job: shell("pod-ip", "customer", "curl -fsS http://"+baseline+"/customer?customer=123"), want: experiment.NotReached},
		{name: "the test goes to the Service past the router", job: shell("no-proxy", "customer", "curl -fsS --noproxy '*' http://customer:8081/customer?customer=123"), want: experiment.NothingSent},
		{
			name: "the fork is not ready, and the test ignores the error", job: shell("unready", "customer", ask+"true"),
			fork: customer("--replicas=0", "--wait=false"), want: experiment.Refused,
		},
		{
			name: "the baseline answers in place of the fork", job: shell("fallback", "customer", once),
			fork: customer("--replicas=0", "--wait=false", "--when-unready=baseline"), want: experiment.FellBack,
		},
		{
			name: "the fork hangs, and the test gives each request up", job: shell("gives-up", "customer", `curl -s -m 1 "$SANDBOX_URL/customer?customer=123"; true`),
			fork: customer(`--args=["customer","--otel-exporter=stdout","--fix-db-query-delay=1h"]`), want: experiment.NotReached,
		},
		{
			name: "half of the baseline's pods have no router", job: shell("bare", "route", `for i in 1 2 3 4; do curl -fsS "$SANDBOX_URL/route?pickup=1,1&dropoff=2,2"; done`),
			fork: []string{"deploy/route", "--image=" + apps.Hotrod, "--env=X=1"}, want: experiment.RouterMissing,
		},
		{
			name: "the sandbox expires", job: shell("expires", "customer", ask+"sleep 22"),
			fork: customer("--ttl=18s"), want: experiment.SandboxGone,
		},
		{
			name: "the fork is deleted", job: shell("deleted", "customer", askAnd), fork: customer(), want: experiment.ForkGone,
			spoil: func(s *space, fork string) { s.kubectl("delete", "deployment", "customer-"+fork, "--wait=false") },
		},
		{
			name: "the fork is updated", job: shell("updated", "customer", askAnd), fork: customer(), want: experiment.ForkChanged,
			spoil: func(s *space, fork string) { s.sandbox("fork", "deploy/customer", "--name="+fork, "--env=X=2") },
		},
		{
			name: "the fork's pod is replaced", job: shell("replaced", "customer", askAnd), fork: customer(), want: experiment.ForkRestarted,
			spoil: func(s *space, fork string) {
				s.kubectl("delete", "pods", "-l", sandbox.LabelSandbox+"="+fork+","+sandbox.LabelRole+"="+sandbox.RoleFork, "--wait=false")
			},
		},
		{
			name: "a stale image runs under the tag", job: shell("stale", "customer", ask+ask+"true"),
			fork: []string{"deploy/customer", "--image=" + staleImage}, want: experiment.DigestMismatch,
		},
		{
			name: "a router ends before it is asked", job: shell("router-ends", "frontend", `curl -s -o /dev/null "$SANDBOX_URL/config"; sleep 6`),
			fork: []string{"deploy/frontend", "--image=" + apps.Hotrod, "--env=X=1"},
			spoil: func(s *space, _ string) {
				s.kubectl("delete", "pods", "-l", "app=frontend", "--wait=false", "--force", "--grace-period=0")
			},
			want: experiment.RouterLost,
		},
	}
}

// staleImage is a tag under which the node comes to have another image than that of the pods that run.
const staleImage = "example.test/hotrod:1.76.0-pushed-again"

// push has the node have an image of HotROD under staleImage.
func (s *space) push(args ...string) {
	s.t.Helper()
	builder, err := apps.Builder(filepath.Dir(s.programs), progress.New(io.Discard))
	if err != nil {
		s.t.Fatal(err)
	}
	image := apps.Only(apps.Hotrod)[0]
	image.Ref, image.Args = staleImage, args
	archives, err := apps.Archives(s.t.Context(), builder, []apps.Image{image})
	if err == nil {
		err = s.cluster.Load(s.t.Context(), archives...)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// web puts nginx in front of customer: a proxy that drops the key, a cache, a stand-in, and one that ends TLS.
func (s *space) web() {
	s.t.Helper()
	const config = `daemon off;
user root;
pid /tmp/nginx.pid;
events {}
http {
	access_log off;
	client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
	proxy_cache_path /tmp/cache keys_zone=cache:1m;
	server {
		listen 8001;
		location / {
			proxy_pass http://customer:8081;
			proxy_set_header x-sandbox-key ""; proxy_set_header baggage ""; proxy_set_header tracestate "";
		}
	}
	server {
		listen 8002;
		location / { proxy_pass http://customer:8081; proxy_cache cache; proxy_cache_valid 200 1h; }
	}
	server {
		listen 8003;
		location / { return 200 '{"ID": "123", "Name": "Stand-in"}'; }
	}
	server {
		listen 8443 ssl;
		ssl_certificate /tls/tls.crt; ssl_certificate_key /tls/tls.key;
		location / { proxy_pass http://customer:8081; }
	}
}
`
	labels := map[string]string{"app": "web"}
	pod := corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{
		Name: "nginx", Image: apps.Podcli, Command: []string{"/usr/sbin/nginx", "-c", "/test/nginx.conf", "-e", "stderr"},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8002)}}, PeriodSeconds: 1},
	}}}
	onMachine(&pod)
	s.file(&pod, "nginx.conf", config)
	_, secret := s.certificate()
	mount(&pod, "tls", "/tls", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}})
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Selector: labels}}
	for name, port := range map[string]int32{"drops": 8001, "cache": 8002, "stand-in": 8003, "tls": 8443} {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: name, Port: port})
	}
	s.create(service, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
	}})
	s.available("web")
	// Somebody has asked before.
	eventually(s.t, 30*time.Second, "the cache is filled", func(ctx context.Context) error {
		r := run(s.commandAt(ctx, "/usr/bin/curl", "-fsS", "http://"+s.address("web", "cache")+"/customer?customer=392"))
		return r.err
	})
}

// elsewhere brings up a customer in a namespace of its own, which no sandbox is of.
func (s *space) elsewhere() *space {
	s.t.Helper()
	other := newSpace(s.t)
	deployments, services := hotrod.Objects()
	i := slices.Index(hotrod.Services(), hotrod.Customer)
	other.create(deployments[i], services[i])
	other.available(hotrod.Customer)
	return other
}

// bare adds a pod to the Service route that has no router, as one has none that started while the webhook was away.
func (s *space) bare() {
	s.t.Helper()
	of := must[*appsv1.Deployment](s.t)(s.client.AppsV1().Deployments(s.name).Get(s.t.Context(), hotrod.Route, metav1.GetOptions{}))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "route-bare", Labels: of.Spec.Selector.MatchLabels}, Spec: of.Spec.Template.Spec}
	s.create(pod)
	s.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/"+pod.Name)
}

// Tests that succeed and have not tested their variant, each on the cluster, over one HotROD: none has passed.
func TestNoTestPassesThatDidNotTestItsVariant(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodRouted(hotrod.Frontend, hotrod.Customer, hotrod.Route)
	elsewhere := s.elsewhere()
	s.web()
	s.bare()
	baseline := s.pods("app=" + hotrod.Customer)[0]
	ways := s.vacuousWays(elsewhere.name, baseline.Status.PodIP+":8081")
	inTheTable(t, ways)
	if testing.Short() { // one for each reason
		seen := map[experiment.Code]bool{}
		ways = slices.DeleteFunc(ways, func(w vacuousWay) bool {
			again := seen[w.want]
			seen[w.want] = true
			return again
		})
	}

	// Those that need nothing of their fork share one, and run one after the other; in two runs, to be done sooner.
	const shares = 2
	var plain [shares][]vacuousWay
	var forked []vacuousWay
	for i, w := range ways {
		if w.fork == nil {
			plain[i%shares] = append(plain[i%shares], w)
		} else {
			forked = append(forked, w)
		}
	}
	for i, all := range plain {
		name := fmt.Sprintf("plain-%d", i)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			s.sandbox("fork", "deploy/customer", "--name="+name, "--image="+apps.HotrodEven)
			var jobs []*job
			for _, w := range all {
				jobs = append(jobs, w.job)
			}
			r := s.tested(2, name, "--id="+name, "--filename="+s.suiteOf(jobs...))
			for _, w := range all {
				got := r.Variant(name).Result(w.job.Name)
				s.judged(w.name, got.Verdict, experiment.Inconclusive, w.want)
				if t.Failed() {
					t.Logf("sent %+v, counted %+v, log %q", got.Sent, got.Requests, got.Log)
				}
			}
		})
	}
	for _, w := range forked {
		name := w.job.Name
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			if name == "stale" {
				s.push()
			}
			s.sandbox(append([]string{"fork", "--name=" + name}, w.fork...)...)
			if name == "stale" {
				s.push("--verbose")
				s.kubectl("scale", "deployment/customer-stale", "--replicas=2")
				s.available("customer-stale")
			}
			done := make(chan result, 1)
			go func() {
				done <- s.trySandbox("test", name, "--id="+name, "--output=json", "--timeout=2m", "--filename="+s.suiteOf(w.job))
			}()
			if w.spoil != nil {
				eventually(t, time.Minute, "the test runs", func(context.Context) error {
					for _, p := range s.pods(sandbox.LabelRun + "=" + name + "," + sandbox.LabelRole + "=" + sandbox.RoleCheck) {
						if len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Running != nil {
							return nil
						}
					}
					return errors.New("no pod runs")
				})
				time.Sleep(time.Second) // for its first request to be answered
				w.spoil(s, name)
			}
			r := s.reported(2, <-done)
			s.judged(w.name, r.Variant(name).Result(w.job.Name).Verdict, experiment.Inconclusive, w.want)
		})
	}
}

// inTheTable holds the ways to the table that people read.
func inTheTable(t *testing.T, ways []vacuousWay) {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile("../../plugin/experiment/README.md")))
	_, section, ok := strings.Cut(text, "## On the cluster\n")
	if !ok {
		t.Fatal(`plugin/experiment/README.md has no section "On the cluster"`)
	}
	section, _, _ = strings.Cut(section, "\n#")
	var have, want []string
	for _, row := range regexp.MustCompile("(?m)^\\| (.+) \\| `(.+)` \\|$").FindAllStringSubmatch(section, -1) {
		have = append(have, row[0])
	}
	for _, w := range ways {
		want = append(want, fmt.Sprintf("| %s | `%s` |", w.name, w.want))
	}
	if !slices.Equal(have, want) {
		t.Errorf("the table in plugin/experiment/README.md is not of the ways here; it has to be\n%s", strings.Join(want, "\n"))
	}
}
