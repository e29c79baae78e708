package preview

import (
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// bodyTag returns where a page's first <body> tag ends, by an HTML tokenizer that is not ours.
func bodyTag(page string) int {
	at := 0
	for z := html.NewTokenizer(strings.NewReader(page)); ; {
		kind := z.Next()
		if kind == html.ErrorToken {
			return -1
		}
		at += len(z.Raw())
		if name, _ := z.TagName(); (kind == html.StartTagToken || kind == html.SelfClosingTagToken) && string(name) == "body" {
			return at
		}
	}
}

func found(page string, step int) int {
	var f bodyFinder
	for at := 0; at < len(page); at += step {
		if n, ok := f.find([]byte(page[at:min(at+step, len(page))])); ok {
			return at + n
		}
	}
	return -1
}

func pages() map[string]int { // what follows <body>, or -1
	of := func(s string) int { return strings.Index(s, "|") }
	all := map[string]int{}
	for _, s := range []string{
		"<!doctype html><html><head><title>x</title></head><body>|x", "<BODY class=a>|", `<body data-a="<body>" data-b='>'>|`, "<body\n/>|", "<body a=/>|", "<body a =b c>|",
		"<!-- <body> --><body>|", "<!--><body>|", "<!---><body>|", "<!-- --!><body>|", "<!-- - -- ><body>--><body>|", "<!doctype><body>|", "<?php <body><body>|", "</ <body><body>|",
		"<script>'<body>'</script><body>|", "<script></scriptx <body></script ><body>|", "<style><body></STYLE/><body>|", "<title><body></title a='>'><body>|",
		"<noscript><body></noscript><body>|", "<p>a < b<<body>|", "<bodyx><body>|", "< body><body>|", "a</body><body>|", "<x y='a'z='>'><body>|",
	} {
		all[strings.Replace(s, "|", "", 1)] = of(s)
	}
	for _, s := range []string{"<p>text", "", "<body", "<script><!--<script></script><body></script>--></script><body>", "<template><body></template>", "<plaintext><body>",
		"<!-- " + strings.Repeat("x", maxFind) + "--><body>"} {
		all[s] = -1
	}
	return all
}

func TestBodyFinder(t *testing.T) {
	for page, want := range pages() {
		for _, step := range []int{1, 3, 1 << 20} {
			if got := found(page, step); got != want {
				t.Errorf("%.100q in parts of %d: found at %d, want %d", page, step, got, want)
			}
		}
	}
}

// Where a tag is found, an HTML tokenizer that is not ours finds it too.
func FuzzBodyFinder(f *testing.F) {
	for page := range pages() {
		if len(page) < 1000 {
			f.Add(page)
		}
	}
	f.Fuzz(func(t *testing.T, page string) {
		if strings.Contains(page, "\x00") {
			return // which the other drops
		}
		got := found(page, 7)
		if want := bodyTag(page); got >= 0 && got != want {
			t.Errorf("%q: found at %d, want %d", page, got, want)
		}
	})
}

func TestRibbon_OnlyWhereItIsSafe(t *testing.T) {
	const kind = "content-type: text/html; charset=utf-8"
	for _, test := range []struct {
		status int
		fields string
		want   bool
	}{
		{200, kind, true}, {200, "Content-Type: TEXT/HTML", true}, {200, "content-type: text/html;charset=\"ISO-8859-1\"", true}, {200, kind + "|content-encoding: identity", true},
		{200, kind + "|content-disposition: inline", true}, {200, kind + "|etag: \"a\"", true},
		{404, kind, false}, {206, kind, false}, {200, "", false}, {200, "content-type: text/html; charset=utf-16", false}, {200, "content-type: application/xhtml+xml", false},
		{200, "content-type: text/htmlx", false}, {200, kind + "|" + kind, false}, {200, kind + "|content-encoding: gzip", false}, {200, kind + "|cache-control: public, No-Transform", false},
		{200, kind + "|content-security-policy: default-src 'self'", false}, {200, kind + "|content-security-policy-report-only: a", false},
		{200, kind + "|content-disposition: attachment", false}, {200, kind + "|content-digest: x", false},
	} {
		r := &engine.Reply{Status: test.status}
		for line := range strings.SplitSeq(test.fields, "|") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				r.Fields = append(r.Fields, field(name, value))
			}
		}
		var e engine.Edits
		Ribbon{About{Sandbox: "pr-1<", Namespace: "shop"}}.InsertInto(&e, r)
		if (e.Insert != nil) != test.want {
			t.Errorf("%d %s: %v", test.status, test.fields, e.Insert != nil)
		}
		if e.Insert != nil && (!strings.Contains(string(e.Insert.What), "Sandbox pr-1&lt; in shop") || strings.ContainsAny(string(e.Insert.What), "\r\n")) {
			t.Errorf("inserted %s", e.Insert.What)
		}
		if strings.Contains(test.fields, "etag") && (len(e.Set) != 1 || string(e.Set[0].Value) != `W/"a"`) {
			t.Errorf("etag: %s", e.Set)
		}
	}
}

func TestOpensPage(t *testing.T) {
	const html = "Accept: text/html,*/*;q=0.8"
	for head, want := range map[string]bool{
		"GET|" + html: true, "GET|" + html + "|Sec-Fetch-Dest: document": true, "GET|Sec-Fetch-Dest: document": true,
		"POST|" + html: false, "GET|Accept: */*": false, "GET|" + html + "|Sec-Fetch-Dest: iframe": false, "GET|" + html + "|sec-fetch-dest: empty": false,
		"GET|" + html + "|X-Requested-With: XMLHttpRequest": false, "HEAD|" + html: false,
	} {
		lines := strings.Split(head, "|")
		h := &engine.Head{Method: []byte(lines[0])}
		for _, line := range lines[1:] {
			name, value, _ := strings.Cut(line, ": ")
			h.Fields = append(h.Fields, field(name, value))
		}
		if OpensPage(h) != want {
			t.Errorf("%s: %v", head, !want)
		}
	}
}
