package inject

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// envPodIP is declared before the proxy variables of an app container, whose value refers to it.
const envPodIP = "SANDBOX_POD_IP"

// direct is what an app in a fork reaches without the stamping proxy: itself, the API server, and the clouds' metadata
// services, which refuse proxied requests. The kubelet expands $(NAME) from variables declared before and from those of
// Services; the one of the API server is always there.
const direct = "localhost,127.0.0.1,::1,$(" + envPodIP + "),$(KUBERNETES_SERVICE_HOST),169.254.169.254,fd00:ec2::254,metadata.google.internal"

// stamp gives a fork's app containers the sandbox's key, in their environment and, by way of a router that they use as
// proxy, on the HTTP requests they send; and the pod the gate that says requests reach it.
//
// Variables that a container sets itself are never touched. Those that come in by envFrom can't be seen here (that would
// take an API call), and a variable set by name comes before them: a workload that gets its proxy or its propagators
// in that way sets annotation sandbox.AnnotationOutgoing to off, or names them in env.
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
	if proxied := id.tell(pod, c, outgoing); proxied {
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

// An identity is the sandbox that a fork's or check's pod speaks for.
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

// tell puts the identity into the environment of the app's containers, and makes them use the proxy on the port outgoing, unless the
// pod would not have it. It says whether any of them does.
func (id identity) tell(pod *corev1.Pod, c Config, outgoing uint16) (proxied bool) {
	for i := range pod.Spec.Containers {
		app := &pod.Spec.Containers[i]
		setenv(app, sandbox.EnvName, id.name)
		setenv(app, sandbox.EnvKey, id.key)
		setenv(app, sandbox.EnvBaggage, c.Member+"="+id.key)
		setenv(app, "OTEL_PROPAGATORS", "tracecontext,baggage")
		if pod.Annotations[sandbox.AnnotationOutgoing] != sandbox.OutgoingOff {
			proxied = proxy(app, "http://"+loopback(outgoing)) || proxied
		}
	}
	return proxied
}

func loopback(port uint16) string { return "127.0.0.1:" + strconv.Itoa(int(port)) }

// proxy makes a container send its plain HTTP by way of the proxy at url, unless it chose one of its own. Half of
// the programs read the upper-case names, half the lower-case ones. TLS has no variable here: nothing can be stamped on it.
func proxy(c *corev1.Container, url string) bool {
	if slices.ContainsFunc([]string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}, func(name string) bool { return hasenv(c, name) }) {
		return false
	}
	if !hasenv(c, "NO_PROXY") && !hasenv(c, "no_proxy") {
		if !hasenv(c, envPodIP) {
			c.Env = append(c.Env, fromPod(envPodIP, "status.podIP"))
		}
		setenv(c, "NO_PROXY", direct)
		setenv(c, "no_proxy", direct)
	}
	setenv(c, "HTTP_PROXY", url)
	setenv(c, "http_proxy", url)
	return true
}

func hasenv(c *corev1.Container, name string) bool {
	return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
}

// setenv sets a variable that the container does not have. A '$' in value is left for the kubelet to expand.
func setenv(c *corev1.Container, name, value string) {
	if !hasenv(c, name) {
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
	}
}

// literal keeps the kubelet from expanding value.
func literal(value string) string { return strings.ReplaceAll(value, "$", "$$") }
