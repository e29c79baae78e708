package open

import (
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
)

// page returns an error page of the proxy, which shows how to list the sandboxes.
func (p *Proxy) page(status int, title, reason string) *preview.Page {
	return &preview.Page{
		Status: status, Title: title, About: preview.About{Namespace: p.Namespace}, Reason: reason,
		Next: "Sandboxes there are:", Command: plan.Kubectl("sandbox", "list", "-n", p.Namespace),
	}
}

// unreachable returns the page for when no pod of a Service accepts a request. That may pass, because pods are
// replaced.
func (p *Proxy) unreachable(t destination) *preview.Page {
	ref := t.service.Name + "." + t.service.Namespace
	return &preview.Page{
		Status: 503, Title: "The Service does not answer", About: t.about(p.Namespace), Reason: "service " + ref + " did not answer", Retry: true,
		Next: "See for yourself:", Command: plan.Kubectl("get", "endpointslices", "-n", t.service.Namespace, "-l", "kubernetes.io/service-name="+t.service.Name),
	}
}

// about returns what pages show of a destination; namespace is that of the sandboxes.
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
