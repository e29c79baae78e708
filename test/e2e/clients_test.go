package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/stefanprodan/podinfo/pkg/api/grpc/info"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An answer is what podinfo says of itself, and what the router says of it.
type answer struct {
	Hostname string // the pod that answered, in its own words
	Message  string // its PODINFO_UI_MESSAGE: which version it is
	ServedBy string // x-sandbox-served-by
}

// A carrier is a header that carries a key, or nothing.
type carrier struct{ name, value string }

// carriers returns every way to carry key that the product knows.
func carriers(key string) []carrier {
	return []carrier{
		{sandbox.DefaultHeader, key},
		{"baggage", "user=7," + sandbox.DefaultMember + "=" + key + ";ttl=1,more=yes"},
		{"tracestate", "vendor=00f067aa," + sandbox.DefaultMember + "=" + key},
	}
}

// A caller holds one connection and calls podinfo over it, again and again.
type caller interface {
	call(context.Context, carrier) (answer, error)
	close()
}

// An httpCaller calls over exactly one connection at a time.
type httpCaller struct {
	url       string
	transport *http.Transport
}

func newHTTP(address string, protocols http.Protocols) *httpCaller {
	return &httpCaller{"http://" + address + "/api/info", &http.Transport{
		Protocols:           &protocols,
		MaxConnsPerHost:     1,
		MaxIdleConnsPerHost: 1,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	}}
}

func newH1(address string) *httpCaller {
	var p http.Protocols
	p.SetHTTP1(true)
	return newHTTP(address, p)
}

func newH2C(address string) *httpCaller {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return newHTTP(address, p)
}

func (c *httpCaller) call(ctx context.Context, carry carrier) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return answer{}, err
	}
	if carry.name != "" {
		req.Header.Set(carry.name, carry.value)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body := readAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("%s: %s%s", resp.Status, resp.Header.Get(sandbox.HeaderError), body)
	}
	var a answer
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		return answer{}, fmt.Errorf("%w in %q", err, body)
	}
	a.ServedBy = resp.Header.Get(sandbox.HeaderServedBy)
	return a, nil
}

func (c *httpCaller) close() { c.transport.CloseIdleConnections() }

// A grpcCaller calls over one channel.
type grpcCaller struct{ conn *grpc.ClientConn }

func newGRPC(address string) *grpcCaller {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err) // only a malformed target or option fails here
	}
	return &grpcCaller{conn}
}

func (c *grpcCaller) call(ctx context.Context, carry carrier) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if carry.name != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, carry.name, carry.value)
	}
	var head metadata.MD
	resp, err := info.NewInfoServiceClient(c.conn).Info(ctx, &info.InfoRequest{}, grpc.Header(&head))
	if err != nil {
		return answer{}, err
	}
	a := answer{Hostname: resp.GetHostname(), Message: resp.GetMessage()}
	switch by := head.Get(sandbox.HeaderServedBy); len(by) {
	case 0:
	case 1:
		a.ServedBy = by[0]
	default:
		return answer{}, errors.New("served-by came twice")
	}
	return a, nil
}

func (c *grpcCaller) close() { c.conn.Close() }
