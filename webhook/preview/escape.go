package preview

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// A Redirect is an absolute address to which a response redirects its client.
type Redirect struct {
	Scheme    string // "http" or "https"; empty: that of the request
	Authority string // as received
	Host      Host   // parsed; zero if it is invalid
	Rest      string // path, query and fragment, as received
}

// ReadRedirect returns where a response redirects its client. False: nowhere, or to a path of its own host. It parses
// as browsers do (https://url.spec.whatwg.org/#concept-basic-url-parser): \ is /, and any number of them starts an
// authority.
func ReadRedirect(r *engine.Reply) (Redirect, bool) {
	if r.Status/100 != 3 && r.Status != 201 {
		return Redirect{}, false
	}
	for i := range r.Fields {
		if isNamed(r.Fields[i].Name, "location") {
			return readAddress(string(r.Fields[i].Value))
		}
	}
	return Redirect{}, false
}

func readAddress(location string) (Redirect, bool) {
	location = strings.Trim(location, " \t")
	var to Redirect
	rest := location
	if scheme, after, ok := strings.Cut(location, ":"); ok && !strings.ContainsAny(scheme, `/\?#`) {
		if to.Scheme = strings.ToLower(scheme); to.Scheme != "http" && to.Scheme != "https" {
			return Redirect{}, false
		}
		rest = after
	}
	trimmed := strings.TrimLeft(rest, `/\`)
	if slashes := len(rest) - len(trimmed); slashes == 0 || slashes == 1 && to.Scheme == "" {
		return Redirect{}, false
	}
	end := strings.IndexAny(trimmed, `/\?#`)
	if end < 0 {
		end = len(trimmed)
	}
	to.Authority, to.Rest = trimmed[:end], trimmed[end:]
	to.Host, _ = ParseHost(to.Authority[strings.LastIndexByte(to.Authority, '@')+1:])
	return to, true
}

// Origin returns the origin of the redirect's destination, as far as it can be parsed.
func (to Redirect) Origin() string {
	if to.Host == (Host{}) {
		return "a malformed host"
	}
	if to.Scheme == "" {
		return to.Host.String()
	}
	return to.Scheme + "://" + to.Host.String()
}

// String returns the host with its port, if one was given.
func (h Host) String() string {
	name := h.Name
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if h.Port == 0 {
		return name
	}
	return name + ":" + strconv.Itoa(int(h.Port))
}

// ClusterName parses the names of a Service in the cluster's DNS (https://github.com/kubernetes/dns, specification,
// 2.3), as resolved in a pod of the namespace: SERVICE, SERVICE.NAMESPACE, SERVICE.NAMESPACE.svc, and the same in the
// cluster's domain.
func ClusterName(name, namespace string) (service, serviceNamespace string, ok bool) {
	parts := strings.Split(name, ".")
	switch {
	case len(parts) == 1:
		return parts[0], namespace, true
	case len(parts) == 2, len(parts) >= 3 && parts[2] == "svc":
		return parts[0], parts[1], true
	}
	return "", "", false
}

// ReportPath is where browsers report which addresses outside of the preview a page uses.
const ReportPath = "/.well-known/kubectl-sandbox/escaped"

// IsReport reports whether a request is such a report.
func IsReport(h *engine.Head) bool {
	return string(h.Target) == ReportPath && string(h.Method) == "POST"
}

// AskForReports returns the field that makes a browser report which other hosts a page's scripts and forms use. It is a
// policy that forbids nothing, and asks for reports (CSP Level 3, section 5). own are the sources that are previews.
// False: the response is not a page, or has such a policy already, which it keeps.
func AskForReports(r *engine.Reply, own ...string) (engine.Field, bool) {
	html := false
	for i := range r.Fields {
		switch f := &r.Fields[i]; {
		case isNamed(f.Name, "content-type"):
			html = isHTML(f.Value)
		case isNamed(f.Name, "content-security-policy-report-only"):
			return engine.Field{}, false
		}
	}
	sources := "'self' " + strings.Join(own, " ")
	return field("content-security-policy-report-only", "connect-src "+sources+"; form-action "+sources+"; report-uri "+ReportPath), html
}

func isHTML(mediaType []byte) bool {
	kind, _, _ := strings.Cut(string(mediaType), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/html")
}

// maxReport bounds a report, in bytes.
const maxReport = 64 << 10

// ReadReport returns the origin that a page used, from a browser's report (CSP Level 3, section 5.3); empty if it is
// not HTTP.
func ReadReport(body io.Reader) (origin string, err error) {
	var report struct {
		Report struct {
			Blocked string `json:"blocked-uri"`
		} `json:"csp-report"`
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxReport))
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(raw, &report); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	u, err := url.Parse(report.Report.Blocked)
	if err != nil {
		return "", nil //nolint:nilerr // a keyword such as "inline", or something that no browser sends
	}
	host, ok := ParseHost(u.Host)
	if !ok {
		return "", nil
	}
	switch u.Scheme {
	case "http", "https", "ws", "wss":
		return u.Scheme + "://" + host.String(), nil
	}
	return "", nil
}
