package open

import (
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
)

// page returns an answer of the proxy's own, which names the sandboxes that there are.
func (p *Proxy) page(status int, title, reason string) *preview.Page {
	return &preview.Page{
		Status: status, Title: title, About: preview.About{Namespace: p.Namespace}, Reason: reason,
		Next: "Sandboxes there are:", Command: plan.Kubectl("sandbox", "list", "-n", p.Namespace),
	}
}

// unreachable returns the answer for when no pod of a Service takes a request. That may pass: pods are replaced.
func (p *Proxy) unreachable(t destination) *preview.Page {
	ref := t.service.Name + "." + t.service.Namespace
	return &preview.Page{
		Status: 503, Title: "The Service does not answer", About: t.about(p.Namespace), Reason: "service " + ref + " did not answer", Retry: true,
		Next: "See for yourself:", Command: plan.Kubectl("get", "endpointslices", "-n", t.service.Namespace, "-l", "kubernetes.io/service-name="+t.service.Name),
	}
}

// about is what pages say of a destination; namespace is the sandboxes'.
func (t destination) about(namespace string) preview.About {
	a := preview.About{Sandbox: t.sandbox, Namespace: namespace, Service: t.service.Name}
	if a.Sandbox == "" {
		a.Sandbox = "none (" + Baseline + ")"
	}
	if t.service.Namespace != namespace {
		a.Service += "." + t.service.Namespace
	}
	return a
}
