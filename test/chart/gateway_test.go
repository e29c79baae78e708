package chart_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/server"
)

// gatewaySets are the sets of values with the gateway.
func gatewaySets() []string { return []string{"gateway", "gateway API", "gateway TLS"} }

func TestGateway_IsNotThereUnlessAskedFor(t *testing.T) {
	objects := mustTemplate(t, nil)
	for _, d := range all[*appsv1.Deployment](objects) {
		if d.Name == "sandbox-gateway" {
			t.Error("it is there")
		}
	}
	if a := only[*admissionv1.MutatingWebhookConfiguration](t, objects).Annotations[sandbox.AnnotationGateway]; a != "" {
		t.Errorf("announced at %q", a)
	}
}

// It only ever reads, and no Secrets.
func TestGateway_OnlyReads(t *testing.T) {
	for _, set := range gatewaySets() {
		for _, rule := range clusterRole(t, mustTemplate(t, valueSets()[set]), "sandbox-gateway").Rules {
			if !slices.Equal(rule.Verbs, []string{"list", "watch"}) || slices.Contains(rule.Resources, "secrets") {
				t.Errorf("%s: may %v", set, rule)
			}
		}
	}
}

// The gateway itself takes the arguments that the chart gives it, and the plugin finds its domain.
func TestGateway_TakesItsArguments(t *testing.T) {
	for _, set := range gatewaySets() {
		objects := mustTemplate(t, valueSets()[set])
		d := gatewayDeployment(t, objects)
		if *d.Spec.Replicas != 2 || *d.Spec.Template.Spec.TerminationGracePeriodSeconds != 40 {
			t.Errorf("%s: %d replicas, %d s", set, *d.Spec.Replicas, *d.Spec.Template.Spec.TerminationGracePeriodSeconds)
		}
		var o server.GatewayOptions
		flags := pflag.NewFlagSet("gateway", pflag.ContinueOnError)
		o.AddFlags(flags)
		args := d.Spec.Template.Spec.Containers[0].Args
		if args[0] != "gateway" {
			t.Errorf("%s: %v", set, args)
		}
		if err := flags.Parse(args[1:]); err != nil {
			t.Errorf("%s: %v", set, err)
		}
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", set, err)
		}
		if (o.CertificatesDir != "") != (set == "gateway TLS") || o.BehindProxy == (set == "gateway TLS") || (o.PasswordFile != "") != (set == "gateway") || o.Ribbon != (set == "gateway TLS") {
			t.Errorf("%s: %+v", set, o)
		}
		if a := only[*admissionv1.MutatingWebhookConfiguration](t, objects).Annotations[sandbox.AnnotationGateway]; a != o.Domain || a == "" {
			t.Errorf("%s: announced at %q, serves %q", set, a, o.Domain)
		}
	}
}

func TestGateway_StandsBehindIngressOrGatewayAPI(t *testing.T) {
	i := only[*networkingv1.Ingress](t, mustTemplate(t, valueSets()["gateway"]))
	if b := i.Spec.Rules[0].HTTP.Paths[0].Backend.Service; i.Spec.Rules[0].Host != "*.preview.example.com" || b.Name != "oauth2-proxy" || b.Port.Number != 4180 ||
		i.Spec.TLS[0].SecretName != "sandbox-gateway-tls" || *i.Spec.IngressClassName != "nginx" {
		t.Errorf("ingress: %+v", i.Spec)
	}
	kinds := map[string]bool{}
	for _, u := range all[*unstructured.Unstructured](mustTemplate(t, valueSets()["gateway API"])) {
		kinds[u.GetKind()] = true
		if hosts, _, _ := unstructured.NestedStringSlice(u.Object, "spec", "hostnames"); u.GetKind() == "HTTPRoute" && !slices.Equal(hosts, []string{"*.preview.example.com"}) {
			t.Errorf("HTTPRoute: %v", hosts)
		}
	}
	if !kinds["Gateway"] || !kinds["HTTPRoute"] {
		t.Errorf("there is %v", kinds)
	}
	for _, s := range all[*corev1.Service](mustTemplate(t, valueSets()["gateway TLS"])) {
		if s.Name == "sandbox-gateway" && (s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.Ports[0].Port != 443) {
			t.Errorf("service: %+v", s.Spec)
		}
	}
}

func TestGateway_WrongValuesAreRefused(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"domain":         {"enabled": true},
		"secretName":     {"enabled": true, "domain": "a.test", "tls": map[string]any{"at": "gateway"}},
		"parentRefs":     {"enabled": true, "domain": "a.test", "gatewayAPI": map[string]any{"enabled": true}},
		"/gateway/tls":   {"enabled": true, "domain": "a.test", "tls": map[string]any{"at": "gateway", "secretName": "x"}, "gatewayAPI": map[string]any{"enabled": true, "gatewayClassName": "x"}},
		"certificate":    {"enabled": true, "domain": "a.test", "gatewayAPI": map[string]any{"enabled": true, "gatewayClassName": "x"}},
		"gateway/domain": {"enabled": true, "domain": "*.a.test"},
	} {
		if _, err := template(t, "kubectl-sandbox", map[string]any{"gateway": values}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// isGateways says whether an object is the gateway's.
func isGateways(o runtime.Object) bool {
	m, err := meta.Accessor(o)
	return err == nil && m.GetName() == "sandbox-gateway"
}

// gatewayDeployment returns the gateway's.
func gatewayDeployment(t *testing.T, objects []runtime.Object) *appsv1.Deployment {
	t.Helper()
	for _, d := range all[*appsv1.Deployment](objects) {
		if isGateways(d) {
			return d
		}
	}
	t.Fatal("there is no gateway")
	return nil
}
