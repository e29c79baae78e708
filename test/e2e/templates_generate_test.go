package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
)

// anyWorkload generates workloads as people write them, among them such as the API server may refuse.
func anyWorkload() *rapid.Generator[*unstructured.Unstructured] {
	return rapid.Custom(func(t *rapid.T) *unstructured.Unstructured {
		kind := rapid.SampledFrom([]string{"Deployment", "Deployment", "StatefulSet", "DaemonSet"}).Draw(t, "kind")
		g := &generator{t, kind}
		spec := map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"app": "api"}},
			"template": g.template(),
		}
		if kind == "StatefulSet" {
			spec["serviceName"] = "api"
		}
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apps/v1", "kind": kind, "metadata": map[string]any{"name": "api"}, "spec": spec,
		}}
	})
}

type generator struct {
	*rapid.T
	kind string
}

func (g *generator) one(label string, of ...string) string {
	return rapid.SampledFrom(of).Draw(g.T, label)
}

// rarely is true in one of n cases.
func (g *generator) rarely(n int, label string) bool {
	return rapid.IntRange(0, n-1).Draw(g.T, label) == 0
}

func (g *generator) times(most int, label string, do func(i int)) {
	for i := range rapid.IntRange(0, most).Draw(g.T, label) {
		do(i)
	}
}

func (g *generator) template() map[string]any {
	spec := map[string]any{}
	var containers, inits []any
	containers = append(containers, g.container("api"))
	if g.rarely(3, "second") {
		containers = append(containers, g.container("second"))
	}
	if g.rarely(3, "init") {
		inits = append(inits, g.container("prepare"))
	}
	if g.rarely(3, "sidecar") {
		sidecar := g.container("sidecar")
		sidecar["restartPolicy"] = "Always"
		inits = append(inits, sidecar)
	}
	spec["containers"] = containers
	if len(inits) > 0 {
		spec["initContainers"] = inits
	}
	spec["volumes"] = []any{
		map[string]any{"name": "tmp", "emptyDir": map[string]any{}},
		map[string]any{"name": "info", "downwardAPI": map[string]any{"items": g.files()}},
		map[string]any{"name": "more", "projected": map[string]any{"sources": []any{map[string]any{"downwardAPI": map[string]any{"items": g.files()}}}}},
	}
	var aliases, secrets, gates, scheduling []any
	g.times(3, "aliases", func(int) {
		aliases = append(aliases, map[string]any{"ip": g.one("ip", "192.0.2.1", "192.0.2.2"), "hostnames": []any{g.one("host", "a", "b"), "c"}})
	})
	g.times(3, "secrets", func(int) { secrets = append(secrets, map[string]any{"name": g.one("secret", "one", "two")}) })
	g.times(1, "gates", func(int) { gates = append(gates, map[string]any{"conditionType": "example.com/lb"}) })
	if g.rarely(4, "scheduling") {
		scheduling = append(scheduling, map[string]any{"name": "example.com/quota"})
	}
	for field, list := range map[string][]any{"hostAliases": aliases, "imagePullSecrets": secrets, "readinessGates": gates, "schedulingGates": scheduling} {
		if len(list) > 0 {
			spec[field] = list
		}
	}
	if g.rarely(3, "node") {
		spec["nodeSelector"] = map[string]any{"disk": "ssd"}
		spec["terminationGracePeriodSeconds"] = int64(7)
	}
	return map[string]any{
		"metadata": map[string]any{
			"labels":      map[string]any{"app": "api", "tier": "web", "tags.example.com/service": "shop-api", "azure.workload.identity/use": "true"},
			"annotations": map[string]any{"note": "a $(A) b", "argocd.argoproj.io/instance": "shop$(A)$$", "kubectl-sandbox.dev/ports": g.one("captured", "", "http=8080", "metrics=8080")},
		},
		"spec": spec,
	}
}

func (g *generator) files() (items []any) {
	for _, f := range [][2]string{
		{"labels", "metadata.labels"}, {"tier", "metadata.labels['tier']"}, {"service", "metadata.labels['tags.example.com/service']"},
		{"argo", "metadata.annotations['argocd.argoproj.io/instance']"}, {"note", "metadata.annotations['note']"}, {"name", "metadata.name"},
	} {
		if g.rarely(2, f[0]) {
			items = append(items, map[string]any{"path": f[0], "fieldRef": map[string]any{"fieldPath": f[1]}})
		}
	}
	return items
}

