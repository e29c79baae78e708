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

// A Ribbon names the sandbox at the edge of a page. It is one element, and dismissed without a script; where one may
// run, it remembers that for as long as the tab is open.
type Ribbon struct{ About }

// OpensPage says whether a request is a browser's for a page of its own: none of a frame, and none that a script makes.
func OpensPage(h *engine.Head) bool {
	if string(h.Method) != "GET" || h.Get("x-requested-with") != nil {
		return false
	}
	if dest := h.Get("sec-fetch-dest"); dest != nil { // browsers tell it where the page came by TLS
		return string(dest) == "document"
	}
	return WantsHTML(h)
}

// Ask changes a request for a page so that its answer can be given a ribbon: it is asked for as it is, not compressed.
func (Ribbon) Ask(e *engine.Edits) { e.Set = append(e.Set, field("accept-encoding", "identity")) }

// Lay lays the ribbon on an answer, if that is a page on which it is safe.
func (b Ribbon) Lay(e *engine.Edits, r *engine.Reply) {
	if !takesRibbon(r) {
		return
	}
	text := strings.NewReplacer("SANDBOX", html.EscapeString(b.Sandbox), "NAMESPACE", html.EscapeString(b.Namespace)).Replace(ribbonHTML)
	e.Insert = &engine.Insertion{What: []byte(text), Find: new(bodyFinder).find}
	e.Remove = append(e.Remove, "accept-ranges")
	for i := range r.Fields {
		// The bytes are not those that the tag was made of.
		if f := &r.Fields[i]; isNamed(f.Name, "etag") && !strings.HasPrefix(string(f.Value), "W/") {
			e.Set = append(e.Set, field("etag", "W/"+string(f.Value)))
		}
	}
}

// takesRibbon says whether an answer is a whole page, in a coding in which ASCII is itself, and nothing of its head
// says that it must not be changed or would not show the ribbon: a policy for its content names what it may hold, and
// that is not for the gateway to widen.
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

// holdsASCII says whether a media type's charset, where it has one, is known to hold ASCII as it is.
func holdsASCII(mediaType string) bool {
	_, charset, ok := strings.Cut(mediaType, "charset=")
	charset, _, _ = strings.Cut(charset, ";")
	charset = strings.Trim(charset, ` "'`)
	return !ok || slices.Contains([]string{"utf-8", "utf8", "us-ascii"}, charset) || strings.HasPrefix(charset, "iso-8859-") || strings.HasPrefix(charset, "windows-125")
}
