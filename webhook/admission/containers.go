package admission

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A container is a container of a pod template as JSON, so that fields this program does not know are kept.
type container map[string]any

// templateOf returns the containers in the order in which a Service looks for a port: app containers, then native
// sidecars.
func templateOf(u *unstructured.Unstructured, at []string) []container {
	var serving []container
	for _, list := range []string{"containers", "initContainers"} {
		value, _, _ := unstructured.NestedFieldNoCopy(u.Object, append(slices.Clone(at), "spec", list)...)
		items, _ := value.([]any)
		for _, item := range items {
			c, ok := item.(map[string]any)
			if ok && (list == "containers" || c["restartPolicy"] == string(corev1.ContainerRestartPolicyAlways)) {
				serving = append(serving, c)
			}
		}
	}
	return serving
}

func (c container) name() string {
	s, _ := c["name"].(string)
	return s
}

// ports returns the container's TCP ports.
func (c container) ports() []port {
	var ports []port
	items, _ := c["ports"].([]any)
	for _, item := range items {
		p, ok := item.(map[string]any)
		if protocol, _ := p["protocol"].(string); ok && (protocol == "" || protocol == string(corev1.ProtocolTCP)) {
			ports = append(ports, p)
		}
	}
	return ports
}

// port returns the TCP port with a number; nil if there is none.
func (c container) port(number uint16) port {
	for _, p := range c.ports() {
		if p.number() == number {
			return p
		}
	}
	return nil
}

// declare adds a named TCP port. It returns what it created, as `route` records it: the port, or the list of ports too.
func (c container) declare(name string, number uint16) string {
	made := sandbox.MadePort
	items, _ := c["ports"].([]any)
	if len(items) == 0 {
		made = sandbox.MadePorts
	}
	c["ports"] = append(items, map[string]any{"name": name, "containerPort": int64(number), "protocol": string(corev1.ProtocolTCP)})
	return made
}

// A port is a port of a container as JSON.
type port map[string]any

func (p port) name() string {
	s, _ := p["name"].(string)
	return s
}

func (p port) number() uint16 { return number(p["containerPort"]) }
