package route

import (
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/otel/baggage"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var carriers = Carriers{Header: "x-sandbox-key", Member: "sandbox-key"}

func find(fields ...string) (string, bool) {
	f := Finder{Carriers: carriers}
	for i := 0; i < len(fields); i += 2 {
		f.Header([]byte(fields[i]), []byte(fields[i+1]))
	}
	key, ok := f.Key()
	return string(key), ok
}

func TestFinder(t *testing.T) {
	for name, test := range map[string]struct {
		fields []string
		key    string
		no     bool
	}{
		"nothing":                          {nil, "", false},
		"other fields":                     {[]string{"host", "a", "x-sandbox-keys", "b", "x-sandbox-ke", "c"}, "", false},
		"header":                           {[]string{"X-Sandbox-Key", " k\t"}, "k", false},
		"baggage":                          {[]string{"Baggage", "a=b, sandbox-key = k ;p=q,c=d"}, "k", false},
		"tracestate":                       {[]string{"TRACESTATE", "a=b, sandbox-key=k"}, "k", false},
		"header wins, first":               {[]string{"x-sandbox-key", "h", "baggage", "sandbox-key=b", "tracestate", "sandbox-key=t"}, "h", false},
		"header wins, last":                {[]string{"tracestate", "sandbox-key=t", "baggage", "sandbox-key=b", "x-sandbox-key", "h"}, "h", false},
		"baggage wins over tracestate":     {[]string{"tracestate", "sandbox-key=t", "baggage", "sandbox-key=b"}, "b", false},
		"empty header":                     {[]string{"x-sandbox-key", "", "baggage", "sandbox-key=b"}, "b", false},
		"empty baggage":                    {[]string{"baggage", "sandbox-key=", "tracestate", "sandbox-key=t"}, "t", false},
		"header twice, the same":           {[]string{"x-sandbox-key", "k", "x-sandbox-key", "k"}, "k", false},
		"header twice, different":          {[]string{"x-sandbox-key", "k", "x-sandbox-key", "l"}, "", true},
		"header twice, second empty":       {[]string{"x-sandbox-key", "k", "x-sandbox-key", ""}, "", true},
		"header twice, first empty":        {[]string{"x-sandbox-key", "", "x-sandbox-key", "k"}, "", true},
		"baggage twice in one field":       {[]string{"baggage", "sandbox-key=a,sandbox-key=b"}, "b", false},
		"baggage twice in two fields":      {[]string{"baggage", "sandbox-key=a", "baggage", "sandbox-key=b"}, "b", false},
		"baggage in the first field":       {[]string{"baggage", "sandbox-key=a", "baggage", "x=y"}, "a", false},
		"tracestate twice":                 {[]string{"tracestate", "sandbox-key=a,sandbox-key=b", "tracestate", "sandbox-key=c"}, "a", false},
		"encoded":                          {[]string{"baggage", "sandbox-key=a%2Db%2"}, "a-b%2", false},
		"other member with the name in it": {[]string{"baggage", "x-sandbox-key=a,sandbox-keys=b,a=sandbox-key=c"}, "", false},
		"member's case counts":             {[]string{"baggage", "Sandbox-Key=a"}, "", false},
		"no value":                         {[]string{"baggage", "sandbox-key"}, "", false},
	} {
		if key, ok := find(test.fields...); key != test.key || ok == test.no {
			t.Errorf("%s: got %q %v, want %q %v", name, key, ok, test.key, !test.no)
		}
	}
}

func TestFinder_is_used_again(t *testing.T) {
	f := Finder{Carriers: carriers}
	f.Header([]byte("x-sandbox-key"), []byte("a"))
	f.Header([]byte("x-sandbox-key"), []byte("b"))
	f.Reset()
	f.Header([]byte("baggage"), []byte("sandbox-key=c"))
	if key, ok := f.Key(); string(key) != "c" || !ok {
		t.Errorf("got %q %v", key, ok)
	}
}

// What OpenTelemetry reads from a baggage header, the router must read as well: it is what apps carry keys on with.
func FuzzBaggageMember(f *testing.F) {
	for _, s := range []string{"sandbox-key=k", "a=b,sandbox-key=k;p=q;r,c=d", "sandbox-key=a%20b%zz", "sandbox-key = k , sandbox-key=l", "=,;%", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if strings.ContainsFunc(header, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }) {
			return // nothing that HTTP lets pass
		}
		got := BaggageMember([]byte(header), "sandbox-key")
		b, err := baggage.Parse(header)
		if err != nil || b.Len() == 0 {
			return
		}
		m := b.Member("sandbox-key")
		want := m.Value()
		if string(got) != want && !strings.ContainsRune(want, utf8.RuneError) {
			t.Fatalf("%q: got %q, OpenTelemetry reads %q", header, got, want)
		}
	})
}

func FuzzTracestateMember(f *testing.F) {
	for _, s := range []string{"sandbox-key=k", "a=b, sandbox-key=k ,c=d", "sandbox-key=a=b", ",,=", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := TracestateMember([]byte(header), "sandbox-key"); got != nil && !strings.Contains(header, "sandbox-key="+string(got)) {
			t.Fatalf("%q: got %q", header, got)
		}
	})
}

// A valid key is found, whatever it travels with and whichever carrier it travels by.
func FuzzFinder(f *testing.F) {
	f.Add("k-1", "a=b", "c=d;e", uint8(0))
	f.Add("readable.key", ",,", "", uint8(1))
	f.Fuzz(func(t *testing.T, key, before, after string, carrier uint8) {
		if sandbox.ValidateKey(key) != nil || strings.Contains(before+after, "sandbox-key") {
			return
		}
		fields := [][]string{
			{"X-Sandbox-Key", key, "baggage", before, "tracestate", after},
			{"baggage", before + ",sandbox-key=" + key + "," + after},
			{"baggage", before, "Baggage", "sandbox-key=" + key + ";" + after},
			{"tracestate", before + ",sandbox-key=" + key + "," + after},
		}[carrier%4]
		if carrier%4 == 2 && strings.Contains(after, ",") {
			return // that ends the member's properties
		}
		if got, ok := find(fields...); got != key || !ok {
			t.Fatalf("%q: got %q %v, want %q", fields, got, ok, key)
		}
	})
}

func BenchmarkFinder(b *testing.B) {
	f := Finder{Carriers: carriers}
	fields := [][2][]byte{}
	for _, s := range []string{
		"Host: api.default.svc", "User-Agent: x/1", "Accept: */*", "Accept-Encoding: gzip", "traceparent: 00-x-y-01",
		"tracestate: a=b,c=d", "baggage: user=1,sandbox-key=abcdefghij,x=y", "Content-Type: application/json", "X-Request-Id: 123",
	} {
		name, value, _ := strings.Cut(s, ": ")
		fields = append(fields, [2][]byte{[]byte(name), []byte(value)})
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Reset()
		for _, h := range fields {
			f.Header(h[0], h[1])
		}
		if key, _ := f.Key(); len(key) == 0 {
			b.Fatal("not found")
		}
	}
}
