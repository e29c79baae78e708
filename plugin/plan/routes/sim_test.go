package routes_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A world stands in for a namespace: it takes patches as the API server does (the same library, then a trip through the
// typed object), and replaces pods one at a time as controllers do, through an admission that injects routers.
type world struct {
	workloads map[string]*plan.Workload
	services  map[string]*corev1.Service
	policies  map[string]*networkingv1.NetworkPolicy
	pods      []*corev1.Pod
	seq       int
	writes    int
}

func newWorld(objects ...any) *world {
	w := &world{workloads: map[string]*plan.Workload{}, services: map[string]*corev1.Service{}, policies: map[string]*networkingv1.NetworkPolicy{}}
	for _, obj := range objects {
		switch obj := obj.(type) {
		case *plan.Workload:
			if obj.Object.GetUID() == "" {
				obj.Object.SetUID(types.UID("uid-" + obj.Name()))
			}
			obj.Object.SetGeneration(1)
			w.workloads[obj.Name()] = obj
			w.fill(obj)
			w.observe(obj)
		case *corev1.Service:
			obj.UID = types.UID("uid-" + obj.Name)
			obj.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
			w.services[obj.Name] = obj
		case *networkingv1.NetworkPolicy:
			obj.UID = types.UID("uid-" + obj.Name)
			obj.TypeMeta = metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}
			w.policies[obj.Name] = obj
		case *corev1.Pod:
			w.pods = append(w.pods, obj)
		default:
			panic(fmt.Sprintf("%T", obj))
		}
	}
	return w
}

// workload makes a Workload of a typed object.
func workload(obj runtime.Object) *plan.Workload {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		panic(err)
	}
	u := &unstructured.Unstructured{Object: content}
	gr := schema.GroupResource{Group: u.GroupVersionKind().Group, Resource: strings.ToLower(u.GetKind()) + "s"}
	return &plan.Workload{Object: u, Resource: gr}
}

func (w *world) replicas(t *plan.Workload) int {
	n, found, _ := unstructured.NestedInt64(t.Object.Object, "spec", "replicas")
	if !found {
		return 1
	}
	return int(n)
}

func (w *world) fill(t *plan.Workload) {
	for range w.replicas(t) {
		w.pods = append(w.pods, w.newPod(t))
	}
}

// newPod makes a pod of the template and does to it what admission does.
func (w *world) newPod(t *plan.Workload) *corev1.Pod {
	template, err := t.PodTemplate()
	if err != nil {
		panic(err)
	}
	w.seq++
	yes := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%d", t.Name(), w.seq), Labels: template.Labels, Annotations: template.Annotations,
			OwnerReferences: []metav1.OwnerReference{{Kind: t.Kind(), APIVersion: t.Object.GetAPIVersion(), Name: t.Name(), UID: t.Object.GetUID(), Controller: &yes}},
		},
		Spec:   routes.TemplatePod(template).Spec,
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}, PodIP: fmt.Sprintf("10.0.0.%d", w.seq%250+1)},
	}
	if pod.Labels[sandbox.LabelRole] != sandbox.RoleBaseline {
		return pod
	}
	ports, err := sandbox.ParsePorts(pod.Annotations[sandbox.AnnotationPorts])
	if err != nil {
		panic(err)
	}
	var taken []uint16
	for _, c := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
		for _, p := range c.Ports {
			taken = append(taken, uint16(p.ContainerPort))
		}
	}
	captures := sandbox.Listen(ports, taken)
	always := corev1.ContainerRestartPolicyAlways
	r := corev1.Container{Name: sandbox.RouterContainer, RestartPolicy: &always, Env: []corev1.EnvVar{{Name: sandbox.EnvRouterPorts, Value: sandbox.FormatCaptures(captures)}}}
	for _, c := range captures {
		if n, ok := plan.FindPort(pod, c.Name); !ok || n != c.Number || len(routes.ContainersNaming(pod, c.Name)) != 1 {
			panic(fmt.Sprintf("admission declines %s: port %v", pod.Name, c))
		}
		for _, container := range plan.ServingContainers(pod) {
			for i := range container.Ports {
				if container.Ports[i].Name == c.Name && container.Ports[i].Protocol == corev1.ProtocolTCP {
					container.Ports[i].Name = ""
				}
			}
		}
		r.Ports = append(r.Ports, corev1.ContainerPort{Name: c.Name, ContainerPort: int32(c.Listen), Protocol: corev1.ProtocolTCP})
	}
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, r)
	return pod
}

