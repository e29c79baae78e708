package routes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/go-logr/logr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

const (
	// pingInterval is how often an idle stream gets a Ping.
	pingInterval = 5 * time.Second
	// writeTimeout bounds the write of one frame. It ends the stream of a router that does not read; the router reconnects
	// when it can.
	writeTimeout = 30 * time.Second
	// helloTimeout bounds the wait for a router's first frame.
	helloTimeout = 10 * time.Second
	// maxStart bounds Hello.Start, in bytes.
	maxStart = 64
)

// A stream is one router's connection. Hub.mu guards the fields below mu.
type stream struct {
	baseline *baseline
	router   *router
	notify   chan struct{} // of capacity 1: there is something to send
	ended    chan struct{} // closed when a newer stream of the same pod replaces it, or the pod is gone
	once     sync.Once

	sent      *route.Table // the table sent last, nil at first
	asks      []string     // nonces of Reports to send
	trusts    string       // SHA-256 of the bundle it has or was sent
	taken     bool         // the router waits to end, and may: all its counts are written
	takenSent bool         // taken was sent
}

func (s *stream) poke() {
	select {
	case s.notify <- struct{}{}:
	default: // already notified: the stream reads the newest state when it runs
	}
}

func (s *stream) end() { s.once.Do(func() { close(s.ended) }) }

// A peer is an authenticated router.
type peer struct {
	Baseline
	pod string
	uid types.UID
}

// A gate authenticates routers.
type gate interface {
	// admit returns who sent the request. The error is a *refusal if the request caused it.
	admit(*http.Request) (peer, error)
	// lives reports whether the peer's pod still exists.
	lives(context.Context, peer) bool
}

// A refusal is an error with an HTTP status code.
type refusal struct {
	code int
	why  string
}

func (r *refusal) Error() string { return r.why }

// A streamHandler serves the route stream.
type streamHandler struct {
	hub    *Hub
	gate   gate
	holder func(context.Context) string // address of the lease holder's stream, empty if there is none
	clock  clock.WithTicker
	log    logr.Logger
}

func (h *streamHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != route.StreamPath:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "the route stream is a POST", http.StatusMethodNotAllowed)
		return
	case r.ProtoMajor < 2:
		http.Error(w, "the route stream needs HTTP/2", http.StatusHTTPVersionNotSupported)
		return
	}
	select {
	case <-h.hub.stopped:
		h.away(w)
		return
	case <-h.hub.serving:
	default:
		if addr := h.holder(r.Context()); addr != "" {
			w.Header().Set("Location", "https://"+addr+route.StreamPath)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		h.away(w)
		return
	}
	p, err := h.gate.admit(r)
	if err != nil {
		var refused *refusal
		if errors.As(err, &refused) {
			http.Error(w, refused.why, refused.code)
			return
		}
		h.log.Error(err, "can't tell who a router is")
		h.away(w)
		return
	}
	if err := h.stream(w, r, p); err != nil && r.Context().Err() == nil { // it ends with the router, which is usual
		h.log.Info("route stream ended", "pod", p.Namespace+"/"+p.pod, "why", err.Error())
	}
}

func (h *streamHandler) away(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "no replica serves routes yet", http.StatusServiceUnavailable)
}

// stream runs one router's stream to its end: this goroutine writes, another reads. It returns nil when the router
// disconnects.
func (h *streamHandler) stream(w http.ResponseWriter, r *http.Request, p peer) error {
	rc := http.NewResponseController(w)
	frames := route.NewReader(r.Body)
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return err
	}
	if err := rc.SetReadDeadline(h.clock.Now().Add(helloTimeout)); err != nil {
		return err
	}
	first, err := frames.ToControl()
	if err != nil {
		return fmt.Errorf("no hello: %w", err)
	}
	if first.Hello == nil || first.Hello.Start == "" || len(first.Hello.Start) > maxStart {
		return errors.New("first frame is no hello with a start")
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	s := h.hub.open(p, first.Hello)
	defer h.hub.closeStream(s)
	if !h.gate.lives(r.Context(), p) { // the pod may have been deleted before the stream was registered
		h.hub.forget(p.Baseline, p.uid)
		return errors.New("pod is gone")
	}
	if err := h.hub.ensure(r.Context(), p.Baseline); err != nil {
		return err
	}
	read := make(chan error, 1)
	go func() {
		defer close(read)
		read <- h.read(frames, s)
	}()
	err = h.write(w, rc, s, read)
	_ = rc.SetReadDeadline(time.Unix(1, 0)) // an error means that the connection is gone, which ends reading as well
	for range read {
	}
	return err
}

func (h *streamHandler) read(frames *route.Reader, s *stream) error {
	for {
		f, err := frames.ToControl()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case f.Ack != nil:
			err = h.hub.ack(s, *f.Ack)
		case f.Counts != nil:
			h.hub.count(s, f.Counts)
		case f.Hello != nil:
			err = errors.New("second hello")
		}
		if err != nil {
			return err
		}
	}
}

