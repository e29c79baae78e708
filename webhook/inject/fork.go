package inject

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// direct lists what an app in a fork reaches without the stamping proxy: itself, the API server, and the metadata
// services of clouds, which refuse proxied requests. The kubelet expands $(NAME) from earlier variables and from those
// of Services; the API server's is always present.
const direct = "localhost,127.0.0.1,::1,$(" + sandbox.EnvPodIP + "),$(KUBERNETES_SERVICE_HOST),169.254.169.254,fd00:ec2::254,metadata.google.internal"

// stamp gives a fork's app containers the sandbox's key: in their environment, and, through a router that they use as
// proxy, on the HTTP requests they send. It also adds the readiness gate that reports whether requests reach the pod.
//
// Variables that a container sets are never changed. Those from envFrom are not visible here without an API call, and
// an explicit variable would override them. So the creator of the pod's template lists them in the annotation
// sandbox.AnnotationEnvFrom.
func stamp(pod *corev1.Pod, c Config) *Reason {
	id, reason := identify(pod)
	if reason != nil {
		return reason
	}
	if done, reason := routed(pod); done || reason != nil {
		return reason
	}
	ports, err := sandbox.ParsePorts(pod.Annotations[sandbox.AnnotationPorts])
	if err != nil {
		return &Reason{PortsMalformed, fmt.Sprintf("annotation %s: %v", sandbox.AnnotationPorts, err)}
	}

	taken := declared(pod)
	outgoing := free(sandbox.OutgoingPort, taken)
	proxied, reason := id.setEnv(pod, c, outgoing)
	if reason != nil {
		return reason
	}
	if proxied {
		admin := free(sandbox.AdminPort, append(taken, outgoing))
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, outbound(pod, c, id.key, loopback(outgoing), admin))
		pod.Spec.Volumes = append(pod.Spec.Volumes, state())
	}
	gate := corev1.PodReadinessGate{ConditionType: sandbox.ConditionRouted}
	if len(ports) > 0 && !slices.Contains(pod.Spec.ReadinessGates, gate) {
		pod.Spec.ReadinessGates = append(pod.Spec.ReadinessGates, gate)
	}
	annotate(pod, c.Version)
	return nil
}

// An identity is the sandbox that the pod of a fork or check belongs to.
type identity struct{ name, key string }

func identify(pod *corev1.Pod) (identity, *Reason) {
	id := identity{pod.Labels[sandbox.LabelSandbox], pod.Annotations[sandbox.AnnotationKey]}
	if err := sandbox.ValidateName(id.name); err != nil {
		return id, &Reason{SandboxUnknown, fmt.Sprintf("label %s %v", sandbox.LabelSandbox, err)}
	}
	if err := sandbox.ValidateKey(id.key); err != nil {
		return id, &Reason{KeyMalformed, fmt.Sprintf("annotation %s %v", sandbox.AnnotationKey, err)}
	}
	return id, nil
}

// setEnv adds the identity to the environment of the app's containers, and makes them use the proxy on the port
// outgoing, unless the pod opted out. It reports whether any of them does.
func (id identity) setEnv(pod *corev1.Pod, c Config, outgoing uint16) (proxied bool, reason *Reason) {
	from, err := sandbox.ParseEnvFrom(pod.Annotations[sandbox.AnnotationEnvFrom])
	if err != nil {
		return false, &Reason{EnvFromMalformed, fmt.Sprintf("annotation %s %v", sandbox.AnnotationEnvFrom, err)}
	}
	for i := range pod.Spec.Containers {
		container := &pod.Spec.Containers[i]
		app := environment{container, from[container.Name]}
		app.set(sandbox.EnvName, id.name)
		app.set(sandbox.EnvKey, id.key)
		app.set(sandbox.EnvBaggage, c.Member+"="+id.key)
		app.set(sandbox.EnvPropagators, "tracecontext,baggage")
		if pod.Annotations[sandbox.AnnotationOutgoing] != sandbox.OutgoingOff {
			proxied = app.proxy("http://"+loopback(outgoing)) || proxied
		}
	}
	return proxied, nil
}

func loopback(port uint16) string { return "127.0.0.1:" + strconv.Itoa(int(port)) }

// An environment is that of an app container.
type environment struct {
	*corev1.Container
	from []string // names of variables from envFrom
}

// proxy makes a container send plain HTTP through the proxy at url, unless it has one of its own. Some programs read
// the upper-case names, others the lower-case ones. TLS gets no variable: it cannot be stamped.
func (e environment) proxy(url string) bool {
	if slices.ContainsFunc([]string{sandbox.EnvHTTPProxy, "http_proxy", "ALL_PROXY", "all_proxy"}, e.has) {
		return false
	}
	if !e.has(sandbox.EnvNoProxy) && !e.has("no_proxy") {
		if !e.has(sandbox.EnvPodIP) {
			e.Env = append(e.Env, fromPod(sandbox.EnvPodIP, "status.podIP"))
		}
		e.set(sandbox.EnvNoProxy, direct)
		e.set("no_proxy", direct)
	}
	e.set(sandbox.EnvHTTPProxy, url)
	e.set("http_proxy", url)
	return true
}

func (e environment) has(name string) bool {
	return slices.Contains(e.from, name) || slices.ContainsFunc(e.Env, func(v corev1.EnvVar) bool { return v.Name == name })
}

// set adds a variable, unless the container has it. The kubelet expands '$' in value.
func (e environment) set(name, value string) {
	if !e.has(name) {
		e.Env = append(e.Env, corev1.EnvVar{Name: name, Value: value})
	}
}

// literal escapes value, so that the kubelet does not expand it.
func literal(value string) string { return strings.ReplaceAll(value, "$", "$$") }
