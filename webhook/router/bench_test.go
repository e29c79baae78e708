package router

import (
	"net"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// What the router itself adds to a request: from its head to where it goes, and the count of its answer.
func BenchmarkDecide(b *testing.B) {
	c := testConfig(b)
	r := newRoutes(c.Captures, c.StaleAfter)
	t := table(1, map[string][]string{"forked": {"10.0.0.1"}})
	t.Observe = []string{"seen"}
	r.replace(t, time.Now())
	m := newMetrics("test", r, nil, func() bool { return true })
	for _, of := range []struct{ name, key string }{{"no key", ""}, {"key of no fork", "elsewhere"}, {"key observed", "seen"}, {"key of a fork", "forked"}} {
		b.Run(of.name, func(b *testing.B) {
			i := newInbound(r, m, &c, c.Captures[0], &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 1})
			h := &engine.Head{Fields: []engine.Field{
				{Name: []byte("Host"), Value: []byte("api")}, {Name: []byte("Accept"), Value: []byte("*/*")},
				{Name: []byte("Baggage"), Value: []byte("user=1")},
			}}
			if of.key != "" {
				h.Fields = append(h.Fields, engine.Field{Name: []byte(c.Carriers.Header), Value: []byte(of.key)})
			}
			b.ReportAllocs()
			for b.Loop() {
				d := i.Decide(h)
				d.Observer.Observe(engine.Answered, &d.Backends[0])
			}
		})
	}
}
