package suite

import (
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const twoJobs = `# what is checked before a merge
---
apiVersion: batch/v1
kind: Job
metadata:
  name: smoke
  labels: {kueue.x-k8s.io/queue-name: tests}
spec:
  suspend: true
  template:
    spec:
      containers:
      - name: test
        image: pytest:1
---
apiVersion: batch/v1
kind: Job
metadata:
  name: browse
  annotations:
    kubectl-sandbox.dev/kind: load
    kubectl-sandbox.dev/required: "false"
    kubectl-sandbox.dev/timeout: 90s
    kubectl-sandbox.dev/services: frontend, customer.shop:http
spec:
  backoffLimit: 2
  activeDeadlineSeconds: 3600
  ttlSecondsAfterFinished: 5
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - name: test
        image: k6:1
        securityContext: {runAsUser: 12}
`

func TestParse(t *testing.T) {
	parsed, err := Parse("suite.yaml", []byte(twoJobs))
	if err != nil {
		t.Fatal(err)
	}
	checks := parsed.Checks
	if len(checks) != 2 {
		t.Fatalf("got %d checks", len(checks))
	}
	a, b := checks[0], checks[1]
	if a.Name != "smoke" || a.Kind != E2E || !a.Required || a.Timeout != 0 || a.Services != nil || a.Source != "suite.yaml, document 2" {
		t.Errorf("got %+v", a)
	}
	if b.Kind != Load || b.Required || b.Timeout != 90*time.Second || len(b.Services) != 2 || b.Services[1].String() != "customer.shop:http" {
		t.Errorf("got %+v", b)
	}
}

// job returns a suite of one Job, with more in its metadata and spec.
func job(metadata, spec string) string {
	return "apiVersion: batch/v1\nkind: Job\nmetadata: {name: smoke" + metadata + "}\nspec: {template: {spec: {containers: [{name: t, image: i}]}}" + spec + "}\n"
}

func TestParse_NamesWhatIsWrong(t *testing.T) {
	annotation := func(name, value string) string {
		return job(", annotations: {kubectl-sandbox.dev/"+name+": \""+value+"\"}", "")
	}
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "# only a comment\n", "s.yaml: holds no Job"},
		{"no YAML", "a: [", "s.yaml, document 1: "},
		{"another kind", "apiVersion: v1\nkind: Pod\n", `s.yaml, document 1: apiVersion, kind: "Pod" of "v1" is neither a check, which is a Job or a CronJob of batch/v1, nor a ConfigMap`},
		{"unknown field", job("", ", paralelism: 2"), `s.yaml, document 1: unknown field "spec.paralelism"`},
		{"no name", strings.Replace(job("", ""), "name: smoke", "namespace: x", 1), "s.yaml, document 1: metadata.name: must be set"},
		{"bad name", strings.Replace(job("", ""), "smoke", "Smoke_1", 1), `s.yaml, document 1: metadata.name: "Smoke_1" must consist of`},
		{"long name", strings.Replace(job("", ""), "smoke", strings.Repeat("x", 64), 1), "must be at most 63 characters long, is 64"},
		{"a container like the router", strings.Replace(job("", ""), "name: t,", "name: sandbox-router,", 1), `spec.template.spec.containers[0].name: "sandbox-router" is the name of the router`},
		{"an init container like the router", strings.Replace(job("", ""), "containers:", "initContainers: [{name: sandbox-router, image: i}], containers:", 1),
			`spec.template.spec.initContainers[0].name: "sandbox-router" is the name of the router`},
		{"a volume like the router's", strings.Replace(job("", ""), "containers:", "volumes: [{name: sandbox-router-state}], containers:", 1), `spec.template.spec.volumes[0].name: "sandbox-router-state"`},
		{"no containers", strings.Replace(job("", ""), "{name: t, image: i}", "", 1), "spec.template.spec.containers: must not be empty"},
		{"selector", job("", ", manualSelector: true"), "spec.selector: must be left out"},
		{"our label", job(", labels: {kubectl-sandbox.dev/run: x}", ""), "label kubectl-sandbox.dev/run: is set by the experiment"},
		{"twice", job("", "") + "---\n" + job("", ""), `s.yaml, document 2: metadata.name: there is a check "smoke" already, in s.yaml, document 1`},
		{"kind", annotation("kind", "unit"), `s.yaml, document 1: annotation kubectl-sandbox.dev/kind: "unit" is not one of e2e, load and contract`},
		{"required", annotation("required", "perhaps"), `annotation kubectl-sandbox.dev/required: "perhaps" is neither true nor false`},
		{"timeout", annotation("timeout", "10"), `annotation kubectl-sandbox.dev/timeout: "10" is not a duration`},
		{"short timeout", annotation("timeout", "10ms"), `annotation kubectl-sandbox.dev/timeout: "10ms" is not a duration`},
		{"service", annotation("services", "a b"), `annotation kubectl-sandbox.dev/services: "a b" is not SERVICE`},
		{"service's port", annotation("services", "a:0"), `annotation kubectl-sandbox.dev/services: "a:0": "0" is not a port`},
		{"service twice", annotation("services", "a,a:80"), `annotation kubectl-sandbox.dev/services: "a" is given twice`},
		{"thresholds", annotation("thresholds", "p95<200ms"), "annotation kubectl-sandbox.dev/thresholds: is of built-in checks (image: sandbox-probe); a Job of one's own is judged by its exit status"},
		{"a probe's other container", probe("", "load", ", {name: u, image: i}"), "a built-in check has one container"},
		{"a probe of nothing", probe("", "", ""), `args: a built-in check begins with "load"`},
		{"a probe of contract alone", probe("", "contract", ""), `args: a built-in check begins with "load"`},
		{"a probe's command", strings.Replace(probe("", "load", ""), "args:", "command: [sh], args:", 1), "[0].command: must be left out"},
		{"a probe's variant", probe("", "load, --variant=a=k", ""), "args: --variant is set by the experiment"},
		{"a probe's rate", probe("", "load, --rate, fast", ""), "args: --rate=fast: must be more than 0"},
		{"a probe of two Services", probe("services: 'a, b'", "load", ""), "a built-in check is of one Service"},
		{"a probe of another kind", probe("kind: e2e", "load", ""), `annotation kubectl-sandbox.dev/kind: "e2e", and the container's args are those of a check of load`},
		{"a probe's thresholds", probe("thresholds: p95<fast", "load", ""), `annotation kubectl-sandbox.dev/thresholds: budget "p95<fast"`},
		{"thresholds of a contract", probe("thresholds: p95<1s", "contract, openapi", ""), "a check of contract has no thresholds"},
		{"a probe twice over", strings.Replace(probe("", "load", ""), "spec: {template", "spec: {parallelism: 2, template", 1), "spec.parallelism, spec.completions"},
		{"unknown annotation", annotation("requierd", "true"), "annotation kubectl-sandbox.dev/requierd: is none that a check can have"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("s.yaml", []byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// probe is a built-in check, with an annotation of ours, args and further containers.
func probe(annotation, args, more string) string {
	if annotation != "" {
		annotation = "kubectl-sandbox.dev/" + annotation
	}
	return "apiVersion: batch/v1\nkind: Job\nmetadata: {name: fast, annotations: {" + annotation + "}}\n" +
		"spec: {template: {spec: {containers: [{name: p, image: sandbox-probe, args: [" + args + "]}" + more + "]}}}\n"
}

func TestProbeJob(t *testing.T) {
	run := &Run{ID: "r1", Namespace: "shop", Timeout: time.Minute}
	variants := []Variant{{"a", "r1-a", "ka"}, {"b", "r1-b", "kb"}}
	on := Probes{Image: "reg/sandbox-probe:1", MaxRate: 300, Carriers: route.Carriers{Header: "x-key", Member: "m"}}
	service := sandbox.Service{Host: "api", Port: 8080}
	made := func(in string) (Check, *batchv1.Job, error) {
		t.Helper()
		parsed, err := Parse("s.yaml", []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		checks := parsed.Checks
		j, err := ProbeJob(run, &checks[0], on, service, variants, "kbase")
		return checks[0], j, err
	}
	c, j, err := made(probe("thresholds: 'p99<1s'", "load, --requests=/x", ""))
	if err != nil || c.Kind != Load {
		t.Fatalf("%s, %v", c.Kind, err)
	}
	container := j.Spec.Template.Spec.Containers[0]
	want := "load --requests=/x --url=http://api:8080 --key-header=x-key --key-member=m --variant=a=ka --variant=b=kb --baseline-key=kbase " +
		"--thresholds=p99<1s --report-every=1m --rate=300"
	if got := strings.Join(container.Args, " "); got != want || container.Image != on.Image {
		t.Errorf("got %s %s\nwant %s", container.Image, got, want)
	}
	if role := j.Spec.Template.Labels[sandbox.LabelRole]; role != "" || *j.Spec.BackoffLimit != 0 || *container.SecurityContext.RunAsNonRoot != true {
		t.Errorf("role %q, spec %+v", role, j.Spec)
	}
	if c.Job.Spec.Template.Spec.Containers[0].Image != ProbeImage {
		t.Error("the author's Job was changed")
	}
	if _, _, err := made(probe("", "load, --rate=301", "")); err == nil || !strings.Contains(err.Error(), "s.yaml, document 1: --rate=301: load checks may send 300 requests a second") {
		t.Errorf("too high a rate: %v", err)
	}
	if c, j, err := made(probe("", "contract, grpc", "")); err != nil || c.Kind != Contract || !slices.Contains(j.Spec.Template.Spec.Containers[0].Args, "--target=api:8080") ||
		slices.ContainsFunc(j.Spec.Template.Spec.Containers[0].Args, func(a string) bool { return strings.HasPrefix(a, "--rate") }) {
		t.Errorf("%s %v, %v", c.Kind, j, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(twoJobs)
	f.Add(job("", ""))
	run, v := &Run{ID: "r1", Namespace: "shop", Timeout: time.Minute}, &Variant{Name: "a", Sandbox: "r1-a", Key: "k"}
	f.Fuzz(func(t *testing.T, in string) {
		parsed, err := Parse("s", []byte(in))
		if err != nil {
			return
		}
		run.Objects = parsed.Objects
		if text, err := parsed.Text(); err != nil {
			t.Errorf("%q: %v", in, err)
		} else if again, err := Parse("s", []byte(text)); err != nil || len(again.Checks) != len(parsed.Checks) || len(again.Objects) != len(parsed.Objects) {
			t.Errorf("%q became %q: %v", in, text, err)
		}
		for i := range parsed.Checks {
			j := Job(run, v, &parsed.Checks[i], nil)
			if len(j.Name) > 63 || j.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever || j.Spec.ActiveDeadlineSeconds == nil {
				t.Errorf("%q became %+v", in, j)
			}
		}
	})
}

func TestFromCronJob(t *testing.T) {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly", Annotations: map[string]string{sandbox.AnnotationTimeout: "5m"}}}
	if _, err := FromCronJob(c); err == nil || !strings.HasPrefix(err.Error(), "cronjob/nightly: spec.template.spec.containers") {
		t.Errorf("got %v", err)
	}
	c.Spec.JobTemplate.Spec.Template.Spec.Containers = []corev1.Container{{Name: "t"}}
	check, err := FromCronJob(c)
	if err != nil || check.Name != "nightly" || check.Timeout != 5*time.Minute || check.Source != "cronjob/nightly" {
		t.Errorf("got %+v (%v)", check, err)
	}

	// Names longer than a check's are cut, and stay apart.
	long := "every-night-at-three.reconcile-the-orders-of-yesterday" // as long as a CronJob's can be, or longer
	names := map[string]bool{}
	for _, name := range []string{long, long + "-2", "nightly.too"} {
		c.Name = name
		check, err := FromCronJob(c)
		if err != nil || len(check.Name) > maxCheckName || names[check.Name] || check.Source != "cronjob/"+name {
			t.Errorf("%s becomes %q (%v)", name, check.Name, err)
		}
		names[check.Name] = true
	}
}

func TestJob(t *testing.T) {
	parsed, err := Parse("suite.yaml", []byte(twoJobs))
	if err != nil {
		t.Fatal(err)
	}
	checks := parsed.Checks
	run := &Run{ID: "r1", Namespace: "shop", UID: "uid", Timeout: 10 * time.Minute}
	v := &Variant{Name: "a", Sandbox: "r1-a", Key: "k"}
	smoke := Job(run, v, &checks[0], []sandbox.Service{{Host: "frontend", Port: 80}})
	backstop := int64((startTime + 10*time.Minute + Overtime).Seconds())
	if smoke.Namespace != "shop" || smoke.Labels["kueue.x-k8s.io/queue-name"] != "tests" || !*smoke.Spec.Suspend ||
		*smoke.Spec.BackoffLimit != 0 || *smoke.Spec.ActiveDeadlineSeconds != backstop || smoke.OwnerReferences[0].Name != "sandbox-run.r1" {
		t.Errorf("got %+v", smoke)
	}
	for _, m := range []metav1.ObjectMeta{smoke.ObjectMeta, smoke.Spec.Template.ObjectMeta} {
		if m.Labels[sandbox.LabelRun] != "r1" || m.Labels[sandbox.LabelCheck] != "smoke" || m.Labels[sandbox.LabelSandbox] != "r1-a" || m.Labels[sandbox.LabelRole] != sandbox.RoleCheck {
			t.Errorf("labels %v", m.Labels)
		}
	}
	if a := smoke.Spec.Template.Annotations; a[sandbox.AnnotationKey] != "k" || a[sandbox.AnnotationServices] != "frontend:80" {
		t.Errorf("annotations %v", a)
	}
	browse := Job(run, v, &checks[1], nil)
	if *browse.Spec.BackoffLimit != 2 || *browse.Spec.ActiveDeadlineSeconds != 3600 || browse.Spec.TTLSecondsAfterFinished != nil ||
		browse.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever ||
		*browse.Spec.Template.Spec.Containers[0].SecurityContext.RunAsUser != 12 {
		t.Errorf("got %+v", browse.Spec)
	}
	if checks[0].Job.Labels[sandbox.LabelRun] != "" || checks[1].Job.Spec.TTLSecondsAfterFinished == nil {
		t.Error("the suite itself has changed")
	}
	for _, tt := range []struct {
		own  int64
		said time.Duration
		want Limits
	}{
		{0, 0, Limits{Test: 10 * time.Minute, By: "--timeout", Start: startTime, Admission: 10 * time.Minute}},
		{30, 0, Limits{Own: 30 * time.Second, Start: startTime, Admission: 10 * time.Minute}},
		{3600, 0, Limits{Own: time.Hour, Longer: true, Start: startTime, Admission: 10 * time.Minute}},
		{3600, 90 * time.Second, Limits{
			Test: 90 * time.Second, By: "annotation kubectl-sandbox.dev/timeout", Own: time.Hour, Longer: true, Start: startTime, Admission: 90 * time.Second,
		}},
	} {
		c := checks[0]
		c.Job, c.Timeout = c.Job.DeepCopy(), tt.said
		if tt.own > 0 {
			c.Job.Spec.ActiveDeadlineSeconds = &tt.own
		}
		if got := c.Limits(run); got != tt.want {
			t.Errorf("own deadline %d, annotation %s: got %+v, want %+v", tt.own, tt.said, got, tt.want)
		}
		if j := Job(run, v, &c, nil); tt.own > 0 && *j.Spec.ActiveDeadlineSeconds != tt.own {
			t.Errorf("the author's own deadline is not kept: %d", *j.Spec.ActiveDeadlineSeconds)
		}
	}
}