func (g *generator) container(name string) map[string]any {
	c := map[string]any{"name": name, "image": "registry.example.com/" + name + ":1"}
	var variables, from, ports []any
	g.times(7, "variables", func(int) { variables = append(variables, g.variable()) })
	g.times(2, "envFrom", func(int) {
		ref := map[string]any{"configMapRef": map[string]any{"name": "corp"}}
		if g.rarely(2, "of a Secret") {
			ref = map[string]any{"secretRef": map[string]any{"name": "db"}}
		}
		if prefix := g.one("prefix", "", "", "X_"); prefix != "" {
			ref["prefix"] = prefix
		}
		from = append(from, ref)
	})
	names := map[string]bool{}
	g.times(4, "ports", func(int) {
		p := map[string]any{"containerPort": rapid.SampledFrom([]int64{8080, 9090}).Draw(g.T, "number")}
		if n := g.one("port", "", "http", "metrics", "admin"); n != "" && !names[n] {
			names[n] = true
			p["name"] = n
		}
		if g.rarely(5, "UDP") {
			p["protocol"] = "UDP"
		}
		ports = append(ports, p)
	})
	for field, list := range map[string][]any{"env": variables, "envFrom": from, "ports": ports} {
		if len(list) > 0 {
			c[field] = list
		}
	}
	c["args"] = []any{g.text(), "--x=" + g.text()}
	if g.rarely(2, "command") {
		c["command"] = []any{"/run", g.text()}
	}
	mounts := []any{map[string]any{"name": "info", "mountPath": "/info"}}
	if g.rarely(3, "mount") {
		mounts = append(mounts, map[string]any{"name": "tmp", "mountPath": "/tmp", "subPathExpr": "x/$(A)"})
	}
	c["volumeMounts"] = mounts
	if name == "prepare" {
		return c // an init container has no probes
	}
	for _, probe := range []string{"readinessProbe", "livenessProbe", "startupProbe"} {
		if g.rarely(2, probe) {
			c[probe] = g.handler()
		}
	}
	if g.rarely(3, "hook") {
		c["lifecycle"] = map[string]any{"preStop": g.handler()}
	}
	return c
}

func (g *generator) handler() map[string]any {
	var port any = int64(9090)
	if n := g.one("to", "", "http", "metrics"); n != "" {
		port = n
	}
	if g.rarely(2, "by TCP") {
		return map[string]any{"tcpSocket": map[string]any{"port": port}}
	}
	return map[string]any{"httpGet": map[string]any{"port": port, "path": "/ok"}}
}

// text generates values with references in them.
func (g *generator) text() string {
	var parts []string
	g.times(3, "parts", func(int) {
		parts = append(parts, g.one("part", "x", "$(A)", "$(B)", "$(URL)", "$$(A)", "$", "$(NONE)", "(", ")"))
	})
	return strings.Join(parts, "")
}

func (g *generator) variable() map[string]any {
	name := g.one("name", "A", "A", "B", "URL", "PATH_OF", "HTTP_PROXY", "OTEL_PROPAGATORS")
	field := func(path string) map[string]any { return map[string]any{"fieldRef": map[string]any{"fieldPath": path}} }
	var from map[string]any
	switch g.one("value", "text", "text", "text", "label", "annotation", "pod", "configMap", "secret", "missing") {
	case "text":
		return map[string]any{"name": name, "value": g.text()}
	case "label":
		from = field(g.one("label", "metadata.labels['tier']", "metadata.labels['tags.example.com/service']", "metadata.labels['azure.workload.identity/use']", "metadata.labels['none']"))
	case "annotation":
		from = field(g.one("annotation", "metadata.annotations['note']", "metadata.annotations['argocd.argoproj.io/instance']"))
	case "pod":
		from = field(g.one("field", "metadata.name", "status.podIP", "spec.nodeName"))
	case "configMap":
		from = map[string]any{"configMapKeyRef": map[string]any{"name": "corp", "key": g.one("key", "A", "CM")}}
	case "secret":
		from = map[string]any{"secretKeyRef": map[string]any{"name": "db", "key": g.one("key", "P", "B")}}
	case "missing": // of a name of its own: which of several then counts, no list without duplicates can say
		name = "OPTIONAL"
		from = map[string]any{"configMapKeyRef": map[string]any{"name": "corp", "key": "none", "optional": true}}
	}
	return map[string]any{"name": name, "valueFrom": from}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
