package router

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// laxAnswer is a response of an old or hand-written server, and whether it keeps the connection afterwards.
type laxAnswer struct {
	name   string
	answer string
	method string // default GET
	closes bool
	// refused means that readers could frame it differently, so that it is refused: with a status and a reason, not by a
	// reset.
	refused bool
}

// laxAnswers are the grid: status lines, names, values, lines, lengths, codings, chunks, interim responses. LF is
// written as CRLF except in "LF alone".
func laxAnswers() []laxAnswer {
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	var all []laxAnswer
	add := func(name, head, body string) {
		all = append(all, laxAnswer{name: name, answer: crlf(head) + body},
			laxAnswer{name: name + ", then closed", answer: crlf(head) + body, closes: true})
	}
	const ok = "HTTP/1.1 200 OK\n"
	for name, line := range map[string]string{
		"plain": "HTTP/1.1 200 OK", "no phrase": "HTTP/1.1 200", "a blank and no phrase": "HTTP/1.1 200 ", "two blanks": "HTTP/1.1  200  OK",
		"tabs": "HTTP/1.1\t200\tOK", "long phrase": "HTTP/1.1 200 " + strings.Repeat("x", 2000), "latin-1 phrase": "HTTP/1.1 200 d\xe9j\xe0",
		"status 299": "HTTP/1.1 299 Odd", "status 599": "HTTP/1.1 599 Odd", "status 999": "HTTP/1.1 999 Odd", "HTTP/1.0": "HTTP/1.0 200 OK",
		"HTTP/1.0, kept": "HTTP/1.0 200 OK\nConnection: keep-alive", "HTTP/1.2": "HTTP/1.2 200 OK", "control in phrase": "HTTP/1.1 200 O\x01K",
	} {
		add("status line: "+name, line+"\nContent-Length: 5\n\n", "hello")
	}
	for name, line := range map[string]string{
		"space in name": "X Powered By: me", "space before colon": "X-A : b", "beyond ASCII": "X-\xe9t\xe9: b", "parentheses": "X-A(b): c",
		"no colon": "nonsense", "no name": ": x", "latin-1 value": "X-N: caf\xe9", "control in value": "X-N: a\x01b", "NUL in value": "X-N: a\x00b",
		"folded": "X-A: b\n c", "folded with a tab": "X-A: b\n\tc", "folded, nothing in it": "X-A: b\n ", "leading blank": " X-A: b", "no value": "X-A:",
		"quotes in name": `"X-A": b`, "slash in name": "X/A: b", "at in name": "X@A: b", "brackets": "[X]: b", "CR in value": "X-A: b\rc", "CR twice": "X-A: b\r",
		"a status line again": "HTTP/1.1 200 OK", "utf-8 name": "X-\u00fc: b", "DEL in value": "X-A: \x7f", "comma for colon": "X-A, b", "equals for colon": "X-A=b",
		"long line": "X-A: " + strings.Repeat("a", 60_000), "folded connection": "Connection: keep-alive,\n x", "Keep-Alive": "Keep-Alive: timeout=5\nConnection: Keep-Alive",
		"connection: close": "Connection: close", "upgrade offered": "Connection: upgrade\nUpgrade: h2c", "Content-MD5": "Content-MD5: x",
	} {
		add("before the length: "+name, ok+line+"\nContent-Length: 5\n\n", "hello")
		if line[0] == ' ' {
			continue // would fold the length
		}
		add("after the length: "+name, ok+"Content-Length: 5\n"+line+"\n\n", "hello")
		add("chunked: "+name, ok+"Transfer-Encoding: chunked\n"+line+"\n\n", "5\r\nhello\r\n0\r\n\r\n")
	}
	for name, lines := range map[string]string{
		"as a list": "Content-Length: 5, 5", "as a list without blanks": "Content-Length: 5,5,5", "twice": "Content-Length: 5\nContent-Length: 5",
		"with zeros": "Content-Length: 0005", "padded": "Content-Length:   5  ", "identity": "Transfer-Encoding: identity\nContent-Length: 5",
		"Identity, after": "Content-Length: 5\nTransfer-Encoding: Identity", "empty coding": "Transfer-Encoding:\nContent-Length: 5",
	} {
		add("length: "+name, ok+lines+"\n\n", "hello")
	}
	for name, lines := range map[string]string{
		"capital": "Transfer-Encoding: Chunked", "twice": "Transfer-Encoding: chunked\nTransfer-Encoding: chunked", "twice in a list": "Transfer-Encoding: chunked, chunked",
		"and a length": "Transfer-Encoding: chunked\nContent-Length: 5", "after a length": "Content-Length: 5\nTransfer-Encoding: chunked",
		"and identity": "Transfer-Encoding: identity, chunked", "then identity": "Transfer-Encoding: chunked, identity",
	} {
		add("chunked: "+name, ok+lines+"\n\n", "5\r\nhello\r\n0\r\n\r\n")
	}
	for name, body := range map[string]string{
		"trailers": "5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n", "padded sizes": "5   \r\nhello\r\n0   \r\n\r\n", "LF alone": "5\nhello\n0\n\n", "zeros": "0005\r\nhello\r\n000\r\n\r\n",
		"odd trailers": "5\r\nhello\r\n0\r\nodd one: b\r\nnonsense\r\n\r\n", "odd extension": "5;\x01=\x02\r\nhello\r\n0\r\n\r\n", "tab": "5\t\r\nhello\r\n0\r\n\r\n",
		"extension after blanks": "5 ;a=b\r\nhello\r\n0\r\n\r\n", "blank before size": " 5\r\nhello\r\n0\r\n\r\n", "last line end missing": "5\r\nhello\r\n0\r\n",
	} {
		add("chunks: "+name, ok+"Transfer-Encoding: chunked\n\n", body)
	}
	for name, a := range map[string]string{
		"100 unasked": "HTTP/1.1 100 Continue\n\n" + ok + "Content-Length: 5\n\n", "100 with fields": "HTTP/1.1 100 Continue\nX Y: z\n\n" + ok + "Content-Length: 5\n\n",
		"103": "HTTP/1.1 103 Early Hints\nLink: </a>\n\n" + ok + "Content-Length: 5\n\n", "100 without phrase": "HTTP/1.1 100\n\n" + ok + "Content-Length: 5\n\n",
		"no length": ok + "\n", "other coding": ok + "Transfer-Encoding: x\n\n", "205 with a body": "HTTP/1.1 205 Reset\nContent-Length: 5\n\n",
	} {
		add(name, a, "hello")
	}
	head := func(name, lines string) {
		all = append(all, laxAnswer{name: "HEAD " + name, answer: crlf(ok + lines + "\n"), method: "HEAD"})
	}
	head("length", "Content-Length: 5\n")
	head("chunked", "Transfer-Encoding: chunked\n")
	head("identity", "Transfer-Encoding: identity\n")
	head("list", "Content-Length: 5, 5\n")
	head("nothing", "")
	add("204 with length 0", "HTTP/1.1 204 No Content\nContent-Length: 0\n\n", "")
	add("204 with length and body", "HTTP/1.1 204 No Content\nContent-Length: 5\n\n", "hello")
	add("204 chunked", "HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n", "0\r\n\r\n")
	add("304 with length", "HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", "")
	add("two bytes too many", ok+"Content-Length: 5\n\n", "hello\r\n")
	all = append(all, laxAnswer{name: "LF alone", answer: "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"},
		laxAnswer{name: "short body", answer: crlf(ok+"Content-Length: 9\n\n") + "hello", closes: true})
	for name, lines := range map[string]string{
		"two lengths": "Content-Length: 5\nContent-Length: 4", "two lengths in a list": "Content-Length: 5, 4", "no number": "Content-Length: abc", "negative": "Content-Length: -5",
		"blank in the name": "Content-Length : 5", "folded length": "Content-Length:\n 5", "coding behind CR": "X: y\rTransfer-Encoding: chunked\nContent-Length: 5",
		"coding in a fold": "Content-Length: 5\nX: y\n Transfer-Encoding: chunked", "leading blank": " Content-Length: 5",
	} {
		all = append(all, laxAnswer{name: "two readings: " + name, answer: crlf(ok+lines+"\n\n") + "hello", refused: true})
	}
	return all
}

