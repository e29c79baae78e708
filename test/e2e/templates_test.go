package e2e

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// templates is how many templates TestTemplatesThatTheServerAdmits forks; E2E_TEMPLATES says another number.
const templates = 60

// Whatever template the API server admits, a fork of it is admitted, and its pods, as the server and its admission would make them,
// have what the baseline's have: variables, arguments, ports, probes, mounts and files, but for what is documented. The kubelet's
// part, the values of variables, is worked out here anew, apart from the product's own.
func TestTemplatesThatTheServerAdmits(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	data := map[string]string{"A": "cm-a", "CM": "cm $(A)", "HTTP_PROXY": "http://proxy.corp.example:3128", "NO_PROXY": ".svc"}
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "corp"}, Data: data})
	secret := map[string]string{"P": "s3cr$t", "B": "secret-b", "OTEL_PROPAGATORS": "b3"}
	if _, err := s.client.CoreV1().Secrets(s.name).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db"}, StringData: secret}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	api, err := dynamic.NewForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	f := &forking{space: s, api: api, configMap: data, secret: secret}
	n := templates
	if more, err := strconv.Atoi(os.Getenv("E2E_TEMPLATES")); err == nil {
		n = more
	}
	admitted, duplicates := 0, 0
	for seed := range n {
		workload := anyWorkload().Example(seed)
		ok, twice := f.test(seed, workload)
		if ok {
			admitted++
		}
		if ok && twice {
			duplicates++
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("of %d templates, %d are admitted, %d of them with a key that comes twice", n, admitted, duplicates)
	if admitted < n/2 || duplicates < n/10 {
		t.Error("too few of them say anything")
	}
}

// forking forks templates without storing anything.
type forking struct {
	*space
	api               dynamic.Interface
	configMap, secret map[string]string
}

func (f *forking) resource(kind string) dynamic.ResourceInterface {
	return f.api.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: strings.ToLower(kind) + "s"}).Namespace(f.name)
}

// test forks one workload. It says whether the API server admits it, and whether one of its lists holds a key twice.
func (f *forking) test(seed int, workload *unstructured.Unstructured) (admitted, twice bool) {
	f.t.Helper()
	dry := []string{metav1.DryRunAll}
	workload.SetNamespace(f.name)
	baseline, err := f.resource(workload.GetKind()).Create(f.t.Context(), workload, metav1.CreateOptions{DryRun: dry})
	if apierrors.IsInvalid(err) {
		return false, false
	}
	if err != nil {
		f.t.Fatalf("seed %d: %v", seed, err)
	}
	w := plan.NewWorkload(baseline, schema.GroupResource{Group: "apps", Resource: strings.ToLower(workload.GetKind()) + "s"}, "")
	names := map[string]string{}
	for key := range f.secret {
		names[key] = ""
	}
	state := &forks.State{Namespace: f.name, EnvFrom: forks.EnvSources{
		"configmap/corp": {Data: f.configMap}, "secret/db": env.Object{Data: names, NamesOnly: true},
	}}
	p, err := forks.New(&forks.Options{Sandbox: "pr", NewKey: "key"}, []*plan.Workload{w}, state)
	if err != nil {
		f.t.Errorf("seed %d: %v", seed, err)
		return true, false
	}
	d := p.Forks[0].Deployment
	fork, err := f.resource("Deployment").Apply(f.t.Context(), d.GetName(), d, metav1.ApplyOptions{FieldManager: "e2e", DryRun: dry})
	if err != nil {
		f.t.Errorf("seed %d: the fork is refused: %v\n%v", seed, err, workload.Object)
		return true, false
	}
	var of, made corev1.PodTemplateSpec
	f.decode(baseline, &of)
	f.decode(fork, &made)
	made.Labels["pod-template-hash"] = "x"
	pod, err := f.client.CoreV1().Pods(f.name).Create(f.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: made.Labels, Annotations: made.Annotations}, Spec: made.Spec,
	}, metav1.CreateOptions{DryRun: dry})
	if err != nil {
		f.t.Errorf("seed %d: the fork's pods are refused: %v", seed, err)
		return true, false
	}
	if pod.Annotations[sandbox.AnnotationInjected] == "" || strings.HasPrefix(pod.Annotations[sandbox.AnnotationInjected], "declined") {
		f.t.Errorf("seed %d: admission did not come to the fork's pod: %v", seed, pod.Annotations)
	}
	for _, difference := range f.compare(&of, pod) {
		f.t.Errorf("seed %d: %s\nthe baseline is %s\nthe fork %s", seed, difference, asJSON(f.t, of.Spec), asJSON(f.t, pod.Spec))
	}
	return true, hasDuplicates(&of.Spec)
}