// roll replaces one pod of an old template; false when there is none.
func (w *world) roll(t *plan.Workload) bool {
	for i, pod := range w.pods {
		if ref := metav1.GetControllerOf(pod); ref == nil || ref.UID != t.Object.GetUID() {
			continue
		}
		fresh := w.newPod(t)
		if pod.Name[strings.LastIndex(pod.Name, "-"):] != "" && samePod(pod, fresh) {
			w.seq--
			continue
		}
		w.pods[i] = fresh
		return true
	}
	w.observe(t)
	return false
}

func samePod(p, q *corev1.Pod) bool {
	a, _ := json.Marshal([]any{p.Spec, p.Labels, p.Annotations})
	b, _ := json.Marshal([]any{q.Spec, q.Labels, q.Annotations})
	return string(a) == string(b)
}

func (w *world) observe(t *plan.Workload) {
	n := int64(w.replicas(t))
	status := map[string]any{"observedGeneration": t.Object.GetGeneration()}
	for _, field := range []string{"replicas", "updatedReplicas", "availableReplicas", "readyReplicas", "updatedNumberScheduled", "desiredNumberScheduled", "numberAvailable"} {
		status[field] = n
	}
	if plan.IsRollout(t) {
		status["phase"], status["observedGeneration"] = "Healthy", fmt.Sprint(t.Object.GetGeneration())
	}
	t.Object.Object["status"] = status
}

