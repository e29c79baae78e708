package open

import (
	"net/http"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
)

// reports returns a backend, in this process, that accepts browsers' reports of other hosts that a page uses. They
// are not sent to the cluster.
func (p *Proxy) reports() engine.Backend {
	return proxy.Local("reports", http.HandlerFunc(p.takeReport))
}

// takeReport records where a page sent requests.
func (p *Proxy) takeReport(w http.ResponseWriter, r *http.Request) {
	origin, err := preview.ReadReport(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	if origin != "" {
		p.notice("a page of %s uses %s, which is no preview: requests there do not carry the key", r.Host, origin)
	}
}
