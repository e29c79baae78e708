package engine

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// after returns an insertion after the first mark of the body, across parts.
func after(mark byte, what string) *Insertion {
	return &Insertion{What: []byte(what), Find: func(part []byte) (int, bool) {
		i := bytes.IndexByte(part, mark)
		return i + 1, i >= 0
	}}
}

// inserted is what a body is to become.
func inserted(body string) string {
	if i := strings.IndexByte(body, '>'); i >= 0 {
		return body[:i+1] + "INSERTED" + body[i+1:]
	}
	return body + "INSERTED"
}

// Whatever the body, and however it comes in parts, it is framed well and holds what is inserted once, in its place.
func FuzzWeaver(f *testing.F) {
	f.Add([]byte("<body>text"), uint8(0), uint64(1))
	f.Add([]byte(">"), uint8(1), uint64(2))
	f.Add([]byte("no mark"), uint8(2), uint64(3))
	f.Add([]byte("ends with>"), uint8(1), uint64(4))
	f.Fuzz(func(t *testing.T, body []byte, kind uint8, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		if len(body) == 0 {
			return
		}
		var in bytes.Buffer
		var framed framing
		switch kind % 3 {
		case 0:
			in.Write(body)
			framed = framing{kind: fixed, left: int64(len(body))}
		case 1:
			for rest := body; len(rest) > 0; {
				n := 1 + random.IntN(len(rest))
				fmt.Fprintf(&in, "%x;a=b\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			in.WriteString("0\r\nX-Trailer: 1\r\n\r\n")
			framed = framing{kind: chunk, chunks: chunks{lax: true}}
		case 2:
			in.Write(body)
			framed = framing{kind: toEOF}
		}
		w := &weaver{Insertion: *after('>', "INSERTED")}
		var out []byte
		for rest := in.Bytes(); len(rest) > 0; {
			var n int
			var done bool
			var err error
			part := rest[:1+random.IntN(len(rest))]
			if out, n, done, err = w.take(out, &framed, part); err != nil || n != len(part) || done != (n == len(rest) && framed.kind != toEOF) {
				t.Fatalf("took %d of %d, of %d, %v, %v", n, len(part), len(rest), done, err)
			}
			rest = rest[n:]
		}
		if framed.kind == toEOF {
			out = w.last(out)
		}
		got := string(out)
		if framed.kind == chunk {
			resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(out))), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.Trailer.Get("X-Trailer") != "1" {
				t.Fatalf("%q: %v", out, err)
			}
			got = string(b)
		}
		if got != inserted(string(body)) {
			t.Errorf("got %q, want %q", got, inserted(string(body)))
		}
	})
}

// answers is an app whose answers are framed as the path says, of the size and with the mark where the query says.
func answers(w http.ResponseWriter, r *http.Request) {
	size, _ := strconv.Atoi(r.URL.Query().Get("size"))
	body := bytes.Repeat([]byte("a"), size)
	if at, err := strconv.Atoi(r.URL.Query().Get("at")); err == nil {
		body[at] = '>'
	}
	switch r.URL.Path {
	case "/length":
		w.Header().Set("Content-Length", strconv.Itoa(size))
	case "/trailers":
		w.Header().Set("Trailer", "X-End")
		defer w.Header().Set("X-End", "1")
	case "/none":
		w.WriteHeader(http.StatusNoContent)
		return
	}
	for len(body) > 0 {
		n := min(len(body), 10_000)
		_, _ = w.Write(body[:n])
		http.NewResponseController(w).Flush()
		body = body[n:]
	}
}

func TestInsertion(t *testing.T) {
	decider := func(b Backend) *byHeader {
		return &byHeader{app: b, rewrite: func(*Reply) Edits { return Edits{Insert: after('>', "INSERTED")} }}
	}
	h1 := httptest.NewServer(http.HandlerFunc(answers))
	t.Cleanup(h1.Close)
	for name, front := range map[string]struct {
		f      *fixture
		client *http.Client
	}{
		"HTTP/1.1": {serve(t, Options{}, decider(backendAt("app", h1.Listener))), &http.Client{Transport: &http.Transport{DisableCompression: true}}},
		"HTTP/2":   {serve(t, Options{}, decider(backendAt("app", h2server(t, answers)))), h2client(t)},
	} {
		for _, path := range []string{"/length", "/chunks", "/trailers", "/none"} {
			for _, query := range []string{"?size=100&at=0", "?size=100&at=99", "?size=3000000&at=1500000", "?size=50000"} {
				for range 2 { // on one connection
					resp, err := front.client.Get("http://" + front.f.addr + path + query)
					if err != nil {
						t.Fatalf("%s: %s%s: %v", name, path, query, err)
					}
					got, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					w := httptest.NewRecorder()
					r := httptest.NewRequest(http.MethodGet, "http://a"+path+query, nil)
					answers(w, r)
					want := w.Body.String()
					if path != "/none" {
						want = inserted(want)
					}
					if err != nil || string(got) != want || path == "/length" && resp.ContentLength != int64(len(want)) || path == "/trailers" && resp.Trailer.Get("X-End") != "1" {
						t.Errorf("%s: %s%s: got %d bytes of %d, length %d, trailers %v: %v", name, path, query, len(got), len(want), resp.ContentLength, resp.Trailer, err)
					}
				}
			}
		}
		resp, err := front.client.Head("http://" + front.f.addr + "/length?size=100")
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: HEAD: %v, %v", name, resp, err)
		}
	}
}

// Old servers end a body with the connection; and what breaks off is not made to look whole.
func TestInsertion_ofAnswersThatEndWithTheConnection(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.0 200 OK\r\n\r\na>b":                        "HTTP/1.0 200 OK\r\n\r\na>INSERTEDb",
		"HTTP/1.1 200 OK\r\n\r\nab":                         "HTTP/1.1 200 OK\r\n\r\nabINSERTED",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab":    "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nab": "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nab",
	} {
		l := listen(t)
		f := serve(t, Options{}, &byHeader{app: backendAt("app", l), rewrite: func(*Reply) Edits { return Edits{Insert: after('>', "INSERTED")} }})
		client := f.dial()
		client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		app := accept(t, l)
		app.head()
		app.send(answer)
		_ = app.Close()
		got, err := io.ReadAll(iotest.OneByteReader(client.r))
		if string(got) != want {
			t.Errorf("%q: got %q (%v), want %q", answer, got, err, want)
		}
	}
}
