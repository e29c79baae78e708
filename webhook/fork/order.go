package fork

import "slices"

// KeepOrder puts the elements of changed's lists in the order of template, new ones last. A merge by name has no
// defined order, and a patch that moves containers fits no newer template. It modifies changed.
func KeepOrder(template, changed map[string]any) {
	for name, value := range changed {
		switch value := value.(type) {
		case map[string]any:
			if was, ok := template[name].(map[string]any); ok {
				KeepOrder(was, value)
			}
		case []any:
			if was, ok := template[name].([]any); ok {
				keepListOrder(name, was, value)
			}
		}
	}
}

func keepListOrder(field string, from, to []any) {
	key := keyOf(field, from, to)
	if key == "" {
		return
	}
	place := map[any]int{}
	for i, e := range from {
		place[e.(map[string]any)[key]] = i
	}
	at := func(e any) int {
		if i, ok := place[e.(map[string]any)[key]]; ok {
			return i
		}
		return len(from)
	}
	slices.SortStableFunc(to, func(a, b any) int { return at(a) - at(b) })
	for _, e := range to {
		if i := at(e); i < len(from) {
			KeepOrder(from[i].(map[string]any), e.(map[string]any))
		}
	}
}
