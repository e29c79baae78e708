package admission

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	jsonpatch "gomodules.xyz/jsonpatch/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// difference returns the RFC 6902 patch from before to after. It compares objects by member, and lists of equal length
// by item; it replaces lists whose length changed.
func difference(before, after *unstructured.Unstructured) []jsonpatch.Operation {
	return compare(nil, "", before.Object, after.Object)
}

func compare(ops []jsonpatch.Operation, at string, before, after any) []jsonpatch.Operation {
	if reflect.DeepEqual(before, after) {
		return ops
	}
	switch after := after.(type) {
	case map[string]any:
		before, ok := before.(map[string]any)
		if !ok {
			break
		}
		for _, key := range keys(before, after) {
			path := at + "/" + escape(key)
			was, had := before[key]
			is, has := after[key]
			switch {
			case !has:
				ops = append(ops, jsonpatch.NewOperation("remove", path, nil))
			case !had:
				ops = append(ops, jsonpatch.NewOperation("add", path, is))
			default:
				ops = compare(ops, path, was, is)
			}
		}
		return ops
	case []any:
		before, ok := before.([]any)
		if !ok || len(before) != len(after) || at == managedFieldsPath {
			break
		}
		for i := range after {
			ops = compare(ops, at+"/"+strconv.Itoa(i), before[i], after[i])
		}
		return ops
	}
	return append(ops, jsonpatch.NewOperation("replace", at, after))
}

func keys(maps ...map[string]any) []string {
	var all []string
	for _, m := range maps {
		for key := range m {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// pointer formats an RFC 6901 JSON pointer.
func pointer(path []string) string {
	var b strings.Builder
	for _, key := range path {
		b.WriteString("/" + escape(key))
	}
	return b.String()
}

func escape(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }

// mapAt returns the map at path. It creates missing maps on the way, and returns their pointers in made.
func mapAt(in map[string]any, path ...string) (m map[string]any, made []string) {
	for i, key := range path {
		next, ok := in[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			in[key] = next
			made = append(made, pointer(path[:i+1]))
		}
		in = next
	}
	return in, made
}

// text returns the string at path; empty if there is none.
func text(u *unstructured.Unstructured, path ...string) string {
	s, _, _ := unstructured.NestedString(u.Object, path...)
	return s
}

// number converts a port of a JSON document.
func number(v any) uint16 {
	switch v := v.(type) {
	case int64:
		if v > 0 && v <= 65535 {
			return uint16(v)
		}
	case float64:
		return number(int64(v))
	case json.Number:
		n, _ := v.Int64() // 0: no port
		return number(n)
	}
	return 0
}
