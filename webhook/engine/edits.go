package engine

import (
	"slices"
	"strconv"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// Edits are changes to a message.
type Edits struct {
	Target []byte     // replaces the request target, if not nil
	Set    []Field    // each replaces all fields with its name (in lower case), or is added
	Remove []string   // names, in lower case
	Insert *Insertion // into a response's body. May be nil
}

// Put replaces all fields of a name, in lower case, by one.
func (e *Edits) Put(name string, value []byte) { e.Set = append(e.Set, Field{[]byte(name), value}) }

// Drop removes all fields of a name, in lower case.
func (e *Edits) Drop(name string) { e.Remove = append(e.Remove, name) }

// Empty reports whether the head stays unchanged.
func (e *Edits) Empty() bool { return e.Target == nil && len(e.Set) == 0 && len(e.Remove) == 0 }

// Drops reports whether fields with that name are removed or replaced.
func (e *Edits) Drops(name []byte) bool {
	return slices.ContainsFunc(e.Set, func(f Field) bool { return message.NameIs(name, string(f.Name)) }) ||
		slices.ContainsFunc(e.Remove, func(n string) bool { return message.NameIs(name, n) })
}

// An Insertion inserts bytes into the body of a response, once. It applies only to responses with a body and without a
// content coding that the engine would have to decode; others are forwarded unchanged.
type Insertion struct {
	What []byte
	// Find is called with one part of the body after another. It returns how many bytes of the part precede What, or false
	// if What does not belong in this part. If it never returns true, What is appended.
	Find func(part []byte) (before int, ok bool)
}

// AddLength adds the length of the insertion to that of the body.
func (e *Edits) AddLength(n int64) {
	length := strconv.AppendInt(nil, n+int64(len(e.Insert.What)), 10)
	e.Set = append(slices.Clip(e.Set), Field{[]byte("content-length"), length})
}

// An Inserter makes an insertion, without delaying any of the body.
type Inserter struct {
	Insertion
	Placed bool // the insertion was made
}

// Data appends a part of the body to dst.
func (i *Inserter) Data(dst, part []byte) []byte {
	if at, ok := i.Place(part); ok {
		dst = append(append(dst, part[:at]...), i.What...)
		part = part[at:]
	}
	return append(dst, part...)
}

// Last appends the insertion to dst, if it was not made before.
func (i *Inserter) Last(dst []byte) []byte {
	if i.Placed {
		return dst
	}
	i.Placed = true
	return append(dst, i.What...)
}

// Place returns the position of the insertion in a part of the body, and records that it was made.
func (i *Inserter) Place(part []byte) (int, bool) {
	if i.Placed {
		return 0, false
	}
	at, ok := i.Find(part)
	i.Placed = ok
	return min(max(at, 0), len(part)), ok
}
