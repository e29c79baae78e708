package http1_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
)

func TestHTTP1_ambiguous_and_malformed_requests_are_refused_and_reach_nobody(t *testing.T) {
	const ok = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, test := range []struct {
		name, request string
		status        int
	}{
		{"both lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"both lengths, other order", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
		{"differing lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
		{"same length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
		{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400},
		{"signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400},
		{"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", 400},
		{"hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 400},
		{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400},
		{"overflowing length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\nabc", 400},
		{"length with blank inside", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nabc", 400},
		{"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
		{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
		{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
		{"bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n", 400},
		{"bare CR in a value", ok + "X: a\rb\r\n\r\n", 400},
		{"CR CR LF", ok + "X: a\r\r\n\r\n", 400},
		{"folded line", ok + "X: a\r\n b\r\n\r\n", 400},
		{"folded with a tab", ok + "X: a\r\n\tb\r\n\r\n", 400},
		{"blank before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		{"blank before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", 400},
		{"tab before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400},
		{"no colon", ok + "abc\r\n\r\n", 400},
		{"empty name", ok + ": abc\r\n\r\n", 400},
		{"name of other bytes", ok + "X\x80: abc\r\n\r\n", 400},
		{"name with NUL", ok + "X\x00: abc\r\n\r\n", 400},
		{"value with NUL", ok + "X: a\x00b\r\n\r\n", 400},
		{"value with a control character", ok + "X: a\x01b\r\n\r\n", 400},
		{"value with DEL", ok + "X: a\x7fb\r\n\r\n", 400},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
		{"coding before chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
		{"coding after chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400},
		{"chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"misspelt chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
		{"chunked in quotes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400},
		{"chunked after vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		{"empty coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{"two blanks in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"tab in the request line", "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"control character in the target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"blank after the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
		{"version of two digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
		{"lower-case version", "GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400},
		{"version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
		{"version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
		{"chunk size of no digits", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n", 400},
		{"chunk size with sign", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n", 400},
		{"chunk size with 0x", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400},
		{"chunk size with blank", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n", 400},
		{"chunk size too large", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n", 400},
		{"chunk line ends in LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400},
		{"LF in a chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\n\r\na\r\n0\r\n\r\n", 400},
		{"CR in a chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\ry\r\na\r\n0\r\n\r\n", 400},
		{"chunk longer than its size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400},
		{"chunk data ends in LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n", 400},
		{"endless chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 2000) + "\r\na\r\n0\r\n\r\n", 400},
		{"trailer without a name", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n: x\r\n\r\n", 400},
		{"folded trailer", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: x\r\n y\r\n\r\n", 400},
		{"trailer with LF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: x\n\r\n", 400},
		{"head of a megabyte", ok + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431},
		{"endless request line", "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: a\r\n\r\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := enginetest.Record(t, "app")
			f := enginetest.Serve(t, engine.Options{Linger: time.Second}, &enginetest.ByHeader{App: enginetest.BackendAt("app", app.Listener)})
			p := f.Dial()
			go func() { _, _ = p.Write([]byte(test.request)) }()
			if test.status != 0 {
				resp, _ := p.ReadAnswer("GET")
				if resp.StatusCode != test.status || !resp.Close || resp.Header.Get("X-Sandbox-Error") == "" {
					t.Errorf("got %s, close %v, header %v", resp.Status, resp.Close, resp.Header)
				}
				p.CloseWrite()
				p.End()
				if got := app.Got(); got != "" {
					t.Errorf("the app got %q", got)
				}
			}
		})
	}
}

func TestHTTP1_requests_are_passed_on_byte_for_byte(t *testing.T) {
	for name, request := range map[string]string{
		"odd but legal":      "GET /a%20b?c=d;e&\xc3\xa9 HTTP/1.1\r\nhOsT:a\r\nX-Empty:\r\nX:  two blanks  \r\nx: \"\xe9\"\r\nCookie: a=b; c=d\r\n\r\n",
		"with a body":        "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"chunked":            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=\"b c\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n",
		"chunked, shouted":   "POST /x HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n",
		"HTTP/1.0":           "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"no Host":            "GET / HTTP/1.0\r\n\r\n",
		"unusual method":     "M-SEARCH * HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute target":    "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
		"length of zero":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"large head":         "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n",
		"body longer by far": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("y", 300000),
	} {
		t.Run(name, func(t *testing.T) {
			f, app := enginetest.WithApp(t)
			p := f.Dial()
			go func() { _, _ = p.Write([]byte(request)) }()
			b := enginetest.Accept(t, app)
			b.Expect(request)
			b.Silent()
			const answer = "HTTP/1.1 200 Fine enough\r\nx-odd:  Value \r\nContent-Length: 2\r\n\r\nok"
			b.Send(answer)
			p.Expect(answer)
		})
	}
}

func TestHTTP1_requests_sent_byte_by_byte_arrive(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	const request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
	go func() {
		for i := range len(request) {
			_, _ = p.Write([]byte{request[i]})
		}
	}()
	b := enginetest.Accept(t, app)
	b.Expect(request)
	const answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\nX: y\r\n\r\n"
	for i := range len(answer) {
		b.Send(answer[i : i+1])
	}
	p.Expect(answer)
	p.Send("GET /next HTTP/1.1\r\n\r\n")
	b.Expect("GET /next HTTP/1.1\r\n\r\n")
}

func TestHTTP1_answers_end_where_they_end(t *testing.T) {
	for name, test := range map[string]struct{ method, answer string }{
		"HEAD":                  {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"},
		"HEAD chunked":          {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"204":                   {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 100\r\n\r\n"},
		"304":                   {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"},
		"length of zero":        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"no reason":             {"GET", "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx"},
		"no reason, no blank":   {"GET", "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx"},
		"bare LF":               {"GET", "HTTP/1.1 200 OK\nContent-Length: 1\n\nx"},
		"folded line":           {"GET", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\nx"},
		"chunked twice":         {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"same length twice":     {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"},
		"1xx before it":         {"GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"},
		"chunked with trailers": {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f, app := enginetest.WithApp(t)
			p := f.Dial()
			p.Send(test.method + " /1 HTTP/1.1\r\n\r\n")
			b := enginetest.Accept(t, app)
			b.ReadHead()
			b.Send(test.answer)
			p.Expect(test.answer)
			p.Send("GET /2 HTTP/1.1\r\n\r\n") // the same connections go on
			b.Expect("GET /2 HTTP/1.1\r\n\r\n")
			b.Send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend")
			if _, body := p.ReadAnswer("GET"); body != "end" {
				t.Errorf("got %q", body)
			}
		})
	}
}

func TestHTTP1_an_answer_without_length_ends_with_the_connection(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\n\r\nall there is")
	p.Expect("HTTP/1.1 200 OK\r\n\r\nall there is")
	p.Silent()
	_ = b.Close()
	p.End()
}

func TestHTTP1_an_answer_framed_twice_loses_the_length_that_does_not_count(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
	p.Expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
}

func TestHTTP1_answers_that_make_no_sense_are_failures_of_the_fork(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":              "SSH-2.0-x\r\n\r\n",
		"differing lengths":    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"status of two digits": "HTTP/1.1 20 OK\r\n\r\n",
		"folded length":        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 2\r\n\r\n",
		"length behind a CR":   "HTTP/1.1 200 OK\r\nX: y\rContent-Length: 1\r\n\r\n",
		"unasked switch":       "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"bad chunk":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"endless head":         "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10),
	} {
		t.Run(name, func(t *testing.T) {
			f, _, fork := enginetest.WithAppAndFork(t)
			p := f.Dial()
			p.Send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
			b := enginetest.Accept(t, fork)
			b.ReadHead()
			go func() { _, _ = b.Write([]byte(answer)) }()
			resp, body := p.ReadAnswer("GET")
			if resp.StatusCode != http.StatusServiceUnavailable || !strings.HasPrefix(body, "the fork: ") || resp.Header.Get("X-Sandbox-Error") == "" {
				t.Errorf("got %s %q", resp.Status, body)
			}
			if f.Decider.Observer.Count(engine.Broken) != 1 || f.Decider.Observer.Count(engine.Answered) != 0 {
				t.Errorf("observed %v", f.Decider.Observer.Counts)
			}
		})
	}
}

func TestHTTP1_answers_are_edited_as_the_backend_asks(t *testing.T) {
	f, _, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nX-Served-By: somebody else\r\nA: b\r\nx-served-by: again\r\nContent-Length: 1\r\n\r\nx")
	p.Expect("HTTP/1.1 200 OK\r\nx-served-by: fork-0\r\nA: b\r\nContent-Length: 1\r\n\r\nx")
}

func TestHTTP1_answers_are_rewritten_by_what_they_say(t *testing.T) {
	f, _, fork := enginetest.WithAppAndFork(t)
	f.Decider.Rewrite = enginetest.Moved
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 302 Found\r\nLocation: http://b/\r\nA: b\r\nx-served-by: again\r\nContent-Length: 1\r\n\r\nx")
	p.Expect("HTTP/1.1 302 Found\r\nlocation: /was?http://b/\r\nx-served-by: fork-0\r\nContent-Length: 1\r\n\r\nx")
	p.Send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n")
	p.Expect("HTTP/1.1 200 OK\r\nx-served-by: fork-0\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n")
}

func TestHTTP1_pipelined_requests_are_answered_in_order_by_whom_each_asks(t *testing.T) {
	app, fork := enginetest.Record(t, "app"), enginetest.Record(t, "fork")
	f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", app.Listener), Named: map[string]engine.Backend{"fork": enginetest.BackendAt("fork", fork.Listener)}})
	p := f.Dial()
	var all strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\n", i)
		if i%3 == 0 {
			all.WriteString("x-to: fork\r\n")
		}
		fmt.Fprintf(&all, "Content-Length: %d\r\n\r\n%s", i%7, "GET / H"[:i%7])
	}
	go p.Send(all.String())
	for i := range 1000 {
		want := "app"
		if i%3 == 0 {
			want = "fork"
		}
		if _, body := p.ReadAnswer("POST"); body != want {
			t.Fatalf("request %d reached %q, want %q", i, body, want)
		}
	}
	if a, b := app.Connections(), fork.Connections(); a != 1 || b != 1 {
		t.Errorf("connections: %d to the app, %d to the fork, want one each", a, b)
	}
}

func TestHTTP1_both_directions_live_while_a_body_is_sent(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Send("HTTP/1.1 100 Continue\r\n\r\n")
	p.Expect("HTTP/1.1 100 Continue\r\n\r\n")
	p.Send("abc")
	b.Expect("abc")
	b.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nABC\r\n")
	p.Expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nABC\r\n")
	p.Send("def")
	b.Expect("def")
	b.Send("0\r\n\r\n")
	p.Expect("0\r\n\r\n")
	p.Send("GET /2 HTTP/1.1\r\n\r\n")
	b.Expect("GET /2 HTTP/1.1\r\n\r\n")
}

func TestHTTP1_an_early_answer_lets_the_upload_go_on(t *testing.T) {
	for _, connection := range []string{"keep-alive", "close"} {
		t.Run(connection, func(t *testing.T) {
			f, app := enginetest.WithApp(t)
			p := f.Dial()
			p.Send("POST / HTTP/1.1\r\nConnection: " + connection + "\r\nContent-Length: 6\r\n\r\nabc")
			b := enginetest.Accept(t, app)
			b.ReadHead()
			b.Expect("abc")
			b.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			p.Expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			p.Send("def")
			b.Expect("def")
			if connection == "close" {
				p.End()
				return
			}
			p.Send("GET /2 HTTP/1.1\r\n\r\n")
			b.Expect("GET /2 HTTP/1.1\r\n\r\n")
		})
	}
}

func TestHTTP1_an_app_that_refuses_an_upload_is_heard(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
	b.CloseWrite()
	stop := make(chan struct{})
	go func() { // the client goes on sending for a while
		defer close(stop)
		for range 100 {
			if _, err := p.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}()
	if resp, body := p.ReadAnswer("POST"); resp.StatusCode != http.StatusRequestEntityTooLarge || body != "no" {
		t.Errorf("got %s %q", resp.Status, body)
	}
	<-stop
	p.End()
}

func TestHTTP1_a_client_that_has_sent_all_it_wants_still_gets_its_answer(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\n\r\n")
	p.CloseWrite()
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.End() // the app is told, as it would be without the engine
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	p.Expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	p.End()
}

func TestHTTP1_a_body_that_the_client_cuts_does_not_look_whole(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Expect("3\r\nabc\r\n")
	p.Send("zzz\r\n")
	if resp, _ := p.ReadAnswer("POST"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %s", resp.Status)
	}
	b.Broken()
}
