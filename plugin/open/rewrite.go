package open

import (
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
)

// rewrite returns the changes to an answer's head: a redirect to another address of the same cluster goes to its
// preview. authority is the host that the client requested.
func (p *Proxy) rewrite(r *engine.Reply, t destination, authority string) engine.Edits {
	to, ok := preview.ReadRedirect(r)
	if !ok {
		return p.report(r, t)
	}
	location, ok := p.moved(to, t, authority)
	if !ok {
		return engine.Edits{}
	}
	return engine.Edits{Set: []engine.Field{{Name: []byte("location"), Value: []byte(location)}}}
}

// moved returns the new target of a redirect; false if it stays the same. If it then leaves the previews, a notice
// names the host.
func (p *Proxy) moved(to preview.Redirect, t destination, authority string) (string, bool) {
	if strings.EqualFold(to.Authority, authority) {
		if to.Scheme == "https" {
			p.notice("%s redirects to https on its own host: it requires TLS, which a local preview does not offer", authority)
		}
		return "", false
	}
	host, ok := p.previewOf(to, t)
	if !ok {
		if name := to.Host.Name; name != domain && !strings.HasSuffix(name, "."+domain) {
			p.notice("%s redirects to %s, which is no preview: requests there do not carry the key", authority, to.Origin())
		}
		return "", false
	}
	if host == t.host() {
		return "http://" + authority + to.Rest, true // which may be an address of this machine
	}
	return p.origin(host) + to.Rest, true
}

// host returns the name of a destination's preview.
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

// previewOf returns the preview's host name for an address of the cluster, as seen from the origin of t's answer.
func (p *Proxy) previewOf(to preview.Redirect, t destination) (string, bool) {
	ref, ok := p.Hosts[to.Host.Name]
	if !ok {
		if ref.Name, ref.Namespace, ok = preview.ClusterName(to.Host.Name, t.service.Namespace); !ok {
			return "", false
		}
		switch {
		case to.Host.Port != 0:
			ref.Port = strconv.Itoa(int(to.Host.Port))
		case to.Scheme == "https":
			return "", false
		default:
			ref.Port = "80"
		}
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

// report makes a browser report which other hosts a page's scripts and forms use.
func (p *Proxy) report(r *engine.Reply, t destination) engine.Edits {
	f, ok := preview.AskForReports(r, "http://"+t.host()+":"+strconv.Itoa(int(p.Port)), "http://*."+domain+":*", "ws://*."+domain+":*")
	if !ok {
		return engine.Edits{}
	}
	return engine.Edits{Set: []engine.Field{f}}
}
