package preview

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var carriers = route.Carriers{Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember}

func head(fields ...string) *engine.Head {
	h := &engine.Head{Method: []byte("GET"), Target: []byte("/"), Authority: []byte("pr-1.localhost:8080")}
	for i := 0; i < len(fields); i += 2 {
		h.Fields = append(h.Fields, engine.Field{Name: []byte(fields[i]), Value: []byte(fields[i+1])})
	}
	return h
}

// apply returns the fields as the engine would send them.
func apply(h *engine.Head, e engine.Edits) []engine.Field {
	out := slices.Clone(e.Set)
	for _, f := range h.Fields {
		name := strings.ToLower(string(f.Name))
		if !slices.Contains(e.Remove, name) && !slices.ContainsFunc(e.Set, func(s engine.Field) bool { return string(s.Name) == name }) {
			out = append(out, f)
		}
	}
	return out
}

func lines(fields []engine.Field) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(strings.ToLower(string(f.Name)) + ": " + string(f.Value) + "\n")
	}
	return b.String()
}

func TestStamp(t *testing.T) {
	for name, test := range map[string]struct {
		key    string
		fields []string
		want   string
	}{
		"bare": {"k", nil, "x-sandbox-key: k\nbaggage: sandbox-key=k\n"},
		"another key in the header": {"k", []string{"X-Sandbox-Key", "a", "x-sandbox-key", "b", "accept", "c"},
			"x-sandbox-key: k\nbaggage: sandbox-key=k\naccept: c\n"},
		"another key in baggage, among others": {"k", []string{"Baggage", "a=1;p=q, sandbox-key = x;y ,b=2", "baggage", "c=3"},
			"x-sandbox-key: k\nbaggage: sandbox-key=k,a=1;p=q,b=2,c=3\n"},
		"another key in tracestate": {"k", []string{"tracestate", "v=1,sandbox-key=x"},
			"x-sandbox-key: k\nbaggage: sandbox-key=k\ntracestate: v=1\n"},
		"tracestate without one stays as it came": {"k", []string{"tracestate", "v=1 , w=2"},
			"x-sandbox-key: k\nbaggage: sandbox-key=k\ntracestate: v=1 , w=2\n"},
		"baseline":                              {"", []string{"x-sandbox-key", "x", "baggage", "sandbox-key=x", "tracestate", "sandbox-key=x", "a", "b"}, "a: b\n"},
		"baseline keeps what is no key":         {"", []string{"baggage", "a=1,sandbox-key=x", "tracestate", "v=1"}, "baggage: a=1\ntracestate: v=1\n"},
		"baseline with nothing to take out":     {"", []string{"baggage", "a=1 ,b=2"}, "baggage: a=1 ,b=2\n"},
		"a member that only looks like the key": {"", []string{"baggage", "sandbox-keys=1,sandbox-key"}, "baggage: sandbox-keys=1,sandbox-key\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := head(test.fields...)
			if got := lines(apply(h, Stamp{carriers, test.key}.Edits(h))); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

// Whatever comes in, a router behind finds the stamp's key and no other.
func FuzzStamp(f *testing.F) {
	f.Add("k", "sandbox-key=a", "sandbox-key=b,c=d", "e")
	f.Add("", " sandbox-key =a;b", ",,=,sandbox-key=", "")
	f.Fuzz(func(t *testing.T, key, baggage, tracestate, header string) {
		if key != "" && sandbox.ValidateKey(key) != nil {
			return
		}
		h := head("baggage", baggage, "x-sandbox-key", header, "tracestate", tracestate, "baggage", tracestate, "x-sandbox-key", baggage)
		finder := route.Finder{Carriers: carriers}
		for _, field := range apply(h, Stamp{carriers, key}.Edits(h)) {
			finder.Header(field.Name, field.Value)
		}
		if got, ok := finder.Key(); !ok || string(got) != key {
			t.Errorf("found %q, %v", got, ok)
		}
		for _, set := range (Stamp{carriers, key}).Edits(h).Set {
			if bytes.ContainsAny(set.Value, "\r\n") && !strings.ContainsAny(baggage+tracestate, "\r\n") {
				t.Errorf("made a line end in %q", set.Value)
			}
		}
	})
}

func TestForwarded(t *testing.T) {
	client := netip.MustParseAddr("::ffff:192.0.2.7")
	h := head("x-forwarded-for", "10.0.0.1", "x-forwarded-proto", "https", "x-forwarded-host", "a.example", "forwarded", "for=1", "x-real-ip", "1.1.1.1")
	for behind, want := range map[bool]string{
		false: "x-forwarded-for: 192.0.2.7\nx-forwarded-host: pr-1.localhost:8080\nx-forwarded-proto: http\n" +
			"forwarded: for=192.0.2.7;host=\"pr-1.localhost:8080\";proto=http\n",
		true: "x-forwarded-for: 10.0.0.1, 192.0.2.7\nx-forwarded-host: a.example\nx-forwarded-proto: https\n" +
			"forwarded: for=10.0.0.1;host=\"a.example\";proto=https, for=192.0.2.7\nx-real-ip: 1.1.1.1\n",
	} {
		var e engine.Edits
		Forwarded{Client: client, Proto: "http", Behind: behind}.Add(&e, h)
		if got := lines(apply(h, e)); got != want {
			t.Errorf("behind %v: got\n%swant\n%s", behind, got, want)
		}
	}
}

func TestForwardedSaysOfEachHopWhatIsKnown(t *testing.T) {
	for _, test := range [][4]string{
		{"2001:db8::1, 10.0.0.1:443", "a:80", "HTTPS", `for="[2001:db8::1]";host="a:80";proto=https, for=10.0.0.1`},
		{"[2001:db8::1]:443,[2001:db8::2]", "[::1]:80", "http", `for="[2001:db8::1]";host="[::1]:80";proto=http, for="[2001:db8::2]"`},
		{`a";b, ,192.0.2.7`, `a";proto=x`, "ftp", "for=unknown, for=unknown, for=192.0.2.7"},
	} {
		if got := string(forwarded([]byte(test[0]), []byte(test[1]), []byte(test[2]))); got != test[3] {
			t.Errorf("%q: got %s, want %s", test[:3], got, test[3])
		}
	}
}

func TestAdmit(t *testing.T) {
	stamp := Stamp{carriers, "k"}
	for name, test := range map[string]struct {
		change func(*engine.Head)
		ok     bool
	}{
		"plain":                        {func(*engine.Head) {}, true},
		"OPTIONS *":                    {func(h *engine.Head) { h.Method, h.Target = []byte("OPTIONS"), []byte("*") }, true},
		"GET *":                        {func(h *engine.Head) { h.Target = []byte("*") }, false},
		"absolute form":                {func(h *engine.Head) { h.Target = []byte("http://pr-1.localhost:8080/") }, false},
		"CONNECT":                      {func(h *engine.Head) { h.Method, h.Target = []byte("CONNECT"), []byte("a:80") }, false},
		"CONNECT over HTTP/2":          {func(h *engine.Head) { h.Method, h.Target, h.HTTP2 = []byte("CONNECT"), nil, true }, false},
		"extended CONNECT over HTTP/2": {func(h *engine.Head) { h.Method, h.HTTP2 = []byte("CONNECT"), true }, true},
		"no host":                      {func(h *engine.Head) { h.Authority = nil }, false},
		"user information":             {func(h *engine.Head) { h.Authority = []byte("a@pr-1.localhost") }, false},
		"two hosts over HTTP/2": {func(h *engine.Head) {
			h.HTTP2, h.Fields = true, []engine.Field{{Name: []byte("host"), Value: []byte("b")}}
		}, false},
		"Connection drops the key": {func(h *engine.Head) {
			h.Fields = []engine.Field{{Name: []byte("Connection"), Value: []byte("close, X-Sandbox-Key")}}
		}, false},
		"Connection: upgrade": {func(h *engine.Head) {
			h.Fields = []engine.Field{{Name: []byte("Connection"), Value: []byte("keep-alive, Upgrade")}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := head()
			test.change(h)
			host, refusal := stamp.Admit(h)
			if ok := refusal == nil; ok != test.ok {
				t.Fatalf("got %v, %+v", host, refusal)
			}
			if test.ok && host != (Host{"pr-1.localhost", 8080}) {
				t.Errorf("got %v", host)
			}
		})
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]Host{
		"a.localhost": {"a.localhost", 0}, "A.LocalHost.:80": {"a.localhost", 80}, "127.0.0.1:1": {"127.0.0.1", 1},
		"[::1]:8080": {"::1", 8080}, "[::1]": {"::1", 0}, "a:": {"a", 0}, "a_b": {"a_b", 0},
		"": {}, ":80": {}, ".": {}, "a..b": {}, "a:0": {}, "a:080": {}, "a:65536": {}, "a:-1": {}, "a:+1": {}, "a:b": {}, "a b": {},
		"a/b": {}, "a@b": {}, "::1": {}, "[::1": {}, "[a]": {}, "[::1]80": {}, "[::1%25eth0]": {}, "a\x00b": {}, "é": {}, "a,b": {}, "a..": {},
		strings.Repeat("a", 64): {},
	} {
		got, ok := ParseHost(in)
		if ok != (want != Host{}) || got != want {
			t.Errorf("%q: got %v, %v, want %v", in, got, ok, want)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"a.localhost:80", "[::1]:80", "a.", "A:65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, ok := ParseHost(s)
		if !ok {
			return
		}
		if again, ok := ParseHost(h.Name); !strings.Contains(h.Name, ":") && (!ok || again.Name != h.Name || again.Port != 0) {
			t.Errorf("%q: %q is read as %v, %v", s, h.Name, again, ok)
		}
		if h.Name != strings.ToLower(h.Name) || strings.ContainsAny(h.Name, "/@ \t\r\n,%") {
			t.Errorf("%q: %q", s, h.Name)
		}
	})
}

func TestLabel(t *testing.T) {
	if got := Label("api", "pr-42", "shop"); got != "api--pr-42--shop" {
		t.Error(got)
	}
	seen := map[string]bool{}
	for _, names := range [][3]string{
		{"a--b", "c", "d"}, {"a", "b--c", "d"}, {"a-", "b", "c"}, {"a", "-b", "c"}, {"xn", "b", "c"},
		{"a.other", "b", "c"},
		{strings.Repeat("s", 63), strings.Repeat("n", 40), strings.Repeat("m", 63)}, {strings.Repeat("s", 63), strings.Repeat("n", 40), "m"},
	} {
		label := Label(names[0], names[1], names[2])
		if strings.Contains(label, "--") || len(label) > 63 || seen[label] || strings.Trim(label, "-") != label {
			t.Errorf("%v: %q", names, label)
		}
		seen[label] = true
		if _, _, _, ok := ParseLabel(label); ok {
			t.Errorf("%q reads as three names", label)
		}
	}
}

func FuzzLabel(f *testing.F) {
	f.Add("api", "pr-42", "shop")
	f.Fuzz(func(t *testing.T, service, name, namespace string) {
		if sandbox.ValidateName(service) != nil || sandbox.ValidateName(name) != nil || sandbox.ValidateName(namespace) != nil {
			return
		}
		label := Label(service, name, namespace)
		if h, ok := ParseHost(label); !ok || h.Name != label {
			t.Fatalf("%q is no label", label)
		}
		s, n, ns, ok := ParseLabel(label)
		if alias := label == Alias(service, name, namespace); ok == alias || ok && (s != service || n != name || ns != namespace) {
			t.Errorf("%q, %q, %q: %q reads as %q, %q, %q, %v", service, name, namespace, label, s, n, ns, ok)
		}
	})
}
