package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
)

// The suite's Jobs and what they mount.
const (
	suiteMap  = "suite"
	faultsMap = "faults" // Caddy's, of the variants that are made with it
)

// requests are what the load check sends: vegeta's targets.
const requests = `GET http://customer/customer?customer=123
GET http://customer/customer?customer=392
GET http://customer/customer?customer=567
GET http://customer/customer?customer=731
`

// document is what customer promises.
const document = `openapi: 3.0.3
info: {title: customer, version: "1"}
paths:
  /customer:
    get:
      operationId: customer
      parameters:
      - {name: customer, in: query, required: true, schema: {type: integer}, example: 392}
      responses:
        "200":
          description: a customer
          content:
            application/json:
              schema:
                type: object
                required: [ID, Name, Location]
                properties:
                  ID: {type: string}
                  Name: {type: string}
                  Location: {type: string, pattern: '^\d+,\d+$'}
`

const caddyOptions = `{
	admin off
	auto_https off
	persist_config off
}
`

// failing fails 2 % of requests, by chance: 82 of 4096 identifiers that Caddy gives to a request.
const failing = caddyOptions + `:8081 {
	@unlucky expression ` + "`" + `{http.request.uuid}.matches("^0([0-4][0-9a-f]|5[01])")` + "`" + `
	respond @unlucky "out of order" 500
	reverse_proxy 127.0.0.1:18081
}
`

// broken answers in another shape.
const broken = caddyOptions + `:8081 {
	header Content-Type application/json
	respond ` + "`" + `{"id": 392, "name": "Trom Chocolatier", "address": {"x": 577, "y": 322}}` + "`" + `
}
`

// deploy brings HotROD to the cluster, customer with a database that takes 200 ms and does not make requests wait for each other, and
// routers in front of customer and route. What an earlier run left goes.
func (s *stage) deploy(ctx context.Context) error {
	report := progress.New(os.Stderr)
	builder, err := apps.Builder(s.root, report)
	if err != nil {
		return err
	}
	archives, err := apps.Archives(ctx, builder, apps.Only(apps.Hotrod, apps.HotrodEven, apps.HotrodSlow, apps.Caddy, apps.Podcli))
	if err != nil {
		return err
	}
	if err := report.Step("loading images", func() error { return s.target.Deliver(ctx, os.Stderr, archives...) }); err != nil {
		return err
	}
	return report.Step("deploying HotROD", func() error { return s.apply(ctx) })
}

func (s *stage) apply(ctx context.Context) error {
	there := func(err error) error {
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	_, err := s.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if there(err) != nil {
		return err
	}
	if err := s.sandbox(ctx, "delete", "--all"); err != nil {
		return err
	}
	deployments, services := hotrod.Objects()
	for _, d := range deployments {
		if c := &d.Spec.Template.Spec.Containers[0]; d.Name == hotrod.Customer {
			c.Image = s.target.Reference(apps.HotrodEven)
		} else {
			c.Image = s.target.Reference(c.Image)
		}
		_, err := s.client.AppsV1().Deployments(s.namespace).Create(ctx, d, metav1.CreateOptions{})
		if there(err) != nil {
			return err
		}
	}
	for _, o := range services {
		_, err := s.client.CoreV1().Services(s.namespace).Create(ctx, o, metav1.CreateOptions{})
		if there(err) != nil {
			return err
		}
	}
	for name, data := range map[string]map[string]string{
		suiteMap: {"requests": requests, "openapi.yaml": document}, faultsMap: {"failing": failing, "broken": broken},
	} {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
		_, err := s.client.CoreV1().ConfigMaps(s.namespace).Create(ctx, cm, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			_, err = s.client.CoreV1().ConfigMaps(s.namespace).Update(ctx, cm, metav1.UpdateOptions{})
		}
		if err != nil {
			return err
		}
	}
	for _, name := range hotrod.Services() {
		wait := exec.CommandContext(ctx, "kubectl", "rollout", "status", "deployment/"+name, "--namespace="+s.namespace, "--timeout=120s")
		if out, err := wait.CombinedOutput(); err != nil {
			return fmt.Errorf("deployment/%s: %w\n%s", name, err, bytes.TrimSpace(out))
		}
	}
	return s.sandbox(ctx, "route", "deploy/"+hotrod.Customer, "deploy/"+hotrod.Route)
}

// job is a check of the suite, on customer. what are fields of the Job's one container.
func job(name, annotations, what string) string {
	return fmt.Sprintf(`---
apiVersion: batch/v1
kind: Job
metadata:
  name: %s
  annotations: {kubectl-sandbox.dev/services: customer%s}
spec:
  template:
    spec:
      volumes: [{name: suite, configMap: {name: %s}}]
      containers:
      - name: test
        imagePullPolicy: IfNotPresent
        volumeMounts: [{name: suite, mountPath: /suite}]
        %s
`, name, annotations, suiteMap, what)
}

// suite writes a suite to a file.
func (s *stage) suite(jobs ...string) (string, error) {
	file := filepath.Join(s.out, "suite.yaml")
	var all bytes.Buffer
	for _, j := range jobs {
		all.WriteString(j)
	}
	return file, os.WriteFile(file, all.Bytes(), 0o644) //nolint:gosec // as the reports
}
