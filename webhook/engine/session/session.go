// Package session holds what the protocols share of connections: what the engine gives them for a client, how a backend
// is dialed, what was read and not used, and how connections end.
package session

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// Shared is what all client connections of an engine share.
type Shared struct {
	engine.Options
	Stats engine.Stats

	Draining atomic.Bool // client connections end as soon as nothing is in flight on them
}

// Client is a client connection, as it is handed to the code of the protocol that it speaks.
type Client struct {
	Context context.Context // of dialing
	Conn    net.Conn
	In      *Buffer // what was read from conn, and not used yet
	Decider engine.Decider
	// backend is the Decider's default, if hasBackend.
	Backend    engine.Backend
	HasBackend bool
	App        net.Conn // a connection to backend that is made already. May be nil
	Spoke      []byte   // what was read from app
	// serves notes who serves the connection from now on.
	Serves func(Speaker)
}

// A speaker serves a client connection whose protocol is known.
type Speaker interface {
	Drain()                           // end the connection as soon as nothing is in flight on it
	Retire(gone func(id string) bool) // close idle connections to these backends
	Kill()                            // end the connection at once
}

// ErrClientGone says that there is nobody any more to answer.
var ErrClientGone = errors.New("client has ended the connection")

// Dial connects to b.
func Dial(ctx context.Context, b *engine.Backend) (net.Conn, error) {
	if b.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.Timeout)
		defer cancel()
	}
	connect := b.Dial
	if connect == nil {
		connect = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", b.Addr)
		}
	}
	conn, err := connect(ctx)
	if b.Dialed != nil && !errors.Is(ctx.Err(), context.Canceled) {
		b.Dialed(err)
	}
	return conn, err
}
