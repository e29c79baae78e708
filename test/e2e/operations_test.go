package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// helmRelease returns the name under which the chart is installed.
func (s *space) helmRelease() string {
	s.t.Helper()
	name := strings.TrimSpace(s.helm("list", "--short"))
	if name == "" || strings.Contains(name, "\n") {
		s.t.Fatalf("not one release in %s: %q", s.release, name)
	}
	return name
}

// helm runs helm on the release; it must succeed.
func (s *space) helm(args ...string) string {
	s.t.Helper()
	r := run(s.command(context.WithoutCancel(s.t.Context()), "helm", append(args, "--namespace="+s.release)...))
	if r.err != nil {
		s.t.Fatal(r)
	}
	return r.stdout
}

func (s *space) chart() string { return filepath.Join(filepath.Dir(s.programs), "charts", "sandbox") }

// values writes the values that the release has now to a file, and returns its path.
func (s *space) values() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(s.helm("get", "values", s.helmRelease(), "--output=yaml")), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// uninstall takes the release away, and returns what brings it back as it was.
func (s *space) uninstall() func() {
	s.t.Helper()
	values, name := s.values(), s.helmRelease()
	s.expectErrorsAnywhere(s.t, `is forbidden|forbidden:|Unauthorized|MutatingWebhookConfiguration.* not found`,
		"helm uninstall takes the webhook's rights, its account and its configuration away before its pods have ended")
	s.helm("uninstall", name, "--wait", "--timeout=90s")
	return func() {
		s.helm("upgrade", "--install", name, s.chart(), "--values="+values, "--create-namespace", "--wait", "--timeout=90s")
	}
}

// tagAsReleased gives the images that the webhook runs the names under which the chart looks for them where nobody sets
// values: those of a release, which no registry in reach has.
func (s *space) tagAsReleased() {
	s.t.Helper()
	d, err := s.client.AppsV1().Deployments(s.release).Get(s.t.Context(), "sandbox-webhook", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	now := d.Spec.Template.Spec.Containers[0].Image
	chart, err := os.ReadFile(filepath.Join(s.chart(), "Chart.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(chart), "\nappVersion: ")
	version, _, _ := strings.Cut(rest, "\n")
	for _, name := range []string{"sandbox-webhook", "sandbox-router"} {
		image := strings.Replace(now, "sandbox-webhook", name, 1)
		released := "ghcr.io/kubectl-sandbox/" + name + ":" + strings.Trim(version, `"`)
		var out strings.Builder
		if err := s.cluster.Exec(s.t.Context(), nil, &out, &out, "ctr", "--namespace=k8s.io", "images", "tag", "--force", image, released); err != nil {
			s.t.Fatalf("ctr images tag: %v\n%s", err, out.String())
		}
	}
}

// traffic starts loads on the Service api, keyed and unkeyed, over HTTP/1.1 and gRPC.
func (s *space) traffic(keyed bool) []*load {
	s.t.Helper()
	web, rpc := s.address("api", "http"), s.address("api", "grpc")
	base, fork := says(baselineMessage, false), says(apps.Release(1), true)
	loads := []*load{
		startHTTP(s.t, "unkeyed HTTP/1.1", web, "/api/info", 30, nil, base),
		startGRPC(s.t, "unkeyed gRPC", rpc, 30, carrier{}, base),
	}
	if keyed {
		key := carriers("key-1")[0]
		loads = append(loads,
			startHTTP(s.t, "keyed HTTP/1.1", web, "/api/info", 30, map[string][]string{key.name: {key.value}}, fork),
			startGRPC(s.t, "keyed gRPC", rpc, 30, key, fork))
	}
	return loads
}

// admissions has the API server admit a fork's pod, in a dry run, again and again, until the function it returns is called;
// that tells how many there were and which failed.
func (s *space) admissions() func() (int, []string) {
	ctx, cancel := context.WithCancel(context.Background())
	var (
		wg     sync.WaitGroup
		n      int
		failed []string
	)
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					GenerateName: "probe-", Namespace: s.name,
					Labels:      map[string]string{sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelSandbox: "probe", sandbox.LabelWorkload: "deployment.probe"},
					Annotations: map[string]string{sandbox.AnnotationKey: "probe"},
				},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: apps.Podinfo(0)}}},
			}
			made, err := s.client.CoreV1().Pods(s.name).Create(context.WithoutCancel(ctx), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			n++
			switch {
			case err != nil:
				failed = append(failed, time.Now().Format("15:04:05.000 ")+err.Error())
			case len(made.Spec.InitContainers) == 0 || made.Spec.InitContainers[0].Name != sandbox.RouterContainer:
				failed = append(failed, time.Now().Format("15:04:05.000 ")+"admitted without a router")
			}
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	s.t.Cleanup(stop)
	return func() (int, []string) { stop(); return n, failed }
}

// authorities counts the authorities and the certificates that the webhook serves admission with, by asking for them again
// and again.
type authorities struct {
	mu      sync.Mutex
	issuers map[string]bool
	serials map[string]bool
}

