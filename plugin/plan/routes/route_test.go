package routes_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var update = flag.Bool("update", false, "write what comes out into the golden files")

// Each testdata/route/NAME.yaml is a namespace. Its first line, "# COMMAND WORKLOAD...", is what is done there; NAME.txt is
// what comes of it, step by step. What this routes is unrouted too, after which all must be as it was.
func TestRoute_Golden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/route/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no input", err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			words := strings.Fields(strings.TrimPrefix(first, "#"))
			w := readWorld(t, text)
			before := w.snapshot()
			var out strings.Builder
			next := routes.Route
			if words[0] == "unroute" {
				next = routes.Unroute
			}
			routed := plan.Touched(w.workloads[words[1]])
			err = transcribe(t, &out, w, next, words[1:])
			if err == nil && words[0] == "route" && !routed {
				if err := w.run(t, routes.Unroute, -1, words[1:]...); err != nil {
					t.Fatal(err)
				}
				if after := w.snapshot(); after != before {
					t.Errorf("after unroute the namespace is\n%s\nand was\n%s", after, before)
				}
			}
			golden := strings.TrimSuffix(input, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", out.String(), want)
			}
		})
	}
}

// transcribe takes all steps and writes down each.
func transcribe(t *testing.T, out *strings.Builder, w *world, next func(*routes.View) (*routes.Step, error), targets []string) error {
	t.Helper()
	problem := func(err error) error {
		var p *plan.Problem
		if !errors.As(err, &p) {
			t.Fatal(err)
		}
		fmt.Fprintf(out, "error: %s\nhint: %s: %s\n", p.What, p.Hint, plan.Quote(p.Fix))
		return err
	}
	if notices, err := routes.Notices(w.view(targets...)); err == nil {
		for _, n := range notices {
			fmt.Fprintf(out, "notice: %s\n", n)
		}
	}
	title := ""
	err := w.run(t, func(v *routes.View) (*routes.Step, error) {
		step, err := next(v)
		if err != nil || step.Title == title {
			return step, err
		}
		title = step.Title
		if step.Done {
			return step, nil
		}
		fmt.Fprintf(out, "%s\n", title)
		for _, write := range step.Writes {
			rolls := ""
			if write.Rolls != nil {
				rolls = " (rolls out)"
			}
			fmt.Fprintf(out, "  %s: %s%s\n", write.Object, write.Change, rolls)
			object := write.Create
			if object == nil && write.Resource == routes.PoliciesResource() {
				object = write.After
			}
			if object != nil {
				spec, err := yaml.Marshal(object.Object["spec"])
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(out, "    %s\n", strings.ReplaceAll(strings.TrimSpace(string(spec)), "\n", "\n    "))
			}
		}
		return step, nil
	}, -1, targets...)
	if err != nil {
		return problem(err)
	}
	for _, name := range targets {
		if ports := w.workloads[name].Template()["metadata"].(map[string]any)["annotations"]; ports != nil {
			fmt.Fprintf(out, "%s captures %v\n", name, ports.(map[string]any)[sandbox.AnnotationPorts])
		}
	}
	return nil
}

func readWorld(t *testing.T, text []byte) *world {
	t.Helper()
	var objects []any
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			t.Fatal(err)
		}
		u.SetNamespace("shop")
		into := func(obj runtime.Object) runtime.Object {
			if err := yaml.UnmarshalStrict(doc, obj); err != nil {
				t.Fatal(err)
			}
			return obj
		}
		switch u.GetKind() {
		case "Service":
			s := into(new(corev1.Service)).(*corev1.Service)
			s.Namespace = "shop"
			for i := range s.Spec.Ports {
				s.Spec.Ports[i].Protocol = plan.Protocol(s.Spec.Ports[i].Protocol)
			}
			objects = append(objects, s)
		case "NetworkPolicy":
			p := into(new(networkingv1.NetworkPolicy)).(*networkingv1.NetworkPolicy)
			p.Namespace = "shop"
			objects = append(objects, p)
		case "Pod":
			p := into(new(corev1.Pod)).(*corev1.Pod)
			p.Namespace = "shop"
			objects = append(objects, p)
		case "Deployment":
			objects = append(objects, inShop(workload(into(new(appsv1.Deployment)))))
		case "StatefulSet":
			objects = append(objects, inShop(workload(into(new(appsv1.StatefulSet)))))
		case "DaemonSet":
			objects = append(objects, inShop(workload(into(new(appsv1.DaemonSet)))))
		default:
			objects = append(objects, workload(u))
		}
	}
	return newWorld(objects...)
}

func inShop(w *plan.Workload) *plan.Workload {
	w.Object.SetNamespace("shop")
	return w
}
