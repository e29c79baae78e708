package routes_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
)

// `route --all` leaves out what was broken before and what no key can work at, and routes the rest.
func TestChooseRoutes(t *testing.T) {
	w := readWorld(t, []byte(chooseWorld))
	broken := w.workloads["broken"].Object
	if err := unstructured.SetNestedField(broken.Object, int64(0), "status", "availableReplicas"); err != nil {
		t.Fatal(err)
	}
	candidates, _, left := routes.All(w.view())
	chosen, more := routes.Choose(w.view(), candidates)
	var names []string
	for _, c := range chosen {
		names = append(names, c.Name())
	}
	if want := []string{"web"}; !slices.Equal(names, want) {
		t.Errorf("routes %v, want %v", names, want)
	}
	got := slices.Concat(left, more)
	slices.Sort(got)
	want := []string{
		"deployment.apps/beside: service/pair also selects pods of deployment/broken, where port 8080 has no name",
		"deployment.apps/broken: it is not healthy: deployment \"broken\" rollout to finish: 0 of 1 updated replicas are available",
		"deployment.apps/db: port 5432 of service/db is not HTTP: a router finds no key there",
	}
	if !slices.Equal(got, want) {
		t.Errorf("leaves out\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const chooseWorld = `# route
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "web:1", ports: [{containerPort: 8080}]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080, protocol: TCP}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: db, namespace: shop}, spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: "postgres:16", ports: [{containerPort: 5432}]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: 10.0.0.2, selector: {app: db}, ports: [{port: 5432, targetPort: 5432, protocol: TCP}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: broken, namespace: shop}, spec: {selector: {matchLabels: {app: broken}}, template: {metadata: {labels: {app: broken, set: pair}}, spec: {containers: [{name: c, image: "web:1", ports: [{containerPort: 8080}]}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: beside, namespace: shop}, spec: {selector: {matchLabels: {app: beside}}, template: {metadata: {labels: {app: beside, set: pair}}, spec: {containers: [{name: c, image: "web:1", ports: [{containerPort: 8080}]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: pair, namespace: shop}, spec: {clusterIP: 10.0.0.3, selector: {set: pair}, ports: [{port: 80, targetPort: 8080, protocol: TCP}]}}
`
