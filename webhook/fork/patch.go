package fork

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"

	jsonpatchapply "github.com/evanphx/json-patch/v5"
	kjson "k8s.io/apimachinery/pkg/util/json"
)

// A Conflict is an operation of a patch that does not fit what it is laid on.
type Conflict struct {
	Path string // RFC 6901
	Why  string // what is there
}

// Error returns "PATH: WHY".
func (c *Conflict) Error() string { return c.Path + ": " + c.Why }

// Apply returns template with the patch laid on it. The template itself is left as it is. Where the patch does not fit, a `test` in
// it included, the error is a *Conflict.
func Apply(template map[string]any, patch []byte) (map[string]any, error) {
	doc, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	p, err := parse(patch)
	if err != nil {
		return nil, err
	}
	applied, err := p.Apply(doc)
	if err != nil {
		return nil, conflict(doc, p, err)
	}
	var changed map[string]any
	if err := decode(applied, &changed); err != nil {
		return nil, err
	}
	for _, op := range p {
		if err := twice(changed, op); err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// conflict says which operation of the patch failed on doc, and why.
func conflict(doc []byte, p jsonpatchapply.Patch, err error) error {
	bad := sort.Search(len(p)-1, func(i int) bool {
		_, err := p[:i+1].Apply(doc)
		return err != nil
	})
	path, pathErr := p[bad].Path()
	before, beforeErr := p[:bad].Apply(doc)
	var at any
	if pathErr != nil || beforeErr != nil || decode(before, &at) != nil {
		return err
	}
	found, there := lookUp(at, path)
	c := &Conflict{Path: path, Why: "there is nothing"}
	switch {
	case p[bad].Kind() == "test" && there:
		c.Why = fmt.Sprintf("there is %s, not %s", short(found), short(p[bad]["value"]))
	case p[bad].Kind() == "test":
		c.Why = "there is nothing, not " + short(p[bad]["value"])
	case p[bad].Kind() == "add":
		c.Why = "there is nothing it could be added to"
	}
	return c
}

// short writes a value for an error message.
func short(v any) string {
	b, err := json.Marshal(v)
	if err != nil || len(b) > maxShort {
		return "another value"
	}
	return string(b)
}

const maxShort = 100

// twice says that an element which the patch added to a list has come there by another way as well.
func twice(doc any, op jsonpatchapply.Operation) error {
	path, err := op.Path()
	if err != nil {
		return err
	}
	if op.Kind() != "add" {
		return nil
	}
	value, _ := op.ValueInterface()
	element, _ := value.(map[string]any)
	parent := path[:strings.LastIndexByte(path, '/')]
	field := parent[strings.LastIndexByte(parent, '/')+1:]
	if field == "ports" {
		return nil // a number may come once for each protocol
	}
	in, _ := lookUp(doc, parent)
	list, _ := in.([]any)
	key := keys(field)[0]
	same := 0
	for _, e := range list {
		if m, ok := e.(map[string]any); ok && element[key] != nil && reflect.DeepEqual(m[key], element[key]) {
			same++
		}
	}
	if same > 1 {
		return &Conflict{Path: parent, Why: fmt.Sprintf("there is one with %s %s already", key, short(element[key]))}
	}
	return nil
}

// parse reads a patch of the operations that Diff makes, whole and with a path below the root. Anybody who may edit a fork may
// edit its patch, and the library takes malformed operations for what they are not, or panics.
func parse(patch []byte) (jsonpatchapply.Patch, error) {
	var ops []struct {
		Op   string `json:"op"`
		Path string `json:"path"`
	}
	if err := json.Unmarshal(patch, &ops); err != nil {
		return nil, fmt.Errorf("not an RFC 6902 patch: %w", err)
	}
	for i, op := range ops {
		switch op.Op {
		case "add", "replace", "test", "remove":
		default:
			return nil, fmt.Errorf("operation %d: %q is none of add, remove, replace and test", i, op.Op)
		}
		if !strings.HasPrefix(op.Path, "/") {
			return nil, fmt.Errorf("operation %d: path %q leads nowhere below the root", i, op.Path)
		}
	}
	p, err := jsonpatchapply.DecodePatch(patch)
	if err != nil {
		return nil, fmt.Errorf("not an RFC 6902 patch: %w", err)
	}
	for i, op := range ops {
		if _, ok := p[i]["value"]; !ok && op.Op != "remove" {
			return nil, fmt.Errorf("operation %d: %s without a value", i, op.Op)
		}
	}
	return p, nil
}

// decode keeps whole numbers whole, as unstructured objects want them.
func decode(b []byte, into any) error { return kjson.Unmarshal(bytes.TrimSpace(b), into) }

// lookUp returns what is in doc at a JSON pointer (RFC 6901), and whether there is anything.
func lookUp(doc any, pointer string) (any, bool) {
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch d := doc.(type) {
		case map[string]any:
			v, ok := d[unescape(token)]
			if !ok {
				return nil, false
			}
			doc = v
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(d) {
				return nil, false
			}
			doc = d[i]
		default:
			return nil, false
		}
	}
	return doc, true
}

// escape writes a reference token (RFC 6901, section 4), and unescape reads one.
func escape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1")
}

func unescape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}
