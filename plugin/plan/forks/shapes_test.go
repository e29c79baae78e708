package forks_test

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A workloadShape is a way to write a workload, and what a fork of it must be.
type workloadShape struct {
	name string
	// kind of the workload, "Deployment" where it is empty; other kinds than Kubernetes' own with their group and version.
	kind string
	// spec is that of the pod template, as YAML in one line or more; fields of the workload beside the template are in more.
	spec, more string
	// meta is the metadata of the pod template, beside its labels, which are app and team.
	meta string
	// beside are further objects of the namespace, as YAML documents.
	beside string
	args   []string // --keep-label, --replicas
	state  func(*forks.State)

	changes  string   // JSON merge patch from the baseline's pod spec, as YAML, to the fork's; empty: it comes along untouched
	labels   []string // that the fork keeps
	warns    []string // what each of the warnings holds, in their order
	inherits string
	problem  string // what the problem says; empty: none
	fix      string // the command it proposes
}

const oneContainer = `containers: [{name: api, image: "api:1", ports: [{containerPort: 8080}]}]`

func (s *workloadShape) input(t *testing.T) forkInput {
	t.Helper()
	kind, apiVersion := s.kind, "apps/v1"
	if kind == "" {
		kind = "Deployment"
	}
	if group, k, ok := strings.Cut(kind, "#"); ok {
		apiVersion, kind = group, k
	}
	spec := s.spec
	if !strings.Contains(" "+spec, " containers: [") {
		spec = oneContainer + ", " + spec
	}
	meta := "labels: {app: api, team: shop}"
	if strings.Contains(s.meta, "labels: {") {
		meta = s.meta
	} else if s.meta != "" {
		meta += ", " + s.meta
	}
	selector := "selector: {matchLabels: {app: api}}"
	if strings.Contains(s.more, "selector:") {
		selector = "replicas: 3"
	}
	more := ""
	if s.more != "" {
		more = ", " + s.more
	}
	text := "{apiVersion: " + apiVersion + ", kind: " + kind + ", metadata: {name: api, namespace: shop, uid: a}, spec: {" + selector +
		", template: {metadata: {" + meta + "}, spec: {" + strings.TrimSuffix(spec, ", ") + "}}" + more + "}}\n"
	return objects(t, text+"\n---\n"+s.beside)
}

// objects reads YAML documents: the first is the workload to fork.
func objects(t *testing.T, text string) forkInput {
	t.Helper()
	in := forkInput{state: &forks.State{Namespace: "shop", User: "jane"}}
	in.state.Objects.Scaled = map[string]string{}
	d := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(text)), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := d.Decode(u); err != nil {
			if err.Error() != "EOF" {
				t.Fatalf("%v in\n%s", err, text)
			}
			return in
		}
		objects := &in.state.Objects
		if u.Object == nil {
			continue
		}
		if u.GetNamespace() == "" {
			u.SetNamespace("shop")
		}
		switch u.GetKind() {
		case "Service":
			in.state.Services = append(in.state.Services, convert[corev1.Service](u))
		case "PodDisruptionBudget":
			objects.Budgets = append(objects.Budgets, convert[policyv1.PodDisruptionBudget](u))
		case "HorizontalPodAutoscaler":
			objects.Autoscalers = append(objects.Autoscalers, convert[autoscalingv2.HorizontalPodAutoscaler](u))
		case "Scale": // of the Rollout of its name
			selector, _, _ := unstructured.NestedString(u.Object, "status", "selector")
			objects.Scaled["rollout.argoproj.io/"+u.GetName()] = selector
		case "PodMonitor":
			objects.Monitors = append(objects.Monitors, *u)
		case "Lease":
			objects.Leases = append(objects.Leases, convert[coordinationv1.Lease](u))
		case "PersistentVolumeClaim":
			objects.Claims = append(objects.Claims, convert[corev1.PersistentVolumeClaim](u))
		default:
			gvk := u.GroupVersionKind()
			w := &plan.Workload{Object: u, Resource: schema.GroupResource{Group: gvk.Group, Resource: strings.ToLower(gvk.Kind) + "s"}}
			if len(in.workloads) == 0 {
				in.workloads = append(in.workloads, w)
			}
			objects.Workloads = append(objects.Workloads, w)
		}
	}
}

