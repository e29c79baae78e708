package request

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
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
				got, err := Parse([]byte(tt.data), format, "", files)
				if err != nil {
					t.Fatal(err)
				}
				skipped := 0
				for _, o := range got.LeftOut {
					skipped += o.Requests
				}
				if !slices.Equal(names(got), tt.want) || skipped != tt.skipped {
					t.Errorf("%s: got %q and left out %v, want %q and %d", format, names(got), got.LeftOut, tt.want, tt.skipped)
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

// What a recording is of, and what is left of it, is said.
func TestParse_TakesOneHostOfARecording(t *testing.T) {
	har := func(urls ...string) string {
		var entries []string
		for _, u := range urls {
			entries = append(entries, `{"request": {"method": "GET", "url": "`+u+`", "headers": []}}`)
		}
		return `{"log": {"entries": [` + strings.Join(entries, ",") + `]}}`
	}
	for _, tt := range []struct {
		name, data, prefer string
		want               []string
		host               string
		leftOut            string
	}{
		{"begun elsewhere", har("https://fonts.example/css", "https://api.example/items", "https://API.example:443/cart", "http://api.example/prices"), "shop",
			[]string{"GET /items", "GET /cart", "GET /prices"}, "api.example", "left out: 1 to fonts.example"},
		{"of the one that is tested", har("https://cdn.example/a", "https://cdn.example/b", "http://api/items"), "api",
			[]string{"GET /items"}, "api", "left out: 2 to cdn.example"},
		{"of the one that is tested, by its whole name", har("https://cdn.example/a", "https://cdn.example/b", "http://api.shop.svc.cluster.local:8080/items"), "api",
			[]string{"GET /items"}, "api.shop.svc.cluster.local:8080", "left out: 2 to cdn.example"},
		{"of as many each", har("http://a/1", "http://b/2"), "", []string{"GET /1"}, "a", "left out: 1 to b"},
		{"of many", har("http://a/1", "http://a/2", "http://b/", "http://c/", "http://d/", "http://e/", "http://f/", "http://g/", "http://h/", "http://h/"), "",
			[]string{"GET /1", "GET /2"}, "a", "left out: 2 to h, 1 to b, 1 to c, 1 to d, 1 to e, 2 to 2 more hosts"},
		{"of one", har("http://a/1"), "b", []string{"GET /1"}, "a", ""},
		{"malformed elsewhere", `{"log": {"entries": [{"request": {"method": "GET", "url": "http://b/", "headers": [{"name": "a b", "value": "c"}]}},` +
			`{"request": {"method": "GET", "url": "http://a/1", "headers": []}}]}}`, "a", []string{"GET /1"}, "a", "left out: 1 to b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.data), FormatAuto, tt.prefer, files)
			if err != nil {
				t.Fatal(err)
			}
			if said := result.FormatLeftOut("", got.LeftOut); !slices.Equal(names(got), tt.want) || got.Host != tt.host || said != tt.leftOut {
				t.Errorf("got %q of %s, %s; want %q of %s, %s", names(got), got.Host, said, tt.want, tt.host, tt.leftOut)
			}
		})
	}
}

func TestParse_ReadsHeadersAndBodies(t *testing.T) {
	got, err := Parse([]byte("POST /b\nX-A: 1\nx-a: 2:3\n@body.json\n"), FormatVegeta, "", files)
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
		{FormatK6, `{"metric":"http_reqs","type":"Point","data":{"tags":{"method":"GET","url":"http://x/${}"}}}`,
			"it has no request that can be sent; left out: 1 whose URL is a template (k6's URL grouping)"},
		{"csv", "a,b", "unknown format"},
	} {
		if _, err := Parse([]byte(tt.data), tt.format, "", files); err == nil || !strings.Contains(err.Error(), tt.want) {
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
		list, err := Parse(data, formats[int(which)%len(formats)], "x", func(string) (io.ReadCloser, error) { return nil, errors.New("none") })
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
