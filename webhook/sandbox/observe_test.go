package sandbox

import (
	"fmt"
	"slices"
	"testing"
)

func TestObserve(t *testing.T) {
	if s, err := FormatObserve([]string{"b", "a", "b"}); s != "a,b" || err != nil {
		t.Errorf("got %q, %v", s, err)
	}
	if keys, err := ParseObserve(""); keys != nil || err != nil {
		t.Errorf("got %v, %v", keys, err)
	}
	many := make([]string, MaxObserve+1)
	for i := range many {
		many[i] = fmt.Sprintf("k%03d", i)
	}
	if s, err := FormatObserve(many[:MaxObserve]); err != nil {
		t.Error(err)
	} else if keys, err := ParseObserve(s); !slices.Equal(keys, many[:MaxObserve]) || err != nil {
		t.Errorf("got %v, %v", keys, err)
	}
	for _, keys := range [][]string{many, {"A"}, {""}, {"a,b"}} {
		if s, err := FormatObserve(keys); err == nil {
			t.Errorf("%v: got %q", keys, s)
		}
	}
	for _, s := range []string{"a,", "b,a", "a,a", "a b", "A"} {
		if keys, err := ParseObserve(s); err == nil {
			t.Errorf("%q: got %v", s, keys)
		}
	}
}

func FuzzParseObserve(f *testing.F) {
	f.Add("a,b")
	f.Add(",")
	f.Fuzz(func(t *testing.T, s string) {
		keys, err := ParseObserve(s)
		if err != nil {
			return
		}
		if again, err := FormatObserve(keys); err != nil || again != s {
			t.Fatalf("%q became %q: %v", s, again, err)
		}
	})
}
