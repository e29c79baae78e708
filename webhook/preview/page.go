package preview

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the parts of the page
	"encoding/base64"
	"encoding/json"
	"html/template"
	"strconv"
	"strings"
	"sync"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageStyle string
	//go:embed page.js
	pageScript string
)

// About is the preview that a page is about. Zero: unknown.
type About struct{ Sandbox, Namespace, Service string }

// A Page is a response of the gateway or of `open` itself: HTML for people, JSON for programs.
type Page struct {
	Status int
	Title  string
	About
	Code   string // stable, of a sandbox that requests do not reach
	Reason string
	// Next is what Command does, in a few words. The words of Command are Kubernetes names and the like, which need no
	// quoting in a shell.
	Next    string
	Command []string
	Retry   bool // the state passes by itself
	Fields  []engine.Field
}

// said is the JSON form of a page.
type said struct {
	Status    int    `json:"status"`
	Error     string `json:"error"`
	Sandbox   string `json:"sandbox,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Service   string `json:"service,omitempty"`
	Code      string `json:"code,omitempty"`
	Reason    string `json:"reason"`
	Next      string `json:"next,omitempty"`
	Command   string `json:"command,omitempty"`
	Retry     bool   `json:"retry"`
}

// A Renderer renders pages. The zero value is ready, and safe for concurrent use.
type Renderer struct {
	once   sync.Once
	html   *template.Template
	policy string
}

func (p *Renderer) prepare() {
	p.once.Do(func() {
		// The policy lists hashes of the page's own style and script, so that nothing injected by a name or reason runs.
		source := func(text string) string {
			sum := sha256.Sum256([]byte(text))
			return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
		}
		p.html = template.Must(template.New("page").Parse(pageHTML))
		p.policy = "default-src 'none'; style-src " + source(pageStyle) + "; script-src " + source(pageScript) +
			"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
	})
}

// Refusal returns the page as a response: HTML for people, JSON for programs.
func (p *Renderer) Refusal(g *Page, html bool) *engine.Refusal {
	return &engine.Refusal{
		Status: g.Status, Reason: g.Title + ": " + g.Reason, Fields: p.fields(g, html),
		Print: func(string) ([]byte, string) { return p.print(g, html) },
	}
}

// Failure returns the page as the response if no backend is reached; the cause is appended to the page's reason.
func (p *Renderer) Failure(g *Page, html bool) engine.Refusal {
	return engine.Refusal{
		Status: g.Status, Reason: g.Reason + ": ", Fields: p.fields(g, html),
		Print: func(reason string) ([]byte, string) {
			full := *g
			full.Reason = reason
			return p.print(&full, html)
		},
	}
}

func (p *Renderer) fields(g *Page, html bool) []engine.Field {
	fields := append([]engine.Field{
		field("Cache-Control", "no-store"), field("Vary", "Accept"), field("X-Robots-Tag", "noindex, nofollow"),
		field("Referrer-Policy", "no-referrer"),
	}, g.Fields...)
	if g.Retry {
		fields = append(fields, field("Retry-After", "2"))
	}
	if html {
		p.prepare()
		fields = append(fields, field("Content-Security-Policy", p.policy))
	}
	return fields
}

// print returns the page's text and its media type.
func (p *Renderer) print(g *Page, html bool) ([]byte, string) {
	var body bytes.Buffer
	var err error
	kind := "application/json"
	if html {
		kind = "text/html; charset=utf-8"
		err = p.html.Execute(&body, map[string]any{
			"Title": g.Title, "Status": strconv.Itoa(g.Status) + " " + engine.StatusText(g.Status), "Facts": g.facts(), "Reason": g.Reason,
			"Next": g.Next, "Command": g.Command, "Reloads": g.Retry,
			"Style": template.CSS(pageStyle), "Script": template.JS(pageScript), //nolint:gosec // our own, embedded
		})
	} else {
		encoder := json.NewEncoder(&body)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(said{Status: g.Status, Error: g.Title, Sandbox: g.Sandbox, Namespace: g.Namespace, Service: g.Service, Code: g.Code,
			Reason: g.Reason, Next: g.Next, Command: strings.Join(g.Command, " "), Retry: g.Retry})
	}
	if err != nil {
		return []byte(g.Title + ": " + g.Reason + "\n"), "text/plain; charset=utf-8"
	}
	return body.Bytes(), kind
}

// NotForked returns the page of a sandbox that has no fork yet.
func NotForked(a About) *Page {
	return &Page{Status: 503, Title: "The sandbox is starting", About: a, Reason: "it waits for its first fork", Retry: true,
		Next: "See for yourself:", Command: status(a)}
}

// NotReached returns the page of a sandbox with a fork that no request reaches, for the reasons code and reason. final
// means that waiting alone does not help; runs that the fork itself works. log is the command that reads the fork's
// log, if there is one.
func NotReached(a About, fork, code, reason string, final, runs bool, log []string) *Page {
	g := &Page{Status: 503, Title: "The sandbox is starting", About: a, Code: code, Reason: "fork " + fork + ": " + reason, Retry: true,
		Next: "See for yourself:", Command: status(a)}
	switch {
	case final && runs:
		g.Title = "Requests do not reach the fork"
	case final:
		g.Title = "The fork does not run"
	}
	if log != nil {
		g.Next, g.Command = "Read its log:", log
	}
	return g
}

func status(a About) []string {
	return []string{"kubectl", "sandbox", "status", a.Sandbox, "-n", a.Namespace}
}

type fact struct{ Name, Value string }

// facts returns what is known about the preview.
func (g *Page) facts() []fact {
	var all []fact
	for _, f := range []fact{{"Sandbox", g.Sandbox}, {"Namespace", g.Namespace}, {"Service", g.Service}, {"Code", g.Code}} {
		if f.Value != "" {
			all = append(all, f)
		}
	}
	return all
}

func field(name, value string) engine.Field {
	return engine.Field{Name: []byte(name), Value: []byte(value)}
}

// WantsHTML reports whether a person asks: a browser that opens a page accepts text/html, scripts and programs do not.
func WantsHTML(h *engine.Head) bool {
	for i := range h.Fields {
		if !isNamed(h.Fields[i].Name, "accept") {
			continue
		}
		for part := range strings.SplitSeq(string(h.Fields[i].Value), ",") {
			kind, parameters, _ := strings.Cut(part, ";")
			q := strings.ReplaceAll(parameters, " ", "")
			if strings.EqualFold(strings.TrimSpace(kind), "text/html") && q != "q=0" && q != "q=0.0" {
				return true
			}
		}
	}
	return false
}
