// Package engine moves the bytes and frames of client connections to backends and back: HTTP/1.x, HTTP/2 without TLS, and
// whatever else is spoken over TCP. It knows nothing of sandboxes: where a request goes, and what is changed in its head,
// is a Decider's say. Inbound routing, key stamping, preview gateway and tunnel are each a Decider.
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
)

// A Decider decides what becomes of the requests of one client connection. Its methods are never called concurrently.
type Decider interface {
	// Decide is called once for every request, as soon as its head has been read. The head is valid until Decide returns.
	Decide(*Head) Decision

	// Default is where bytes go that are no HTTP, and where a connection is made when the client waits for the server to
	// speak first. False: nowhere, such connections are closed.
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
		if nameIs(h.Fields[i].Name, name) {
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
	// Failure is the answer when no backend accepts a connection, or when the one that did breaks off before it answers. The
	// cause is appended to its Reason.
	Failure Refusal
	// Edits are made to the request's head.
	Edits Edits
	// Tunnel, when not nil, makes the engine answer a CONNECT itself, once a backend is connected, and then serve what comes
	// through the tunnel by this Decider. Its Default must be that backend.
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

// replyEdits returns what is changed in the head of the final answer of b.
func (d *Decision) replyEdits(b *Backend, status int, fields func() []Field) Edits {
	if d.Rewrite == nil {
		return Edits{Set: b.Answer}
	}
	e := d.Rewrite(&Reply{Status: status, Fields: fields()})
	e.Target = nil
	e.Set = append(slices.Clip(e.Set), b.Answer...)
	return e
}

// Edits are changes to a message.
type Edits struct {
	Target []byte     // replaces the request target, when not nil
	Set    []Field    // each replaces all fields of its name (in lower case), or is added
	Remove []string   // names, in lower case
	Insert *Insertion // into an answer's body. May be nil
}

// Put replaces all fields of a name, in lower case, by one.
func (e *Edits) Put(name string, value []byte) { e.Set = append(e.Set, Field{[]byte(name), value}) }

// Drop removes all fields of a name, in lower case.
func (e *Edits) Drop(name string) { e.Remove = append(e.Remove, name) }

// empty says whether the head stays as it is.
func (e *Edits) empty() bool { return e.Target == nil && len(e.Set) == 0 && len(e.Remove) == 0 }

// A Backend is where a request can go.
type Backend struct {
	// ID is the backend's identity. Requests of one client connection whose backends have the same ID share one connection
	// to it.
	ID string
	// Addr is the HOST:PORT to dial, over TCP.
	Addr string
	// Dial replaces dialing Addr. May be nil.
	Dial func(context.Context) (net.Conn, error)
	// Timeout bounds dialing. Zero means no bound but the system's.
	Timeout time.Duration
	// Dialed is told what came of each attempt to connect that was not given up. May be nil.
	Dialed func(error)
	// Anchor says that the client connection stands for a connection to this backend: when the backend ends an idle one, the
	// client connection is ended too, as it would be without the engine between.
	Anchor bool
	// Answer is set in the head of this backend's final answers.
	Answer []Field
}

// A Refusal is an answer of the engine's own.
type Refusal struct {
	// Status is the answer's status code. Zero: no answer; the connection ends as one that was refused or broken would.
	Status int
	// Reason is for people: the body, and the header x-sandbox-error. Empty: no such header.
	Reason string
	// Body, where it is not nil, takes the place of Reason as the body; Type is its media type. Callers of gRPC get the Reason.
	Body []byte
	Type string
	// Print, where it is not nil, makes Body and Type when they are needed, of the Reason. It may be called from any goroutine.
	Print func(reason string) (body []byte, mediaType string)
	// Fields are set in the answer's head.
	Fields []Field
}

// An Observer is told what becomes of a request. Its methods may be called from any goroutine.
type Observer interface {
	// Observe is called with Answered at most once, before any byte of the answer is sent on; with Failed at most once, after that,
	// and before the part of the answer that says so is sent on; with Refused, Broken or
	// Abandoned at most once.
	Observe(Event, *Backend)
}

// An Event is something that becomes of a request.
type Event uint8

// The events.
const (
	Answered  Event = iota // a backend's final answer has begun
	Refused                // no backend was reached
	Broken                 // a backend was reached and broke off before its answer was whole
	Abandoned              // the same as Broken, after the client had ended its half of the connection: maybe because of that
	Failed                 // the answer says that who gave it failed: by a status of 5xx, or by one of gRPC that means the same
)

func (d *Decision) observe(e Event, b *Backend) {
	if d.Observer != nil {
		d.Observer.Observe(e, b)
	}
}

// observeAnswer says that b's final answer has begun, with a status.
func (d *Decision) observeAnswer(status int, b *Backend) {
	d.observe(Answered, b)
	if status >= 500 {
		d.observe(Failed, b)
	}
}

// nameIs compares a field name with one in lower case.
func nameIs(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
