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

// connections are the open client connections, each with its Speaker once its protocol is known.
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

// serves records the Speaker of a connection.
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

// speakers returns the Speakers of the connections whose protocol is known.
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

// finish closes the connections that have received nothing yet. empty is closed once the others have ended.
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

// checkEmpty closes empty if final is set and no connection is open. The caller holds mu.
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
