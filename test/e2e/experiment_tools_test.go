package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	probed "github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A job is a check of a suite that is being written.
type job struct{ batchv1.Job }

// newJob returns a check of one container, which tests the Services that are named ("a, b"); none: the namespace's entry.
func newJob(name, services string, c corev1.Container) *job {
	c.Name, c.ImagePullPolicy = "test", corev1.PullIfNotPresent
	c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("16Mi")}
	j := &job{}
	j.TypeMeta = metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}
	j.Name, j.Annotations = name, map[string]string{}
	if services != "" {
		j.Annotations[sandbox.AnnotationServices] = services
	}
	j.Spec.Template.Spec = corev1.PodSpec{Containers: []corev1.Container{c}, TerminationGracePeriodSeconds: new(int64(1))}
	return j
}

// shellJob returns a check that is a line of bash, on the machine's programs.
func shellJob(name, services, line string) *job {
	j := newJob(name, services, corev1.Container{Image: apps.Podcli, Command: []string{"/usr/bin/bash", "-uc", line}})
	onMachine(&j.Spec.Template.Spec)
	return j
}

// onMachine lets the first container run the programs that the machine has: the image need hold none. Root's, since the clone may be
// in a folder that only root reads.
func onMachine(pod *corev1.PodSpec) {
	c := &pod.Containers[0]
	for i, path := range []string{"/usr", "/lib", "/lib64", "/bin", "/etc/fonts"} {
		mount(pod, fmt.Sprintf("machine-%d", i), path, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}})
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: "PATH", Value: "/usr/bin:/usr/sbin"}, corev1.EnvVar{Name: "HOME", Value: "/tmp"})
	c.SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(0))}
}

// mount mounts a volume into the first container.
func mount(pod *corev1.PodSpec, name, at string, source corev1.VolumeSource) {
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	c := &pod.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: at, ReadOnly: true})
}

// file mounts a file into the first container, at /test/NAME, by a ConfigMap of its own.
func (s *space) file(pod *corev1.PodSpec, name, content string) {
	s.t.Helper()
	cm := strings.ReplaceAll(name, ".", "-")
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: cm}, Data: map[string]string{name: content}})
	mount(pod, cm, "/test", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: cm}}})
}

// within gives a check so much time.
func (j *job) within(d time.Duration) *job {
	j.Annotations[sandbox.AnnotationTimeout] = d.String()
	return j
}

// yaml writes the check as a document of a suite.
func (j *job) yaml() string {
	b, err := json.Marshal(j.Job)
	if err != nil {
		panic(err) // it is made of what marshals
	}
	return "---\n" + string(b) + "\n"
}

// suiteOf writes a suite to a file.
func (s *space) suiteOf(jobs ...*job) string {
	var docs []string
	for _, j := range jobs {
		docs = append(docs, j.yaml())
	}
	return s.suite(docs...)
}

// hotrodRouted brings up HotROD with routers in front of services.
func (s *space) hotrodRouted(routed ...string) {
	s.t.Helper()
	deployments, services := hotrod.Objects()
	for _, d := range deployments {
		s.create(d)
	}
	s.create(services)
	for _, name := range hotrod.Services() {
		s.available(name)
	}
	args := []string{"route"}
	for _, name := range routed {
		args = append(args, "deploy/"+name)
	}
	s.sandbox(args...)
}

// hotrodAlone brings up one of HotROD's services, of an image, with routers.
func (s *space) hotrodAlone(name, image string) {
	s.t.Helper()
	deployments, services := hotrod.Objects()
	for _, d := range deployments {
		if d.Name == name {
			d.Spec.Template.Spec.Containers[0].Image = image
			s.create(d)
		}
	}
	s.create(services)
	s.available(name)
	s.sandbox("route", "deploy/"+name)
}

// broken are the arguments of a fork of which every request fails.
func broken(port int32) []string {
	return []string{"--image=" + apps.Caddy, fmt.Sprintf(`--args=["respond","--listen=:%d","--status=500","out of order"]`, port)}
}

