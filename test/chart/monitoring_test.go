package chart_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// operators returns the objects for the Prometheus Operator, by kind and name.
func operators(objects []runtime.Object) map[string]*unstructured.Unstructured {
	found := map[string]*unstructured.Unstructured{}
	for _, o := range all[*unstructured.Unstructured](objects) {
		if o.GetAPIVersion() == "monitoring.coreos.com/v1" {
			found[o.GetKind()+"/"+o.GetName()] = o
		}
	}
	return found
}

// part reads what is at a path of an object into a value.
func part[T any](t *testing.T, o *unstructured.Unstructured, path ...string) (value T) {
	t.Helper()
	field, ok, err := unstructured.NestedFieldNoCopy(o.Object, path...)
	if !ok || err != nil {
		t.Fatalf("%s %s has no %s (%v)", o.GetKind(), o.GetName(), strings.Join(path, "."), err)
	}
	content, err := yaml.Marshal(field)
	if err == nil {
		err = yaml.UnmarshalStrict(content, &value)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}

type endpoint struct{ Port, Path, Interval string }

func TestMonitoring_IsMadeWhereItIsAskedForAlone(t *testing.T) {
	for _, name := range []string{"defaults", "minimal", "gateway"} {
		if got := operators(mustTemplate(t, valueSets()[name])); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	for value, want := range map[string][]string{
		"serviceMonitor": {"ServiceMonitor/sandbox-webhook"},
		"podMonitor":     {"PodMonitor/sandbox-router"},
		"prometheusRule": {"PrometheusRule/sandbox-webhook"},
	} {
		got := operators(mustTemplate(t, nested("metrics."+value, "enabled", true)))
		for _, name := range want {
			if got[name] == nil || len(got) != len(want) {
				t.Errorf("metrics.%s.enabled makes %v, want %v", value, got, want)
			}
		}
	}
	for name, o := range operators(mustTemplate(t, monitoring())) {
		if o.GetLabels()["release"] != "prometheus" || o.GetNamespace() != "kubectl-sandbox" {
			t.Errorf("%s is in %s with labels %v", name, o.GetNamespace(), o.GetLabels())
		}
	}
}

// What is monitored is there: the selectors take our Service and pods, and the ports are theirs.
func TestMonitoring_ReadsThePortsThatServeMetrics(t *testing.T) {
	objects := mustTemplate(t, monitoring())
	found := operators(objects)
	if len(found) != 4 {
		t.Fatalf("there are %v", found)
	}
	check := func(name, field string, wantPort, wantInterval string, selected labels.Set, ports []string) {
		t.Helper()
		o := found[name]
		if o == nil {
			t.Fatalf("%s is missing", name)
		}
		label := part[metav1.LabelSelector](t, o, "spec", "selector")
		selector, err := metav1.LabelSelectorAsSelector(&label)
		if err != nil || selector.Empty() || !selector.Matches(selected) {
			t.Errorf("%s: selector %v does not take %v (%v)", name, selector, selected, err)
		}
		endpoints := part[[]endpoint](t, o, "spec", field)
		if want := (endpoint{wantPort, "/metrics", wantInterval}); len(endpoints) != 1 || endpoints[0] != want || !slices.Contains(ports, wantPort) {
			t.Errorf("%s: reads %+v, want %+v, of ports %v", name, endpoints, want, ports)
		}
	}
	service := only[*corev1.Service](t, objects)
	var servicePorts []string
	for _, p := range service.Spec.Ports {
		servicePorts = append(servicePorts, p.Name)
	}
	check("ServiceMonitor/sandbox-webhook", "endpoints", "metrics", "15s", service.Labels, servicePorts)
	for _, d := range all[*appsv1.Deployment](objects) {
		if !isGateways(d) {
			continue
		}
		var ports []string
		for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
			ports = append(ports, p.Name)
		}
		check("PodMonitor/sandbox-gateway", "podMetricsEndpoints", "admin", "1m", d.Spec.Template.Labels, ports)
	}
	for _, role := range []string{sandbox.RoleBaseline, sandbox.RoleFork, sandbox.RoleCheck} {
		check("PodMonitor/sandbox-router", "podMetricsEndpoints", "sandbox-admin", "1m", labels.Set{sandbox.LabelRole: role}, []string{"sandbox-admin"})
	}
	if !part[bool](t, found["PodMonitor/sandbox-router"], "spec", "namespaceSelector", "any") {
		t.Error("routers of other namespaces are not read")
	}
}

// promtool judges the rules as Prometheus reads them, and what they say of series over time.
func TestAlerts_FireOnWhatTheyAreForAndNotBefore(t *testing.T) {
	rule := operators(mustTemplate(t, monitoring()))["PrometheusRule/sandbox-webhook"]
	groups := part[[]map[string]any](t, rule, "spec", "groups")
	content, err := yaml.Marshal(map[string]any{"groups": groups})
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "alerts.yaml"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile(filepath.Join("testdata", "alerts.test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "alerts.test.yaml")
	if err := os.WriteFile(path, cases, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool := filepath.Join(root, "bin", "promtool")
	if _, err := os.Stat(promtool); err != nil {
		t.Fatalf("%v: run make bin/promtool", err)
	}
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", filepath.Join(folder, "alerts.yaml")}, {"test", "rules", path}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args[:2], " "), err, out)
		}
	}
	for _, g := range groups {
		for _, r := range g["rules"].([]any) {
			name, _ := r.(map[string]any)["alert"].(string)
			if !strings.Contains(string(cases), "alertname: "+name+"\n") {
				t.Errorf("no case of alert %s", name)
			}
		}
	}
}
