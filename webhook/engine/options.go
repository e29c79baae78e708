package engine

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Options are an engine's bounds. A zero field means its default.
type Options struct {
	// HeadTimeout bounds the time from a request head's first byte to its last. Default 60 s.
	HeadTimeout time.Duration
	// MaxHead is the longest head, in bytes, that is accepted from client or backend. Default 256 KiB: more than common
	// servers accept, so that the app is the one to refuse.
	MaxHead int
	// SpeakWait is how long a client may be silent before the default backend is connected, so that the server can speak
	// first. Default 20 ms.
	SpeakWait time.Duration
	// PrefixWait is how long the beginning of what may be an HTTP method is treated as one. Default 1 s.
	PrefixWait time.Duration
	// IdleTimeout ends client connections on which nothing was in flight for that long. Default: never, the backend
	// decides.
	IdleTimeout time.Duration
	// Linger is how long a client may take to read a response after which the connection is closed. Default 5 s.
	Linger time.Duration
	// Log receives what no client sees. Default: nothing is logged.
	Log *slog.Logger
}

// WithDefaults returns o with defaults in place of zero fields.
func (o Options) WithDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.HeadTimeout, time.Minute)
	def(&o.SpeakWait, 20*time.Millisecond)
	def(&o.PrefixWait, time.Second)
	def(&o.Linger, 5*time.Second)
	if o.MaxHead == 0 {
		o.MaxHead = 256 << 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stats are an engine's figures that do not belong to a request.
type Stats struct {
	Open      atomic.Int64  // client connections
	Raw       atomic.Uint64 // connections that were forwarded as bytes
	Malformed atomic.Uint64 // messages refused as malformed or ambiguous
}
