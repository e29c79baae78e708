package route

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestVersion_terms_count_more_than_counters(t *testing.T) {
	ordered := []Version{{}, {0, 1}, {0, 9}, {1, 0}, {1, 1}, {2, 0}}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("%v against %v: %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestTable_Apply(t *testing.T) {
	before := &Table{Version: Version{1, 1}, Routes: map[string]Fork{"a": {Name: "a"}, "b": {Name: "b"}}}
	after, ok := before.Apply(&Delta{
		Base: Version{1, 1}, Version: Version{1, 2}, Set: map[string]Fork{"b": {Name: "b2"}, "c": {Name: "c"}}, Remove: []string{"a", "x"},
	})
	if !ok || after.Version != (Version{1, 2}) || len(after.Routes) != 2 || after.Routes["b"].Name != "b2" || after.Routes["c"].Name != "c" {
		t.Errorf("got %+v %v", after, ok)
	}
	if len(before.Routes) != 2 || before.Routes["b"].Name != "b" {
		t.Errorf("the table it builds on has changed: %+v", before)
	}
	for _, d := range []*Delta{{Base: Version{1, 0}, Version: Version{1, 2}}, {Base: Version{1, 1}, Version: Version{1, 1}}, {Base: Version{1, 1}}} {
		if _, ok := before.Apply(d); ok {
			t.Errorf("%+v was applied", d)
		}
	}
	if after, ok := (&Table{}).Apply(&Delta{Version: Version{1, 1}, Set: map[string]Fork{"a": {}}}); !ok || len(after.Routes) != 1 {
		t.Errorf("got %+v %v from nothing", after, ok)
	}
}

func TestWire_frames_of_one_field_pass_and_others_do_not(t *testing.T) {
	for in, ok := range map[string]bool{
		`{"ping":{}}`: true,
		`{"snapshot":{"version":{"term":1,"counter":2},"routes":{"k":{"pods":[{"ip":"10.0.0.1"}]}}}}`: true,
		`{"snapshot":{"routes":{"k":{"pods":[{"ip":"fd00::1"}]}}}}`:                                   true,
		`{"delta":{"set":{"k":{"pods":[{"ip":"10.0.0.1"}]}}}}`:                                        true,
		`{"report":{"nonce":"x"}}`:           true,
		`{"trust":{"ca":"x"}}`:               true,
		`{"ping":{},"later":1}`:              true, // what a newer control plane adds
		`{}`:                                 false,
		`{"later":1}`:                        false,
		`{"ping":{},"report":{"nonce":"x"}}`: false,
		`{"ping":`:                           false,
		`[]`:                                 false,
		`{"snapshot":{"routes":{"k":{"pods":[{"ip":"example.org"}]}}}}`: false,
		`{"delta":{"set":{"k":{"pods":[{"ip":""}]}}}}`:                  false,
	} {
		if _, err := NewReader(strings.NewReader(in + "\n")).ToRouter(); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
	for in, ok := range map[string]bool{
		`{"hello":{"build":"v1","start":"x"}}`: true, `{"ack":{"term":1,"counter":2}}`: true, `{"counts":{"keys":{}}}`: true,
		`{"ack":{},"hello":{}}`: false, `{}`: false, `{"ack":1}`: false,
	} {
		if _, err := NewReader(strings.NewReader(in + "\n")).ToControl(); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestWire_bounds_frames(t *testing.T) {
	if err := Write(io.Discard, ToRouter{Trust: &Trust{CA: strings.Repeat("x", MaxFrame)}}); err == nil {
		t.Error("too long a frame was written")
	}
	if _, err := NewReader(strings.NewReader(strings.Repeat("x", MaxFrame+1))).ToRouter(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("too long a frame was read: %v", err)
	}
	var b bytes.Buffer
	if err := Write(&b, ToRouter{Trust: &Trust{CA: strings.Repeat("x", MaxFrame-100)}}); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&b)
	if _, err := r.ToRouter(); err != nil {
		t.Error(err)
	}
	if _, err := r.ToRouter(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v at the end", err)
	}
}

func TestTable_Apply_changes_what_is_observed(t *testing.T) {
	before := &Table{Version: Version{1, 1}, Observe: []string{"b", "d"}}
	for _, step := range []struct {
		delta Delta
		want  []string
	}{
		{Delta{}, []string{"b", "d"}}, // what a control plane sends that knows nothing of it
		{Delta{Observe: []string{"c", "a"}}, []string{"a", "b", "c", "d"}},
		{Delta{Observe: []string{"b"}, Unobserve: []string{"d", "x"}}, []string{"b"}},
		{Delta{Unobserve: []string{"b", "d"}}, []string{}},
	} {
		step.delta.Base, step.delta.Version = before.Version, Version{1, 2}
		after, ok := before.Apply(&step.delta)
		if !ok || !slices.Equal(after.Observe, step.want) {
			t.Errorf("%+v: got %v, want %v", step.delta, after.Observe, step.want)
		}
	}
	if !slices.Equal(before.Observe, []string{"b", "d"}) {
		t.Errorf("the table it builds on has changed: %v", before.Observe)
	}
}

// Whatever comes, a frame that is accepted means the same when it is written and read again.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		`{"snapshot":{"version":{"term":1,"counter":2},"routes":{"k":{"sandbox":"s","name":"n","fallBack":true,"pods":[{"name":"p","uid":"u","ip":"10.0.0.1","ports":{"http":8080}}],"reason":"r"}},"observe":["b"]}}`,
		`{"delta":{"base":{"term":1,"counter":1},"version":{"term":1,"counter":2},"set":{"k":{}},"remove":["a"],"observe":["b"],"unobserve":["c"]}}`,
		`{"ping":{}}` + "\n" + `{"report":{"nonce":"x"}}`, `{"trust":{"ca":"x"}}`,
		`{"hello":{"build":"v1","start":"x","have":{"term":1,"counter":2}}}`, `{"ack":{"term":1,"counter":2}}`,
		`{"counts":{"nonce":"n","keys":{"k":{"fork":1,"fellBack":2,"refused":3,"unfinished":4}},"observed":{"b":{"requests":5,"failed":1,"last":6,"turn":7}}}}`, `{"ping":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		router, control := NewReader(bytes.NewReader(in)), NewReader(bytes.NewReader(in))
		for {
			a, err := router.ToRouter()
			if err != nil {
				break
			}
			same(t, a, func(r *Reader) (any, error) { return r.ToRouter() })
		}
		for {
			a, err := control.ToControl()
			if err != nil {
				break
			}
			same(t, a, func(r *Reader) (any, error) { return r.ToControl() })
		}
	})
}

func same(t *testing.T, frame any, read func(*Reader) (any, error)) {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, frame); err != nil {
		t.Fatal(err)
	}
	again, err := read(NewReader(&b))
	if err != nil {
		t.Fatalf("%+v: %v", frame, err)
	}
	x, _ := json.Marshal(frame)
	y, _ := json.Marshal(again)
	if !bytes.Equal(x, y) {
		t.Fatalf("%s became %s", x, y)
	}
}