func (h *streamHandler) write(w io.Writer, rc *http.ResponseController, s *stream, read <-chan error) error {
	ping, err := encode(route.ToRouter{Ping: &route.Ping{}})
	if err != nil {
		return err
	}
	ticker := h.clock.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		frames, err := h.hub.next(s)
		if err != nil {
			return err
		}
		if err := send(w, rc, h.clock.Now().Add(writeTimeout), frames...); err != nil {
			return err
		}
		select {
		case <-s.notify:
		case <-ticker.C():
			err = send(w, rc, h.clock.Now().Add(writeTimeout), ping)
		case err = <-read:
			return err
		case <-s.ended:
			return errors.New("replaced, or pod gone")
		case <-h.hub.stopped:
			return errNotServing
		}
		if err != nil {
			return err
		}
	}
}

func send(w io.Writer, rc *http.ResponseController, deadline time.Time, frames ...[]byte) error {
	if len(frames) == 0 {
		return nil
	}
	if err := rc.SetWriteDeadline(deadline); err != nil {
		return err
	}
	for _, f := range frames {
		if _, err := w.Write(f); err != nil {
			return err
		}
	}
	return rc.Flush()
}

// open creates a stream for the peer and ends its previous one. The router's Hello replaces its acknowledged version: a
// restarted router may route by an older table than before.
func (h *Hub) open(p peer, hello *route.Hello) *stream {
	s := &stream{notify: make(chan struct{}, 1), ended: make(chan struct{}), trusts: hello.CA}
	h.mu.Lock()
	b := h.get(p.Baseline)
	r := b.routers[p.uid]
	if r == nil {
		r = &router{pod: p.pod, uid: p.uid}
		b.routers[p.uid] = r
	}
	if r.stream != nil {
		r.stream.end()
	}
	r.stream, r.id, r.trusts = s, counts.RouterID(p.uid, hello.Start), hello.CA
	r.dials, r.reached, r.lost = hello.Dials, nil, time.Time{}
	r.acked, r.final = route.Version{}, false
	if hello.Have.Term == h.term && hello.Have.Counter <= h.counter {
		r.acked = hello.Have
	}
	s.baseline, s.router = b, r
	h.lag.opened(r, b.current)
	h.mu.Unlock()
	h.changed(p.Baseline)
	return s
}

func (h *Hub) closeStream(s *stream) {
	h.mu.Lock()
	if s.router.stream == s {
		h.lag.closed(s.router)
		s.router.stream, s.router.lost = nil, h.clock.Now()
	}
	h.mu.Unlock()
	h.changed(s.baseline.name)
}

// next returns the frames that the stream has to send now.
func (h *Hub) next(s *stream) (frames [][]byte, err error) {
	h.mu.Lock()
	current, sent, asks := s.baseline.current, s.sent, s.asks
	s.sent, s.asks = current.table, nil
	trust := h.trust
	renew := trust.sum != "" && s.trusts != trust.sum
	if renew {
		s.trusts = trust.sum
	}
	taken := s.taken && !s.takenSent
	s.takenSent = s.taken
	h.mu.Unlock()

	if sent != current.table {
		frame, err := current.since(sent)
		if err != nil {
			return nil, err
		}
		frames = append(frames, frame)
	}
	if renew {
		frames = append(frames, trust.frame)
	}
	if taken {
		frame, err := encode(route.ToRouter{Taken: &route.Taken{}})
		if err != nil {
			return nil, err
		}
		frames = append(frames, frame)
	}
	for _, nonce := range asks {
		frame, err := encode(route.ToRouter{Report: &route.Report{Nonce: nonce}})
		if err != nil {
			return nil, err
		}
		frames = append(frames, frame)
	}
	return frames, nil
}

// since returns the frame that turns the table sent into that of p.
func (p *published) since(sent *route.Table) ([]byte, error) {
	switch sent {
	case nil:
		return p.snapshot()
	case p.previous:
		return p.delta()
	}
	return encode(route.ToRouter{Delta: Diff(sent, p.table)}) // it missed some: a slow reader
}

// ack records that a router routes by v or newer. A version that was not sent to it is an error.
func (h *Hub) ack(s *stream, v route.Version) error {
	h.mu.Lock()
	if s.sent == nil || v.Term != h.term || v.Compare(s.sent.Version) > 0 {
		h.mu.Unlock()
		return fmt.Errorf("acknowledged version %v, which it was never sent", v)
	}
	rose := s.router.stream == s && v.Compare(s.router.acked) > 0
	if rose {
		s.router.acked = v
		h.lag.acked(s.router, s.baseline.current)
	}
	h.mu.Unlock()
	if rose {
		h.changed(s.baseline.name)
	}
	return nil
}