func TestForks_OfWorkloadsOfAllShapes(t *testing.T) {
	shapes := slices.Concat(shapesOfKinds(), shapesOfSpecs(), shapesOfWarnings(), shapesOfSelectors())
	if len(shapes) < 40 {
		t.Errorf("only %d shapes", len(shapes))
	}
	for _, s := range shapes {
		t.Run(s.name, s.test)
	}
}

func (s *workloadShape) test(t *testing.T) {
	in := s.input(t)
	if s.state != nil {
		s.state(in.state)
	}
	o := options("pr:1")
	for _, a := range s.args {
		if name, ok := strings.CutPrefix(a, "--keep-label="); ok {
			c, err := forks.ParseKeepLabel(name)
			if err != nil {
				t.Fatal(err)
			}
			o.KeepLabels = append(o.KeepLabels, c)
		} else if a == "--replicas=0" {
			o.Replicas = ptr(int64(0))
		}
	}
	p, err := forks.New(&o, in.workloads, in.state)
	if s.problem != "" || err != nil {
		var problem *plan.Problem
		if !errors.As(err, &problem) {
			t.Fatalf("got %v, want the problem %q", err, s.problem)
		}
		if s.problem == "" || !strings.Contains(problem.What, s.problem) {
			t.Errorf("the problem is\n%s\nwant\n%s", problem.What, s.problem)
		}
		if fix := plan.Quote(problem.Fix); fix != s.fix {
			t.Errorf("it is mended by\n%s\nwant\n%s", fix, s.fix)
		}
		return
	}
	f := p.Forks[0]
	s.checkSaid(t, p)
	s.checkTemplate(t, in.workloads[0], f.Deployment)
	s.checkUncaught(t, in, f.Deployment)

	// What is warned of with a flag is no longer, with the flag.
	for _, w := range p.Warnings {
		_, flag, ok := strings.Cut(w, "--patch='")
		if !ok {
			continue
		}
		patched := options("pr:1")
		if patched.Patch, err = forks.ParsePatch("--patch", "strategic", strings.TrimSuffix(flag, "'")); err != nil {
			t.Fatal(err)
		}
		changed, err := forks.New(&patched, in.workloads, in.state)
		if err != nil {
			t.Fatalf("%s: %v", w, err)
		}
		if slices.Contains(changed.Warnings, w) || len(changed.Warnings) != len(p.Warnings)-1 {
			t.Errorf("with the flag of\n%s\nit warns\n%s", w, strings.Join(changed.Warnings, "\n"))
		}
	}

	// Planned again, with the fork there, it stays what it is.
	cm := p.ConfigMap.DeepCopy()
	cm.UID = "c"
	in.state.Sandbox, in.state.Forks = cm, []unstructured.Unstructured{*f.Deployment.DeepCopy()}
	in.state.Forks[0].SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}})
	o = options("pr:1")
	again, err := forks.New(&o, in.workloads, in.state)
	if err != nil {
		t.Fatalf("planned again: %v", err)
	}
	if got := again.Forks[0].Deployment; !reflect.DeepEqual(got.Object, in.state.Forks[0].Object) {
		t.Errorf("planned again it is\n%s\nand was\n%s", asYAML(t, got.Object), asYAML(t, in.state.Forks[0].Object))
	}
}

func (s *workloadShape) checkSaid(t *testing.T, p *forks.Plan) {
	t.Helper()
	ok := len(p.Warnings) == len(s.warns)
	for i := range p.Warnings {
		ok = ok && strings.Contains(p.Warnings[i], s.warns[i])
	}
	if !ok {
		t.Errorf("it warns\n%s\nwant\n%s", strings.Join(p.Warnings, "\n"), strings.Join(s.warns, "\n"))
	}
	if got := p.Forks[0].Inherits; got != s.inherits {
		t.Errorf("it inherits %q, want %q", got, s.inherits)
	}
}

