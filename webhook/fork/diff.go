package fork

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"gomodules.xyz/jsonpatch/v2"
)

// Diff returns the RFC 6902 patch that turns template into changed. It is as small as possible, and fits newer
// templates:
//
//   - In a list whose objects have a key (containers, their env), elements are found by their key, and one added at the
//     end is appended. Before a path through such an element there is a `test` of its key. So on a newer template the patch
//     fails rather than changes another container.
//   - A variable that moves is removed, and inserted before its successor: the position decides what can refer to it.
//   - Any other list, such as a container's args, is replaced as a whole, as in a strategic merge patch.
//
// Equal input gives equal output; no difference gives "[]".
func Diff(template, changed map[string]any) ([]byte, error) {
	d := differ{ops: []jsonpatch.Operation{}}
	d.object("", template, changed)
	return json.Marshal(d.ops)
}

// A differ collects the operations of a patch, in the order of application: every path refers to the lists as the
// operations before it leave them.
type differ struct {
	ops []jsonpatch.Operation
	// within are the tests of the elements around what is being compared, outermost first; done counts those written.
	within []jsonpatch.Operation
	done   int
}

func (d *differ) op(operation, path string, value any) {
	d.ops = append(d.ops, d.within[d.done:]...)
	d.done = len(d.within)
	d.ops = append(d.ops, jsonpatch.NewOperation(operation, path, value))
}

// inside calls do for the element of a list at path; a test of its key precedes the operations of do.
func (d *differ) inside(path, key string, value any, do func()) {
	d.within = append(d.within, jsonpatch.NewOperation("test", path+"/"+escape(key), value))
	do()
	d.within = d.within[:len(d.within)-1]
	d.done = min(d.done, len(d.within))
}

func (d *differ) object(path string, from, to map[string]any) {
	names := maps.Clone(from)
	maps.Copy(names, to)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		at := path + "/" + escape(name)
		old, was := from[name]
		value, is := to[name]
		switch {
		case !is:
			d.op("remove", at, nil)
		case !was:
			d.op("add", at, value)
		default:
			d.value(at, name, old, value)
		}
	}
}

// value compares the value of a field.
func (d *differ) value(path, field string, from, to any) {
	if reflect.DeepEqual(from, to) {
		return
	}
	switch from := from.(type) {
	case map[string]any:
		if to, ok := to.(map[string]any); ok {
			d.object(path, from, to)
			return
		}
	case []any:
		if to, ok := to.([]any); ok && d.list(path, field, from, to) {
			return
		}
	}
	d.op("replace", path, to)
}

// list compares lists element by element; false, with nothing done, if they cannot be compared so.
func (d *differ) list(path, field string, from, to []any) bool {
	key := keyOf(field, from, to)
	if key == "" {
		return false
	}
	old, wanted := byKey(from, key), byKey(to, key)
	keysOf := func(list []any, in map[any]map[string]any) (keys []any) {
		for _, e := range list {
			if k := e.(map[string]any)[key]; in[k] != nil {
				keys = append(keys, k)
			}
		}
		return keys
	}
	stays, stay := keysOf(from, wanted), keysOf(to, old)
	if !slices.Equal(stays, stay) {
		if field != "env" {
			return false // their order changed, which has no meaning where elements have a key
		}
		inOrder := common(stays, stay, func(k any) int {
			if reflect.DeepEqual(old[k], wanted[k]) {
				return len(stays) + 1 // what changes is what moves
			}
			return 1
		})
		for _, k := range stays {
			if !slices.Contains(inOrder, k) { // remove and insert it: variables refer to earlier ones
				delete(old, k)
				delete(wanted, k)
			}
		}
		stays = inOrder
	}
	for i, e := range slices.Backward(from) {
		if k := e.(map[string]any)[key]; wanted[k] == nil {
			at := path + "/" + strconv.Itoa(i)
			d.inside(at, key, k, func() { d.op("remove", at, nil) })
		}
	}
	for i, e := range to {
		element := e.(map[string]any)
		k, at := element[key], path+"/"+strconv.Itoa(i)
		switch {
		case old[k] != nil:
			d.inside(at, key, k, func() { d.object(at, old[k], element) })
			stays = stays[1:]
		case len(stays) == 0:
			d.op("add", path+"/-", element)
		default: // before the element that is there now
			d.inside(at, key, stays[0], func() { d.op("add", at, element) })
		}
	}
	return true
}

// common returns the heaviest common subsequence of a and b.
func common(a, b []any, weight func(any) int) []any {
	heaviest := make([][]int, len(a)+1) // of a[i:] and b[j:]
	heaviest[len(a)] = make([]int, len(b)+1)
	for i := len(a) - 1; i >= 0; i-- {
		heaviest[i] = make([]int, len(b)+1)
		for j := len(b) - 1; j >= 0; j-- {
			heaviest[i][j] = max(heaviest[i+1][j], heaviest[i][j+1])
			if a[i] == b[j] { // keys are unique
				heaviest[i][j] = max(heaviest[i][j], heaviest[i+1][j+1]+weight(a[i]))
			}
		}
	}
	var both []any
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch heaviest[i][j] {
		case heaviest[i+1][j]:
			i++
		case heaviest[i][j+1]:
			j++
		default:
			both = append(both, a[i])
			i, j = i+1, j+1
		}
	}
	return both
}

// keyOf returns the field that is the key of the lists' elements, empty if there is none. In a field of a pod template
// that is the key by which the API merges it (x-kubernetes-list-map-keys in its OpenAPI schema), otherwise the name.
func keyOf(field string, lists ...[]any) string {
	for _, key := range keys(field) {
		if !slices.ContainsFunc(lists, func(l []any) bool { return len(byKey(l, key)) != len(l) }) {
			return key
		}
	}
	return ""
}

func keys(field string) []string {
	switch field {
	case "ports":
		return []string{"containerPort", "name"} // the name may distinguish two protocols of one number
	case "volumeMounts":
		return []string{"mountPath"}
	case "volumeDevices":
		return []string{"devicePath"}
	case "hostAliases":
		return []string{"ip"}
	}
	return []string{"name"}
}

// byKey returns the elements that are objects by their key, if it is a string or a number.
func byKey(list []any, key string) map[any]map[string]any {
	elements := make(map[any]map[string]any, len(list))
	for _, e := range list {
		m, _ := e.(map[string]any)
		switch k := m[key].(type) {
		case string, int64, float64:
			elements[k] = m
		}
	}
	return elements
}

// isKey reports whether a field with that name and value can be a key.
func isKey(key string, value any) bool {
	switch value.(type) {
	case string, int64, float64:
		return slices.Contains([]string{"name", "containerPort", "mountPath", "devicePath", "ip"}, key)
	}
	return false
}
