package fork

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"gomodules.xyz/jsonpatch/v2"
)

// Diff returns what makes changed of template, as an RFC 6902 patch that is as small as it can be and fits newer templates:
//
//   - Elements of a list of objects that a key tells apart (containers, their env) are found by their key, and one that was added at
//     the end is added at the end. Where a path leads through such an element, a `test` of its key stands before: laid on a newer
//     template, the patch fails rather than change another container than it was meant for.
//   - A variable that moves is taken out, and put in before the one that it stands before then: its place says what can refer to it.
//   - Any other list, such as a container's args, is replaced whole, as a strategic merge patch does: half of the one and half of the
//     other would be nobody's.
//
// Equal input gives equal output; no difference gives "[]".
func Diff(template, changed map[string]any) ([]byte, error) {
	d := differ{ops: []jsonpatch.Operation{}}
	d.object("", template, changed)
	return json.Marshal(d.ops)
}

// A differ collects the operations of a patch. Their order is that in which they are laid on: every path leads through the lists as
// the operations before leave them.
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

// inside calls do for the element of a list at path, which is tested to be the one with that key before anything is done to it.
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

// value compares what the field of that name holds.
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

// list compares lists element by element; false, with nothing done, where that can't be.
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
			return false // their order changed, which tells nothing where a key tells them apart
		}
		inOrder := common(stays, stay, func(k any) int {
			if reflect.DeepEqual(old[k], wanted[k]) {
				return len(stays) + 1 // what changes is what moves
			}
			return 1
		})
		for _, k := range stays {
			if !slices.Contains(inOrder, k) { // is taken out, and put in where it belongs: variables refer to those before them
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
		default: // before what stands there now
			d.inside(at, key, stays[0], func() { d.op("add", at, element) })
		}
	}
	return true
}

// common returns the heaviest list that both a and b hold in that order, with what is between left out.
func common(a, b []any, weight func(any) int) []any {
	heaviest := make([][]int, len(a)+1) // of a[i:] and b[j:]
	heaviest[len(a)] = make([]int, len(b)+1)
	for i := len(a) - 1; i >= 0; i-- {
		heaviest[i] = make([]int, len(b)+1)
		for j := len(b) - 1; j >= 0; j-- {
			heaviest[i][j] = max(heaviest[i+1][j], heaviest[i][j+1])
			if a[i] == b[j] { // each is there once
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

// keyOf returns the field that tells the elements of the lists apart, empty where none does: in a field of a pod template, that by
// which the API merges it (the listMapKey of its OpenAPI schema), else the name.
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
		return []string{"containerPort", "name"} // of two protocols of one number, the name may tell
	case "volumeMounts":
		return []string{"mountPath"}
	case "volumeDevices":
		return []string{"devicePath"}
	case "hostAliases":
		return []string{"ip"}
	}
	return []string{"name"}
}

// byKey returns the elements that are objects by their key, as far as it is a string or a number.
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

// isKey says whether a field of that name and value can be a key.
func isKey(key string, value any) bool {
	switch value.(type) {
	case string, int64, float64:
		return slices.Contains([]string{"name", "containerPort", "mountPath", "devicePath", "ip"}, key)
	}
	return false
}
