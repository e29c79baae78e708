package cluster

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A deaf listener does not hand on the first connections it takes: their handshakes get no answer.
type deaf struct {
	net.Listener
	first atomic.Int64
	held  []net.Conn // or they would be closed as garbage
}

func (d *deaf) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil || d.first.Add(-1) < 0 {
			return c, err
		}
		d.held = append(d.held, c)
	}
}

func TestPatienceWithAServerThatDoesNotComeToShakingHands(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		deaf     int64 // to so many connections
		slow     bool  // to answer
		requests int64 // that reach the server
		fails    bool
	}{
		"at once":                        {requests: 1},
		"at last":                        {deaf: maxConnects - 1, requests: 1},
		"never":                          {deaf: 100, fails: true},
		"a request that is not answered": {slow: true, requests: 1, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			release := make(chan struct{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if test.slow {
					<-release
				}
				_, _ = io.Copy(w, r.Body)
			}))
			listener := &deaf{Listener: server.Listener}
			listener.first.Store(test.deaf)
			server.Listener = listener
			server.StartTLS()
			defer server.Close()
			defer close(release)
			transport := server.Client().Transport.(*http.Transport).Clone()
			transport.TLSHandshakeTimeout, transport.ResponseHeaderTimeout = time.Second, 2*time.Second
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := RetryConnect(transport).RoundTrip(req)
			got := ""
			if err == nil {
				raw, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				got = string(raw)
			}
			if (err != nil) != test.fails || !test.fails && got != "body" {
				t.Errorf("got %q, %v", got, err)
			}
			if n := requests.Load(); n != test.requests {
				t.Errorf("%d requests reached the server, want %d", n, test.requests)
			}
		})
	}
}
