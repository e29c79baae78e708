package request

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func files(name string) (io.ReadCloser, error) {
	return fstest.MapFS{"body.json": {Data: []byte(`{"a":1}`)}}.Open(name)
}

func names(l List) []string {
	var all []string
	for _, r := range l.Requests {
		all = append(all, r.Name())
	}
	return all
}

func TestParse_ReadsEachFormat(t *testing.T) {
	const har = `{"log": {"version": "1.2", "entries": [
		{"request": {"method": "GET", "url": "https://shop.example/?a=1", "headers": [{"name": ":authority", "value": "shop.example"},
			{"name": "Host", "value": "shop.example"}, {"name": "Accept", "value": "text/html"}]}},
		{"request": {"method": "GET", "url": "https://fonts.example/f.woff", "headers": []}},
		{"_resourceType": "websocket", "request": {"method": "GET", "url": "https://shop.example/ws", "headers": []}},
		{"request": {"method": "GET", "url": "data:image/png;base64,AAAA", "headers": []}},
		{"request": {"method": "POST", "url": "https://shop.example/cart", "headers": [],
			"postData": {"mimeType": "application/json", "text": "{\"n\": 2}"}}}]}}`
	for _, tt := range []struct {
		name, data string
		format     Format
		want       []string
		skipped    int
	}{
		{"vegeta", "# a comment\nGET http://x/a?b=c\nAccept: text/html\n\nPOST http://x/b\nX-A: 1\n@body.json\nHEAD /c\n", FormatVegeta,
			[]string{"GET /a?b=c", "POST /b", "HEAD /c"}, 0},
		{"vegeta in JSON", `{"method":"GET","url":"http://x/a","header":{"X-A":["1"]}}` + "\n" + `{"method":"POST","url":"http://x/b","body":"aGk="}`, FormatVegetaJSON,
			[]string{"GET /a", "POST /b"}, 0},
		{"HAR", har, FormatHAR, []string{"GET /?a=1", "POST /cart"}, 3},
		{"k6", `{"metric":"http_reqs","type":"Metric","data":{}}
{"metric":"http_reqs","type":"Point","data":{"value":1,"tags":{"method":"GET","url":"http://x/a"}}}
{"metric":"http_req_duration","type":"Point","data":{"value":1,"tags":{"method":"GET","url":"http://x/a"}}}
{"metric":"http_reqs","type":"Point","data":{"value":1,"tags":{"method":"POST","url":"http://x/b"}}}`, FormatK6, []string{"GET /a"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, format := range []Format{tt.format, FormatAuto} {
				got, err := Parse([]byte(tt.data), format, files)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(names(got), tt.want) || got.Skipped != tt.skipped {
					t.Errorf("%s: got %q and %d skipped, want %q and %d", format, names(got), got.Skipped, tt.want, tt.skipped)
				}
				for _, r := range got.Requests {
					if r.Header.Get("Host") != "" || r.Header[":authority"] != nil {
						t.Errorf("%s: %s has headers of its connection: %v", format, r.Name(), r.Header)
					}
				}
			}
		})
	}
}

func TestParse_ReadsHeadersAndBodies(t *testing.T) {
	got, err := Parse([]byte("POST /b\nX-A: 1\nx-a: 2:3\n@body.json\n"), FormatVegeta, files)
	if err != nil {
		t.Fatal(err)
	}
	r := got.Requests[0]
	if string(r.Body) != `{"a":1}` || !slices.Equal(r.Header.Values("X-A"), []string{"1", "2:3"}) {
		t.Errorf("got body %q and headers %v", r.Body, r.Header)
	}
}

func TestParse_SaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		format     Format
		data, want string
	}{
		{FormatVegeta, "", "no request"},
		{FormatVegeta, "what is this\n", "line 1"},
		{FormatVegeta, "GET http://x/\n\nGET http://y/\n", "line 3: y is another host"},
		{FormatVegeta, "GET http://x/\n@/etc/passwd\n", "line 2: @/etc/passwd"},
		{FormatVegeta, "GET http://x/\n@../secret\n", "line 2: @../secret"},
		{FormatVegeta, "GET http://x/\n@none\n", fs.ErrNotExist.Error()},
		{FormatVegeta, "GET file:///etc/passwd\n\nCONNECT http://x/\n", "CONNECT"},
		{FormatVegeta, "GET http://x/\nX-A: a\x01b\n", "header X-A"},
		{FormatVegetaJSON, "{", "line 1"},
		{FormatHAR, "[]", "har"},
		{"csv", "a,b", "unknown format"},
	} {
		if _, err := Parse([]byte(tt.data), tt.format, files); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: got %v, want %q", tt.format, tt.data, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("GET http://x/a\nA: b\n@body.json\n\nPOST /c\n"), uint8(1))
	f.Add([]byte(`{"method":"GET","url":"http://x/a","body":"aGk=","header":{"X-A":["1"]}}`), uint8(2))
	f.Add([]byte(`{"log":{"entries":[{"request":{"method":"GET","url":"http://x/","headers":[{"name":"a","value":"b"}],"postData":{"mimeType":"application/x-www-form-urlencoded","params":[{"name":"a","value":"b"}]}}}]}}`), uint8(3))
	f.Add([]byte(`{"metric":"http_reqs","type":"Point","data":{"tags":{"method":"GET","url":"http://x/a"}}}`), uint8(4))
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		formats := Formats()
		list, err := Parse(data, formats[int(which)%len(formats)], func(string) (io.ReadCloser, error) { return nil, errors.New("none") })
		if err != nil {
			return
		}
		for _, r := range list.Requests {
			if !strings.HasPrefix(r.Target, "/") || r.Method == "" || strings.ContainsAny(r.Name(), "\r\n") {
				t.Errorf("no request to send: %q", r.Name())
			}
		}
	})
}
