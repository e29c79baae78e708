package route

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// message is a head that an Editor's changes are made to, as HTTP has them.
type message [][2]string

func (m *message) all() iter.Seq2[[]byte, []byte] {
	fields := slices.Clone(*m)
	return func(yield func(name, value []byte) bool) {
		for _, f := range fields {
			if !yield([]byte(f[0]), []byte(f[1])) {
				return
			}
		}
	}
}

func (m *message) Drop(name string) {
	*m = slices.DeleteFunc(*m, func(f [2]string) bool { return strings.EqualFold(f[0], name) })
}

func (m *message) Put(name string, value []byte) {
	m.Drop(name)
	*m = append(*m, [2]string{name, string(value)})
}

func (m *message) values(name string) (all []string) {
	for _, f := range *m {
		if strings.EqualFold(f[0], name) {
			all = append(all, f[1])
		}
	}
	return all
}

func fieldsOf(pairs ...string) *message {
	m := &message{}
	for i := 0; i < len(pairs); i += 2 {
		*m = append(*m, [2]string{pairs[i], pairs[i+1]})
	}
	return m
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func numbered(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("m%d=x", i)
	}
	return strings.Join(all, ",")
}

func TestCarry(t *testing.T) {
	for name, test := range map[string]struct {
		key                         string
		fields                      []string
		header, baggage, tracestate []string
	}{
		"nothing yet": {"k", nil, []string{"k"}, []string{"sandbox-key=k"}, nil},
		"by header, traced": {"k", []string{"X-Sandbox-Key", "k", "Traceparent", traceparent},
			[]string{"k"}, []string{"sandbox-key=k"}, []string{"sandbox-key=k"}},
		"by baggage": {"k", []string{"Baggage", "a=b, sandbox-key=k;p"}, []string{"k"}, []string{"a=b, sandbox-key=k;p"}, nil},
		"by all": {"k", []string{"x-sandbox-key", "k", "baggage", "sandbox-key=k", "traceparent", traceparent, "tracestate", "v=1, sandbox-key=k"},
			[]string{"k"}, []string{"sandbox-key=k"}, []string{"v=1, sandbox-key=k"}},
		"others' members stay": {"k", []string{"baggage", "a=1;p=q , b=2", "baggage", "c=%20", "traceparent", traceparent, "tracestate", "v=1", "tracestate", "w=2"},
			[]string{"k"}, []string{"sandbox-key=k,a=1;p=q,b=2,c=%20"}, []string{"sandbox-key=k,v=1,w=2"}},
		"one of less precedence is replaced": {"k", []string{"x-sandbox-key", "k", "baggage", "sandbox-key=other,a=1", "tracestate", "sandbox-key=third"},
			[]string{"k"}, []string{"sandbox-key=k,a=1"}, nil},
		"full baggage": {"k", []string{"baggage", numbered(64)}, []string{"k"}, []string{"sandbox-key=k," + numbered(63)}, nil},
		"full tracestate": {"k", []string{"traceparent", traceparent, "tracestate", numbered(32)},
			[]string{"k"}, []string{"sandbox-key=k"}, []string{"sandbox-key=k," + numbered(31)}},
		"long baggage": {"k", []string{"baggage", "a=" + strings.Repeat("x", 8180) + ",b=c"}, []string{"k"}, []string{"sandbox-key=k"}, nil},
		"none":         {"", []string{"x-sandbox-key", "k", "baggage", "a=1,sandbox-key=k", "tracestate", "sandbox-key=k"}, nil, []string{"a=1"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := fieldsOf(test.fields...)
			carriers.Carry([]byte(test.key), m.all(), m)
			for carrier, want := range map[string][]string{"x-sandbox-key": test.header, "baggage": test.baggage, "tracestate": test.tracestate} {
				if got := m.values(carrier); !slices.Equal(got, want) {
					t.Errorf("%s: got %q, want %q", carrier, got, want)
				}
			}
			again := slices.Clone(*m)
			if carriers.Carry([]byte(test.key), m.all(), m); !slices.Equal(*m, again) {
				t.Errorf("carried twice: got %q, want %q", *m, again)
			}
		})
	}
}

// A member that tracestate may not have would have readers discard all of it.
func TestCarry_LeavesTracestateAloneWhereTheMemberCanNotBeInIt(t *testing.T) {
	m := fieldsOf("traceparent", traceparent, "tracestate", "v=1")
	(Carriers{Header: "l5d-dtab", Member: "Key"}).Carry([]byte("k"), m.all(), m)
	if got := m.values("tracestate"); !slices.Equal(got, []string{"v=1"}) {
		t.Errorf("got %q", got)
	}
	if m.values("l5d-dtab")[0] != "k" || m.values("baggage")[0] != "Key=k" {
		t.Errorf("got %q", *m)
	}
}

