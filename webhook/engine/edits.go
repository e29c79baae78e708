package engine

import (
	"slices"
	"strconv"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

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

// Empty says whether the head stays as it is.
func (e *Edits) Empty() bool { return e.Target == nil && len(e.Set) == 0 && len(e.Remove) == 0 }

// Drops says whether a field of that name goes, because it is removed or replaced.
func (e *Edits) Drops(name []byte) bool {
	return slices.ContainsFunc(e.Set, func(f Field) bool { return message.NameIs(name, string(f.Name)) }) ||
		slices.ContainsFunc(e.Remove, func(n string) bool { return message.NameIs(name, n) })
}

// An Insertion puts something into the body of an answer, once. It is for answers that have a body and are coded in no
// way that the engine would have to undo; others go on as they are.
type Insertion struct {
	What []byte
	// Find is told the body, part by part as it goes by, and returns how many bytes of the part go before What. False:
	// it does not belong into this part. Where it belongs into none, it goes last.
	Find func(part []byte) (before int, ok bool)
}

// AddLength adds the length of what is inserted to that of the body.
func (e *Edits) AddLength(n int64) {
	length := strconv.AppendInt(nil, n+int64(len(e.Insert.What)), 10)
	e.Set = append(slices.Clip(e.Set), Field{[]byte("content-length"), length})
}

// An Inserter makes an insertion, without holding anything of the body back.
type Inserter struct {
	Insertion
	Placed bool // it is made
}

// Data adds a part of the body to dst.
func (i *Inserter) Data(dst, part []byte) []byte {
	if at, ok := i.Place(part); ok {
		dst = append(append(dst, part[:at]...), i.What...)
		part = part[at:]
	}
	return append(dst, part...)
}

// Last adds what is inserted to dst, if it was not before.
func (i *Inserter) Last(dst []byte) []byte {
	if i.Placed {
		return dst
	}
	i.Placed = true
	return append(dst, i.What...)
}

// Place looks where in a part of the body the insertion belongs, and notes that it is made there.
func (i *Inserter) Place(part []byte) (int, bool) {
	if i.Placed {
		return 0, false
	}
	at, ok := i.Find(part)
	i.Placed = ok
	return min(max(at, 0), len(part)), ok
}
