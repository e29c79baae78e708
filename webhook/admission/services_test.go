package admission

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return u
}

const (
	plainService  = `{apiVersion: v1, kind: Service, metadata: {name: api}, spec: {selector: {app: api}, newer: 1, ports: [{name: web, port: 80, protocol: TCP, targetPort: 8080}]}}`
	routedService = `{apiVersion: v1, kind: Service, metadata: {name: api, labels: {kubectl-sandbox.dev/role: service}, annotations: {kubectl-sandbox.dev/workloads: deployment.api,
		kubectl-sandbox.dev/target-ports: '{"TCP-80":{"number":8080,"name":"sbx-8080"}}'}},
		spec: {selector: {app: api}, newer: 1, ports: [{name: web, port: 80, protocol: TCP, targetPort: sbx-8080}]}}`
)

func put(text, annotation string) string {
	return strings.Replace(text, "annotations: {", "annotations: {"+annotation+", ", 1)
}

func TestKeepService(t *testing.T) {
	renamed := strings.NewReplacer
	const back = `kubectl-sandbox.dev/put-back: '{}'`
	for _, tt := range []struct {
		name, before, after string
		want                string // the ports as PORT=TARGET, then the record, then the note
	}{
		{"never routed", plainService, renamed("8080", "9090").Replace(plainService), "80=9090"},
		{"route", plainService, routedService, "80=sbx-8080 TCP-80=8080/sbx-8080"},
		{"the number restated by kubectl apply", routedService, renamed("targetPort: sbx-8080", "targetPort: 8080").Replace(routedService), "80=sbx-8080 TCP-80=8080/sbx-8080"},
		{"replace: the manifest without a mark", routedService, plainService, "80=sbx-8080 TCP-80=8080/sbx-8080"},
		{"another number", routedService, renamed("targetPort: sbx-8080", "targetPort: 9090").Replace(routedService), "80=9090 TCP-80=9090/sbx-8080 back"},
		{"replace with another number", routedService, renamed("8080", "9090").Replace(plainService), "80=9090 TCP-80=9090/sbx-8080 back"},
		{"a name of the owner's own", routedService, renamed("targetPort: sbx-8080", "targetPort: web").Replace(routedService), "80=web"},
		{"another Service port to the same number", routedService, renamed("port: 80,", "port: 8000,", "targetPort: sbx-8080", "targetPort: 8080").Replace(routedService), "8000=sbx-8080 TCP-8000=8080/sbx-8080"},
		{"a port more to the same number", routedService, renamed("ports: [", "ports: [{name: b, port: 81, protocol: TCP, targetPort: 8080}, ").Replace(routedService),
			"81=sbx-8080 80=sbx-8080 TCP-80=8080/sbx-8080 TCP-81=8080/sbx-8080"},
		{"a port more to another number", routedService, renamed("ports: [", "ports: [{name: b, port: 81, protocol: TCP, targetPort: 9090}, ").Replace(routedService),
			"81=9090 80=sbx-8080 TCP-80=8080/sbx-8080"},
		{"the same port of UDP", routedService, renamed("ports: [", "ports: [{name: b, port: 80, protocol: UDP, targetPort: 8080}, ").Replace(routedService),
			"80=8080 80=sbx-8080 TCP-80=8080/sbx-8080"},
		{"the port gone", routedService, renamed("ports: [{name: web, port: 80, protocol: TCP, targetPort: sbx-8080}]", "ports: [{port: 9, protocol: TCP, targetPort: 9}]").Replace(routedService), "9=9"},
		{"another selector", routedService, renamed("selector: {app: api}", "selector: {app: blue}").Replace(routedService), "80=8080 TCP-80=8080/sbx-8080 back"},
		{"put back by the guard", routedService, put(renamed("targetPort: sbx-8080", "targetPort: 8080").Replace(routedService), back), "80=8080 TCP-80=8080/sbx-8080 back"},
		{"replace of what was put back", put(renamed("targetPort: sbx-8080", "targetPort: 8080").Replace(routedService), back), plainService, "80=8080 TCP-80=8080/sbx-8080 back"},
		{"forward by the guard", put(renamed("targetPort: sbx-8080", "targetPort: 8080").Replace(routedService), back), routedService, "80=sbx-8080 TCP-80=8080/sbx-8080"},
		{"unroute empties the record", routedService, renamed(`{"TCP-80":{"number":8080,"name":"sbx-8080"}}`, "{}", "targetPort: sbx-8080", "targetPort: 8080").Replace(routedService), "80=8080"},
		{"unroute takes the marks off", renamed(`{"TCP-80":{"number":8080,"name":"sbx-8080"}}`, "{}", "targetPort: sbx-8080", "targetPort: 8080").Replace(routedService), plainService, "80=8080"},
		{"a label of the owner's own", routedService, renamed("labels: {", "labels: {a: b, ").Replace(routedService), "80=sbx-8080 TCP-80=8080/sbx-8080"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			after := object(t, tt.after)
			kept, err := KeepService(object(t, tt.before), after, Write{Now: "2026-01-02T03:04:05Z"})
			if err != nil {
				t.Fatal(err)
			}
			if got := describeService(t, kept); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if text := kept.GetAnnotations()[sandbox.AnnotationTargetPorts]; text != "" && text != "{}" && kept.GetLabels()[sandbox.LabelRole] != sandbox.RoleService {
				t.Errorf("a record without the label: %v", kept.GetLabels())
			}
			checkPatch(t, after, kept)
			again, err := KeepService(object(t, tt.before), kept, Write{Now: "2026-01-02T03:04:05Z"})
			if err != nil || len(difference(kept, again)) != 0 {
				t.Errorf("a second review changes its own output: %v %v", err, difference(kept, again))
			}
		})
	}
	if _, err := KeepService(object(t, routedService), object(t, put(plainService, "")), Write{}); err != nil {
		t.Error(err)
	}
}