func (w *world) view(targets ...string) *routes.View {
	v := &routes.View{ControlNamespace: "kubectl-sandbox", NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": "shop"}}
	for _, name := range targets {
		t := w.workloads[name]
		v.Targets = append(v.Targets, &plan.Workload{Object: t.Object.DeepCopy(), Resource: t.Resource})
	}
	for _, name := range slices.Sorted(maps.Keys(w.workloads)) {
		if !slices.Contains(targets, name) {
			v.Others = append(v.Others, w.workloads[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.services)) {
		v.Services = append(v.Services, w.services[name].DeepCopy())
	}
	for _, name := range slices.Sorted(maps.Keys(w.policies)) {
		v.Policies = append(v.Policies, w.policies[name].DeepCopy())
	}
	for _, pod := range w.pods {
		v.Pods = append(v.Pods, pod.DeepCopy())
	}
	return v
}

// write does what the API server would do; it also holds the write's After to what comes of its Patch.
func (w *world) write(t rapid.TB, write *routes.Write) {
	t.Helper()
	w.writes++
	switch write.Resource {
	case routes.ServicesResource():
		s := w.services[write.Name]
		out := new(corev1.Service)
		w.patch(t, write, plan.ToUnstructured(s, "Service"), out)
		w.services[write.Name] = out
	case routes.PoliciesResource():
		switch {
		case write.Delete != "":
			if w.policies[write.Name].UID != write.Delete {
				t.Fatalf("deletes another %s", write.Object)
			}
			delete(w.policies, write.Name)
			return
		case write.Create != nil:
			if w.policies[write.Name] != nil {
				t.Fatalf("creates %s, which exists", write.Object)
			}
			p := new(networkingv1.NetworkPolicy)
			if err := routes.Decode(write.Create, p); err != nil {
				t.Fatal(err)
			}
			p.UID = types.UID("uid-" + p.Name)
			w.policies[p.Name] = p
			return
		}
		out := new(networkingv1.NetworkPolicy)
		w.patch(t, write, plan.ToUnstructured(w.policies[write.Name], "NetworkPolicy"), out)
		w.policies[write.Name] = out
	default:
		target := w.workloads[write.Name]
		var out runtime.Object
		switch target.Kind() {
		case "Deployment":
			out = new(appsv1.Deployment)
		case "StatefulSet":
			out = new(appsv1.StatefulSet)
		case "DaemonSet":
			out = new(appsv1.DaemonSet)
		default:
			out = new(unstructured.Unstructured)
		}
		before := target.Template()
		w.patch(t, write, target.Object, out)
		if u, ok := out.(*unstructured.Unstructured); ok {
			target.Object = u
		} else {
			target.Object = workload(out).Object
		}
		if a, b := asJSON(before), asJSON(target.Template()); a != b {
			target.Object.SetGeneration(target.Object.GetGeneration() + 1)
			if write.Rolls == nil {
				t.Errorf("%s rolls out, and says it does not: %s", write.Object, write.Change)
			}
		} else if write.Rolls != nil {
			t.Errorf("%s does not roll out, and says it does: %s", write.Object, write.Change)
		}
	}
}

func (w *world) patch(t rapid.TB, write *routes.Write, obj *unstructured.Unstructured, out runtime.Object) {
	t.Helper()
	doc, err := json.Marshal(obj.Object)
	if err != nil {
		t.Fatal(err)
	}
	ops, err := json.Marshal(write.Patch)
	if err != nil {
		t.Fatal(err)
	}
	p, err := jsonpatch.DecodePatch(ops)
	if err != nil {
		t.Fatal(err)
	}
	doc, err = p.Apply(doc)
	if err != nil {
		t.Fatalf("patch of %s: %v\n%s", write.Object, err, ops)
	}
	var got map[string]any
	if err := json.Unmarshal(doc, &got); err != nil {
		t.Fatal(err)
	}
	if a, b := asJSON(got), asJSON(write.After.Object); a != b {
		t.Fatalf("patch of %s comes to\n%s\nnot to\n%s", write.Object, a, b)
	}
	if u, ok := out.(*unstructured.Unstructured); ok {
		if err := u.UnmarshalJSON(doc); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := json.Unmarshal(doc, out); err != nil {
		t.Fatal(err)
	}
}

func asJSON(v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// snapshot is what `unroute` must leave as it was: all of every object but what the API server counts.
func (w *world) snapshot() string {
	all := map[string]any{}
	for name, t := range w.workloads {
		o := t.Object.DeepCopy().Object
		delete(o, "status")
		unstructured.RemoveNestedField(o, "metadata", "generation")
		all["workload/"+name] = o
	}
	for name, s := range w.services {
		all["service/"+name] = s
	}
	for name, p := range w.policies {
		all["policy/"+name] = p
	}
	return asJSON(all)
}

// endpoints is where every Service's TCP port leads, pod by pod, with routers seen through: what `route` must never change.
func (w *world) endpoints() map[string]uint16 {
	e := map[string]uint16{}
	for _, s := range w.services {
		for i, p := range s.Spec.Ports {
			for _, pod := range w.pods {
				ref := metav1.GetControllerOf(pod)
				if !plan.Selects(s, pod.Labels) || plan.Protocol(p.Protocol) != corev1.ProtocolTCP {
					continue
				}
				of := pod.Name
				if ref != nil {
					of = ref.Name
				}
				key := fmt.Sprintf("%s[%d] in pods of %s", s.Name, i, of)
				if p.TargetPort.Type == intstr.Int {
					e[key] = uint16(p.TargetPort.IntVal)
					continue
				}
				n, ok := plan.FindPort(routes.AppView(pod), p.TargetPort.StrVal)
				if old, seen := e[key]; seen && (!ok || old != n) {
					e[key] = 0 // its pods disagree
				} else if ok {
					e[key] = n
				}
			}
		}
	}
	return e
}

// run takes steps until next is done, or limit writes were made (negative: no limit). Wherever a controller could be in
// replacing pods, all endpoints must be what they were.
func (w *world) run(t rapid.TB, next func(*routes.View) (*routes.Step, error), limit int, targets ...string) error {
	t.Helper()
	endpoints := w.endpoints()
	check := func(when string) {
		if got := w.endpoints(); !maps.Equal(got, endpoints) {
			t.Fatalf("%s: endpoints are %v, were %v", when, got, endpoints)
		}
	}
	for range 1000 {
		step, err := next(w.view(targets...))
		if err != nil {
			return err
		}
		if step.Done {
			return nil
		}
		for i := range step.Writes {
			if limit == 0 {
				return nil
			}
			limit--
			w.write(t, &step.Writes[i])
			check("after " + step.Writes[i].Object + ": " + step.Writes[i].Change)
		}
		if len(step.Writes) == 0 {
			for _, name := range targets {
				w.roll(w.workloads[name])
				check("rolling " + name)
			}
		}
	}
	t.Fatal("no end")
	return nil
}