// A test of k6 and one of Playwright, written as they are against any address, tell a variant that works from one that does not.
func TestToolsOfOthersRunUnmodifiedAsChecks(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodRouted(hotrod.Frontend, hotrod.Customer)
	s.sandbox("fork", "deploy/customer", "--name=works", "--image="+apps.HotrodEven)
	s.sandbox(append([]string{"fork", "deploy/customer", "--name=breaks"}, broken(hotrod.Port(hotrod.Customer))...)...)

	script := must[[]byte](t)(os.ReadFile("testdata/customer.k6.js"))
	k6 := newJob("k6", "customer", corev1.Container{Image: apps.K6, Args: []string{"run", "--quiet", "/test/customer.js"}})
	k6.Annotations[sandbox.AnnotationKind] = string(suite.Load)
	s.file(&k6.Spec.Template.Spec, "customer.js", string(script))

	playwright := newJob("playwright", "frontend", corev1.Container{
		Image: apps.Podcli, WorkingDir: "/work", Command: []string{"/usr/bin/node", "node_modules/@playwright/test/cli.js", "test"},
	})
	onMachine(&playwright.Spec.Template.Spec)
	mount(&playwright.Spec.Template.Spec, "work", "/work", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
		Path: filepath.Join(filepath.Dir(s.programs), "test", "playwright"), Type: new(corev1.HostPathDirectory),
	}})

	r := s.tested(0, "works", "breaks", "--id=tools", "--filename="+s.suiteOf(k6, playwright))
	for _, check := range []string{"k6", "playwright"} {
		s.judged("works, "+check, r.Variant("works").Result(check).Verdict, experiment.Passed, "")
		s.judged("breaks, "+check, r.Variant("breaks").Result(check).Verdict, experiment.Failed, experiment.TestFailed)
	}
	for check, say := range map[string]string{"k6": "http_req_failed", "playwright": "hotrod.spec.js"} {
		if log := strings.Join(r.Variant("breaks").Result(check).Log, "\n"); !strings.Contains(log, say) {
			t.Errorf("the log of %s does not tell what failed: %q", check, log)
		}
	}
	if log := strings.Join(r.Variant("works").Result("playwright").Log, "\n"); log != "" {
		t.Logf("%s", log)
	}
}

// once asks the variant once, as a test does that then misbehaves.
const once = `curl -fsS -o /dev/null "$SANDBOX_URL/customer?customer=123"; `