func describeService(t *testing.T, u *unstructured.Unstructured) string {
	t.Helper()
	var words []string
	ports, _, _ := unstructured.NestedSlice(u.Object, "spec", "ports")
	for _, p := range ports {
		p := p.(map[string]any)
		words = append(words, textOf(p["port"])+"="+textOf(p["targetPort"]))
	}
	if text := u.GetAnnotations()[sandbox.AnnotationTargetPorts]; text != "" {
		record, err := sandbox.ParseTargetPorts(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range sortedKeys(record) {
			words = append(words, key+"="+textOf(int64(record[key].Number))+"/"+record[key].Name)
		}
	}
	if u.GetAnnotations()[sandbox.AnnotationRestored] != "" {
		words = append(words, "back")
	}
	return strings.Join(words, " ")
}

// A selector that pods match which have the names is no reason to pass the routers by.
func TestKeepService_AnotherSelectorOfPodsThatHaveTheNames(t *testing.T) {
	after := object(t, strings.NewReplacer("selector: {app: api}", "selector: {app: api, tier: web}", "targetPort: sbx-8080", "targetPort: 8080").Replace(routedService))
	for want, has := range map[string]bool{"80=sbx-8080 TCP-80=8080/sbx-8080": true, "80=8080 TCP-80=8080/sbx-8080 back": false} {
		apiState := ""
		kept, err := KeepService(object(t, routedService), after, Write{Now: "2026-01-02T03:04:05Z", Named: func(s *corev1.Service) bool {
			apiState = s.Spec.Ports[0].TargetPort.String() + " of " + s.Annotations[sandbox.AnnotationWorkloads] + " tier " + s.Spec.Selector["tier"]
			return has
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got := describeService(t, kept); got != want || apiState != "sbx-8080 of deployment.api tier web" {
			t.Errorf("pods have the names %t: got %q, want %q; asked for %s", has, got, want, apiState)
		}
	}
}
