package router

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Timing of the route stream.
const (
	silence      = 3 * 5 * time.Second // the stream counts as dead after so long without a frame, pings included
	countsEvery  = 5 * time.Second
	backoffMin   = 50 * time.Millisecond
	backoffMax   = 5 * time.Second
	connectLimit = 10 * time.Second // from dialing to the response's head
	maxRedirects = 3
	handOverTime = 3 * time.Second // in which the control plane is to accept the last counts
)

// control keeps the route stream open. It receives tables, and sends acknowledgements and counts.
type control struct {
	config  *Config
	routes  *routes
	state   *state
	log     *slog.Logger
	start   string // this start of the router
	trust   []byte // PEM
	retired func(gone map[string]struct{})
	dials   *dials

	connected atomic.Bool
	first     chan struct{} // closed when the first table is in use
	once      sync.Once
	ending    chan struct{} // closed when no more requests are served
	taken     chan struct{} // closed when the control plane has all counts
	takenOnce sync.Once
}

func newControl(c *Config, r *routes, s *state, log *slog.Logger, retired func(map[string]struct{})) *control {
	k := &control{
		config: c, routes: r, state: s, log: log, start: rand.Text(), trust: c.CA, retired: retired, first: make(chan struct{}),
		dials:  newDials(c.Captures, c.PodIP),
		ending: make(chan struct{}), taken: make(chan struct{}),
	}
	r.doubt, r.doubtPod, k.dials.reached = k.dials.doubt, k.dials.doubtPod, r.reached
	if pem := s.loadTrust(); x509.NewCertPool().AppendCertsFromPEM(pem) {
		k.trust = pem
	}
	return k
}

// restore loads the table that was stored before a restart.
func (k *control) restore() {
	t, fresh, err := k.state.load()
	switch {
	case err != nil:
		k.log.Warn("the table kept before the restart is of no use", "error", err)
	case t != nil:
		k.routes.replace(t, fresh)
		k.dials.follow(t)
		k.once.Do(func() { close(k.first) })
		k.log.Info("routing by the table kept before the restart", "version", t.Version, "age", time.Since(fresh).Round(time.Second))
	}
}

// run keeps the stream open until ctx is done.
func (k *control) run(ctx context.Context) {
	defer k.dials.stop()
	pause := backoffMin
	for turn := 0; ctx.Err() == nil; turn++ {
		addr := k.config.Control[turn%len(k.config.Control)]
		began := time.Now()
		err := k.stream(ctx, addr)
		k.connected.Store(false)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > silence { // it worked for a while
			pause = backoffMin
		}
		level := slog.LevelWarn
		if errors.Is(err, errRenew) {
			level, pause = slog.LevelDebug, backoffMin
		}
		k.log.Log(ctx, level, "route stream ended", "address", addr, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + mathrand.N(pause)): //nolint:gosec // jitter is no secret
		}
		pause = min(2*pause, backoffMax)
	}
}

// handOver sends the final counts to the control plane after the last request, and waits until they are written, at
// most handOverTime. Counts that are not handed over are lost.
func (k *control) handOver() {
	close(k.ending)
	select {
	case <-k.taken:
	case <-time.After(handOverTime):
		k.log.Warn("the control plane did not take the last counts; what was counted since the last report may be missing", "wait", handOverTime)
	}
}

var (
	errRenew  = errors.New("token is about to expire")
	errSilent = errors.New("control plane is silent")
)

// stream opens one stream and processes it until it ends.
func (k *control) stream(ctx context.Context, addr string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	token, err := os.ReadFile(k.config.TokenFile)
	if err != nil {
		return err
	}
	bearer := strings.TrimSpace(string(token))
	if d := renewIn(bearer, time.Now()); d > 0 {
		defer time.AfterFunc(d, func() { cancel(errRenew) }).Stop()
	}
	watchdog := time.AfterFunc(connectLimit, func() { cancel(errSilent) })
	defer watchdog.Stop()
	resp, up, done, err := k.open(ctx, addr, bearer)
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	defer done()
	defer func() { _ = resp.Body.Close() }()
	watchdog.Reset(silence)
	s := &stream{control: k, up: up, cancel: cancel}
	defer s.follow(ctx)()
	frames := route.NewReader(resp.Body)
	for {
		f, err := frames.ToRouter()
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		watchdog.Reset(silence)
		if err := s.take(f); err != nil {
			return err
		}
	}
}

