package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A ServiceRef names a Service, and a port of it.
type ServiceRef struct {
	Namespace, Name string
	Port            string // number or name; empty: the one that is clear
}

// String writes r as it is typed.
func (r ServiceRef) String() string {
	s := "svc/" + r.Name + "." + r.Namespace
	if r.Port != "" {
		s += ":" + r.Port
	}
	return s
}

// ParseServiceRef reads svc/SERVICE[.NAMESPACE][:PORT]. namespace is the default.
func ParseServiceRef(s, namespace string) (ServiceRef, error) {
	kind, rest, ok := strings.Cut(s, "/")
	if !ok || !slices.Contains([]string{"svc", "service", "services"}, strings.ToLower(kind)) {
		return ServiceRef{}, fmt.Errorf("%q is not svc/SERVICE[.NAMESPACE][:PORT]", s)
	}
	name, port, hasPort := strings.Cut(rest, ":")
	r := ServiceRef{Namespace: namespace, Name: name, Port: port}
	if name, ns, ok := strings.Cut(name, "."); ok {
		r.Name, r.Namespace = name, ns
	}
	switch {
	case len(validation.IsDNS1035Label(r.Name)) > 0 && len(validation.IsDNS1123Label(r.Name)) > 0:
		return ServiceRef{}, fmt.Errorf("%q: %q is no Service's name", s, r.Name)
	case len(validation.IsDNS1123Label(r.Namespace)) > 0:
		return ServiceRef{}, fmt.Errorf("%q: %q is no namespace's name", s, r.Namespace)
	case hasPort && len(validation.IsValidPortName(port)) > 0:
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return ServiceRef{}, fmt.Errorf("%q: %q is not a port", s, port)
		}
	}
	return r, nil
}

// ServicePort returns the TCP port that a reference means. It is the one that the reference names, else the Service's
// only one, else the only one that speaks HTTP by its name, appProtocol or number.
func ServicePort(s *corev1.Service, port string) (corev1.ServicePort, error) {
	var all, web []corev1.ServicePort
	var names []string
	for _, p := range s.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		number := strconv.Itoa(int(p.Port))
		if port != "" && (port == p.Name || port == number) {
			return p, nil
		}
		all = append(all, p)
		if isHTTP(p) {
			web = append(web, p)
		}
		name := number
		if p.Name != "" {
			name += " (" + p.Name + ")"
		}
		names = append(names, name)
	}
	switch {
	case len(all) == 0:
		return corev1.ServicePort{}, &Problem{
			What: fmt.Sprintf("service %q of namespace %q has no TCP port", s.Name, s.Namespace),
			Hint: "what it has", Fix: Kubectl("get", "service", s.Name, "-n", s.Namespace, "-o", "yaml"),
		}
	case port != "":
		return corev1.ServicePort{}, &Problem{What: fmt.Sprintf("service %q of namespace %q has no TCP port %s; there is %s",
			s.Name, s.Namespace, port, strings.Join(names, ", "))}
	case len(all) == 1:
		return all[0], nil
	case len(web) == 1:
		return web[0], nil
	}
	return corev1.ServicePort{}, &Problem{What: fmt.Sprintf("service %q of namespace %q has several ports; add one to its name, as in svc/%s:%d: %s",
		s.Name, s.Namespace, s.Name, all[0].Port, strings.Join(names, ", "))}
}

// isHTTP reads what http2 reads, and the customary port numbers if neither name nor appProtocol states a protocol.
func isHTTP(p corev1.ServicePort) bool {
	if p.AppProtocol != nil {
		a := strings.ToLower(*p.AppProtocol)
		return a == "http" || a == "kubernetes.io/ws" || http2(p) && a != "grpc"
	}
	kind, _, _ := strings.Cut(p.Name, "-")
	return kind == "http" || kind == "web" || p.Name == "" && (p.Port == 80 || p.Port == 8080)
}

// An Entry is how requests enter a namespace.
type Entry struct {
	Service ServiceRef
	// Hosts maps the host names of the namespace's Ingresses and HTTPRoutes to the Service that answers "/".
	Hosts map[string]ServiceRef
}

// backendOf is a Service behind a host and path.
type backendOf struct {
	host, path string
	service    ServiceRef
}

