package fork

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	kjson "k8s.io/apimachinery/pkg/util/json"
)

// A ConflictError is why a patch does not apply to a template.
type ConflictError struct {
	// Conflicts are in the order of the patch. Each names a place in the template and the problem.
	Conflicts []string
}

// Error returns all conflicts.
func (e *ConflictError) Error() string { return strings.Join(e.Conflicts, "; ") }

// Apply returns template with the patch applied, without changing template. On the template that the patch was computed
// from (Diff) that follows RFC 6902. A template that has changed since keeps its changes, unless the patch changes the
// same:
//
//   - An element whose key the patch tests is found by its key, wherever it is in its list now.
//   - What both the patch and the template add is merged: objects member by member, lists with keys element by
//     element. Of two plain values that of the patch wins.
//   - What the patch removes may be gone already.
//
// Anything else is a *ConflictError with all conflicts: what the patch changes or adds to is gone, or what it adds
// exists and differs in more than plain values. An invalid patch is another error.
func Apply(template map[string]any, patch []byte) (map[string]any, error) {
	b, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	l := applier{elements: map[string]element{}}
	if err := kjson.Unmarshal(b, &l.doc); err != nil {
		return nil, err
	}
	ops, err := parse(patch)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(ops); i++ {
		var next *operation
		if i+1 < len(ops) {
			next = &ops[i+1]
		}
		if l.do(&ops[i], next) {
			i++
		}
	}
	if len(l.conflicts) > 0 {
		return nil, &ConflictError{l.conflicts}
	}
	return l.doc, nil
}

// An operation is one of an RFC 6902 patch.
type operation struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	Raw   json.RawMessage `json:"value"`
	value any
}