// startRaw serves the responses at ip:port: /N gets the N-th, unchanged.
func startRaw(t *testing.T, ip string, port uint16, answers []laxAnswer) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					q, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					n, _ := strconv.Atoi(q.URL.Path[1:])
					if _, err := io.WriteString(conn, answers[n].answer); err != nil || answers[n].closes {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// ways are the ways to the same responses: past the router, through it, and through it by a key to a fork.
type ways struct {
	At  map[string]string `json:"at"`
	Key map[string]string `json:"key"`
}

// Whatever curl and Python read of an app's nonstandard responses they read through the router as well: status, body,
// and a second response on the same connection. What they cannot read from the app itself is not compared.
func TestRouter_odd_answers_that_clients_read_they_read_through_it(t *testing.T) {
	for _, program := range []string{"curl", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal(program + " is not installed: `make debian` installs it")
		}
	}
	answers := laxAnswers()
	u := startRouter(t, testConfig(t))
	w := ways{At: map[string]string{"direct": startRaw(t, "127.0.0.1", u.app, answers), "router": u.addr, "fork": u.addr}, Key: map[string]string{"fork": "k"}}
	startRaw(t, "127.0.0.3", u.app, answers)
	u.setTable(table(1, map[string][]string{"k": {"127.0.0.3"}}))

	compared := 0
	for client, ask := range map[string]func(*testing.T, []laxAnswer, ways) []map[string]string{"python": askPython, "curl": askCurl} {
		for i, got := range ask(t, answers, w) {
			if !strings.HasPrefix(got["direct"], "ok ") || answers[i].refused {
				continue
			}
			compared++
			if client == "python" && strings.HasPrefix(answers[i].answer, "HTTP/1.1 103") {
				// It takes an informational response but 100 for the response. What it reads next depends on whether both came in
				// one segment.
				for way := range got {
					got[way], _, _ = strings.Cut(got[way], " then ")
				}
			}
			for _, way := range []string{"router", "fork"} {
				if got[way] != got["direct"] {
					t.Errorf("%s, %s: directly %.100q, by %s %.200q", client, answers[i].name, got["direct"], way, got[way])
				}
			}
		}
	}
	if compared < 300 {
		t.Errorf("compared %d answers: the clients read too little of them directly for this to be a test", compared)
	}
	for i, a := range answers {
		if a.refused {
			refusedAmbiguous(t, u.addr, i, a.name)
		}
	}
}

