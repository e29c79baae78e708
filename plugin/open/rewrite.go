package open

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/router/engine"
)

// rewrite returns what is changed in an answer's head: a redirect to another address of the same cluster goes to its preview.
// authority is what the client asked for.
func (p *Proxy) rewrite(r *engine.Reply, t destination, authority string) engine.Edits {
	if r.Status/100 != 3 && r.Status != 201 {
		return p.report(r, t)
	}
	for _, f := range r.Fields {
		if !strings.EqualFold(string(f.Name), "location") {
			continue
		}
		to, ok := p.moved(string(f.Value), t, authority)
		if !ok {
			break
		}
		return engine.Edits{Set: []engine.Field{{Name: []byte("location"), Value: []byte(to)}}}
	}
	return engine.Edits{}
}

// moved returns where a redirect goes instead. False: where it says; when that is somewhere else, a notice names it.
func (p *Proxy) moved(location string, t destination, authority string) (string, bool) {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return "", false
	}
	name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if strings.EqualFold(u.Host, authority) {
		if u.Scheme == "https" {
			p.notice("%s redirects to https on its own host: it wants TLS, which a local preview has not", authority)
		}
		return "", false
	}
	host, ok := p.previewOf(name, u, t)
	if !ok {
		if name != domain && !strings.HasSuffix(name, "."+domain) {
			p.notice("%s redirects to %s, which is no preview: requests there do not carry the key", authority, u.Scheme+"://"+u.Host)
		}
		return "", false
	}
	if host == t.host() {
		u.Host = authority // which may be an address of this machine
	} else {
		u.Host = strings.TrimPrefix(p.origin(host), "http://")
	}
	u.Scheme = "http"
	return u.String(), true
}

// host is the name of a destination's preview.
func (t destination) host() string {
	name := t.sandbox
	if name == "" {
		name = Baseline
	}
	if !t.entry {
		name = t.service.Name + "." + t.service.Namespace + "." + name
	}
	return name + "." + domain
}

// previewOf returns the preview's host name of an address of the cluster, as seen from where t's answer came.
func (p *Proxy) previewOf(name string, u *url.URL, t destination) (string, bool) {
	ref, ok := p.Hosts[name]
	if !ok {
		if ref, ok = clusterName(name, t.service.Namespace); !ok {
			return "", false
		}
		port := u.Port()
		if port == "" {
			port = "80"
			if u.Scheme == "https" {
				return "", false
			}
		}
		ref.Port = port
	}
	s, ok := p.Service(ref.Namespace, ref.Name)
	if !ok {
		return "", false
	}
	wanted, err := plan.ServicePort(s, ref.Port)
	if err != nil {
		return "", false
	}
	there := destination{sandbox: t.sandbox, service: s, port: wanted}
	if entry, err := plan.ServicePort(s, p.Entry.Port); s.Name == p.Entry.Name && s.Namespace == p.Entry.Namespace && err == nil && entry.Port == wanted.Port {
		there.entry = true
	} else if clear, err := plan.ServicePort(s, ""); err != nil || clear.Port != wanted.Port {
		return "", false // a host name has no room for another port
	}
	return there.host(), true
}

// clusterName reads the names that the cluster's DNS has for a Service (https://github.com/kubernetes/dns, specification, 2.3),
// from a pod of the namespace: SERVICE, SERVICE.NAMESPACE, SERVICE.NAMESPACE.svc and the same in the cluster's domain.
func clusterName(name, namespace string) (plan.ServiceRef, bool) {
	parts := strings.Split(name, ".")
	switch {
	case len(parts) == 1:
		return plan.ServiceRef{Name: parts[0], Namespace: namespace}, true
	case len(parts) == 2, len(parts) >= 3 && parts[2] == "svc":
		return plan.ServiceRef{Name: parts[0], Namespace: parts[1]}, true
	}
	return plan.ServiceRef{}, false
}

// reportPath is where browsers tell which addresses outside of the preview a page uses.
const reportPath = "/.well-known/kubectl-sandbox/escaped"

// report has a browser tell which other hosts a page's scripts and forms use: a policy that forbids nothing, and asks for reports
// (CSP Level 3, section 5). A page that has such a policy itself keeps its own.
func (p *Proxy) report(r *engine.Reply, t destination) engine.Edits {
	html := false
	for _, f := range r.Fields {
		switch strings.ToLower(string(f.Name)) {
		case "content-type":
			html = strings.HasPrefix(strings.ToLower(string(f.Value)), "text/html")
		case "content-security-policy-report-only":
			return engine.Edits{}
		}
	}
	if !html {
		return engine.Edits{}
	}
	own := "'self' " + strings.Join(slices.Compact([]string{
		"http://" + t.host() + ":" + strconv.Itoa(int(p.Port)), "http://*." + domain + ":*", "ws://*." + domain + ":*",
	}), " ")
	policy := "connect-src " + own + "; form-action " + own + "; report-uri " + reportPath
	return engine.Edits{Set: []engine.Field{{Name: []byte("content-security-policy-report-only"), Value: []byte(policy)}}}
}
