package proxy

import (
	"context"
	"net"
	"sync"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// openConn is one client connection.
type openConn struct {
	ctx  context.Context // of dialing
	conn net.Conn
}

// connections are the client connections that are open, each with who serves it: nobody, until it is known what the
// client speaks.
type connections struct {
	mu    sync.Mutex
	open  map[*openConn]session.Speaker
	final bool          // the engine drains: see finish
	empty chan struct{} // closed when final, and none is open
}

func newConnections() *connections {
	return &connections{open: make(map[*openConn]session.Speaker), empty: make(chan struct{})}
}

func (c *connections) add(s *openConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[s] = nil
}

// serves notes who serves a connection.
func (c *connections) serves(s *openConn, by session.Speaker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[s] = by
}

func (c *connections) remove(s *openConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, s)
	c.checkEmpty()
}

// speakers returns who serves the connections whose protocol is known.
func (c *connections) speakers() []session.Speaker {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []session.Speaker
	for _, by := range c.open {
		if by != nil {
			all = append(all, by)
		}
	}
	return all
}

// finish closes the connections on which nothing was said yet, and has empty closed when the others are over.
func (c *connections) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s, by := range c.open {
		if by == nil {
			_ = s.conn.Close()
		}
	}
	c.final = true
	c.checkEmpty()
}

func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.open {
		_ = s.conn.Close()
	}
}

// checkEmpty closes empty when it is time to. The caller holds mu.
func (c *connections) checkEmpty() {
	if !c.final || len(c.open) > 0 {
		return
	}
	select {
	case <-c.empty:
	default:
		close(c.empty)
	}
}
