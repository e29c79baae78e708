package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Service is the destination of a check's requests: a host name of the cluster's DNS, and a port.
type Service struct {
	Host string // as resolved in the check's namespace: SERVICE or SERVICE.NAMESPACE
	Port uint16
}

// String returns "HOST:PORT".
func (s Service) String() string { return s.Host + ":" + strconv.Itoa(int(s.Port)) }

// FormatServices formats the value of AnnotationServices: "HOST:PORT,...", in the order given.
func FormatServices(services []Service) string {
	parts := make([]string, len(services))
	for i, s := range services {
		parts[i] = s.String()
	}
	return strings.Join(parts, ",")
}

// ParseServices parses the value of AnnotationServices; an empty string is none. It fails on two with the same URLEnv.
func ParseServices(s string) ([]Service, error) {
	if s == "" {
		return nil, nil
	}
	var services []Service
	for part := range strings.SplitSeq(s, ",") {
		service, err := parseService(part)
		if err != nil {
			return nil, err
		}
		same := func(o Service) bool { return URLEnv(o.Host) == URLEnv(service.Host) }
		if i := slices.IndexFunc(services, same); i >= 0 {
			return nil, fmt.Errorf("services %s and %s would both be %s", services[i], service, URLEnv(service.Host))
		}
		services = append(services, service)
	}
	return services, nil
}

func parseService(s string) (Service, error) {
	host, port, ok := strings.Cut(s, ":")
	if !ok || !hostName(host) {
		return Service{}, fmt.Errorf("service %q is not HOST:PORT", s)
	}
	n, err := parsePort(port)
	if err != nil {
		return Service{}, fmt.Errorf("service %q: %w", s, err)
	}
	return Service{host, n}, nil
}

// URLEnv is the variable with the address at which a check's router accepts requests for a Service:
// SANDBOX_URL_FRONTEND for "frontend".
func URLEnv(host string) string {
	return EnvURL + "_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(host))
}

// A Forward is a loopback port of a check's router that stands in for a Service.
type Forward struct {
	Service
	Listen uint16
}

// FormatForwards formats the value of EnvRouterForwards: "LISTEN=HOST:PORT,...".
func FormatForwards(forwards []Forward) string {
	parts := make([]string, len(forwards))
	for i, f := range forwards {
		parts[i] = strconv.Itoa(int(f.Listen)) + "=" + f.Service.String()
	}
	return strings.Join(parts, ",")
}

// ParseForwards parses the value of EnvRouterForwards.
func ParseForwards(s string) ([]Forward, error) {
	if s == "" {
		return nil, nil
	}
	var forwards []Forward
	for part := range strings.SplitSeq(s, ",") {
		listen, to, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("forward %q is not LISTEN=HOST:PORT", part)
		}
		n, err := parsePort(listen)
		if err != nil {
			return nil, fmt.Errorf("forward %q: %w", part, err)
		}
		service, err := parseService(to)
		if err != nil {
			return nil, fmt.Errorf("forward %q: %w", part, err)
		}
		forwards = append(forwards, Forward{service, n})
	}
	return forwards, nil
}

// hostName checks a name against RFC 1123, as Kubernetes' DNS does.
func hostName(s string) bool {
	if s == "" || len(s) > maxObjectName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || !all(label, nameByte) || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
