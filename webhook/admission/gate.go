package admission

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
)

// MaxReview is the longest review, in bytes. The API server accepts objects of up to 3 MiB (MaxRequestBodyBytes of
// k8s.io/apiserver). A review of an update holds two of them, and little else.
const MaxReview = 7 << 20

const (
	// shortReview is a length, in bytes, that nearly all reviews stay below. Short reviews have a semaphore of their own,
	// so that long ones do not delay them.
	shortReview = 256 << 10
	// perByte is the most memory, in bytes, that a byte of a review retains during its decision: the body, its copies, and
	// numbers and members of maps, which take most where their type is unknown. More than that is allocated, but is
	// garbage by then.
	perByte = 24
	// perObject is the most memory, in bytes, that an object or a list of a review takes, however short: `{}` may be a
	// container.
	perObject = 2 << 10
)

// A Gate bounds the memory that all concurrent reviews take, before any of them is decoded. It bounds their length, and
// how many are read and decided on at once, weighted by the memory they may take. It rejects others with an HTTP status
// and no review in the body. The API server treats that as a failed call, and applies the webhook's failurePolicy.
type Gate struct {
	short, long *semaphore.Weighted // bytes of bodies that are being read, or wait for a decision
	deciding    *semaphore.Weighted // bytes that decisions take
	longest     int64
	most        int64 // the most that one decision may take, in bytes
	wait        time.Duration
	refused     *prometheus.CounterVec
}

// NewGate returns a gate for a process that may use memory bytes in all: one eighth is for bodies, three eighths are
// for decisions. A review waits at most wait to be read, and again to be decided on. Both together must be shorter than
// the API server's timeout.
func NewGate(memory int64, wait time.Duration, metrics prometheus.Registerer) (*Gate, error) {
	g := &Gate{longest: min(MaxReview, memory/16), most: memory * 3 / 8, wait: wait}
	g.short, g.long = semaphore.NewWeighted(memory/16), semaphore.NewWeighted(memory/16)
	g.deciding = semaphore.NewWeighted(g.most)
	g.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sandbox_webhook_reviews_refused_total",
		Help: "Requests to admission refused before they were decoded, by reason " +
			"(malformed, too-large, busy, broken-off).",
	}, []string{"reason"})
	for _, reason := range []string{"malformed", "too-large", "busy", "broken-off"} {
		g.refused.WithLabelValues(reason) // a counter must exist from the start, or its first increase is not seen
	}
	return g, metrics.Register(g.refused)
}

// Bound returns a handler that passes to next what the gate admits.
func (g *Gate) Bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := r.ContentLength
		if n := g.unfit(r); n != nil {
			g.refuse(w, n)
			return
		}
		lane := g.short
		if size > shortReview {
			lane = g.long
		}
		if !g.acquire(r.Context(), lane, size) {
			g.refuse(w, busy())
			return
		}
		body, cost, n := g.read(r)
		lane.Release(size) // from here on, the cost includes the body
		if n != nil {
			g.refuse(w, n)
			return
		}
		defer g.deciding.Release(cost)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// unfit returns why a request cannot be read; nil if it can.
func (g *Gate) unfit(r *http.Request) *rejection {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost:
		return &rejection{http.StatusMethodNotAllowed, "malformed", "a review is a POST"}
	case kind != "application/json":
		return &rejection{http.StatusUnsupportedMediaType, "malformed", "a review is of Content-Type application/json"}
	case r.ContentLength < 0:
		return &rejection{http.StatusLengthRequired, "malformed", "a review says by Content-Length how long it is"}
	case r.ContentLength > g.longest:
		return &rejection{http.StatusRequestEntityTooLarge, "too-large",
			fmt.Sprintf("a review of %d bytes is longer than the %d that this webhook takes: make the object smaller",
				r.ContentLength, g.longest)}
	}
	return nil
}

// read returns a body and the cost of deciding on it. The caller releases the cost unless the review is rejected.
func (g *Gate) read(r *http.Request) ([]byte, int64, *rejection) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return nil, 0, &rejection{http.StatusRequestTimeout, "broken-off", "the review did not come whole in time"}
	}
	cost := cost(body)
	if cost > g.most {
		return nil, 0, &rejection{http.StatusRequestEntityTooLarge, "too-large",
			fmt.Sprintf("to decide on a review of %d bytes may take %d bytes of memory, more than the %d there are: "+
				"make the object simpler, or raise the webhook's memory limit", len(body), cost, g.most)}
	}
	if !g.acquire(r.Context(), g.deciding, cost) {
		return nil, 0, busy()
	}
	return body, cost, nil
}

// acquire reports whether the weight became free in time, while the sender still waits.
func (g *Gate) acquire(ctx context.Context, of *semaphore.Weighted, weight int64) bool {
	ctx, cancel := context.WithTimeout(ctx, g.wait)
	defer cancel()
	return of.Acquire(ctx, weight) == nil
}

// cost is the most memory, in bytes, that deciding on a review may take. It counts brackets within strings as well,
// because some strings are JSON that is decoded.
func cost(body []byte) int64 {
	objects := bytes.Count(body, []byte("{")) + bytes.Count(body, []byte("["))
	return perByte*int64(len(body)) + perObject*int64(objects)
}

// A rejection is a response that takes no memory to create.
type rejection struct {
	status          int
	reason, message string
}

func busy() *rejection {
	return &rejection{http.StatusTooManyRequests, "busy", "too many reviews at a time: try again"}
}

func (g *Gate) refuse(w http.ResponseWriter, n *rejection) {
	g.refused.WithLabelValues(n.reason).Inc()
	if n.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1") // the API server retries until its timeout
	}
	http.Error(w, n.message, n.status)
}
