package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
)

// deploy brings HotROD to the cluster, built from its Go module. What an earlier run left is taken over, but its sandboxes,
// which are deleted.
func (d *demo) deploy(ctx context.Context) error {
	start := time.Now()
	report := progress.New(os.Stderr)
	builder, err := apps.Builder(d.root, report)
	if err != nil {
		return err
	}
	archives, err := apps.Archives(ctx, builder, apps.Only(apps.Hotrod, apps.HotrodOld, apps.HotrodFast))
	if err != nil {
		return err
	}
	if err := report.Step("loading HotROD's images", func() error { return d.target.Deliver(ctx, os.Stderr, archives...) }); err != nil {
		return err
	}

	var manifest bytes.Buffer
	add := func(object any) error { return json.NewEncoder(&manifest).Encode(object) }
	if err := add(&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: d.namespace}}); err != nil {
		return err
	}
	deployments, services := hotrod.Objects()
	for _, o := range deployments {
		o.TypeMeta, o.Namespace = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, d.namespace
		c := &o.Spec.Template.Spec.Containers[0]
		c.Image = d.target.Reference(c.Image)
		if err := add(o); err != nil {
			return err
		}
	}
	for _, o := range services {
		o.TypeMeta, o.Namespace = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, d.namespace
		if err := add(o); err != nil {
			return err
		}
	}
	if err := d.clear(ctx); err != nil {
		return err
	}
	// Not apply: of Services that an earlier run routed, it would take the routers out.
	create := exec.CommandContext(ctx, "kubectl", "create", "-f", "-")
	create.Stdin = &manifest
	if out, err := create.CombinedOutput(); err != nil && !onlyExists(string(out)) {
		return fmt.Errorf("kubectl create: %w\n%s", err, out)
	}
	for _, name := range hotrod.Services() {
		if out, err := d.kubectl(ctx, "rollout", "status", "deployment/"+name, "--namespace="+d.namespace, "--timeout=120s"); err != nil {
			return fmt.Errorf("kubectl rollout status deployment/%s: %w\n%s", name, err, out)
		}
	}
	d.command("kubectl get deployments,services -n " + d.namespace)
	out, err := d.kubectl(ctx, "get", "deployments,services", "--namespace="+d.namespace)
	d.output(out)
	d.say("%s", d.dim(fmt.Sprintf("ready after %s", time.Since(start).Round(100*time.Millisecond))))
	return err
}

// onlyExists reports whether all that kubectl create complained of is that objects exist.
func onlyExists(out string) bool {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Error") && !strings.Contains(line, "(AlreadyExists)") {
			return false
		}
	}
	return true
}

// clear deletes the sandboxes of an earlier run.
func (d *demo) clear(ctx context.Context) error {
	out, err := d.kubectl(ctx, "get", "configmaps", "--namespace="+d.namespace, "-l", "kubectl-sandbox.dev/role=sandbox", "-o", "name")
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) == "" { // no namespace yet, or no sandbox in it
		return nil
	}
	d.say("an earlier run has been here; its sandboxes go:")
	return d.sandbox(ctx, "delete", "--all")
}
