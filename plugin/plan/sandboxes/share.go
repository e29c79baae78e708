package sandboxes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// NoGateway is the Problem of a cluster in which no gateway serves previews.
func NoGateway() *plan.Problem {
	return &plan.Problem{
		What: "no gateway serves previews in this cluster, so there is nothing to share",
		Hint: "install it, in a clone of github.com/kubectl-sandbox/kubectl-sandbox",
		Fix: []string{"helm", "upgrade", "sandbox", "charts/sandbox", "--namespace=kubectl-sandbox", "--reuse-values",
			"--set=gateway.enabled=true,gateway.ingress.enabled=true,gateway.domain=DOMAIN"},
	}
}

// PreviewURL returns where the gateway of domain serves a sandbox by a Service, which is SERVICE, or SERVICE.NAMESPACE where it is of
// another namespace than the sandbox's.
func PreviewURL(domain, service, name, namespace string) string {
	service = strings.TrimSuffix(service, "."+namespace)
	return "https://" + preview.Label(service, name, namespace) + "." + domain + "/"
}

// PreviewURLs returns the previews of a sandbox by the Services that select one of the pods.
func PreviewURLs(domain string, s *Sandbox, services []corev1.Service, pods []corev1.Pod) []string {
	if domain == "" || s.ConfigMap == nil {
		return nil
	}
	var out []string
	for i := range services {
		if slices.ContainsFunc(pods, func(p corev1.Pod) bool { return plan.Selects(&services[i], p.Labels) }) {
			out = append(out, PreviewURL(domain, services[i].Name, s.Name, s.Namespace))
		}
	}
	slices.Sort(out)
	return out
}

// ParseShared reads svc/SERVICE[.NAMESPACE] as shares have it. namespace is the sandbox's.
func ParseShared(s, namespace string) (string, error) {
	kind, rest, ok := strings.Cut(s, "/")
	name, other, has := strings.Cut(rest, ".")
	if !ok || !slices.Contains([]string{"svc", "service", "services"}, strings.ToLower(kind)) ||
		len(validation.IsDNS1035Label(name)) > 0 || has && len(validation.IsDNS1123Label(other)) > 0 {
		return "", fmt.Errorf("%q is not svc/SERVICE[.NAMESPACE]", s)
	}
	if !has || other == namespace {
		return name, nil
	}
	return rest, nil
}

// NewShare returns the ConfigMap that lets whoever has token enter the sandbox of cm, which owns it, by a Service.
func NewShare(cm *corev1.ConfigMap, token, service, by string, expires time.Time) *corev1.ConfigMap {
	name, hash := cm.Labels[sandbox.LabelSandbox], share.Hash(token)
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cm.Namespace, Name: sandbox.ShareName(name, hash[:10]),
			Labels:          map[string]string{sandbox.LabelRole: sandbox.RoleShare, sandbox.LabelSandbox: name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}},
		},
		Data: share.Share{Hash: hash, Service: service, Expires: expires, CreatedBy: by}.Data(),
	}
}

// SharesOf returns those of the shares that are for a Service; all where it is empty. In the order of their names.
func SharesOf(shares []corev1.ConfigMap, service string) []corev1.ConfigMap {
	out := slices.DeleteFunc(slices.Clone(shares), func(c corev1.ConfigMap) bool {
		return service != "" && c.Data[share.DataService] != service
	})
	slices.SortFunc(out, func(a, b corev1.ConfigMap) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
