package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A routing key is an HTTP header. Ports with TLS or a database protocol pass through a router untouched, so no
// request there can be routed. keyless reports which ports are certainly like that. A protocol that the port's owner
// states (appProtocol, or the port's name) takes precedence over conventional port numbers and images. In doubt a
// port counts as HTTP: routing it is harmless, skipping it is not.

// An httpness is what is known about a port's protocol.
type httpness int

const (
	maybeHTTP httpness = iota
	isKeyed            // HTTP without TLS
	noHTTP
	underTLS
)

// statedProtocol reads the value of appProtocol, or the first part of a port's name, as service meshes do.
func statedProtocol(s string) httpness {
	s = strings.TrimPrefix(strings.ToLower(s), "kubernetes.io/")
	switch s {
	case "http", "http1", "http2", "h2c", "grpc", "ws", "web", "grpcweb":
		return isKeyed
	case "https", "tls", "ssl", "wss", "grpcs":
		return underTLS
	case "postgres", "postgresql", "pgsql", "mysql", "mariadb", "mssql", "oracle", "redis", "valkey", "mongo", "mongodb", "memcached", "memcache",
		"kafka", "amqp", "amqps", "mqtt", "nats", "zookeeper", "cassandra", "cql", "ldap", "ldaps", "smtp", "smtps", "imap", "ftp", "ssh", "bolt", "dns":
		return noHTTP
	}
	return maybeHTTP
}

// databasePorts returns the registered or customary ports of servers that do not speak HTTP.
func databasePorts() []int32 {
	return []int32{22, 25, 53, 389, 636, 465, 587, 1433, 1521, 1883, 2181, 3306, 4222, 5432, 5671, 5672, 6379, 8883, 9042, 9092, 11211, 26379, 27017}
}

// databaseImages returns the last parts of the names of images whose servers do not speak HTTP on their own port.
func databaseImages() []string {
	return []string{
		"postgres", "postgresql", "postgis", "timescaledb", "pgvector", "mysql", "mysql-server", "mariadb", "percona", "redis", "redis-stack-server",
		"valkey", "keydb", "mongo", "mongodb", "memcached", "zookeeper", "kafka", "cassandra",
	}
}

// keyless returns what is known about the protocol of a Service's port that leads to a pod.
func keyless(p *corev1.ServicePort, pod *corev1.Pod) httpness {
	if p.AppProtocol != nil && *p.AppProtocol != "" {
		if strings.EqualFold(*p.AppProtocol, "tcp") {
			return noHTTP
		}
		if said := statedProtocol(*p.AppProtocol); said != maybeHTTP {
			return said
		}
	}
	container, target := targetOf(p, pod)
	number := p.TargetPort.IntVal
	names := []string{p.Name, p.TargetPort.StrVal}
	if target != nil {
		number = target.ContainerPort
		names = append(names, target.Name)
	}
	for _, name := range names {
		first, _, _ := strings.Cut(name, "-")
		if said := statedProtocol(first); said != maybeHTTP {
			return said
		}
	}
	switch {
	case slices.Contains(databasePorts(), number), number == 0 && slices.Contains(databasePorts(), p.Port):
		return noHTTP
	case p.Port == 443 && !slices.Contains([]int32{80, 8080, 8000, 3000}, number), number == 443, number == 8443:
		return underTLS
	case container != nil && slices.Contains(databaseImages(), lastPart(Repository(container.Image))):
		return noHTTP
	}
	return maybeHTTP
}

// targetOf returns the container port that a Service's port leads to; nil if no container declares it.
func targetOf(p *corev1.ServicePort, pod *corev1.Pod) (*corev1.Container, *corev1.ContainerPort) {
	number := p.TargetPort.IntVal
	if p.TargetPort.Type == intstr.Int && number == 0 {
		number = p.Port
	}
	for _, c := range ServingContainers(pod) {
		for i := range c.Ports {
			declared := &c.Ports[i]
			if Protocol(declared.Protocol) != corev1.ProtocolTCP {
				continue
			}
			if p.TargetPort.Type == intstr.String && declared.Name == p.TargetPort.StrVal || p.TargetPort.Type == intstr.Int && declared.ContainerPort == number {
				return c, declared
			}
		}
	}
	if len(pod.Spec.Containers) == 1 {
		return &pod.Spec.Containers[0], nil
	}
	return nil, nil
}

func lastPart(image string) string { return image[strings.LastIndex(image, "/")+1:] }

// UnroutableProtocol returns why a workload can't receive keys: all its ports behind Services certainly use TLS or a
// protocol other than HTTP. Otherwise it is empty. A metrics port beside such ports does not count: nobody forks a
// database for it.
func UnroutableProtocol(services []*corev1.Service, pod *corev1.Pod, labels map[string]string) string {
	var why []string
	for _, s := range services {
		if !Selects(s, labels) || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if Protocol(p.Protocol) != corev1.ProtocolTCP {
				continue
			}
			if p.TargetPort.Type == intstr.String {
				if _, ok := FindPort(pod, p.TargetPort.StrVal); !ok {
					continue // it leads nowhere
				}
			}
			at := fmt.Sprintf("port %d of service/%s", p.Port, s.Name)
			switch keyless(p, pod) {
			case noHTTP:
				why = append(why, at+" is not HTTP")
			case underTLS:
				why = append(why, at+" is under TLS")
			default:
				if !strings.Contains(p.Name, "metrics") && !strings.Contains(p.Name, "prometheus") {
					return ""
				}
			}
		}
	}
	if len(why) == 0 {
		return ""
	}
	return JoinWords(why) + ": a router finds no key there"
}