// refusedAmbiguous checks that a response which readers could frame differently is refused with a status and a reason.
func refusedAmbiguous(t *testing.T, addr string, i int, name string) {
	t.Helper()
	for _, key := range []string{"", "X-Sandbox-Key: k\r\n"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /%d HTTP/1.1\r\nHost: h\r\n%s\r\n", i, key)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		answer.Body.Close()
		if want := map[bool]int{true: 502, false: 503}[key == ""]; answer.StatusCode != want || !strings.Contains(answer.Header.Get("X-Sandbox-Error"), "malformed") {
			t.Errorf("%s: got %s %q, want %d", name, answer.Status, answer.Header.Get("X-Sandbox-Error"), want)
		}
	}
}

func method(a laxAnswer) string {
	if a.method == "" {
		return http.MethodGet
	}
	return a.method
}

// askPython requests each response with Python's http.client, twice on a connection that is kept.
func askPython(t *testing.T, answers []laxAnswer, w ways) []map[string]string {
	t.Helper()
	var in bytes.Buffer
	for i, a := range answers {
		times := 2
		if a.closes {
			times = 1
		}
		_ = json.NewEncoder(&in).Encode(struct {
			Name   string `json:"name"`
			Method string `json:"method"`
			Path   string `json:"path"`
			Times  int    `json:"times"`
			ways
		}{a.name, method(a), fmt.Sprintf("/%d", i), times, w})
	}
	cmd := exec.Command("python3", "testdata/ask.py")
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var result struct{ Got map[string]string }
		if err := json.Unmarshal(lines.Bytes(), &result); err != nil {
			t.Fatal(err)
		}
		all = append(all, result.Got)
	}
	return all
}

// askCurl requests each response with curl, twice in one run, which reuses the connection if possible.
func askCurl(t *testing.T, answers []laxAnswer, w ways) []map[string]string {
	t.Helper()
	all := make([]map[string]string, len(answers))
	var pool sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i, a := range answers {
		all[i] = make(map[string]string)
		pool.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for way, at := range w.At {
				patience := map[bool]string{true: "1.5", false: "8"}[way == "direct"]
				url := fmt.Sprintf("http://%s/%d", at, i)
				args := []string{"-s", "-m", patience, "-w", " %{http_code}\n", "-H", "x-sandbox-key: " + w.Key[way], url}
				if !a.closes {
					args = append(args, url)
				}
				if a.method == http.MethodHead { // its heads differ by the fields for keyed requests
					args = append(args, "-I", "-o", "/dev/null", "-o", "/dev/null")
				}
				out, err := exec.Command("curl", args...).Output()
				all[i][way] = fmt.Sprintf("ok %q", out)
				if err != nil {
					all[i][way] = fmt.Sprintf("failed: %v %q", err, out)
				}
			}
		})
	}
	pool.Wait()
	return all
}