// FindEntry finds the Service through which requests enter a namespace: the one behind its Ingresses and HTTPRoutes,
// or behind their path "/"; else its only LoadBalancer or NodePort; else its only Service. If none of these is clear,
// the Problem proposes command with a Service added. Hosts are found in any case.
func FindEntry(namespace string, services []corev1.Service, ingresses []networkingv1.Ingress, routes []unstructured.Unstructured, command []string) (Entry, error) {
	backends := append(ingressBackends(ingresses), routeBackends(routes)...)
	e := Entry{Hosts: map[string]ServiceRef{}}
	behind, root := map[string]ServiceRef{}, map[string]ServiceRef{}
	for _, b := range backends {
		behind[b.service.Name] = b.service
		if b.path == "" || b.path == "/" {
			root[b.service.Name] = b.service
			if b.host != "" && !strings.HasPrefix(b.host, "*") {
				e.Hosts[strings.ToLower(b.host)] = b.service
			}
		}
	}
	open, all := map[string]ServiceRef{}, map[string]ServiceRef{}
	for i := range services {
		s := &services[i]
		if s.Spec.Type == corev1.ServiceTypeExternalName || s.Name == "kubernetes" && namespace == "default" || s.Labels[sandbox.LabelSandbox] != "" {
			continue
		}
		ref := ServiceRef{Namespace: namespace, Name: s.Name}
		all[s.Name] = ref
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer || s.Spec.Type == corev1.ServiceTypeNodePort {
			open[s.Name] = ref
		}
	}
	candidates := all
	switch {
	case len(behind) > 1 && len(root) == 1:
		candidates = root
	case len(behind) > 0:
		candidates = behind
	case len(open) > 0:
		candidates = open
	}
	if len(candidates) == 1 {
		for _, e.Service = range candidates {
			return e, nil
		}
	}
	if len(all) == 0 {
		return e, &Problem{
			What: fmt.Sprintf("namespace %q has no Service to open", namespace),
			Hint: "one of another namespace", Fix: append(slices.Clone(command), "svc/SERVICE.NAMESPACE"),
		}
	}
	names := slices.Sorted(maps.Keys(candidates))
	return e, &Problem{
		What: fmt.Sprintf("it is not clear by which Service requests enter namespace %q; there is %s", namespace, strings.Join(names, ", ")),
		Hint: "name it", Fix: append(slices.Clone(command), "svc/"+names[0]),
	}
}

func ingressBackends(ingresses []networkingv1.Ingress) []backendOf {
	var out []backendOf
	add := func(i *networkingv1.Ingress, host, path string, b *networkingv1.IngressBackend) {
		if b == nil || b.Service == nil {
			return
		}
		ref := ServiceRef{Namespace: i.Namespace, Name: b.Service.Name, Port: b.Service.Port.Name}
		if n := b.Service.Port.Number; n != 0 {
			ref.Port = strconv.Itoa(int(n))
		}
		out = append(out, backendOf{host, path, ref})
	}
	for n := range ingresses {
		i := &ingresses[n]
		add(i, "", "", i.Spec.DefaultBackend)
		for _, rule := range i.Spec.Rules {
			if rule.HTTP == nil {
				continue
			}
			for p := range rule.HTTP.Paths {
				add(i, rule.Host, rule.HTTP.Paths[p].Path, &rule.HTTP.Paths[p].Backend)
			}
		}
	}
	return out
}

// routeBackends reads from Gateway API HTTPRoutes which Services of their own namespace are behind which hosts.
func routeBackends(routes []unstructured.Unstructured) []backendOf {
	var out []backendOf
	for i := range routes {
		r := &routes[i]
		hosts, _, _ := unstructured.NestedStringSlice(r.Object, "spec", "hostnames")
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		rules, _, _ := unstructured.NestedSlice(r.Object, "spec", "rules")
		for _, rule := range rules {
			rule, _ := rule.(map[string]any)
			path := "/"
			if matches, _, _ := unstructured.NestedSlice(rule, "matches"); len(matches) > 0 {
				match, _ := matches[0].(map[string]any)
				if value, ok, _ := unstructured.NestedString(match, "path", "value"); ok {
					path = value
				}
			}
			refs, _, _ := unstructured.NestedSlice(rule, "backendRefs")
			for _, ref := range refs {
				ref, _ := ref.(map[string]any)
				name, _, _ := unstructured.NestedString(ref, "name")
				kind, hasKind, _ := unstructured.NestedString(ref, "kind")
				ns, hasNS, _ := unstructured.NestedString(ref, "namespace")
				if name == "" || hasKind && kind != "Service" || hasNS && ns != r.GetNamespace() {
					continue
				}
				service := ServiceRef{Namespace: r.GetNamespace(), Name: name}
				if port, ok, _ := unstructured.NestedInt64(ref, "port"); ok {
					service.Port = strconv.FormatInt(port, 10)
				}
				for _, host := range hosts {
					out = append(out, backendOf{host, path, service})
				}
			}
		}
	}
	return out
}

// KeyCarriers returns what carries the key in this cluster, read from the router of any of the pods; the defaults if
// no pod has a router.
func KeyCarriers(pods []corev1.Pod) route.Carriers {
	c := route.Carriers{Header: KeyHeader(pods), Member: sandbox.DefaultMember}
	for i := range pods {
		for _, container := range pods[i].Spec.InitContainers {
			for _, e := range container.Env {
				if container.Name == sandbox.RouterContainer && e.Name == sandbox.EnvRouterMember && e.Value != "" {
					c.Member = e.Value
					return c
				}
			}
		}
	}
	return c
}
