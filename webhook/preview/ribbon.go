package preview

import (
	_ "embed" // the ribbon
	"html"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

//go:embed ribbon.html
var ribbonHTML string

// A Ribbon names the sandbox at the edge of a page. It is one element, and can be dismissed without a script. If
// scripts may run, it stays dismissed while the tab is open.
type Ribbon struct{ About }

// OpensPage reports whether a browser requests a page to open in a tab, not in a frame or by a script.
func OpensPage(h *engine.Head) bool {
	if string(h.Method) != "GET" || h.Get("x-requested-with") != nil {
		return false
	}
	if dest := h.Get("sec-fetch-dest"); dest != nil { // browsers send it for pages over TLS
		return string(dest) == "document"
	}
	return WantsHTML(h)
}

// Ask changes a request for a page so that its response can get a ribbon: it must not be compressed.
func (Ribbon) Ask(e *engine.Edits) { e.Set = append(e.Set, field("accept-encoding", "identity")) }

// InsertInto inserts the ribbon into a response, if that is a page in which it is safe.
func (b Ribbon) InsertInto(e *engine.Edits, r *engine.Reply) {
	if !takesRibbon(r) {
		return
	}
	text := strings.NewReplacer("SANDBOX", html.EscapeString(b.Sandbox), "NAMESPACE", html.EscapeString(b.Namespace)).Replace(ribbonHTML)
	e.Insert = &engine.Insertion{What: []byte(text), Find: new(bodyFinder).find}
	e.Remove = append(e.Remove, "accept-ranges")
	for i := range r.Fields {
		// The bytes differ from those that the tag was computed from.
		if f := &r.Fields[i]; isNamed(f.Name, "etag") && !strings.HasPrefix(string(f.Value), "W/") {
			e.Set = append(e.Set, field("etag", "W/"+string(f.Value)))
		}
	}
}

// takesRibbon reports whether a response is a whole page in a coding in which ASCII is itself, and its head allows the
// change. A content policy names what the page may contain, and the gateway must not widen it.
func takesRibbon(r *engine.Reply) bool {
	page := false
	for i := range r.Fields {
		value := strings.ToLower(string(r.Fields[i].Value))
		switch strings.ToLower(string(r.Fields[i].Name)) {
		case "content-type":
			if page || !isHTML(r.Fields[i].Value) || !holdsASCII(value) {
				return false
			}
			page = true
		case "content-encoding":
			if value != "identity" {
				return false
			}
		case "content-disposition":
			if !strings.HasPrefix(value, "inline") {
				return false
			}
		case "cache-control":
			if strings.Contains(value, "no-transform") {
				return false
			}
		case "content-security-policy", "content-security-policy-report-only", "content-md5", "digest", "content-digest", "repr-digest", "content-range":
			return false
		}
	}
	return page && r.Status == 200
}

// holdsASCII reports whether a media type's charset, if it has one, is known to contain ASCII unchanged.
func holdsASCII(mediaType string) bool {
	_, charset, ok := strings.Cut(mediaType, "charset=")
	charset, _, _ = strings.Cut(charset, ";")
	charset = strings.Trim(charset, ` "'`)
	return !ok || slices.Contains([]string{"utf-8", "utf8", "us-ascii"}, charset) || strings.HasPrefix(charset, "iso-8859-") || strings.HasPrefix(charset, "windows-125")
}
