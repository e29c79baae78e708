package cluster

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
)

// maxConnects is the number of attempts to connect. Each may take client-go's 10 seconds.
const maxConnects = 4

// RetryConnect retries a request if connecting to the API server, including the TLS handshake, timed out, as it may
// when hundreds of commands start at once. Nothing was sent by then, so this is safe for writes too. It does not
// retry if the server refuses connections or does not answer a request.
func RetryConnect(next http.RoundTripper) http.RoundTripper { return connectRetrier{next} }

type connectRetrier struct{ next http.RoundTripper }

func (p connectRetrier) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		connected := false
		trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }}
		resp, err := p.next.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		var timeout net.Error
		if err == nil || connected || try == maxConnects || r.Context().Err() != nil || !errors.As(err, &timeout) ||
			!timeout.Timeout() {
			return resp, err
		}
		if r.Body == nil || r.Body == http.NoBody {
			continue
		}
		if r.GetBody == nil {
			return nil, err
		}
		body, again := r.GetBody()
		if again != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = body
	}
}

// WrappedRoundTripper lets client-go find the transport, to close its idle connections.
func (p connectRetrier) WrappedRoundTripper() http.RoundTripper { return p.next }