func (s *space) watchAuthorities() *authorities {
	s.t.Helper()
	svc, err := s.client.CoreV1().Services(s.release).Get(s.t.Context(), "sandbox-webhook", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	a := &authorities{issuers: map[string]bool{}, serials: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			// What is served is looked at, not trusted: the API server does that.
			dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
			if conn, err := dialer.DialContext(ctx, "tcp", svc.Spec.ClusterIP+":443"); err == nil {
				leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
				conn.Close()
				a.mu.Lock()
				a.issuers[leaf.Issuer.CommonName], a.serials[leaf.SerialNumber.String()] = true, true
				a.mu.Unlock()
			}
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
			}
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	s.t.Cleanup(stop)
	return a
}

// rotations returns how often the authority, and how often the certificate changed.
func (a *authorities) rotations() (authority, certificate int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.issuers) - 1, len(a.serials) - 1
}

// authority has the webhook begin with an authority of its own that lives as long as the values say.
func (s *space) authority(values string, set ...string) {
	s.t.Helper()
	s.scaleWebhook(s.t, 0)
	r := run(s.command(context.WithoutCancel(s.t.Context()), "kubectl", "-n", s.release, "delete", "secret", "sandbox-webhook-ca"))
	if r.err != nil {
		s.t.Fatal(r)
	}
	s.helm(append([]string{"upgrade", s.helmRelease(), s.chart(), "--values=" + values, "--wait", "--timeout=90s"}, set...)...)
	s.scaleWebhook(s.t, 2)
}

func TestWhileTheAuthorityIsRotatedAgainAndAgainNoAdmissionFailsAndNoRequest(t *testing.T) {
	s := newSpace(t)
	values := s.values()
	t.Cleanup(func() { s.authority(values) })
	s.authority(values, "--set=certificates.caValidity=12s", "--set=certificates.leafValidity=4s")
	routedAPI(s)
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	want := full(20, 4)
	served := s.watchAuthorities()
	admitted := s.admissions()
	loads := s.traffic(true)
	eventually(t, time.Duration(want+3)*12*time.Second, fmt.Sprintf("%d rotations", want), func(context.Context) error {
		if n, _ := served.rotations(); n < want {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	// Routers live on through all of it: a fork made now reaches them.
	s.sandbox("fork", "deploy/api", "--name=pr-2", "--key=key-2", "--image="+apps.Podinfo(2))
	c := newH1(s.address("api", "http"))
	defer c.close()
	if a, err := c.call(t.Context(), carriers("key-2")[0]); err != nil || a.Message != apps.Release(2) {
		t.Errorf("keyed request after that: %+v, %v", a, err)
	}
	n, failed := admitted()
	authority, certificate := served.rotations()
	t.Logf("%d rotations of the authority, %d of the certificate; %d admissions, %d failed", authority, certificate, n, len(failed))
	if len(failed) > 0 || n < want*20 {
		t.Errorf("%d of %d admissions failed:\n%s", len(failed), n, strings.Join(failed[:min(5, len(failed))], "\n"))
	}
	for _, l := range loads {
		l.unscathed(100)
	}
}

func TestHelmUpgradeUnderLoadFailsNoRequestAndNoAdmission(t *testing.T) {
	s := newSpace(t)
	routedAPI(s)
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	values := s.values()
	flaps := s.watchGate("pr-1")
	admitted := s.admissions()
	loads := s.traffic(true)
	s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--set=podAnnotations.rolled=once", "--wait", "--timeout=90s")
	time.Sleep(settle)
	s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--wait", "--timeout=90s")
	time.Sleep(settle)
	n, failed := admitted()
	t.Logf("%d admissions, %d failed", n, len(failed))
	if len(failed) > 0 {
		t.Errorf("%d of %d admissions failed:\n%s", len(failed), n, strings.Join(failed[:min(5, len(failed))], "\n"))
	}
	for _, l := range loads {
		l.unscathed(100)
	}
	if seen := flaps(); len(seen) > 0 {
		t.Errorf("the gate flapped: %s", strings.Join(seen, "; "))
	}
}

func TestHelmUninstallWithRoutedBaselinesLeavesTrafficFlowing(t *testing.T) {
	s := newSpace(t)
	routedAPI(s)
	loads := s.traffic(false)
	reinstall := s.uninstall()
	t.Cleanup(reinstall)
	time.Sleep(settle)
	s.kubectl("rollout", "restart", "deploy/api")
	s.available("api")
	time.Sleep(settle)
	s.kubectl("scale", "deploy/api", "--replicas=3")
	s.available("api")
	time.Sleep(settle)
	for _, l := range loads {
		l.unscathed(100)
	}
	// Without the webhook, unroute still takes away what route left.
	s.sandbox("unroute", "deploy/api")
}

// full returns n, or few with -short, as CI sets it.
func full(n, few int) int {
	if testing.Short() {
		return few
	}
	return n
}