// parse parses a patch of the operations that Diff emits, each with a path below the root. It must validate them:
// whoever may edit a fork may edit its patch.
func parse(patch []byte) ([]operation, error) {
	var ops []operation
	if err := json.Unmarshal(patch, &ops); err != nil {
		return nil, fmt.Errorf("not an RFC 6902 patch: %w", err)
	}
	for i := range ops {
		op := &ops[i]
		switch op.Op {
		case "add", "replace", "test", "remove":
		default:
			return nil, fmt.Errorf("operation %d: %q is none of add, remove, replace and test", i, op.Op)
		}
		if !strings.HasPrefix(op.Path, "/") {
			return nil, fmt.Errorf("operation %d: path %q leads nowhere below the root", i, op.Path)
		}
		if op.Op == "remove" {
			continue
		}
		if op.Raw == nil {
			return nil, fmt.Errorf("operation %d: %s without a value", i, op.Op)
		}
		if err := kjson.Unmarshal(op.Raw, &op.value); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return ops, nil
}

// An applier applies a patch to a template.
type applier struct {
	doc map[string]any
	// elements are those of lists whose keys were tested, by their paths in the patch.
	elements map[string]element
	// missing are the paths that are gone and were reported: further operations below them are not.
	missing   []string
	conflicts []string
}

// An element of a list is identified by the value of its key.
type element struct {
	key   string
	value any
}

func (e element) in(list []any) int {
	return slices.IndexFunc(list, func(v any) bool {
		m, ok := v.(map[string]any)
		return ok && m[e.key] == e.value
	})
}

// do applies op, and returns true if that completes the next one as well.
func (l *applier) do(op, next *operation) bool {
	if slices.ContainsFunc(l.missing, func(path string) bool { return op.Path == path || strings.HasPrefix(op.Path, path+"/") }) {
		return false
	}
	if op.Op == "test" {
		return l.test(op, next)
	}
	err := l.at(op.Path, func(p *place) error {
		switch op.Op {
		case "add":
			return p.add(op.value)
		case "replace":
			return p.replace(op.value)
		}
		return p.remove()
	})
	list := parent(op.Path)
	switch {
	case err == nil:
	case errors.Is(err, errNowhere) && op.Op == "remove": // gone already, or with its parent
	case errors.Is(err, errNowhere) && op.Op == "add":
		l.conflict(l.describe(list), "is gone")
		l.missing = append(l.missing, list)
	case errors.Is(err, errNowhere):
		l.conflict(l.describe(op.Path), "is gone")
	default:
		var twice *twiceError
		if errors.As(err, &twice) {
			l.conflict(l.describe(list)+"["+twice.key+"]", err.Error())
		} else {
			l.conflict(l.describe(op.Path), err.Error())
		}
	}
	if op.Op != "replace" {
		for path := range l.elements { // other elements may be in their positions now
			if strings.HasPrefix(path, list+"/") {
				delete(l.elements, path)
			}
		}
	}
	return false
}

// test applies a test. A test of an element's key decides which element its path means from here on.
func (l *applier) test(op, next *operation) bool {
	at := parent(op.Path)
	e := element{unescape(op.Path[len(at)+1:]), op.value}
	there, listed := false, false
	if isKey(e.key, e.value) && at != "" {
		delete(l.elements, at)
		err := l.at(at, func(p *place) error {
			if list, ok := p.in.([]any); ok {
				there, listed = e.in(list) >= 0, true
			}
			return nil
		})
		if err != nil {
			l.elements[at] = e
			listed = true // once; its list is gone as well
		}
	}
	switch {
	case listed && there:
		l.elements[at] = e
	case listed && next != nil && next.Path == at:
		delete(l.elements, at)
		return next.Op == "remove" // gone already; its successor stays where it was
	case listed:
		l.elements[at] = e
		l.conflict(l.describe(at), "is gone")
		l.missing = append(l.missing, at)
	default:
		err := l.at(op.Path, func(p *place) error {
			if !p.there || !reflect.DeepEqual(p.is, op.value) {
				return errNowhere
			}
			return nil
		})
		if err != nil {
			l.conflict(l.describe(op.Path), "is not what it was")
			l.missing = append(l.missing, op.Path)
		}
	}
	return false
}

func (l *applier) conflict(place, why string) { l.conflicts = append(l.conflicts, place+" "+why) }

// describe formats a path of the patch for people: spec.containers[api].env[LOG_LEVEL].value.
func (l *applier) describe(path string) string {
	var b strings.Builder
	at := ""
	for i, token := range strings.Split(path, "/")[1:] {
		at += "/" + token
		_, notNumber := strconv.Atoi(token)
		key := unescape(token)
		e, isElement := l.elements[at]
		switch {
		case isElement:
			fmt.Fprintf(&b, "[%v]", e.value)
		case notNumber == nil || strings.ContainsAny(key, "./[] "):
			b.WriteString("[" + key + "]")
		case i == 0:
			b.WriteString(key)
		default:
			b.WriteString("." + key)
		}
	}
	return b.String()
}

// parent removes the last token of a path.
func parent(path string) string { return path[:strings.LastIndexByte(path, '/')] }

// errNowhere means that a path refers to something that does not exist.
var errNowhere = errors.New("nowhere") //nolint:gochecknoglobals // a constant, as far as Go has them

// A place is the end of a path: a member of an object or an element of a list, which may not exist.
type place struct {
	in    any    // map[string]any or []any; replaced by the changed value
	field string // the name of the member, or of the member that is its list
	index int    // in a list
	is    any    // the current value
	there bool
}

// at calls change with the place of a path.
func (l *applier) at(path string, change func(*place) error) error {
	_, err := l.walk(l.doc, "", strings.Split(path, "/")[1:], "", change)
	return err
}

// walk calls change with the place of the tokens in node, the value of the member field. It returns the changed node.
func (l *applier) walk(node any, field string, tokens []string, at string, change func(*place) error) (any, error) {
	at += "/" + tokens[0]
	p := &place{in: node, field: field}
	switch in := node.(type) {
	case map[string]any:
		p.field = unescape(tokens[0])
		p.is, p.there = in[p.field]
	case []any:
		if e, ok := l.elements[at]; ok {
			p.index = e.in(in)
		} else if tokens[0] == "-" {
			p.index = len(in)
		} else if n, err := strconv.Atoi(tokens[0]); err == nil && n >= 0 {
			p.index = min(n, len(in))
		} else {
			return nil, errNowhere
		}
		if p.index < 0 {
			return nil, errNowhere
		}
		if p.index < len(in) {
			p.is, p.there = in[p.index], true
		}
	default:
		return nil, errNowhere
	}
	if len(tokens) == 1 {
		err := change(p)
		return p.in, err
	}
	if !p.there {
		return nil, errNowhere
	}
	child, err := l.walk(p.is, p.field, tokens[1:], at, change)
	if err != nil {
		return nil, err
	}
	p.set(child)
	return p.in, nil
}

// set replaces the value of the place.
func (p *place) set(v any) {
	switch in := p.in.(type) {
	case map[string]any:
		in[p.field] = v
	case []any:
		in[p.index] = v
	}
}

func (p *place) add(value any) error {
	switch in := p.in.(type) {
	case map[string]any:
		if !p.there {
			in[p.field] = value
			return nil
		}
		joined, err := join(p.field, p.is, value)
		in[p.field] = joined
		return err
	case []any:
		list, err := insert(p.field, in, p.index, value)
		p.in = list
		return err
	}
	return errNowhere
}

func (p *place) replace(value any) error {
	if !p.there {
		return errNowhere
	}
	p.set(value)
	return nil
}

func (p *place) remove() error {
	if !p.there {
		return errNowhere
	}
	switch in := p.in.(type) {
	case map[string]any:
		delete(in, p.field)
	case []any:
		p.in = slices.Delete(in, p.index, p.index+1)
	}
	return nil
}

// A twiceError means that both a patch and its template added something that can exist only once.
type twiceError struct{ key string }

func (*twiceError) Error() string { return "was added to the baseline as well, and differs" }

// join merges the value of a field in a template and what a patch adds there.
func join(field string, is, adds any) (any, error) {
	if reflect.DeepEqual(is, adds) {
		return is, nil
	}
	switch adds := adds.(type) {
	case map[string]any:
		m, ok := is.(map[string]any)
		if !ok {
			break
		}
		for k, v := range adds {
			joined := v
			if was, there := m[k]; there {
				var err error
				if joined, err = join(k, was, v); err != nil {
					return m, err
				}
			}
			m[k] = joined
		}
		return m, nil
	case []any:
		list, ok := is.([]any)
		if !ok || keyOf(field, list, adds) == "" {
			break
		}
		for _, e := range adds {
			var err error
			if list, err = insert(field, list, len(list), e); err != nil {
				return list, err
			}
		}
		return list, nil
	default:
		if plain(is) {
			return adds, nil
		}
	}
	return is, errors.New("was added to the baseline as well, and differs")
}

// insert inserts an element into a list. An element that has only plain values, as a variable does, replaces one with
// the same key.
func insert(field string, list []any, index int, adds any) ([]any, error) {
	if key := keyOf(field, list, []any{adds}); key != "" {
		e := element{key, adds.(map[string]any)[key]}
		if i := e.in(list); i >= 0 {
			switch {
			case reflect.DeepEqual(list[i], adds):
			case allPlain(adds):
				list[i] = adds
			default:
				return list, &twiceError{fmt.Sprint(e.value)}
			}
			return list, nil
		}
	}
	return slices.Insert(list, index, adds), nil
}

// plain reports whether a value is neither an object nor a list.
func plain(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return false
	}
	return true
}

// allPlain reports whether an object has only plain values.
func allPlain(e any) bool {
	m, _ := e.(map[string]any)
	for _, v := range m {
		if !plain(v) {
			return false
		}
	}
	return true
}

// escape encodes a reference token (RFC 6901, section 4), and unescape decodes one.
func escape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1")
}

func unescape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}
