// Package browser drives a headless Chromium, and tells what its pages ask for and what they get.
//
// Nothing it does leaves the machine: names resolve only where a test says so, and what pages take from the web's content delivery
// networks comes from the npm packages that those serve, which package-lock.json pins.
package browser

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// A Browser is a Chromium with a profile of its own. Its tabs share it as a person's do.
type Browser struct {
	ctx      context.Context
	packages string
}

// start bounds how long Chromium may take to come up, and Patience anything that a page does, on a machine with other work.
const (
	start    = 2 * time.Minute
	Patience = time.Minute
)

// Options of a browser.
type Options struct {
	// Resolve has names resolve, besides those of localhost: NAME to ADDRESS. Names may begin with "*.".
	Resolve map[string]string
	// Trust is a certificate that is taken for good, whoever signed it. May be nil.
	Trust *x509.Certificate
}

// Start starts a browser, which ends with the test.
func Start(t testing.TB, o Options) *Browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: `make browser` installs it", err)
	}
	_, file, _, _ := runtime.Caller(0)
	b := &Browser{packages: filepath.Join(filepath.Dir(file), "node_modules")}
	if _, err := os.Stat(b.packages); err != nil {
		t.Fatalf("%v: `make browser` installs it", err)
	}
	var rules []string
	for name, address := range o.Resolve {
		rules = append(rules, "MAP "+name+" "+address)
	}
	rules = append(rules, "MAP * ~NOTFOUND", "EXCLUDE localhost", "EXCLUDE *.localhost", "EXCLUDE 127.0.0.1")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.DisableGPU, chromedp.WSURLReadTimeout(start),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-quic", true), chromedp.Flag("no-pings", true),
		chromedp.Flag("host-resolver-rules", strings.Join(rules, ", ")),
	)
	if o.Trust != nil {
		sum := sha256.Sum256(o.Trust.RawSubjectPublicKeyInfo)
		options = append(options, chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(sum[:])))
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // root's Chromium has no other way
	}
	allocated, end := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(end)
	ctx, closed := chromedp.NewContext(allocated)
	t.Cleanup(closed)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	b.ctx = ctx
	return b
}

// An Exchange is a request that a page made, and what became of it.
type Exchange struct {
	Method, URL string
	Kind        string            // as the browser's developer tools call it: Document, Script, Fetch, XHR
	Status      int               // of the answer; 0: none came
	Fields      map[string]string // of the answer's head, names in lower case
	Failure     string            // why none came, or not all of it
	Over        bool
}

func (e *Exchange) String() string {
	return fmt.Sprintf("%s %s %s: %d %s %v", e.Kind, e.Method, e.URL, e.Status, e.Failure, e.Fields)
}

// Host returns the HOST:PORT that was asked.
func (e *Exchange) Host() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// A Tab is a page that is open.
type Tab struct {
	t        testing.TB
	ctx      context.Context
	packages string

	mu        sync.Mutex
	exchanges []*Exchange
	running   map[network.RequestID]*Exchange
	failed    error
}

// Tab opens an empty tab, of which all requests carry the fields, given as NAME, VALUE.
func (b *Browser) Tab(t testing.TB, fields ...string) *Tab {
	t.Helper()
	ctx, closed := chromedp.NewContext(b.ctx)
	t.Cleanup(closed)
	tab := &Tab{t: t, ctx: ctx, packages: b.packages, running: map[network.RequestID]*Exchange{}}
	headers := network.Headers{}
	for i := 0; i < len(fields); i += 2 {
		headers[fields[i]] = fields[i+1]
	}
	var patterns []*fetch.RequestPattern
	for origin := range networks() {
		patterns = append(patterns, &fetch.RequestPattern{URLPattern: origin + "*"})
	}
	// Opened with a context that lasts: the tab lives as long as that of its first use.
	if err := chromedp.Listen(ctx, tab.heard); err != nil {
		t.Fatal(err)
	}
	Call(tab, network.Enable, network.EnableParams{})
	Call(tab, network.SetCacheDisabled, network.SetCacheDisabledParams{CacheDisabled: true})
	Call(tab, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: headers})
	Call(tab, fetch.Enable, fetch.EnableParams{Patterns: patterns})
	return tab
}

// Run does in the tab what chromedp knows to do, and returns what comes of it; it must succeed.
func Run[T any](p *Tab, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatalf("%v: %v", err, p.Exchanges())
	}
	return v
}

