// Package session holds what the protocols share of connections: what the engine passes them for a client, dialing of
// backends, read buffers, and how connections end.
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

// Client is a client connection, as it is passed to the code of its protocol.
type Client struct {
	Context context.Context // of dialing
	Conn    net.Conn
	In      *Buffer // what was read from conn, and not used yet
	Decider engine.Decider
	// Backend is the Decider's default, if HasBackend is set.
	Backend    engine.Backend
	HasBackend bool
	App        net.Conn // an existing connection to Backend. May be nil
	Spoke      []byte   // what was read from App
	// Serves is called with the connection's Speaker.
	Serves func(Speaker)
}

// A Speaker serves a client connection whose protocol is known.
type Speaker interface {
	Drain()                           // end the connection as soon as nothing is in flight on it
	Retire(gone func(id string) bool) // close idle connections to these backends
	Kill()                            // end the connection at once
}

// ErrClientGone means that the client has disconnected, so that there is nobody to respond to.
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
