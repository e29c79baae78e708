package engine

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Options are an engine's bounds. A zero field takes its default.
type Options struct {
	// HeadTimeout bounds the time from a request head's first byte to its last. Default 60 s.
	HeadTimeout time.Duration
	// MaxHead is the longest head, in bytes, that is taken from client or backend. Default 256 KiB: more than the
	// common servers take, so that it is the app that refuses.
	MaxHead int
	// SpeakWait is how long a client may be silent before the default backend is connected, so that it can speak first.
	// Default 20 ms.
	SpeakWait time.Duration
	// PrefixWait is how long bytes that could be the beginning of an HTTP method, and nothing else yet, are taken for
	// one. Default 1 s.
	PrefixWait time.Duration
	// IdleTimeout ends client connections on which nothing was in flight for that long. Default: never, the backend
	// decides.
	IdleTimeout time.Duration
	// Linger is how long a client may take to read an answer after which the connection is closed. Default 5 s.
	Linger time.Duration
	// Log is where what no client is told is told. Default: nowhere.
	Log *slog.Logger
}

// WithDefaults returns o with the defaults of what is not set.
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

// Stats are an engine's figures that belong to no request.
type Stats struct {
	Open      atomic.Int64  // client connections
	Raw       atomic.Uint64 // connections that were passed through as bytes
	Malformed atomic.Uint64 // messages refused as malformed or ambiguous
}
