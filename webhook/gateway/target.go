package gateway

import (
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// target returns the address at which a Service is dialed for a request; overHTTP2 means that it came by HTTP/2. If the
// Service must not be dialed, why is the reason. Only Services that select pods of their own namespace are dialed.
// Otherwise a user who may write a Service could make the gateway dial any host, or any endpoints.
func target(s *corev1.Service, overHTTP2 bool) (addr, why string) {
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return "", "it stands for a host outside of the cluster (ExternalName)"
	case len(s.Spec.Selector) == 0:
		return "", "it selects no pods"
	}
	port, ok := choosePort(s.Spec.Ports, overHTTP2)
	if !ok {
		return "", "it has no TCP port"
	}
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		return net.JoinHostPort(ip, strconv.Itoa(int(port.Port))), ""
	}
	// For a headless Service the cluster's DNS returns the pods' addresses, so the pods' port is dialed.
	number := port.Port
	if port.TargetPort.Type == intstr.Int && port.TargetPort.IntVal != 0 {
		number = port.TargetPort.IntVal
	}
	return net.JoinHostPort(s.Name+"."+s.Namespace+".svc", strconv.Itoa(int(number))), ""
}

// choosePort prefers a port that declares HTTP/2 for requests that came by HTTP/2, and other ports for other requests.
// After that it prefers a port named for HTTP, then 80, then the first.
func choosePort(ports []corev1.ServicePort, overHTTP2 bool) (corev1.ServicePort, bool) {
	rank := func(p *corev1.ServicePort) int {
		n := 0
		if speaksHTTP2(p) != overHTTP2 {
			n += 8
		}
		switch name, _, _ := strings.Cut(p.Name, "-"); {
		case name == "http" || name == "web":
		case p.Port == 80:
			n++
		default:
			n += 2
		}
		return n
	}
	var best *corev1.ServicePort
	for i := range ports {
		p := &ports[i]
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		if best == nil || rank(p) < rank(best) {
			best = p
		}
	}
	if best == nil {
		return corev1.ServicePort{}, false
	}
	return *best, true
}

// speaksHTTP2 checks the port's appProtocol (KEP-3726 defines kubernetes.io/h2c), and the port names that service
// meshes use by convention.
func speaksHTTP2(p *corev1.ServicePort) bool {
	kind, _, _ := strings.Cut(p.Name, "-")
	if p.AppProtocol != nil {
		kind = strings.TrimPrefix(strings.ToLower(*p.AppProtocol), "kubernetes.io/")
	}
	return kind == "grpc" || kind == "http2" || kind == "h2c"
}

// onlyHTTP2 reports whether every TCP port of a Service speaks HTTP/2.
func onlyHTTP2(s *corev1.Service) bool {
	return len(s.Spec.Ports) > 0 && !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		return (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && !speaksHTTP2(&p)
	})
}