// open posts the stream's request, beginning with Hello, and follows redirects to the lease holder. done releases its
// resources.
func (k *control) open(ctx context.Context, addr, bearer string) (*http.Response, io.Writer, func(), error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.trust)
	for range maxRedirects {
		transport := &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: k.config.ControlName, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: connectLimit,
			ForceAttemptHTTP2:   true,
			DialContext:         (&net.Dialer{Timeout: connectLimit}).DialContext,
		}
		body, up := io.Pipe()
		// While net/http waits for more of a request's body, it does not see that the context ended. So the body must end
		// with it.
		unwatch := context.AfterFunc(ctx, func() { _ = up.CloseWithError(context.Cause(ctx)) })
		done := func() { unwatch(); _ = up.Close(); transport.CloseIdleConnections() }
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+route.StreamPath, body)
		if err != nil {
			done()
			return nil, nil, nil, err
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		req.Header.Set("Content-Type", "application/json")
		greeted := make(chan error, 1)
		go func() { greeted <- route.Write(up, route.ToControl{Hello: k.hello()}) }()
		resp, err := transport.RoundTrip(req)
		switch {
		case err != nil:
			done()
			return nil, nil, nil, err
		case resp.StatusCode == http.StatusOK && resp.ProtoMajor == 2:
			if err := <-greeted; err != nil {
				_ = resp.Body.Close()
				done()
				return nil, nil, nil, err
			}
			return resp, up, done, nil
		}
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		done()
		to, err := url.Parse(resp.Header.Get("Location"))
		if resp.StatusCode != http.StatusTemporaryRedirect || err != nil || to.Host == "" {
			return nil, nil, nil, fmt.Errorf("%s answers %s by %s: %s", addr, resp.Status, resp.Proto, strings.TrimSpace(string(reason)))
		}
		addr = to.Host
	}
	return nil, nil, nil, errors.New("too many redirects")
}

func (k *control) hello() *route.Hello {
	sum := sha256.Sum256(k.trust)
	have, _ := k.routes.have()
	return &route.Hello{Build: k.config.Version, Start: k.start, Have: have, CA: hex.EncodeToString(sum[:]), Dials: true}
}

// stream is one open route stream.
type stream struct {
	*control
	cancel context.CancelCauseFunc

	mu sync.Mutex // serialises writes
	up io.Writer

	based bool // a snapshot came on this stream, so deltas may follow
}

func (s *stream) write(f route.ToControl) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := route.Write(s.up, f); err != nil {
		s.cancel(err)
	}
}

// follow sends counts as they change, until the returned function is called.
func (s *stream) follow(ctx context.Context) (stop func()) {
	s.connected.Store(true)
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(countsEvery)
		defer tick.Stop()
		said := map[string]string{}
		ending := s.ending
		for {
			if news := s.dials.news(said); len(news) > 0 {
				s.write(route.ToControl{Counts: &route.Counts{Dialed: news}})
			}
			select {
			case <-ctx.Done():
				return
			case <-s.dials.changed:
			case <-ending:
				ending = nil // of this stream
				last := s.routes.counts()
				last.Final = true
				s.write(route.ToControl{Counts: last})
			case <-tick.C:
				if s.routes.changed.Load() {
					s.write(route.ToControl{Counts: s.routes.counts()})
				}
			}
		}
	}()
	s.write(route.ToControl{Counts: s.routes.counts()})
	return func() { cancel(); _ = s.up.(io.Closer).Close(); <-over }
}

// take processes one frame.
func (s *stream) take(f *route.ToRouter) error {
	now := time.Now()
	switch {
	case f.Snapshot != nil:
		return s.table(f.Snapshot, now)
	case f.Delta != nil:
		force := s.routes.force.Load()
		if !s.based || force == nil {
			return errors.New("a delta came before a snapshot")
		}
		t, ok := force.table.Apply(f.Delta)
		if !ok {
			return fmt.Errorf("a delta builds on version %v, and %v is in force", f.Delta.Base, force.table.Version)
		}
		return s.table(t, now)
	case f.Ping != nil:
		if s.based {
			s.routes.confirm(now)
			if err := s.state.confirm(now); err != nil {
				s.log.Warn("can't keep the table's age", "error", err)
			}
		}
	case f.Report != nil:
		counts := s.routes.counts()
		counts.Nonce = f.Report.Nonce
		s.write(route.ToControl{Counts: counts})
	case f.Trust != nil:
		return s.trustNew([]byte(f.Trust.CA))
	case f.Taken != nil:
		s.takenOnce.Do(func() { close(s.taken) })
	}
	return nil
}

// table puts t in use, unless a newer one is, and acknowledges it.
func (s *stream) table(t *route.Table, now time.Time) error {
	have, any := s.routes.have()
	order := t.Version.Compare(have)
	if any && order < 0 {
		return fmt.Errorf("version %v came, and the newer %v is in force", t.Version, have)
	}
	s.based = true
	gone := s.routes.replace(t, now)
	s.dials.follow(t)
	s.write(route.ToControl{Ack: &t.Version})
	s.once.Do(func() { close(s.first) })
	s.retired(gone)
	if err := s.state.save(t); err != nil {
		s.log.Warn("can't keep the table", "error", err)
	}
	return nil
}

// trustNew makes pem the authorities to trust from the next connection on.
func (s *stream) trustNew(pem []byte) error {
	if string(pem) == string(s.trust) {
		return nil
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New("authorities came that hold no certificate")
	}
	s.trust = pem
	if err := s.state.saveTrust(pem); err != nil {
		s.log.Warn("can't keep the authorities to trust", "error", err)
	}
	return nil
}

// renewIn returns how long a stream may use a token: four fifths of the rest of its lifetime. It returns 0 if the token
// does not contain it; then the control plane ends the stream.
func renewIn(token string, now time.Time) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if json.Unmarshal(b, &claims) != nil || claims.Expires == 0 {
		return 0
	}
	return max(time.Second, time.Unix(claims.Expires, 0).Sub(now)*4/5)
}
