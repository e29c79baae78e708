package open

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/router/engine"
)

// reports returns a backend that takes browsers' reports of what a page uses elsewhere, in this process. Nothing of them goes to
// the cluster.
func (p *Proxy) reports() engine.Backend {
	return engine.Backend{ID: "reports", Addr: "reports", Dial: func(context.Context) (net.Conn, error) {
		there, here := net.Pipe()
		server := &http.Server{Handler: http.HandlerFunc(p.takeReport), ReadTimeout: 10 * time.Second, IdleTimeout: time.Second}
		go func() { _ = server.Serve(&single{conn: here}) }()
		return there, nil
	}}
}

// takeReport notes where a page went (CSP Level 3, section 5.3).
func (p *Proxy) takeReport(w http.ResponseWriter, r *http.Request) {
	const limit = 64 << 10
	var report struct {
		Report struct {
			Blocked string `json:"blocked-uri"`
		} `json:"csp-report"`
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil || json.Unmarshal(body, &report) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	u, err := url.Parse(report.Report.Blocked)
	if err != nil || u.Host == "" || strings.ContainsFunc(u.Host, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return
	}
	switch u.Scheme {
	case "http", "https", "ws", "wss":
		p.notice("a page of %s uses %s, which is no preview: requests there do not carry the key", r.Host, u.Scheme+"://"+u.Host)
	}
}

// single is a listener that accepts one connection.
type single struct{ conn net.Conn }

func (s *single) Accept() (net.Conn, error) {
	if s.conn == nil {
		return nil, net.ErrClosed
	}
	c := s.conn
	s.conn = nil
	return c, nil
}

func (*single) Close() error   { return nil }
func (*single) Addr() net.Addr { return &net.TCPAddr{} }
