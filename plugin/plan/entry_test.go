package plan

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func entryService(name string, kind corev1.ServiceType) corev1.Service {
	return corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{Type: kind}}
}

func entryIngress(paths ...string) networkingv1.Ingress {
	i := networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}
	for _, p := range paths {
		host, rest, _ := strings.Cut(p, "/")
		path, service, _ := strings.Cut("/"+rest, "=")
		backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}
		i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: path, Backend: backend}}},
		}})
	}
	return i
}

func entryRoute(host, service, kind string) unstructured.Unstructured {
	return unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"namespace": "shop"},
		"spec": map[string]any{
			"hostnames": []any{host},
			"rules":     []any{map[string]any{"backendRefs": []any{map[string]any{"name": service, "kind": kind, "port": int64(80)}}}},
		},
	}}
}

func TestFindEntry(t *testing.T) {
	const cluster, node, balancer = corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer
	all := []corev1.Service{entryService("web", cluster), entryService("api", cluster), entryService("elsewhere", corev1.ServiceTypeExternalName)}
	for name, test := range map[string]struct {
		services  []corev1.Service
		ingresses []networkingv1.Ingress
		routes    []unstructured.Unstructured
		want      string // or what the Problem names
		hosts     string
	}{
		"nothing":                        {nil, nil, nil, "has no Service to open", ""},
		"one Service":                    {all[1:], nil, nil, "svc/api.shop", ""},
		"several":                        {all, nil, nil, "there is api, web", ""},
		"one NodePort":                   {append(all[:2:2], entryService("np", node)), nil, nil, "svc/np.shop", ""},
		"NodePort and LoadBalancer":      {append(all[:2:2], entryService("np", node), entryService("lb", balancer)), nil, nil, "there is lb, np", ""},
		"one behind an Ingress":          {all, []networkingv1.Ingress{entryIngress("a.example/=web", "b.example/x=web")}, nil, "svc/web.shop:80", "a.example"},
		"several, one at the root":       {all, []networkingv1.Ingress{entryIngress("A.example/=web", "a.example/api=api")}, nil, "svc/web.shop:80", "a.example"},
		"several at the root":            {all, []networkingv1.Ingress{entryIngress("a.example/=web", "b.example/=api", "*.c.example/=api")}, nil, "there is api, web", "a.example b.example"},
		"an Ingress before a NodePort":   {append(all[:2:2], entryService("np", node)), []networkingv1.Ingress{entryIngress("a.example/=web")}, nil, "svc/web.shop:80", "a.example"},
		"one behind an HTTPRoute":        {all, nil, []unstructured.Unstructured{entryRoute("r.example", "api", "Service")}, "svc/api.shop:80", "r.example"},
		"an HTTPRoute to something else": {all, nil, []unstructured.Unstructured{entryRoute("r.example", "bucket", "Bucket")}, "there is api, web", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := FindEntry("shop", test.services, test.ingresses, test.routes, Kubectl("sandbox", "open", "pr-1"))
			got := e.Service.String()
			if p := (*Problem)(nil); errors.As(err, &p) {
				got = p.What
				if len(test.services) > 0 && p.Fix[len(p.Fix)-1] == "pr-1" {
					t.Errorf("hint: %v", p.Fix)
				}
			}
			if !strings.HasSuffix(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if hosts := strings.Join(slices.Sorted(maps.Keys(e.Hosts)), " "); hosts != test.hosts {
				t.Errorf("hosts %q, want %q", hosts, test.hosts)
			}
		})
	}
}

func TestParseServiceRef(t *testing.T) {
	for in, want := range map[string]string{
		"svc/web": "svc/web.shop", "service/web.edge": "svc/web.edge", "Services/web:80": "svc/web.shop:80", "svc/web.edge:http": "svc/web.edge:http",
		"web": "", "deploy/web": "", "svc/": "", "svc/Web": "", "svc/web.": "", "svc/web:": "", "svc/web:0": "", "svc/web:65536": "", "svc/web.a.b": "",
	} {
		got, err := ParseServiceRef(in, "shop")
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
}

func TestServicePort(t *testing.T) {
	ports := func(ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{Ports: ports}}
	}
	h2c := "kubernetes.io/h2c"
	for name, test := range map[string]struct {
		service *corev1.Service
		port    string
		want    int32 // 0: none
	}{
		"none":             {ports(), "", 0},
		"the only one":     {ports(corev1.ServicePort{Port: 7}), "", 7},
		"not UDP":          {ports(corev1.ServicePort{Port: 7}, corev1.ServicePort{Name: "http", Port: 8, Protocol: corev1.ProtocolUDP}), "", 7},
		"the HTTP one":     {ports(corev1.ServicePort{Name: "grpc", Port: 7}, corev1.ServicePort{Name: "http-web", Port: 8}), "", 8},
		"by appProtocol":   {ports(corev1.ServicePort{Name: "a", Port: 7}, corev1.ServicePort{Name: "b", Port: 8, AppProtocol: &h2c}), "", 8},
		"not clear":        {ports(corev1.ServicePort{Name: "http", Port: 7}, corev1.ServicePort{Name: "http-b", Port: 8}), "", 0},
		"by name":          {ports(corev1.ServicePort{Name: "a", Port: 7}, corev1.ServicePort{Name: "b", Port: 8}), "b", 8},
		"by number":        {ports(corev1.ServicePort{Name: "a", Port: 7}, corev1.ServicePort{Name: "b", Port: 8}), "7", 7},
		"one there is not": {ports(corev1.ServicePort{Name: "a", Port: 7}), "9", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ServicePort(test.service, test.port)
			if got.Port != test.want || (err == nil) != (test.want != 0) {
				t.Errorf("got %d, %v", got.Port, err)
			}
		})
	}
}
