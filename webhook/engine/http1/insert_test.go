package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

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
			framed = framing{kind: fixed, remaining: int64(len(body))}
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
		w := &bodyInserter{engine.Inserter{Insertion: engine.Insertion{What: []byte("INSERTED"), Find: func(part []byte) (int, bool) {
			i := bytes.IndexByte(part, '>')
			return i + 1, i >= 0
		}}}}
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
			out = w.Last(out)
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
		before, after, found := strings.Cut(string(body), ">")
		want := before + "INSERTED"
		if found {
			want = before + ">INSERTED" + after
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