func (f *forking) decode(u *unstructured.Unstructured, into *corev1.PodTemplateSpec) {
	f.t.Helper()
	template, _, _ := unstructured.NestedMap(u.Object, "spec", "template")
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, into); err != nil {
		f.t.Fatal(err)
	}
}

func hasDuplicates(spec *corev1.PodSpec) bool {
	for _, c := range slices.Concat(spec.Containers, spec.InitContainers) {
		names, ports := map[string]bool{}, map[string]bool{}
		for _, e := range c.Env {
			names[e.Name] = true
		}
		for _, p := range c.Ports {
			ports[fmt.Sprint(p.ContainerPort, p.Protocol)] = true
		}
		if len(names) < len(c.Env) || len(ports) < len(c.Ports) {
			return true
		}
	}
	return false
}

// compare returns how the fork's pod differs from those of the baseline's template.
func (f *forking) compare(of *corev1.PodTemplateSpec, pod *corev1.Pod) (differences []string) {
	differ := func(what string, is, was any) {
		if !reflect.DeepEqual(is, was) {
			differences = append(differences, fmt.Sprintf("%s: %v, and in the baseline %v", what, is, was))
		}
	}
	before := metadataOf{of.Labels, of.Annotations}
	after := metadataOf{pod.Labels, pod.Annotations}
	find := func(list []corev1.Container, name string) *corev1.Container {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
			return &list[i]
		}
		return &corev1.Container{}
	}
	for i, list := range [][]corev1.Container{of.Spec.Containers, of.Spec.InitContainers} {
		in := [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers}[i]
		for _, was := range list {
			is := find(in, was.Name)
			at := "container " + was.Name + " "
			wasEnv, isEnv := f.kubelet(&was, before), f.kubelet(is, after)
			for name, value := range wasEnv {
				differ(at+"variable "+name, isEnv[name], value)
			}
			for name := range isEnv {
				if _, ok := wasEnv[name]; !ok && !given(name) {
					differences = append(differences, at+"has a variable of its own: "+name)
				}
			}
			differ(at+"command", expand(is.Command, isEnv), expand(was.Command, wasEnv))
			differ(at+"args", expand(is.Args, isEnv), expand(was.Args, wasEnv))
			differ(at+"ports", numbers(is), numbers(&was))
			differ(at+"probes", probes(is), probes(&was))
			differ(at+"mounts", mounts(is, isEnv), mounts(&was, wasEnv))
			differ(at+"image", is.Image, was.Image)
			differ(at+"restart policy", is.RestartPolicy, was.RestartPolicy)
			differ(at+"resources", is.Resources.Limits, was.Resources.Limits)
		}
	}
	differ("files", files(&pod.Spec, after, before), files(&of.Spec, before, before))
	differ("host aliases", aliases(&pod.Spec), aliases(&of.Spec))
	secrets := func(spec *corev1.PodSpec) map[corev1.LocalObjectReference]bool {
		all := map[corev1.LocalObjectReference]bool{}
		for _, r := range spec.ImagePullSecrets {
			all[r] = true
		}
		return all
	}
	differ("pull secrets", secrets(&pod.Spec), secrets(&of.Spec))
	for _, g := range of.Spec.ReadinessGates {
		differ("readiness gate "+string(g.ConditionType), slices.Contains(pod.Spec.ReadinessGates, g), true)
	}
	differ("scheduling gates", pod.Spec.SchedulingGates, of.Spec.SchedulingGates)
	differ("node selector", pod.Spec.NodeSelector, of.Spec.NodeSelector)
	differ("grace period", pod.Spec.TerminationGracePeriodSeconds, of.Spec.TerminationGracePeriodSeconds)
	return differences
}

