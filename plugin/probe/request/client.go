package request

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// maxAnswerHeader bounds the head of an answer, in bytes.
const maxAnswerHeader = 64 << 10

// ErrTooLarge means that an answer's body exceeds the limit.
var ErrTooLarge = errors.New("the answer is too large")

// An Answer is the answer to a request.
type Answer struct {
	Status   int
	Header   http.Header
	Body     []byte // where it was to be kept
	ServedBy string // pod, as the router says; empty: no router chose
	// Refused is why a router answered in place of a fork; empty if none did.
	Refused string
}

// A Client sends requests to one service. It follows no redirect, keeps no cookie, requests no compression, and uses
// no proxy, so a variant's answer can't send it elsewhere.
//
// All arms share its connections. A Service balances connections, not requests. With separate connections, two arms
// of the same baseline could reach different pods, and differ only for that reason.
type Client struct {
	Base     *url.URL
	Carriers route.Carriers

	transport *http.Transport
}

// NewClient returns a client with at most that number of connections to base.
func NewClient(base *url.URL, carriers route.Carriers, connections int, http2 bool) *Client {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	t := &http.Transport{
		DialContext: dialer.DialContext, MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, MaxIdleConns: connections,
		IdleConnTimeout: 30 * time.Second, DisableCompression: true, MaxResponseHeaderBytes: maxAnswerHeader,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	t.Protocols = new(http.Protocols)
	if http2 {
		t.Protocols.SetUnencryptedHTTP2(true)
		t.Protocols.SetHTTP2(true)
	} else {
		t.Protocols.SetHTTP1(true)
	}
	return &Client{Base: base, Carriers: carriers, transport: t}
}

// Renew closes idle connections, so that the next requests reach other pods of the Service.
func (c *Client) Renew() { c.transport.CloseIdleConnections() }

// Send sends r with a routing key, or without one if key is empty. It reads the whole answer, which must be at most
// limit bytes long, and keeps its body if keep is set. If ctx ends, it returns the context's error.
func (c *Client) Send(ctx context.Context, r Request, key string, limit int64, keep bool) (Answer, error) {
	u := *c.Base
	path, err := url.ParseRequestURI(r.Target)
	if err != nil {
		return Answer{}, err
	}
	u.Path, u.RawPath, u.RawQuery, u.ForceQuery = path.Path, path.RawPath, path.RawQuery, path.ForceQuery
	var body io.Reader
	if len(r.Body) > 0 {
		body = bytes.NewReader(r.Body)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), body)
	if err != nil {
		return Answer{}, err
	}
	req.Header = r.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "sandbox-probe")
	}
	Unstamp(req.Header, c.Carriers)
	Stamp(req.Header, c.Carriers, key)
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return Answer{}, cause(ctx, err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	a := Answer{
		Status: res.StatusCode, Header: res.Header,
		ServedBy: short(res.Header.Get(sandbox.HeaderServedBy), 253), Refused: short(res.Header.Get(sandbox.HeaderError), 500),
	}
	in := io.LimitReader(res.Body, limit+1)
	var n int64
	if keep {
		a.Body, err = io.ReadAll(in)
		n = int64(len(a.Body))
	} else {
		n, err = io.Copy(io.Discard, in)
	}
	switch {
	case err != nil:
		return a, cause(ctx, err)
	case n > limit:
		return a, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return a, nil
}

// cause returns the context's error if that ended a request.
func cause(ctx context.Context, err error) error {
	if e := ctx.Err(); e != nil {
		return e
	}
	return err
}

// short shortens a foreign message for a result.
func short(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "?")
}
