package gateway

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's parts
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/router/engine"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageStyle string
	//go:embed page.js
	pageScript string
)

// A page is an answer of the gateway's own: for a person, or, as JSON, for a program.
type page struct {
	status int
	title  string
	entry  Entry // zero: not known
	reason string
	// next is what Command does, in a few words.
	next    string
	command []string
	retry   bool // it passes by itself
	fields  []engine.Field
}

// said is a page as programs get it.
type said struct {
	Status    int    `json:"status"`
	Error     string `json:"error"`
	Sandbox   string `json:"sandbox,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Service   string `json:"service,omitempty"`
	Reason    string `json:"reason"`
	Next      string `json:"next,omitempty"`
	Command   string `json:"command,omitempty"`
	Retry     bool   `json:"retry"`
}

// A pressman prints pages.
type pressman struct {
	html   *template.Template
	policy string
}

func newPressman() *pressman {
	// The policy names the page's own style and script: nothing that a name or reason could smuggle in is run.
	source := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return &pressman{
		html: template.Must(template.New("page").Parse(pageHTML)),
		policy: "default-src 'none'; style-src " + source(pageStyle) + "; script-src " + source(pageScript) +
			"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
	}
}

// print returns the page as an answer.
func (p *pressman) print(g *page, html bool) *engine.Refusal {
	r := &engine.Refusal{Status: g.status, Reason: g.title + ": " + g.reason, Fields: append([]engine.Field{
		field("Cache-Control", "no-store"), field("Vary", "Accept"), field("X-Robots-Tag", "noindex, nofollow"),
		field("Referrer-Policy", "no-referrer"),
	}, g.fields...)}
	if g.retry {
		r.Fields = append(r.Fields, field("Retry-After", "2"))
	}
	command := strings.Join(g.command, " ") // of names that Kubernetes lets be: there is nothing to quote
	var body bytes.Buffer
	var err error
	if html {
		r.Type = "text/html; charset=utf-8"
		r.Fields = append(r.Fields, field("Content-Security-Policy", p.policy))
		err = p.html.Execute(&body, map[string]any{
			"Title": g.title, "Status": strconv.Itoa(g.status) + " " + http.StatusText(g.status), "Facts": g.facts(), "Reason": g.reason,
			"Next": g.next, "Command": command, "Reloads": g.retry,
			"Style": template.CSS(pageStyle), "Script": template.JS(pageScript), //nolint:gosec // our own, embedded
		})
	} else {
		r.Type = "application/json"
		encoder := json.NewEncoder(&body)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		s := said{Status: g.status, Error: g.title, Reason: g.reason, Next: g.next, Command: command, Retry: g.retry}
		if g.entry != (Entry{}) {
			s.Sandbox, s.Namespace, s.Service = g.entry.Sandbox, g.entry.Namespace, g.entry.name()
		}
		err = encoder.Encode(s)
	}
	if err != nil {
		return r // without body: the reason alone
	}
	r.Body = body.Bytes()
	return r
}

type fact struct{ Name, Value string }

func (g *page) facts() []fact {
	if g.entry == (Entry{}) {
		return nil
	}
	return []fact{{"Sandbox", g.entry.Sandbox}, {"Namespace", g.entry.Namespace}, {"Service", g.entry.name()}}
}

func field(name, value string) engine.Field {
	return engine.Field{Name: []byte(name), Value: []byte(value)}
}

// wantsHTML says whether who asks is a person: a browser that opens a page names text/html, which scripts and programs don't.
func wantsHTML(h *engine.Head) bool {
	for i := range h.Fields {
		if !strings.EqualFold(string(h.Fields[i].Name), "accept") {
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
