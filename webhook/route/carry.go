package route

import (
	"bytes"
	"iter"
)

// Limits of the lists that a key is a member of: W3C Baggage, section 3.3.2, and W3C Trace Context, section 3.3.1.1.
const (
	maxBaggage           = 8192 // bytes
	maxBaggageMembers    = 64
	maxTracestate        = 512 // bytes
	maxTracestateMembers = 32
	maxStateKey          = 256 // bytes
)

// An Editor changes the fields of a message's head. Names are in lower case. Put replaces all fields with a name by
// one, Drop removes them.
type Editor interface {
	Put(name string, value []byte)
	Drop(name string)
}

// Carry makes every carrier of a request carry key: the header, the member of baggage, and the member of tracestate if
// the request is traced or had one. A service that forwards any of them forwards the key. An empty key clears all
// carriers.
//
// fields are the request's. edit is called for the changes only, so not at all if all carriers carry the key already.
// Other members stay, in their order. The key's member comes first, for readers that read only part of a long list. If
// a list would exceed the limits of its specification, members at its end are dropped, as Trace Context requires.
func (c Carriers) Carry(key []byte, fields iter.Seq2[[]byte, []byte], edit Editor) {
	baggage := list{name: "baggage", member: c.Member, bytes: maxBaggage, members: maxBaggageMembers}
	state := list{name: "tracestate", member: c.Member, bytes: maxTracestate, members: maxTracestateMembers}
	headers, other, traced := 0, false, false
	for name, value := range fields {
		switch {
		case is(name, c.Header):
			headers++
			other = other || !bytes.Equal(bytes.Trim(value, " \t"), key)
		case is(name, baggage.name):
			baggage.read(value, key)
		case is(name, state.name):
			state.read(value, key)
		case is(name, "traceparent"):
			traced = true
		}
	}
	switch {
	case len(key) == 0 && headers > 0:
		edit.Drop(c.Header)
	case len(key) > 0 && (headers == 0 || other):
		edit.Put(c.Header, bytes.Clone(key))
	}
	baggage.write(key, len(key) > 0, edit)
	state.write(key, state.carries || len(key) > 0 && traced && stateKey(c.Member), edit)
}

// A list is a header whose value is a list of NAME=VALUE, in one field or several.
type list struct {
	name           string
	member         string
	bytes, members int // at most

	rest    [][]byte // members of others
	carries bool     // some member carries the key
	others  bool     // some member of that name carries another key
}

func (l *list) read(value, key []byte) {
	for m := range bytes.SplitSeq(value, []byte{','}) {
		m = bytes.Trim(m, " \t")
		name, v, ok := bytes.Cut(m, []byte{'='})
		if !ok || string(bytes.Trim(name, " \t")) != l.member {
			if len(m) > 0 {
				l.rest = append(l.rest, m)
			}
			continue
		}
		v, _, _ = bytes.Cut(v, []byte{';'})
		if len(key) > 0 && bytes.Equal(bytes.Trim(v, " \t"), key) {
			l.carries = true
		} else {
			l.others = true
		}
	}
}

// write makes the list carry the key if it is wanted, and no other key.
func (l *list) write(key []byte, wanted bool, edit Editor) {
	if l.carries == wanted && !l.others {
		return
	}
	if !wanted && len(l.rest) == 0 {
		edit.Drop(l.name)
		return
	}
	var value []byte
	room := l.members
	if wanted {
		value = append(append(append(value, l.member...), '='), key...)
		room--
	}
	for i, m := range l.rest {
		if wanted && (i >= room || len(value)+1+len(m) > l.bytes) {
			break
		}
		if len(value) > 0 {
			value = append(value, ',')
		}
		value = append(value, m...)
	}
	edit.Put(l.name, value)
}

// stateKey reports whether a name is valid for a member of tracestate: readers discard a header with an invalid one.
func stateKey(name string) bool {
	if name == "" || len(name) > maxStateKey {
		return false
	}
	for i, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '-' || c == '*' || c == '/' || c == '@'):
		default:
			return false
		}
	}
	return true
}

func is(name []byte, lower string) bool { return len(name) == len(lower) && equalFold(name, lower) }
