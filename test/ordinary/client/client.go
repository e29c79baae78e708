// Package client sends requests to podinfo as an application's clients do, and tells by the answers who gave them. It is written apart
// from the product and shares no code with it: names of headers are the ones that users read.
package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
)

// Forked begins the message of every fork; the baseline's never begin so.
const Forked = "forked"

// patience is how long a client waits for an answer.
const patience = 4 * time.Second

// A Client sends one request after another, at a steady rate whatever the answers do.
type Client struct {
	// Address returns HOST:PORT, or nothing while there is no Service.
	Address func() string
	// Key is carried by every request; empty: none.
	Key string
	// Every is the time between two requests.
	Every time.Duration

	kept http.Transport // connections that are kept

	mu       sync.Mutex
	requests []ordinary.Request
}

// Run sends until the context ends, and waits for what is in flight.
func (c *Client) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer c.kept.CloseIdleConnections()
	defer all.Wait()
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all.Go(func() { c.send(context.WithoutCancel(ctx), n) })
	}
}

// Requests returns those that were answered or given up so far, in the order in which they were sent.
func (c *Client) Requests() []ordinary.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]ordinary.Request(nil), c.requests...)
}

// send sends request n: each other one over a connection of its own, keyed ones by each carrier in turn.
func (c *Client) send(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	q := ordinary.Request{At: time.Now()}
	var header [2]string
	if c.Key != "" {
		header = [][2]string{
			{"x-sandbox-key", c.Key}, {"baggage", "user=7,sandbox-key=" + c.Key}, {"tracestate", "vendor=00f067aa,sandbox-key=" + c.Key},
		}[n/2%3]
	}
	exchange := c.overKept
	if n%2 == 1 {
		exchange = overNew
	}
	a, err := exchange(ctx, c.Address(), header)
	q.End = time.Now()
	if err != nil {
		q.Outcome, q.Detail = ordinary.Failed, err.Error()
	} else {
		q.Outcome, q.Detail = judge(a, c.Key != "")
	}
	if header[0] != "" && q.Outcome != ordinary.Served {
		q.Detail += " (" + header[0] + ")"
	}
	c.note(q)
}

func (c *Client) note(q ordinary.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := len(c.requests)
	for at > 0 && c.requests[at-1].At.After(q.At) {
		at--
	}
	c.requests = append(c.requests[:at], append([]ordinary.Request{q}, c.requests[at:]...)...)
}

// An answer is a response whose body has been read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// judge tells who gave the answer, by what the app says of itself and what the router says of it.
func judge(a *answer, keyed bool) (ordinary.Outcome, string) {
	reason := a.header.Get("x-sandbox-error")
	if a.status == http.StatusServiceUnavailable && reason != "" && keyed {
		return ordinary.Refused, reason
	}
	var app struct{ Hostname, Message string }
	if err := json.Unmarshal(a.body, &app); a.status != http.StatusOK || err != nil || app.Hostname == "" {
		return ordinary.Failed, fmt.Sprintf("%d: %.120q", a.status, a.body)
	}
	forked, by := strings.HasPrefix(app.Message, Forked), a.header.Get("x-sandbox-served-by")
	switch {
	case forked && !keyed:
		return ordinary.Stray, app.Hostname
	case !forked && keyed:
		return ordinary.Baseline, app.Hostname
	case keyed && by != app.Hostname:
		return ordinary.Failed, fmt.Sprintf("answered by %s, while x-sandbox-served-by says %q", app.Hostname, by)
	}
	return ordinary.Served, ""
}

const path = "/api/info"

func (c *Client) overKept(ctx context.Context, address string, header [2]string) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	if header[0] != "" {
		r.Header.Set(header[0], header[1])
	}
	resp, err := c.kept.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return read(resp)
}

// overNew writes the request by hand.
func overNew(ctx context.Context, address string, header [2]string) (*answer, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	head := "GET " + path + " HTTP/1.1\r\nHost: " + ordinary.Name + "\r\nConnection: close\r\n"
	if header[0] != "" {
		head += header[0] + ": " + header[1] + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return read(resp)
}

func read(resp *http.Response) (*answer, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return &answer{resp.StatusCode, resp.Header, body}, err
}
