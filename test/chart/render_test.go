package chart_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	root  = "../.."
	chart = root + "/charts/sandbox"
)

// valueSets are named sets of values that between them render every branch of the templates.
func valueSets() map[string]map[string]any {
	return map[string]map[string]any{
		"defaults": {},
		"cert-manager": {"certificates": map[string]any{
			"mode": "cert-manager", "issuerRef": map[string]any{"name": "internal", "kind": "ClusterIssuer"}}},
		"secret": {"certificates": map[string]any{"mode": "secret", "secretName": "webhook-tls"}},
		"gateway": {"gateway": map[string]any{"enabled": true, "domain": "preview.example.com", "ingress": map[string]any{"enabled": true, "className": "nginx",
			"annotations": map[string]any{"a": "b"}}, "tls": map[string]any{"issuerRef": map[string]any{"name": "dns"}},
			"backend": map[string]any{"name": "oauth2-proxy", "port": 4180}, "signIn": map[string]any{"proxyPasswordSecret": "proxy"}}},
		"gateway API": {"gateway": map[string]any{"enabled": true, "domain": "preview.example.com", "tls": map[string]any{"secretName": "wildcard"},
			"gatewayAPI": map[string]any{"enabled": true, "gatewayClassName": "envoy"}}},
		"gateway TLS": {"gateway": map[string]any{"enabled": true, "domain": "preview.example.com", "tls": map[string]any{"at": "gateway", "secretName": "wildcard"},
			"service": map[string]any{"type": "LoadBalancer"}, "gatewayAPI": map[string]any{}, "ribbon": true}},
		"monitoring": monitoring(),
		"minimal": {"replicas": 1, "rbac": map[string]any{"userRoles": false, "discovery": false, "admissionPolicy": false},
			"marks": map[string]any{"guard": false}},
		"everything": {
			"replicas": 3,
			"image": map[string]any{"registry": "registry.test/team", "tag": "v9.9.9", "pullPolicy": "Always",
				"webhookDigest": "sha256:" + digest('a'), "routerDigest": "sha256:" + digest('b'), "probeDigest": "sha256:" + digest('c'), "pluginDigest": "sha256:" + digest('d'),
				"pullSecrets": []any{map[string]any{"name": "pull"}}},
			"key": map[string]any{"header": "x-team-key", "member": "team-key"},
			"router": map[string]any{"resources": map[string]any{"requests": map[string]any{"cpu": "20m", "memory": "48Mi"},
				"limits": map[string]any{"cpu": "1", "memory": "256Mi"}}, "firstWait": "5s", "staleAfter": "1h", "controlAddresses": []any{"10.1.2.3:9444", "sandbox.test:9444"}},
			"follow":         map[string]any{"kinds": []any{map[string]any{"group": "argoproj.io", "version": "v1alpha1", "kind": "Rollout", "resource": "rollouts"}}},
			"serviceAccount": map[string]any{"name": "given"},
			"log":            map[string]any{"level": "debug"},
			"marks": map[string]any{"controllers": []any{"system:serviceaccount:things:controller"}, "kinds": []any{
				map[string]any{"group": "example.test", "resource": "things", "template": "spec.pod.template"}}},
			"sandboxes":            map[string]any{"defaultTTL": "0", "warnBefore": "1m", "maxPerNamespace": 7},
			"shutdownDelaySeconds": 20,
			"resources":            map[string]any{"requests": map[string]any{"cpu": 1, "memory": "1Gi"}, "limits": map[string]any{"cpu": "2", "memory": "2Gi"}},
			"podDisruptionBudget":  map[string]any{"maxUnavailable": "50%"},
			"priorityClassName":    "important",
			"nodeSelector":         map[string]any{"kubernetes.io/os": "linux"},
			"tolerations":          []any{map[string]any{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}},
			"affinity":             map[string]any{"nodeAffinity": map[string]any{}},
			"podAnnotations":       map[string]any{"prometheus.io/scrape": "true"},
			"podLabels":            map[string]any{"team": "platform"},
			"test":                 map[string]any{"namespace": "apps"},
		},
	}
}

// monitoring are the values with all that the Prometheus Operator reads.
func monitoring() map[string]any {
	on := func(more map[string]any) map[string]any {
		m := map[string]any{"enabled": true, "labels": map[string]any{"release": "prometheus"}}
		maps.Copy(m, more)
		return m
	}
	return map[string]any{
		"metrics": map[string]any{"serviceMonitor": on(map[string]any{"interval": "15s"}), "podMonitor": on(map[string]any{"interval": "1m"}),
			"prometheusRule": on(map[string]any{"certificateRemainingSeconds": 7200})},
		"gateway": map[string]any{"enabled": true, "domain": "preview.example.com"},
		"router":  map[string]any{"staleAfter": "20m"},
	}
}

func digest(b byte) string { return string(bytes.Repeat([]byte{b}, 64)) }

// helm runs the real Helm.
func helm(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	program, err := filepath.Abs(filepath.Join(root, "bin", "helm"))
	if err != nil {
		return "", "", err
	}
	if _, err := os.Stat(program); err != nil {
		return "", "", fmt.Errorf("%w: run `make tools`", err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// template renders the chart as Helm does for a release named "sandbox".
func template(t *testing.T, namespace string, values map[string]any) ([]runtime.Object, error) {
	t.Helper()
	out, stderr, err := helm(t.Context(), "template", "sandbox", chart, "--namespace="+namespace, "--values="+valuesFile(t, values))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr)
	}
	return decode(out)
}

func mustTemplate(t *testing.T, values map[string]any) []runtime.Object {
	t.Helper()
	objects, err := template(t, "kubectl-sandbox", values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func valuesFile(t *testing.T, values map[string]any) string {
	t.Helper()
	content, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// decode reads manifests into Kubernetes' own types, strictly: a field that the API does not have, or one that comes twice, is
// an error. A kind of somebody else's is left as it is.
func decode(manifests string) ([]runtime.Object, error) {
	codecs := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict)
	var objects []runtime.Object
	for d := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests))); ; {
		document, err := d.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		content, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, document)
		}
		if bytes.Equal(content, []byte("null")) {
			continue
		}
		object, _, err := codecs.UniversalDeserializer().Decode(content, nil, nil)
		if runtime.IsNotRegisteredError(err) {
			u := &unstructured.Unstructured{}
			if err = json.Unmarshal(content, u); err == nil {
				object = u
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, document)
		}
		objects = append(objects, object)
	}
}

// all returns the objects of one type.
func all[T runtime.Object](objects []runtime.Object) []T {
	var found []T
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// only returns the one object of a type; where the webhook and the gateway have one each, the webhook's.
func only[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	found := all[T](objects)
	if len(found) > 1 {
		found = slices.DeleteFunc(found, func(o T) bool { return isGateways(o) })
	}
	if len(found) != 1 {
		t.Fatalf("chart has %d of %T, want 1", len(found), *new(T))
	}
	return found[0]
}
