package fork_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"

	jsonpatchapply "github.com/evanphx/json-patch/v5"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

func TestDiff(t *testing.T) {
	template := map[string]any{"spec": map[string]any{"containers": []any{
		map[string]any{"name": "api", "image": "api:1", "env": []any{map[string]any{"name": "A", "value": "1"}, map[string]any{"name": "B", "value": "2"}}},
		map[string]any{"name": "proxy", "image": "proxy:1"},
	}}}
	for _, tt := range []struct {
		name   string
		change func(containers []any)
		want   string
	}{
		{"nothing", func([]any) {}, `[]`},
		{
			"an image", func(c []any) { c[1].(map[string]any)["image"] = "proxy:2" },
			`[{"op":"test","path":"/spec/containers/1/name","value":"proxy"},{"op":"replace","path":"/spec/containers/1/image","value":"proxy:2"}]`,
		},
		{
			"a variable added",
			func(c []any) {
				m := c[0].(map[string]any)
				m["env"] = append(slices.Clone(m["env"].([]any)), map[string]any{"name": "C", "value": ""})
			},
			`[{"op":"test","path":"/spec/containers/0/name","value":"api"},{"op":"add","path":"/spec/containers/0/env/-","value":{"name":"C","value":""}}]`,
		},
		{
			"a variable removed",
			func(c []any) {
				m := c[0].(map[string]any)
				m["env"] = m["env"].([]any)[:1]
			},
			`[{"op":"test","path":"/spec/containers/0/name","value":"api"},{"op":"test","path":"/spec/containers/0/env/1/name","value":"B"},{"op":"remove","path":"/spec/containers/0/env/1"}]`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := clone(t, template)
			tt.change(changed["spec"].(map[string]any)["containers"].([]any))
			patch, err := fork.Diff(template, changed)
			if err != nil {
				t.Fatal(err)
			}
			if string(patch) != tt.want {
				t.Errorf("got  %s\nwant %s", patch, tt.want)
			}
			got, err := fork.Apply(template, patch)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, changed) {
				t.Errorf("laid on the template it gives %v, want %v", got, changed)
			}
		})
	}
}

func TestApply_RefusesWhatIsNoPatch(t *testing.T) {
	for _, patch := range []string{"", "{}", "null garbage", `[{"op":"replace","path":"/nowhere","value":1}]`, `[{"op":"nonsense"}]`} {
		if got, err := fork.Apply(map[string]any{"spec": map[string]any{}}, []byte(patch)); err == nil {
			t.Errorf("%q gave %v", patch, got)
		}
	}
}

// document generates what unstructured JSON holds: lists of named objects among the rest.
func document(t *rapid.T, depth int) map[string]any {
	keys := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c/d", "e~f", "name", "list", "named"}), 0, 5, rapid.ID).Draw(t, "keys")
	m := map[string]any{}
	for _, k := range keys {
		m[k] = value(t, depth)
	}
	return m
}

func value(t *rapid.T, depth int) any {
	kinds := []string{"string", "int", "bool", "float"}
	if depth > 0 {
		kinds = append(kinds, "object", "list", "named")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "int":
		return rapid.Int64Range(-1<<53, 1<<53).Draw(t, "int")
	case "bool":
		return rapid.Bool().Draw(t, "bool")
	case "float":
		return float64(rapid.IntRange(-1000, 1000).Draw(t, "eighths"))/8 + 1.0/16
	case "object":
		return document(t, depth-1)
	case "list":
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			list = append(list, value(t, depth-1))
		}
		return list
	case "named":
		list := []any{}
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 3, rapid.ID).Draw(t, "names") {
			m := document(t, depth-1)
			m["name"] = n
			list = append(list, m)
		}
		return list
	}
	return rapid.StringMatching(`[a-z/~ ]{0,4}`).Draw(t, "string")
}

func TestDiff_LaidOnTheTemplateGivesTheChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := document(t, 4), document(t, 4)
		if rapid.Bool().Draw(t, "related") { // most changes leave most as it is
			to = maps.Clone(from)
			to[rapid.SampledFrom([]string{"a", "list", "named"}).Draw(t, "changed")] = value(t, 3)
		}
		patch, err := fork.Diff(from, to)
		if err != nil {
			t.Fatal(err)
		}
		again, err := fork.Diff(from, to)
		if err != nil || string(again) != string(patch) {
			t.Fatalf("the same difference is %s and %s, %v", patch, again, err)
		}
		got, err := fork.Apply(from, patch)
		if err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
		if plainly := rfc6902(t, from, patch); !reflect.DeepEqual(plainly, to) {
			t.Fatalf("another implementation lays %s on\n%v\nwith the outcome\n%v, want\n%v", patch, from, plainly, to)
		}
		if !reflect.DeepEqual(got, to) {
			t.Fatalf("%s laid on\n%v gives\n%v, want\n%v", patch, from, got, to)
		}
	})
}

// rfc6902 applies a patch to a document with a third-party implementation.
func rfc6902(t *rapid.T, doc map[string]any, patch []byte) map[string]any {
	p, err := jsonpatchapply.DecodePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = p.Apply(b); err != nil {
		t.Fatalf("%s: %v", patch, err)
	}
	var out map[string]any
	if err := kjson.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(`[{"op":"test","path":"/spec/a","value":1},{"op":"remove","path":"/spec/a"}]`))
	f.Add([]byte(`[{"op":"add","path":"/spec/l/-","value":{}}]`))
	f.Add([]byte(`[{"op":"copy","from":"/spec","path":"/spec/b"}]`))
	f.Fuzz(func(t *testing.T, patch []byte) {
		template := map[string]any{"spec": map[string]any{"a": int64(1), "l": []any{map[string]any{"name": "x"}}}}
		before := clone(t, template)
		_, _ = fork.Apply(template, patch) // must not panic
		if !reflect.DeepEqual(template, before) {
			t.Errorf("%s changed the template it was laid on", patch)
		}
	})
}

func clone(t testing.TB, m map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	for k, v := range out {
		out[k] = whole(v)
	}
	return out
}

// whole turns the float64 that encoding/json makes of whole numbers back.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = whole(e)
		}
	case []any:
		for i, e := range v {
			v[i] = whole(e)
		}
	case float64:
		if v == float64(int64(v)) {
			return int64(v)
		}
	}
	return v
}
