package contract

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
)

// Bounds of a shape.
const (
	maxPlaces = 20_000
	maxDepth  = 100
)

// A shape is what a set of JSON values has in common: the types at each place, and how often an object there has
// which fields. A place is a JSON pointer in which "*" is any element of a list.
type shape map[string]*place

type place struct {
	types   map[string]int
	objects int
	fields  map[string]int
}

// add adds a document to s. It fails if the document is not JSON.
func (s shape) add(document []byte) error {
	var v any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	s.walk("", v, 0)
	return nil
}

func (s shape) walk(at string, v any, depth int) {
	p := s[at]
	if p == nil {
		if len(s) >= maxPlaces {
			return
		}
		p = &place{types: map[string]int{}, fields: map[string]int{}}
		s[at] = p
	}
	switch v := v.(type) {
	case nil:
		p.types["null"]++
	case bool:
		p.types["boolean"]++
	case json.Number:
		p.types["number"]++
	case string:
		p.types["string"]++
	case []any:
		p.types["array"]++
		if depth < maxDepth {
			for _, e := range v {
				s.walk(at+"/*", e, depth+1)
			}
		}
	case map[string]any:
		p.types["object"]++
		p.objects++
		if depth < maxDepth {
			for name, e := range v {
				p.fields[name]++
				s.walk(at+"/"+escape(name), e, depth+1)
			}
		}
	}
}

// escape escapes a name for a JSON pointer (RFC 6901, section 3).
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// differences returns what breaks a caller that knows values of the shape base and gets values of the shape s. A
// difference counts only if all values of s show it and none of base does: what varies is no promise.
func (s shape) differences(base shape) []result.Finding {
	var found []result.Finding
	for _, at := range slices.Sorted(maps.Keys(base)) {
		was, is := base[at], s[at]
		if is == nil {
			continue // an object that has a field less, or a list without elements
		}
		for _, name := range slices.Sorted(maps.Keys(was.fields)) {
			if was.fields[name] == was.objects && is.objects > 0 && is.fields[name] == 0 {
				found = append(found, result.Finding{
					Reason: result.ReasonFieldGone, Path: at + "/" + escape(name), Message: "the baseline's answers have it, and no answer of the variant's",
				})
			}
		}
		if was.types["null"] > 0 && len(was.types) == 1 {
			continue // nothing is known of what it is when there is something
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(is.types)), func(t string) bool { return was.types[t] > 0 }) {
			found = append(found, result.Finding{
				Reason: result.ReasonTypeChanged, Path: at,
				Message: "it is " + names(is.types) + ", and " + names(was.types) + " in the baseline's answers",
			})
		}
	}
	return found
}

func names(types map[string]int) string {
	return strings.Join(slices.Sorted(maps.Keys(types)), " or ")
}
