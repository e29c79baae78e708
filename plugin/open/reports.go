package open

import (
	"net/http"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/router/engine"
)

// reports returns a backend that takes browsers' reports of what a page uses elsewhere, in this process. Nothing of them goes to
// the cluster.
func (p *Proxy) reports() engine.Backend {
	return engine.Local("reports", http.HandlerFunc(p.takeReport))
}

// takeReport notes where a page went.
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
