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

// MaxReview is the longest review, in bytes: the API server takes no object longer than 3 MiB (MaxRequestBodyBytes of
// k8s.io/apiserver), a review of an update holds two of them, and whatever else is in it is short.
const MaxReview = 7 << 20

const (
	// shortReview is what nearly all reviews are shorter than. They have a lane of their own: who sends long ones
	// does not hold them up.
	shortReview = 256 << 10
	// perByte is the most memory that a byte of a review holds while it is decided on: the body as it is read, its
	// copies, and numbers and members of maps, which take most where nobody knows their type. What is allocated is
	// more, and is garbage by then.
	perByte = 24
	// perObject is the most that an object or a list of a review takes, however short: `{}` may be a container.
	perObject = 2 << 10
)

// A Gate bounds the memory that all reviews take at a time, before any of them is decoded: how long they are, and how
// many are read and decided on at once, weighed by what they may take. What does not get through is refused with a
// status, without a review in the answer: the API server takes that for a webhook that failed, and its failurePolicy
// decides.
type Gate struct {
	short, long *semaphore.Weighted // bytes of bodies that are read, or wait to be decided on
	deciding    *semaphore.Weighted // bytes that decisions take
	longest     int64
	most        int64 // that one decision may take
	wait        time.Duration
	refused     *prometheus.CounterVec
}

// NewGate returns a gate for a process that may use memory bytes in all: one eighth is for bodies, three are for
// decisions. A review waits for as long as wait to be read, and again to be decided on: both are less than the API
// server waits for an answer.
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
		g.refused.WithLabelValues(reason) // a counter is there from the start, or its first increase is not seen
	}
	return g, metrics.Register(g.refused)
}

// Bound has next answer what gets through.
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
		lane.Release(size) // what is read is part of the cost from here on
		if n != nil {
			g.refuse(w, n)
			return
		}
		defer g.deciding.Release(cost)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// unfit finds what keeps a request from being read; nil: nothing.
func (g *Gate) unfit(r *http.Request) *turnedAway {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost:
		return &turnedAway{http.StatusMethodNotAllowed, "malformed", "a review is a POST"}
	case kind != "application/json":
		return &turnedAway{http.StatusUnsupportedMediaType, "malformed", "a review is of Content-Type application/json"}
	case r.ContentLength < 0:
		return &turnedAway{http.StatusLengthRequired, "malformed", "a review says by Content-Length how long it is"}
	case r.ContentLength > g.longest:
		return &turnedAway{http.StatusRequestEntityTooLarge, "too-large",
			fmt.Sprintf("a review of %d bytes is longer than the %d that this webhook takes: make the object smaller",
				r.ContentLength, g.longest)}
	}
	return nil
}

// read returns a body and the cost of deciding on it, which the caller releases where it is not turned away.
func (g *Gate) read(r *http.Request) ([]byte, int64, *turnedAway) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return nil, 0, &turnedAway{http.StatusRequestTimeout, "broken-off", "the review did not come whole in time"}
	}
	cost := cost(body)
	if cost > g.most {
		return nil, 0, &turnedAway{http.StatusRequestEntityTooLarge, "too-large",
			fmt.Sprintf("to decide on a review of %d bytes may take %d bytes of memory, more than the %d there are: "+
				"make the object simpler, or raise the webhook's memory limit", len(body), cost, g.most)}
	}
	if !g.acquire(r.Context(), g.deciding, cost) {
		return nil, 0, busy()
	}
	return body, cost, nil
}

// acquire reports whether the weight was free in time, and whoever sent the review still waits.
func (g *Gate) acquire(ctx context.Context, of *semaphore.Weighted, weight int64) bool {
	ctx, cancel := context.WithTimeout(ctx, g.wait)
	defer cancel()
	return of.Acquire(ctx, weight) == nil
}

// cost is the most memory that deciding on a review may take. Brackets within strings count as well: some strings are
// JSON that is read.
func cost(body []byte) int64 {
	objects := bytes.Count(body, []byte("{")) + bytes.Count(body, []byte("["))
	return perByte*int64(len(body)) + perObject*int64(objects)
}

// A turnedAway is an answer that costs nothing.
type turnedAway struct {
	status          int
	reason, message string
}

func busy() *turnedAway {
	return &turnedAway{http.StatusTooManyRequests, "busy", "too many reviews at a time: try again"}
}

func (g *Gate) refuse(w http.ResponseWriter, n *turnedAway) {
	g.refused.WithLabelValues(n.reason).Inc()
	if n.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1") // the API server does, for as long as its timeout lets it
	}
	http.Error(w, n.message, n.status)
}
