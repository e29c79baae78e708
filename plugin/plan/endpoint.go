package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// An Endpoint is a port of a Service that selects a workload.
type Endpoint struct {
	Service, Namespace string
	Port               int32
	// HTTP2 means that the port's name or appProtocol indicates gRPC, or HTTP/2 without TLS.
	HTTP2 bool
}

// Host returns the Service's DNS name, which resolves from any namespace.
func (e Endpoint) Host() string { return e.Service + "." + e.Namespace }

// Address returns the endpoint's HOST[:PORT], which works from any namespace.
func (e Endpoint) Address() string {
	if e.Port == 80 {
		return e.Host()
	}
	return fmt.Sprintf("%s:%d", e.Host(), e.Port)
}

// Curl returns the command that sends a request with the key as a member of W3C baggage. Applications that pass
// baggage on, as OpenTelemetry's SDKs do, pass the key on with it, so one request reaches all forks on its way.
func (e Endpoint) Curl(member, key string) []string {
	words := []string{"curl"}
	if e.HTTP2 {
		words = append(words, "--http2-prior-knowledge")
	}
	return append(words, "-H", "baggage: "+member+"="+key, "http://"+e.Address()+"/")
}

// Endpoints returns the TCP ports of the Services that select the workload's pods, in order of the Services' names,
// with plain HTTP first.
func Endpoints(w *Workload, services []corev1.Service) []Endpoint {
	template, err := w.PodTemplate()
	if err != nil {
		return nil // the API server would not have stored it
	}
	var out []Endpoint
	for _, s := range services {
		if s.Namespace != w.Namespace() || len(s.Spec.Selector) == 0 ||
			!labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(template.Labels)) {
			continue
		}
		for _, port := range s.Spec.Ports {
			if port.Protocol == "" || port.Protocol == corev1.ProtocolTCP {
				out = append(out, Endpoint{s.Name, s.Namespace, port.Port, http2(port)})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Endpoint) int {
		if a.HTTP2 != b.HTTP2 {
			if b.HTTP2 {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Service, b.Service)
	})
	return out
}

// http2 reads the port's appProtocol (KEP-3726 names kubernetes.io/h2c), and the port names that are customary with
// service meshes.
func http2(port corev1.ServicePort) bool {
	if port.AppProtocol != nil {
		switch strings.ToLower(*port.AppProtocol) {
		case "kubernetes.io/h2c", "grpc", "http2", "h2c":
			return true
		}
		return false
	}
	kind, _, _ := strings.Cut(port.Name, "-")
	return kind == "grpc" || kind == "http2" || kind == "h2c"
}