// Each carrier alone leads the next router to the key, and OpenTelemetry reads what was made.
func FuzzCarry(f *testing.F) {
	f.Add("k", "a=1,sandbox-key=x", "v=1,sandbox-key=y", "z")
	f.Add("a-b.c", ",,=,;", "= ,", "")
	f.Fuzz(func(t *testing.T, key, bag, state, header string) {
		if sandbox.ValidateKey(key) != nil {
			return
		}
		m := fieldsOf("baggage", bag, "x-sandbox-key", header, "traceparent", traceparent, "tracestate", state)
		carriers.Carry([]byte(key), m.all(), m)
		for _, carrier := range []string{"x-sandbox-key", "baggage", "tracestate"} {
			if got, ok := find(carrier, strings.Join(m.values(carrier), ",")); got != key || !ok {
				t.Errorf("%s: found %q in %q", carrier, got, m.values(carrier))
			}
		}
		if _, err := baggage.Parse(bag); err == nil {
			made, err := baggage.Parse(m.values("baggage")[0])
			if err != nil || made.Member("sandbox-key").Value() != key {
				t.Errorf("baggage %q: %v", m.values("baggage"), err)
			}
		}
		if _, err := trace.ParseTraceState(state); err == nil {
			made, err := trace.ParseTraceState(m.values("tracestate")[0])
			if err != nil || made.Get("sandbox-key") != key {
				t.Errorf("tracestate %q: %v", m.values("tracestate"), err)
			}
		}
	})
}

func TestPrivate(t *testing.T) {
	for name, test := range map[string]struct {
		carrier            Carrier
		fields             []string
		cacheControl, vary string
		gone               string
	}{
		"nothing said":         {FromHeader, nil, "private", "x-sandbox-key", ""},
		"for shared caches":    {FromHeader, []string{"Cache-Control", "public, max-age=60, s-maxage=600, immutable"}, "max-age=60, immutable, private", "x-sandbox-key", ""},
		"private already":      {FromHeader, []string{"cache-control", "Private, max-age=1"}, "max-age=1, private", "x-sandbox-key", ""},
		"private of one field": {FromHeader, []string{"cache-control", `private="set-cookie, x-a", no-cache="a,public"`}, `no-cache="a,public", private`, "x-sandbox-key", ""},
		"not stored at all":    {FromHeader, []string{"cache-control", "no-store"}, "no-store", "x-sandbox-key", ""},
		"in two fields":        {FromHeader, []string{"cache-control", "public", "cache-control", "max-age=5"}, "max-age=5, private", "x-sandbox-key", ""},
		"the app's own vary":   {FromHeader, []string{"Vary", "Accept", "vary", "X-Sandbox-Key, Origin"}, "private", "Accept, X-Sandbox-Key, Origin", ""},
		"vary by all":          {FromHeader, []string{"vary", "*"}, "private", "*", ""},
		"key from baggage":     {FromBaggage, nil, "private", "x-sandbox-key, baggage", ""},
		"key from tracestate":  {FromTracestate, nil, "private", "x-sandbox-key, baggage, tracestate", ""},
		"for nginx":            {FromHeader, []string{"X-Accel-Expires", "60"}, "private", "x-sandbox-key", "x-accel-expires"},
		"for a CDN":            {FromHeader, []string{"CDN-Cache-Control", "max-age=60"}, "private", "x-sandbox-key", "cdn-cache-control"},
		"for some other CDN":   {FromHeader, []string{"Surrogate-Control", "max-age=60"}, "private", "x-sandbox-key", "surrogate-control"},
	} {
		t.Run(name, func(t *testing.T) {
			m := fieldsOf(test.fields...)
			carriers.Private(test.carrier, m.all(), m)
			if got := m.values("cache-control"); !slices.Equal(got, []string{test.cacheControl}) {
				t.Errorf("Cache-Control: got %q, want %q", got, test.cacheControl)
			}
			if got := m.values("vary"); !slices.Equal(got, []string{test.vary}) {
				t.Errorf("Vary: got %q, want %q", got, test.vary)
			}
			if test.gone != "" && m.values(test.gone) != nil {
				t.Errorf("%s: got %q", test.gone, m.values(test.gone))
			}
		})
	}
}
