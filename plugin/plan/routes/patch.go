package routes

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	jsonpatch "gomodules.xyz/jsonpatch/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// A patcher changes a copy of an object and records each change as RFC 6902 operations, with tests of the earlier
// values. So the patch fails, without effect, if somebody else changed the object first. It needs no resourceVersion,
// which every status update would make stale.
type patcher struct {
	object *unstructured.Unstructured
	ops    []jsonpatch.Operation
	made   []string // JSON pointers of the maps that had to be made
}

// patch starts a patch of obj. Its first test is that the object is still the same one, and not another of its name.
func patch(obj *unstructured.Unstructured) *patcher {
	p := &patcher{object: obj.DeepCopy()}
	p.test("metadata", "uid")
	return p
}

// test makes the patch fail unless path still has its current value. For an absent value it tests for null, which the
// API server's implementation reads as absent.
func (p *patcher) test(path ...string) {
	value, _ := p.get(path...)
	p.ops = append(p.ops, jsonpatch.NewOperation("test", pointer(path), value))
}

// put sets path to value, and creates missing maps on the way.
func (p *patcher) put(value any, path ...string) {
	for i := 1; i < len(path); i++ {
		if _, ok := p.get(path[:i]...); !ok {
			p.made = append(p.made, pointer(path[:i]))
			p.set(map[string]any{}, path[:i]...)
		}
	}
	if old, ok := p.get(path...); !ok || !reflect.DeepEqual(old, value) {
		p.set(value, path...)
	}
}

func (p *patcher) set(value any, path ...string) {
	p.test(path...)
	_, replace := p.get(path...)
	op := "add"
	if replace {
		op = "replace"
	}
	p.ops = append(p.ops, jsonpatch.NewOperation(op, pointer(path), runtime.DeepCopyJSONValue(value)))
	p.replace(runtime.DeepCopyJSONValue(value), path)
}

// push appends value to the list at path, and creates the list if it is missing.
func (p *patcher) push(value any, path ...string) {
	old, ok := p.get(path...)
	if !ok {
		p.put([]any{value}, path...)
		return
	}
	list := old.([]any)
	p.ops = append(p.ops, jsonpatch.NewOperation("add", pointer(path)+"/-", runtime.DeepCopyJSONValue(value)))
	p.replace(append(slices.Clone(list), runtime.DeepCopyJSONValue(value)), path)
}

// drop removes what is at path, if anything.
func (p *patcher) drop(path ...string) {
	if _, ok := p.get(path...); !ok {
		return
	}
	p.test(path...)
	p.ops = append(p.ops, jsonpatch.NewOperation("remove", pointer(path), nil))
	last := path[len(path)-1]
	parent, _ := p.get(path[:len(path)-1]...)
	switch parent := parent.(type) {
	case map[string]any:
		delete(parent, last)
	case []any:
		i, _ := strconv.Atoi(last)
		p.replace(slices.Delete(slices.Clone(parent), i, i+1), path[:len(path)-1])
	}
}

// dropEmpty removes the map or list at path if it is empty.
func (p *patcher) dropEmpty(path ...string) {
	switch v, _ := p.get(path...); v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			p.drop(path...)
		}
	case []any:
		if len(v) == 0 {
			p.drop(path...)
		}
	}
}

// replace sets path, whose parent exists, in the copy of the object.
func (p *patcher) replace(value any, path []string) {
	last := path[len(path)-1]
	switch parent, _ := p.get(path[:len(path)-1]...); parent := parent.(type) {
	case map[string]any:
		parent[last] = value
	case []any:
		i, _ := strconv.Atoi(last)
		parent[i] = value
	}
}

func (p *patcher) get(path ...string) (any, bool) {
	var v any = p.object.Object
	for _, key := range path {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[key]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// changed reports whether the patch does more than test.
func (p *patcher) changed() bool {
	for _, op := range p.ops {
		if op.Operation != "test" {
			return true
		}
	}
	return false
}

// pointer formats an RFC 6901 JSON pointer.
func pointer(path []string) string {
	var b strings.Builder
	for _, key := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
	}
	return b.String()
}

// unpointer parses what pointer formats.
func unpointer(s string) []string {
	path := strings.Split(strings.TrimPrefix(s, "/"), "/")
	for i, key := range path {
		path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
	}
	return path
}

func decode(u *unstructured.Unstructured, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into)
}
