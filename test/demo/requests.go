package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A keyCase is a key and whose pods must answer it.
type keyCase struct {
	key   string            // empty: none
	forks map[string]string // service to sandbox; the others are the baseline's
}

func cases() []keyCase {
	return []keyCase{
		{"", nil},
		{"fast-db", map[string]string{hotrod.Customer: "fast-db"}},
		{"old-driver", map[string]string{hotrod.Driver: "old-driver"}},
		{"nobodys", nil},
	}
}

// A reply is what came of one request.
type reply struct {
	keyCase
	trace    string
	Driver   string
	ETA      time.Duration
	took     time.Duration
	servedBy string
	hops     []hotrod.Hop
	repeated int // how often it was sent before, and failed for HotROD's own reason: see errRedis
}

// requests sends the same request with each key and shows, and checks, which pod answered at each hop.
func (d *demo) requests(ctx context.Context) error {
	d.step("The same request to frontend, with and without a key: which pod answered at each hop")
	d.say("a hop is shown because that pod's own log names the request's trace ID, nothing else; HotROD itself passes")
	d.say("baggage on, as any program with OpenTelemetry does")
	client, url, err := d.frontend(ctx)
	if err != nil {
		return err
	}
	for _, c := range cases() {
		d.command("curl " + c.curl() + "'" + url + "'")
		r, err := send(ctx, client, url, c)
		if err != nil {
			return err
		}
		if err := d.trace(ctx, &r); err != nil {
			return err
		}
		d.show(r)
	}

	const rounds = 5
	d.say("")
	start := time.Now()
	replies, err := mixed(ctx, client, url, rounds)
	if err != nil {
		return err
	}
	if err := d.trace(ctx, replies...); err != nil {
		return err
	}
	repeated := 0
	for _, r := range replies {
		repeated += r.repeated
	}
	if repeated > 0 {
		d.say("%d requests were sent again, because HotROD's driver service fails some on purpose (%v)", repeated, errRedis)
	}
	d.say("%s", d.green(fmt.Sprintf("%d more, mixed and at once, over shared connections: each hop of all %d answered by the right pod", len(replies), len(replies)))+
		d.dim(fmt.Sprintf(" (%s)", time.Since(start).Round(100*time.Millisecond))))
	return nil
}

func (c keyCase) curl() string {
	if c.key == "" {
		return ""
	}
	return "-H 'baggage: " + sandbox.DefaultMember + "=" + c.key + "' "
}

func (d *demo) show(r reply) {
	served := ""
	if r.servedBy != "" {
		served = ", " + sandbox.HeaderServedBy + ": " + r.servedBy
	}
	d.say("  driver %s in %s; took %s%s", r.Driver, r.ETA, d.bold(r.took.Round(time.Millisecond).String()), served)
	if r.repeated > 0 {
		d.say("    sent %d times, because HotROD's driver service fails some requests on purpose (%v)", r.repeated+1, errRedis)
	}
	for _, h := range r.hops {
		line := fmt.Sprintf("    %-9s %s", h.Service, h.Pod)
		if h.Sandbox != "" {
			line = d.green(fmt.Sprintf("%-48s <- the fork in sandbox %s, image %s", line, h.Sandbox, h.Image[strings.LastIndex(h.Image, "/")+1:]))
		}
		d.say("%s", line)
	}
}

// mixed sends every case rounds times, all at once.
func mixed(ctx context.Context, client *http.Client, url string, rounds int) ([]*reply, error) {
	all := cases()
	replies := make([]*reply, rounds*len(all))
	errs := make([]error, len(replies))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range replies {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r, err := send(ctx, client, url, all[i%len(all)])
			replies[i], errs[i] = &r, err
		})
	}
	wg.Wait()
	return replies, errors.Join(errs...)
}

// errRedis is HotROD's own: its driver service makes each fifth read of its store fail, tries a read three times, and is out of
// tries where requests that run at once leave it three of the failing turns.
var errRedis = errors.New("redis timeout")

// send sends a request, again where HotROD's own simulated failure answered it.
func send(ctx context.Context, client *http.Client, url string, c keyCase) (reply, error) {
	const tries = 5
	for try := 1; ; try++ {
		r, err := sendOnce(ctx, client, url, c)
		if !errors.Is(err, errRedis) || try == tries {
			r.repeated = try - 1
			return r, err
		}
	}
}

func sendOnce(ctx context.Context, client *http.Client, url string, c keyCase) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return reply{}, err
	}
	r := reply{keyCase: c, trace: hex.EncodeToString(id)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return r, err
	}
	req.Header.Set("traceparent", "00-"+r.trace+"-"+r.trace[:16]+"-01") // W3C Trace Context: by it the pods' logs are searched
	if c.key != "" {
		req.Header.Set("baggage", sandbox.DefaultMember+"="+c.key)
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return r, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return r, err
	}
	r.took, r.servedBy = time.Since(start), resp.Header.Get(sandbox.HeaderServedBy)
	switch {
	case resp.StatusCode == http.StatusInternalServerError && bytes.Contains(body, []byte(errRedis.Error())):
		return r, fmt.Errorf("frontend answered %s: %w", resp.Status, errRedis)
	case resp.StatusCode != http.StatusOK:
		return r, fmt.Errorf("frontend answered %s: %s", resp.Status, body)
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("frontend answered %q: %w", body, err)
	}
	return r, nil
}

// trace finds the pods that had a part in answering each request, and checks that they are the right ones.
func (d *demo) trace(ctx context.Context, replies ...*reply) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var traces []string
	for _, r := range replies {
		traces = append(traces, r.trace)
	}
	hops, err := hotrod.Hops(ctx, d.client, d.namespace, traces...)
	if err != nil {
		return err
	}
	for _, r := range replies {
		r.hops = hops[r.trace]
		for _, h := range r.hops {
			if h.Sandbox != r.forks[h.Service] {
				return fmt.Errorf("the request with key %q was answered at %s by pod %s of sandbox %q, not of %q", r.key, h.Service, h.Pod, h.Sandbox, r.forks[h.Service])
			}
		}
		if len(r.hops) != len(hotrod.Services()) {
			return fmt.Errorf("the request with key %q was answered by more than one pod of a service: %v", r.key, r.hops)
		}
	}
	return nil
}

// frontend returns how to reach HotROD from here: on this machine's own cluster its Service's address; on any other the API
// server's proxy to that Service.
func (d *demo) frontend(ctx context.Context) (*http.Client, string, error) {
	const path = "/dispatch?customer=123"
	if d.own != "" {
		service, err := d.client.CoreV1().Services(d.namespace).Get(ctx, hotrod.Frontend, metav1.GetOptions{})
		if err != nil {
			return nil, "", err
		}
		return &http.Client{}, fmt.Sprintf("http://%s:%d%s", service.Spec.ClusterIP, hotrod.Port(hotrod.Frontend), path), nil
	}
	client, err := rest.HTTPClientFor(d.config)
	if err != nil {
		return nil, "", err
	}
	d.say("requests take the API server's proxy to the Service; kubectl port-forward or an ingress does as well")
	return client, fmt.Sprintf("%s/api/v1/namespaces/%s/services/%s:http/proxy%s", strings.TrimSuffix(d.config.Host, "/"), d.namespace, hotrod.Frontend, path), nil
}
