package fork

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	jsonpatchapply "github.com/evanphx/json-patch/v5"
	"gomodules.xyz/jsonpatch/v2"
	kjson "k8s.io/apimachinery/pkg/util/json"
)

// Diff returns what makes changed of template, as an RFC 6902 patch. Where a path leads through a list of named objects (the
// containers, their env), a `test` of the name stands before: laid on a newer template, the patch fails rather than change
// another container than it was meant for. Equal input gives equal output; no difference gives "[]".
func Diff(template, changed map[string]any) ([]byte, error) {
	from, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(changed)
	if err != nil {
		return nil, err
	}
	ops, err := jsonpatch.CreatePatch(from, to)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(ops, compareOps)
	tested := make([]jsonpatch.Operation, 0, 2*len(ops))
	known := map[string]bool{}
	for _, op := range ops {
		var doc any
		if err := decode(from, &doc); err != nil {
			return nil, err
		}
		for _, path := range namedParents(doc, op.Path) {
			if !known[path.at] {
				known[path.at] = true
				tested = append(tested, jsonpatch.NewOperation("test", path.at, path.name))
			}
		}
		tested = append(tested, op)
		if from, err = applyOps(from, []jsonpatch.Operation{op}); err != nil {
			return nil, err
		}
		list := op.Path[:strings.LastIndexByte(op.Path, '/')+1]
		for at := range known { // below it, other elements may stand in their places now
			if op.Operation == "remove" && strings.HasPrefix(at, list) {
				delete(known, at)
			}
		}
		known[op.Path] = true // a name that was written needs no test
	}
	return json.Marshal(tested)
}

// Apply returns template with the patch laid on it. The template itself is left as it is. It fails when the patch does not fit,
// a `test` in it included.
func Apply(template map[string]any, patch []byte) (map[string]any, error) {
	doc, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	p, err := parse(patch)
	if err != nil {
		return nil, err
	}
	if doc, err = p.Apply(doc); err != nil {
		return nil, err
	}
	var changed map[string]any
	if err := decode(doc, &changed); err != nil {
		return nil, err
	}
	return changed, nil
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

func applyOps(doc []byte, ops []jsonpatch.Operation) ([]byte, error) {
	b, err := json.Marshal(ops)
	if err != nil {
		return nil, err
	}
	p, err := jsonpatchapply.DecodePatch(b)
	if err != nil {
		return nil, err
	}
	return p.Apply(doc)
}

// decode keeps whole numbers whole, as unstructured objects want them.
func decode(b []byte, into any) error { return kjson.Unmarshal(bytes.TrimSpace(b), into) }

// compareOps orders the operations of one CreatePatch, which come in the order of a Go map. Operations on different members of
// an object, or on different elements of a list, do not touch each other, but for the removals and additions at a list's end:
// those stay descending and ascending.
func compareOps(a, b jsonpatch.Operation) int {
	as, bs := strings.Split(a.Path, "/"), strings.Split(b.Path, "/")
	for i := range min(len(as), len(bs)) {
		if as[i] == bs[i] {
			continue
		}
		an, aerr := strconv.Atoi(as[i])
		bn, berr := strconv.Atoi(bs[i])
		if aerr != nil || berr != nil {
			return cmp.Compare(as[i], bs[i])
		}
		if a.Operation == "remove" && b.Operation == "remove" && i == len(as)-1 && i == len(bs)-1 {
			return cmp.Compare(bn, an)
		}
		return cmp.Compare(an, bn)
	}
	return cmp.Compare(len(as), len(bs))
}

type named struct{ at, name string }

// namedParents returns the places of the names of all list elements that path leads through or to, where they are objects with
// a name.
func namedParents(doc any, path string) []named {
	var found []named
	at := ""
	for token := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		at += "/" + token
		switch d := doc.(type) {
		case map[string]any:
			doc = d[unescape(token)]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(d) {
				return found
			}
			doc = d[i]
			if m, ok := doc.(map[string]any); ok {
				if name, ok := m["name"].(string); ok {
					found = append(found, named{at + "/name", name})
				}
			}
		default:
			return found
		}
	}
	return found
}

// unescape reads a reference token (RFC 6901, section 4).
func unescape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}
