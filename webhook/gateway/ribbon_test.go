package gateway

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// Pages get a ribbon where that was asked for; what scripts and programs get has none.
func TestRibbon(t *testing.T) {
	const page = "<!doctype html><title>x</title><body><p>text"
	token := share.NewToken()
	cm := aSandbox(shop, "pr-1", "key-1")
	for _, on := range []bool{false, true} {
		r := newRig(t, func(o *Options) { o.Ribbon = on }, ready(aShare(cm, token, "web", time.Hour))...)
		r.serve(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("ETag", `"1"`)
			if q.URL.Path == "/policy" {
				w.Header().Set("Content-Security-Policy", "default-src 'self'")
			}
			if q.URL.Path == "/length" {
				w.Header().Set("Content-Length", strconv.Itoa(len(page)))
			} else {
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = io.WriteString(w, page)
		})
		for _, test := range []struct {
			target string
			lines  []string
			want   bool
		}{
			{"/length", []string{html}, on}, {"/chunks", []string{html, "Sec-Fetch-Dest: document"}, on}, {"/policy", []string{html}, false},
			{"/length", []string{"Accept: */*"}, false}, {"/length", []string{html, "Sec-Fetch-Dest: iframe"}, false},
		} {
			answer, body := r.get(host, test.target, append(test.lines, bearer(token), "Accept-Encoding: gzip, br")...)
			rest, ok := strings.CutPrefix(body, "<!doctype html><title>x</title><body><dialog open aria-label=\"Preview of sandbox pr-1\"")
			if ok != test.want || ok && !strings.HasSuffix(rest, "</script><p>text") || !ok && body != page {
				t.Errorf("%v: %s %q: %s", on, test.target, test.lines, body)
			}
			if tag := answer.Header.Get("ETag"); (tag == `W/"1"`) != test.want {
				t.Errorf("%v: %s: tag %s", on, test.target, tag)
			}
			asked := on && (test.want || test.target == "/policy")
			if got := r.last().Header.Get("Accept-Encoding"); (got == "identity") != asked {
				t.Errorf("%v: %s %q: asked for %s", on, test.target, test.lines, got)
			}
		}
	}
}
