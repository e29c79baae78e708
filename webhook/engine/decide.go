// Package engine says how the bytes and frames of client connections move to backends and back: HTTP/1.x, HTTP/2
// without TLS, and whatever else is spoken over TCP. It knows nothing of sandboxes: where a request goes, and what is
// changed in its head, is a Decider's say. Inbound routing, key stamping, preview gateway and tunnel are each a
// Decider. This package is what Deciders and protocols share; proxy serves connections, by http1 and http2.
//
// The engine forwards; it does not normalise. So it refuses every message that two parsers could read differently
// (RFC 9112, section 11.2), and of what it accepts it changes nothing but what the Decider asks for.
package engine

import (
	"context"
	"iter"
	"net"
	"slices"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// A Decider decides what becomes of the requests of one client connection. Its methods are never called concurrently.
type Decider interface {
	// Decide is called once for every request, as soon as its head has been read. The head is valid until Decide
	// returns.
	Decide(*Head) Decision

	// Default is where bytes go that are no HTTP, and where a connection is made when the client waits for the server
	// to speak first. False: nowhere, such connections are closed.
	Default() (Backend, bool)
}

// A Head is a request's head: of HTTP/1, the request line and fields as they came; of HTTP/2, the same meaning.
type Head struct {
	HTTP2     bool
	Method    []byte
	Target    []byte  // request target, as it came; of HTTP/2, the path
	Authority []byte  // Host or :authority
	Fields    []Field // in the order they came, without pseudo-fields
}

// A Field is a header field.
type Field struct{ Name, Value []byte }

// Get returns the value of the first field of that name, which must be in lower case; nil when there is none.
func (h *Head) Get(name string) []byte {
	for i := range h.Fields {
		if message.NameIs(h.Fields[i].Name, name) {
			return h.Fields[i].Value
		}
	}
	return nil
}

// All yields names and values of the fields, in the order they came.
func (h *Head) All() iter.Seq2[[]byte, []byte] { return all(h.Fields) }

// All yields names and values of the fields, in the order they came.
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

// A Decision says what becomes of a request.
type Decision struct {
	// Refusal, when not nil, is the answer, and nothing goes to any backend.
	Refusal *Refusal
	// Backends are tried in order, until one accepts a connection.
	Backends []Backend
	// Failure is the answer when no backend accepts a connection, or when the one that did breaks off before it
	// answers. The cause is appended to its Reason.
	Failure Refusal
	// Edits are made to the request's head.
	Edits Edits
	// Tunnel, when not nil, makes the engine answer a CONNECT itself, once a backend is connected, and then serve what
	// comes through the tunnel by this Decider. Its Default must be that backend.
	Tunnel Decider
	// Observer is told what becomes of the request. May be nil.
	Observer Observer
	// Rewrite returns edits of a backend's final answer, besides the backend's Answer. The Reply is valid until it
	// returns. It is called from any goroutine, and must not wait. May be nil.
	Rewrite func(*Reply) Edits
}

// A Reply is the head of an answer as it came from a backend.
type Reply struct {
	Status int
	Fields []Field // without pseudo-fields
}

// ReplyEdits returns what is changed in the head of the final answer of b.
func (d *Decision) ReplyEdits(b *Backend, status int, fields func() []Field) Edits {
	if d.Rewrite == nil {
		return Edits{Set: b.Answer}
	}
	e := d.Rewrite(&Reply{Status: status, Fields: fields()})
	e.Target = nil
	e.Set = append(slices.Clip(e.Set), b.Answer...)
	return e
}

// A Backend is where a request can go.
type Backend struct {
	// ID is the backend's identity. Requests of one client connection whose backends have the same ID share one
	// connection to it.
	ID string
	// Addr is the HOST:PORT to dial, over TCP.
	Addr string
	// Dial replaces dialing Addr. May be nil.
	Dial func(context.Context) (net.Conn, error)
	// Timeout bounds dialing. Zero means no bound but the system's.
	Timeout time.Duration
	// Dialed is told what came of each attempt to connect that was not given up. May be nil.
	Dialed func(error)
	// Anchor says that the client connection stands for a connection to this backend: when the backend ends an idle
	// one, the client connection is ended too, as it would be without the engine between.
	Anchor bool
	// Answer is set in the head of this backend's final answers.
	Answer []Field
}

// An Observer is told what becomes of a request. Its methods may be called from any goroutine.
type Observer interface {
	// Observe is called with Answered at most once, before any byte of the answer is sent on; with Failed at most once,
	// after that, and before the part of the answer that says so is sent on; with Refused, Broken or Abandoned at most
	// once.
	Observe(Event, *Backend)
}

// An Event is something that becomes of a request.
type Event uint8

// The events.
const (
	// Answered: a backend's final answer has begun.
	Answered Event = iota
	// Refused: no backend was reached.
	Refused
	// Broken: a backend was reached and broke off before its answer was whole.
	Broken
	// Abandoned is the same as Broken, after the client had ended its half of the connection: maybe because of that.
	Abandoned
	// Failed: the answer says that who gave it failed, by a status of 5xx, or by one of gRPC that means the same.
	Failed
)

// Observe tells the Observer, if there is one.
func (d *Decision) Observe(e Event, b *Backend) {
	if d.Observer != nil {
		d.Observer.Observe(e, b)
	}
}

// ObserveAnswer says that b's final answer has begun, with a status.
func (d *Decision) ObserveAnswer(status int, b *Backend) {
	d.Observe(Answered, b)
	if status >= 500 {
		d.Observe(Failed, b)
	}
}