// checkTemplate holds the fork's pod spec against the baseline's: all of it comes along but for the image and what the shape says.
func (s *workloadShape) checkTemplate(t *testing.T, w *plan.Workload, d *unstructured.Unstructured) {
	t.Helper()
	want := w.Template()["spec"].(map[string]any)
	want["containers"].([]any)[0].(map[string]any)["image"] = "pr:1"
	if s.changes != "" {
		merge(want, parse(t, s.changes))
	}
	got, _, _ := unstructured.NestedMap(d.Object, "spec", "template", "spec")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("its pod spec is\n%s\nwant\n%s", asYAML(t, got), asYAML(t, want))
	}
	for name := range annotationsOf(d) {
		for _, domain := range []string{"argocd.argoproj.io", "fluxcd.io", "helm.sh", "kubectl.kubernetes.io/last-applied"} {
			if strings.Contains(name, domain) {
				t.Errorf("it has the annotation %s", name)
			}
		}
	}
}

// checkUncaught holds the fork's labels against all selectors there are, the baseline's own among them.
func (s *workloadShape) checkUncaught(t *testing.T, in forkInput, d *unstructured.Unstructured) {
	t.Helper()
	pod, _, _ := unstructured.NestedStringMap(d.Object, "spec", "template", "metadata", "labels")
	own, _, _ := unstructured.NestedStringMap(d.Object, "spec", "selector", "matchLabels")
	if want := []string{sandbox.LabelRole, sandbox.LabelSandbox, sandbox.LabelWorkload}; !slices.Equal(slices.Sorted(maps.Keys(own)), want) {
		t.Errorf("its selector is of %v", own)
	}
	kept := slices.DeleteFunc(slices.Sorted(maps.Keys(pod)), func(name string) bool { return strings.HasPrefix(name, sandbox.Prefix) })
	if !slices.Equal(kept, s.labels) {
		t.Errorf("it keeps the labels %v, want %v", kept, s.labels)
	}
	for _, w := range in.state.Objects.Workloads {
		selector, _, _ := unstructured.NestedMap(w.Object.Object, "spec", "selector")
		var decoded metav1.LabelSelector
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(selector, &decoded); err != nil || len(selector) == 0 {
			continue
		}
		if c, err := metav1.LabelSelectorAsSelector(&decoded); err != nil || c.Matches(labels.Set(pod)) {
			t.Errorf("%s selects it (%v)", w, err)
		}
	}
	for i := range in.state.Services {
		if sel := in.state.Services[i].Spec.Selector; len(sel) > 0 && labels.SelectorFromSet(sel).Matches(labels.Set(pod)) {
			t.Errorf("service %s selects it", in.state.Services[i].Name)
		}
	}
	for i := range in.state.Objects.Budgets {
		if c, err := metav1.LabelSelectorAsSelector(in.state.Objects.Budgets[i].Spec.Selector); err != nil || c.Matches(labels.Set(pod)) {
			t.Errorf("budget %s selects it (%v)", in.state.Objects.Budgets[i].Name, err)
		}
	}
}

func annotationsOf(d *unstructured.Unstructured) map[string]string {
	all, _, _ := unstructured.NestedStringMap(d.Object, "spec", "template", "metadata", "annotations")
	return all
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader("{kind: X, patch: {"+text+"}}"), 4096).Decode(u); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return u.Object["patch"].(map[string]any)
}

// merge lays a JSON merge patch (RFC 7386) on an object.
func merge(into, patch map[string]any) {
	for k, v := range patch {
		below, ok := v.(map[string]any)
		old, isMap := into[k].(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case ok && isMap:
			merge(old, below)
		default:
			into[k] = v
		}
	}
}
