package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
)

// after returns an insertion after the first mark of the body, across parts.
func after(mark byte, what string) *engine.Insertion {
	return &engine.Insertion{What: []byte(what), Find: func(part []byte) (int, bool) {
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
	decider := func(b engine.Backend) *enginetest.ByHeader {
		return &enginetest.ByHeader{App: b, Rewrite: func(*engine.Reply) engine.Edits { return engine.Edits{Insert: after('>', "INSERTED")} }}
	}
	h1 := httptest.NewServer(http.HandlerFunc(answers))
	t.Cleanup(h1.Close)
	for name, front := range map[string]struct {
		f      *enginetest.Fixture
		client *http.Client
	}{
		"HTTP/1.1": {enginetest.Serve(t, engine.Options{}, decider(enginetest.BackendAt("app", h1.Listener))), &http.Client{Transport: &http.Transport{DisableCompression: true}}},
		"HTTP/2":   {enginetest.Serve(t, engine.Options{}, decider(enginetest.BackendAt("app", enginetest.HTTP2Server(t, answers)))), enginetest.HTTP2Client(t)},
	} {
		for _, path := range []string{"/length", "/chunks", "/trailers", "/none"} {
			for _, query := range []string{"?size=100&at=0", "?size=100&at=99", "?size=3000000&at=1500000", "?size=50000"} {
				for range 2 { // on one connection
					resp, err := front.client.Get("http://" + front.f.Addr + path + query)
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
		resp, err := front.client.Head("http://" + front.f.Addr + "/length?size=100")
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
		l := enginetest.Listen(t)
		f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", l), Rewrite: func(*engine.Reply) engine.Edits { return engine.Edits{Insert: after('>', "INSERTED")} }})
		client := f.Dial()
		client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		app := enginetest.Accept(t, l)
		app.ReadHead()
		app.Send(answer)
		_ = app.Close()
		got, err := io.ReadAll(iotest.OneByteReader(client.Buffered))
		if string(got) != want {
			t.Errorf("%q: got %q (%v), want %q", answer, got, err, want)
		}
	}
}