func TestChecksThatMisbehaveAreReportedAsWhatTheyAre(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodRouted(hotrod.Customer)

	// What a check of ours prints, and what the router beside the test leaves as its termination message.
	var line strings.Builder
	at := time.Now()
	if err := probed.Write(&line, probed.Contract{
		Header: probed.Header{APIVersion: probed.APIVersion, Kind: probed.KindContract, Start: at, End: at, Arms: []probed.Arm{
			{Name: probed.NameBaseline, Role: probed.RoleBaseline}, {Name: "bad", Role: probed.RoleVariant},
		}},
		Protocol: probed.ProtocolOpenAPI, Operations: []probed.Operation{{Name: "GET /customer"}},
	}); err != nil {
		t.Fatal(err)
	}
	sent := string(must[[]byte](t)(json.Marshal(route.Sent{Begun: 100, Answered: 100})))
	forge := fmt.Sprintf("echo '%s'; echo '%s' | tee /dev/termination-log; ", strings.TrimSpace(line.String()), sent)

	hungry := shellJob("eats", "customer", once+"exec tail /dev/zero")
	hungry.Spec.Template.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("24Mi")}
	killer := shellJob("kills", "customer", `for p in /proc/[0-9]*; do case "$(tr '\0' ' ' <$p/cmdline)" in *sandbox-[r]outer*) `+
		`echo '`+sent+`' >"$p/root/dev/termination-log"; kill -KILL "${p#/proc/}";; esac; done; exit 0`)
	killer.Spec.Template.Spec.ShareProcessNamespace = new(true)

	type hostile struct {
		job     *job
		outcome experiment.Outcome
		code    experiment.Code
	}
	all := []hostile{
		{shellJob("hangs", "customer", once+"exec sleep 600").within(20 * time.Second), experiment.Failed, experiment.TimedOut},
		{shellJob("hangs-deaf", "customer", once+"trap '' TERM INT; while :; do sleep 600; done").within(20 * time.Second), experiment.Failed, experiment.TimedOut},
		{shellJob("crashes", "customer", once+"(exec sleep 60) & kill -SEGV $!; wait $!"), experiment.Failed, experiment.TestFailed},
		{hungry, experiment.Inconclusive, experiment.NotRun},
		{shellJob("floods", "customer", once+`yes "$(head -c 5000 /dev/zero | tr '\0' x)" | head -c 64M; exit 1`), experiment.Failed, experiment.TestFailed},
		{shellJob("forges", "customer", forge+"exit 0"), experiment.Inconclusive, experiment.NothingSent},
		{shellJob("forges-failing", "customer", once+forge+"exit 3"), experiment.Failed, experiment.TestFailed},
		{killer, experiment.Inconclusive, experiment.NotReached},
	}
	if testing.Short() { // those that others here are much like
		all = slices.DeleteFunc(all, func(h hostile) bool {
			return slices.Contains([]string{"hangs-deaf", "forges-failing"}, h.job.Name)
		})
	}
	var jobs []*job
	for _, h := range all {
		jobs = append(jobs, h.job)
	}
	r := s.tested(1, "deploy/customer", "--variant=bad="+apps.HotrodEven, "--id=hostile", "--delete=all", "--filename="+s.suiteOf(jobs...))
	for _, h := range all {
		got := r.Variant("bad").Result(h.job.Name)
		s.judged(h.job.Name, got.Verdict, h.outcome, h.code)
		if size := len(strings.Join(got.Log, "\n")); size > 4<<10 {
			t.Errorf("%s: %d bytes of its log are in the report", h.job.Name, size)
		}
	}
	if reason := r.Variant("bad").Result("crashes").Reasons[0].Message; !strings.Contains(reason, "139") {
		t.Errorf("the signal is not told: %s", reason)
	}
	s.kubectl("delete", "configmap", sandbox.RunName("hostile"))
	s.nothingLeft("hostile", "bad")
}

// What a client that was killed leaves goes by itself, at the end of the experiment's time to live.
func TestAKilledExperimentLeavesNothingAfterItsTTL(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodRouted(hotrod.Customer)
	cmd := s.command(t.Context(), "kubectl", "sandbox", "-n", s.name, "test", "deploy/customer", "--variant=a="+apps.HotrodEven, "--variant=b="+apps.HotrodSlow,
		"--id=killed", "--ttl=75s", "--filename="+s.suiteOf(shellJob("hangs", "customer", once+"exec sleep 600")))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 70*time.Second, "both tests run", func(context.Context) error {
		if n := len(s.pods(sandbox.LabelRun + "=killed," + sandbox.LabelRole + "=" + sandbox.RoleCheck)); n != 2 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	s.nothingLeft("killed", "a", "b")
}

// nothingLeft waits until nothing of an experiment is left, nor of the variants that it made.
func (s *space) nothingLeft(id string, variants ...string) {
	s.t.Helper()
	eventually(s.t, 2*time.Minute, "nothing of the experiment is left", func(context.Context) error {
		left := s.kubectl("get", "configmaps,jobs,pods,deployments", "-o", "name", "-l", sandbox.LabelRun+"="+id)
		for _, v := range variants {
			left += s.kubectl("get", "configmaps,deployments,pods", "-o", "name", "-l", sandbox.LabelSandbox+"="+id+"-"+v)
		}
		if left != "" {
			return errors.New(left)
		}
		return nil
	})
}
