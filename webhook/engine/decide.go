// Package engine holds the types that forwarding is built on. The engine moves the bytes and frames of client
// connections to backends and back: HTTP/1.x, HTTP/2 without TLS, and any other protocol over TCP. It knows nothing of
// sandboxes: a Decider decides where a request goes, and how its head is edited. Inbound routing, key stamping, the
// preview gateway and tunnels are each a Decider. Deciders and protocols share this package; proxy serves connections,
// by http1 and http2.
//
// The engine forwards; it does not normalise. It refuses every message that two parsers could read differently (RFC
// 9112, section 11.2), and changes nothing in others except as the Decider asks.
package engine

import (
	"context"
	"iter"
	"net"
	"slices"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// A Decider decides what happens to the requests of one client connection. Its methods are never called concurrently.
type Decider interface {
	// Decide is called once for every request, as soon as its head has been read. The head is valid until Decide returns.
	Decide(*Head) Decision

	// Default returns the backend for bytes that are not HTTP, and for clients that wait for the server to speak first.
	// False: there is none, and such connections are closed.
	Default() (Backend, bool)
}

// A Head is a request's head: for HTTP/1 the request line and fields as received, for HTTP/2 the equivalent.
type Head struct {
	HTTP2     bool
	Method    []byte
	Target    []byte  // request target, as received; for HTTP/2, the path
	Authority []byte  // Host or :authority
	Fields    []Field // in the order received, without pseudo-fields
}

// A Field is a header field.
type Field struct{ Name, Value []byte }

// Get returns the value of the first field with that name, which must be in lower case; nil if there is none.
func (h *Head) Get(name string) []byte {
	for i := range h.Fields {
		if message.NameIs(h.Fields[i].Name, name) {
			return h.Fields[i].Value
		}
	}
	return nil
}

// All yields names and values of the fields, in the order received.
func (h *Head) All() iter.Seq2[[]byte, []byte] { return all(h.Fields) }

// All yields names and values of the fields, in the order received.
func (r *Reply) All() iter.Seq2[[]byte, []byte] { return all(r.Fields) }

func all(fields []Field) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := range fields {
			if !yield(fields[i].Name, fields[i].Value) {
				return
			}
		}
	}
}

// A Decision is what to do with a request.
type Decision struct {
	// Refusal, if not nil, is the response, and nothing is sent to any backend.
	Refusal *Refusal
	// Backends are tried in order, until one accepts a connection.
	Backends []Backend
	// Failure is the response if no backend accepts a connection, or if the backend fails before it responds. The cause is
	// appended to its Reason.
	Failure Refusal
	// Edits are made to the request's head.
	Edits Edits
	// Tunnel, if not nil, makes the engine respond to a CONNECT itself once a backend is connected. This Decider then
	// serves what comes through the tunnel; its Default must be that backend.
	Tunnel Decider
	// Observer receives the events of the request. May be nil.
	Observer Observer
	// Rewrite returns edits of a backend's final response, besides the backend's Answer. The Reply is valid until it
	// returns. Any goroutine may call it, and it must not block. May be nil.
	Rewrite func(*Reply) Edits
}

// A Reply is the head of a response as received from a backend.
type Reply struct {
	Status int
	Fields []Field // without pseudo-fields
}

// ReplyEdits returns the edits of the head of b's final response.
func (d *Decision) ReplyEdits(b *Backend, status int, fields func() []Field) Edits {
	if d.Rewrite == nil {
		return Edits{Set: b.Answer}
	}
	e := d.Rewrite(&Reply{Status: status, Fields: fields()})
	e.Target = nil
	e.Set = append(slices.Clip(e.Set), b.Answer...)
	return e
}

// A Backend is a destination of requests.
type Backend struct {
	// ID is the backend's identity. Requests of one client connection to backends with the same ID share one connection.
	ID string
	// Addr is the HOST:PORT to dial, over TCP.
	Addr string
	// Dial replaces dialing Addr. May be nil.
	Dial func(context.Context) (net.Conn, error)
	// Timeout bounds dialing. Zero: only the system's bound.
	Timeout time.Duration
	// Dialed is called with the result of each attempt to connect that was not cancelled. May be nil.
	Dialed func(error)
	// Anchor ties the client connection to this backend: when the backend ends an idle connection, the engine ends the
	// client connection too, as the client would see without the engine.
	Anchor bool
	// Answer is set in the head of this backend's final responses.
	Answer []Field
}

// An Observer receives the events of a request. Any goroutine may call its methods.
type Observer interface {
	// Observe is called at most once with Answered, before any byte of the response is forwarded. After that it is called
	// at most once with Failed, before the part of the response that says so is forwarded. It is called at most once with
	// Refused, Broken or Abandoned.
	Observe(Event, *Backend)
}

// An Event is a stage or outcome of a request.
type Event uint8

// Events.
const (
	// Answered: a backend's final response has started.
	Answered Event = iota
	// Refused: no backend was reached.
	Refused
	// Broken: a backend was reached, and failed before its response was complete.
	Broken
	// Abandoned is like Broken, after the client had closed its sending half, which may be the cause.
	Abandoned
	// Failed: the response reports a failure of the server, by a 5xx status or an equivalent gRPC status.
	Failed
)

// Observe calls the Observer, if there is one.
func (d *Decision) Observe(e Event, b *Backend) {
	if d.Observer != nil {
		d.Observer.Observe(e, b)
	}
}

// ObserveAnswer reports that b's final response has started, with a status.
func (d *Decision) ObserveAnswer(status int, b *Backend) {
	d.Observe(Answered, b)
	if status >= 500 {
		d.Observe(Failed, b)
	}
}