// given says whether a fork's container may have a variable that the baseline's does not.
func given(name string) bool {
	return strings.HasPrefix(name, "SANDBOX_") || slices.Contains([]string{"HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "OTEL_PROPAGATORS"}, name)
}

// metadataOf a pod are the labels and annotations that a container may refer to.
type metadataOf struct{ labels, annotations map[string]string }

func (m metadataOf) field(path string) string {
	if key, ok := strings.CutPrefix(path, "metadata.labels['"); ok {
		return m.labels[strings.TrimSuffix(key, "']")]
	}
	if key, ok := strings.CutPrefix(path, "metadata.annotations['"); ok {
		return m.annotations[strings.TrimSuffix(key, "']")]
	}
	return "<" + path + ">" // whatever it is, it is no matter of templates
}

var reference = regexp.MustCompile(`\$\$|\$\([^)]*\)`)

// expanded replaces $(NAME), and $$ by $.
func expanded(s string, values map[string]string) string {
	return reference.ReplaceAllStringFunc(s, func(found string) string {
		if found == "$$" {
			return "$"
		}
		if v, ok := values[found[2:len(found)-1]]; ok {
			return v
		}
		return found
	})
}

func expand(words []string, values map[string]string) (all []string) {
	for _, w := range words {
		all = append(all, expanded(w, values))
	}
	return all
}

// kubelet returns the variables that the process of a container gets.
func (f *forking) kubelet(c *corev1.Container, m metadataOf) map[string]string {
	values := map[string]string{}
	for _, from := range c.EnvFrom {
		data := f.configMap
		if from.SecretRef != nil {
			data = f.secret
		}
		for k, v := range data {
			values[from.Prefix+k] = v
		}
	}
	for _, e := range c.Env {
		switch from := e.ValueFrom; {
		case from == nil:
			values[e.Name] = expanded(e.Value, values)
		case from.FieldRef != nil:
			values[e.Name] = m.field(from.FieldRef.FieldPath)
		case from.ResourceFieldRef != nil:
			values[e.Name] = "<" + from.ResourceFieldRef.Resource + ">"
		case from.ConfigMapKeyRef != nil:
			if v, ok := f.configMap[from.ConfigMapKeyRef.Key]; ok {
				values[e.Name] = v
			}
		case from.SecretKeyRef != nil:
			if v, ok := f.secret[from.SecretKeyRef.Key]; ok {
				values[e.Name] = v
			}
		}
	}
	return values
}

func numbers(c *corev1.Container) map[string]bool {
	all := map[string]bool{}
	for _, p := range c.Ports {
		all[fmt.Sprint(p.ContainerPort, "/", p.Protocol)] = true
	}
	return all
}

// probes returns the numbers to which the probes and hooks of a container go.
func probes(c *corev1.Container) []int32 {
	var all []int32
	look := func(h *corev1.ProbeHandler) {
		var port intstr.IntOrString
		switch {
		case h.HTTPGet != nil:
			port = h.HTTPGet.Port
		case h.TCPSocket != nil:
			port = h.TCPSocket.Port
		default:
			return
		}
		number := port.IntVal
		for _, p := range c.Ports {
			if port.Type == intstr.String && p.Name == port.StrVal {
				number = p.ContainerPort
			}
		}
		all = append(all, number)
	}
	for _, p := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
		if p != nil {
			look(&p.ProbeHandler)
		}
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		look(&corev1.ProbeHandler{HTTPGet: c.Lifecycle.PreStop.HTTPGet, TCPSocket: c.Lifecycle.PreStop.TCPSocket})
	}
	return all
}

func mounts(c *corev1.Container, values map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range c.VolumeMounts {
		if m.MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
			all[m.MountPath] = fmt.Sprint(m.Name, m.ReadOnly, m.SubPath, expanded(m.SubPathExpr, values))
		}
	}
	return all
}

// files returns what the files of the downward API hold, by volume and path. Of all labels, those are looked at that the baseline has.
func files(spec *corev1.PodSpec, m, baseline metadataOf) map[string]string {
	all := map[string]string{}
	add := func(volume string, items []corev1.DownwardAPIVolumeFile) {
		for _, item := range items {
			at := volume + "/" + item.Path
			if item.FieldRef == nil {
				continue
			}
			content := m.field(item.FieldRef.FieldPath)
			if item.Path != "labels" {
				all[at] = content
				continue
			}
			if item.FieldRef.FieldPath == "metadata.labels" {
				content = ""
				for name, value := range m.labels {
					content += name + "=" + strconv.Quote(value) + "\n"
				}
			}
			for name, value := range baseline.labels {
				all[at+" "+name] = fmt.Sprint(slices.Contains(strings.Split(content, "\n"), name+"="+strconv.Quote(value)))
			}
		}
	}
	for _, v := range spec.Volumes {
		if v.DownwardAPI != nil {
			add(v.Name, v.DownwardAPI.Items)
		}
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.DownwardAPI != nil && !strings.HasPrefix(v.Name, "kube-api-access") {
					add(v.Name, s.DownwardAPI.Items)
				}
			}
		}
	}
	return all
}

func aliases(spec *corev1.PodSpec) map[string][]string {
	all := map[string][]string{}
	for _, a := range spec.HostAliases {
		all[a.IP] = append(all[a.IP], a.Hostnames...)
	}
	for ip, names := range all {
		slices.Sort(names)
		all[ip] = slices.Compact(names)
	}
	return maps.Clone(all)
}
