package contract

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
)

func shapeOf(t *testing.T, documents ...string) shape {
	t.Helper()
	s := shape{}
	for _, d := range documents {
		if err := s.add([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func reasons(found []result.Finding) []string {
	var all []string
	for _, f := range found {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Reason, f.Operation, f.Path)))
	}
	slices.Sort(all)
	return all
}

func TestShape_Differences(t *testing.T) {
	for _, tt := range []struct {
		name     string
		base, is []string
		want     []string
	}{
		{"none", []string{`{"a":1,"b":[{"c":"x"}]}`}, []string{`{"b":[{"c":"y"},{"c":"z"}],"a":2.5}`}, nil},
		{"more", []string{`{"a":1}`}, []string{`{"a":1,"b":2}`}, nil},
		{"a field gone", []string{`{"a":1,"b":{"c":2}}`}, []string{`{"a":1}`}, []string{"FieldGone  /b"}},
		{"in a list's elements", []string{`{"l":[{"a":1,"b":1}]}`}, []string{`{"l":[{"a":1},{"a":2}]}`}, []string{"FieldGone  /l/*/b"}},
		{"an empty list", []string{`{"l":[{"a":1}]}`}, []string{`{"l":[]}`}, nil},
		{"a field that comes and goes", []string{`{"a":1,"b":1}`, `{"a":1}`}, []string{`{"a":1}`}, nil},
		{"a field that comes and goes now", []string{`{"a":1,"b":1}`}, []string{`{"a":1}`, `{"a":1,"b":1}`}, nil},
		{"a type changed", []string{`{"a":1}`}, []string{`{"a":"1"}`}, []string{"TypeChanged  /a"}},
		{"null", []string{`{"a":1}`}, []string{`{"a":null}`}, []string{"TypeChanged  /a"}},
		{"null now and then", []string{`{"a":1}`, `{"a":null}`}, []string{`{"a":null}`}, nil},
		{"no longer null", []string{`{"a":null}`}, []string{`{"a":1}`}, nil},
		{"an object made a list", []string{`{"a":1}`}, []string{`[{"a":1}]`}, []string{"TypeChanged"}},
		{"a name to escape", []string{`{"a/b~c":1}`}, []string{`{}`}, []string{"FieldGone  /a~1b~0c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := reasons(shapeOf(t, tt.is...).differences(shapeOf(t, tt.base...))); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestShape_IsBounded(t *testing.T) {
	s := shape{}
	_ = s.add([]byte(strings.Repeat("[", 9000) + strings.Repeat("]", 9000)))
	var wide strings.Builder
	for i := range 2 * maxPlaces {
		fmt.Fprintf(&wide, `,"%d":0`, i)
	}
	_ = s.add([]byte("{" + wide.String()[1:] + "}"))
	if len(s) > maxPlaces {
		t.Errorf("%d places, more than %d", len(s), maxPlaces)
	}
}

func FuzzShape(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}]}`), []byte(`{"a":[]}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		base, is := shape{}, shape{}
		if base.add(a) != nil || is.add(b) != nil {
			return
		}
		if found := base.differences(base); len(found) > 0 {
			t.Errorf("%s differs from itself: %v", a, found)
		}
		is.differences(base)
	})
}