// Call calls the browser's own protocol; it must succeed.
func Call[P, R any](p *Tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	r, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// Open goes to a page and waits until it is loaded.
func (p *Tab) Open(address string) {
	p.t.Helper()
	Run(p, chromedp.Navigate(address))
}

// Click clicks what a CSS selector finds, with the mouse.
func (p *Tab) Click(selector string) {
	p.t.Helper()
	Run(p, chromedp.Click(chromedp.CSS(selector)))
}

// Until waits until a JavaScript expression holds, whatever page the tab has come to by then.
func (p *Tab) Until(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	for {
		// It fails while the tab goes from one page to another.
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if holds {
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("%s: not within %s: %v: %v", expression, Patience, err, p.Exchanges())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Eval returns what a JavaScript expression comes to; of a promise, what it is kept with.
func Eval[T any](p *Tab, expression string) T {
	p.t.Helper()
	return Run(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// Settle waits until no request is in flight, and returns all there were.
func (p *Tab) Settle() []Exchange {
	p.t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		p.mu.Lock()
		running, failed := len(p.running), p.failed
		p.mu.Unlock()
		switch {
		case failed != nil:
			p.t.Fatal(failed)
		case running == 0:
			return p.Exchanges()
		case time.Now().After(end):
			p.t.Fatalf("requests are still in flight: %v", p.Exchanges())
		}
	}
}

// Exchanges returns the requests so far.
func (p *Tab) Exchanges() []Exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Exchange, len(p.exchanges))
	for i, e := range p.exchanges {
		all[i] = *e
	}
	return all
}

// heard takes the browser's events in.
func (p *Tab) heard(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if was := p.running[e.RequestID]; was != nil && e.RedirectResponse != nil {
			was.answered(e.RedirectResponse)
			was.Over = true
		}
		if !strings.HasPrefix(e.Request.URL, "http") {
			return // data: and the like go nowhere
		}
		x := &Exchange{Method: e.Request.Method, URL: e.Request.URL, Kind: string(e.Type)}
		p.exchanges = append(p.exchanges, x)
		p.running[e.RequestID] = x
	case *network.EventResponseReceived:
		if x := p.running[e.RequestID]; x != nil {
			x.answered(e.Response)
		}
	case *network.EventLoadingFinished:
		p.over(e.RequestID, "")
	case *network.EventLoadingFailed:
		p.over(e.RequestID, e.ErrorText)
	case *fetch.EventRequestPaused:
		go p.deliver(e) // not from here: it waits for the browser, which waits for this
	}
}

func (p *Tab) over(id network.RequestID, failure string) {
	if x := p.running[id]; x != nil {
		x.Over, x.Failure = true, failure
		delete(p.running, id)
	}
}

func (e *Exchange) answered(r *network.Response) {
	e.Status, e.Fields = int(r.Status), map[string]string{}
	for name, value := range r.Headers {
		e.Fields[strings.ToLower(name)] = fmt.Sprint(value)
	}
}

// networks are the content delivery networks that are known, by what URLs begin with, and what folder of a package their paths
// are of.
func networks() map[string]string {
	return map[string]string{
		"https://cdn.jsdelivr.net/npm/":    "",     // PACKAGE@VERSION/PATH
		"https://maxcdn.bootstrapcdn.com/": "dist", // PACKAGE/VERSION/PATH
	}
}

// deliver answers a request for a file of a content delivery network from the package.
func (p *Tab) deliver(e *fetch.EventRequestPaused) {
	body, err := p.file(e.Request.URL)
	if err == nil {
		ctx, cancel := context.WithTimeout(p.ctx, Patience)
		defer cancel()
		_, err = chromedp.Call(ctx, fetch.FulfillRequest, fetch.FulfillRequestParams{
			RequestID: e.RequestID, ResponseCode: 200, Body: body, ResponseHeaders: []*fetch.HeaderEntry{
				{Name: "Content-Type", Value: map[string]string{".css": "text/css", ".js": "text/javascript"}[path.Ext(e.Request.URL)]},
				// As they do; pages check the files' hashes. A tab's fields make browsers ask whether they may be sent.
				{Name: "Access-Control-Allow-Origin", Value: "*"}, {Name: "Access-Control-Allow-Headers", Value: "*"},
			},
		})
	}
	if err != nil && p.ctx.Err() == nil {
		p.mu.Lock()
		p.failed = errors.Join(p.failed, fmt.Errorf("%s: %w", e.Request.URL, err))
		p.mu.Unlock()
	}
}

// file returns what a content delivery network has at a URL.
func (p *Tab) file(address string) ([]byte, error) {
	for origin, folder := range networks() {
		rest, ok := strings.CutPrefix(address, origin)
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(rest, "/")
		name, version, ok := strings.Cut(name, "@")
		if !ok {
			version, rest, _ = strings.Cut(rest, "/")
		}
		raw, err := os.ReadFile(filepath.Join(p.packages, name, "package.json"))
		if err != nil {
			return nil, err
		}
		var about struct{ Version string }
		if err := json.Unmarshal(raw, &about); err != nil || about.Version != version {
			return nil, fmt.Errorf("package %s is of version %q, want %q: %w", name, about.Version, version, err)
		}
		return os.ReadFile(filepath.Join(p.packages, name, folder, filepath.FromSlash(rest)))
	}
	return nil, errors.New("no package is known for it")
}
