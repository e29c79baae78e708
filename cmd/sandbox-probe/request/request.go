// Package request reads lists of HTTP requests, in the formats that tools write, and sends them as an arm of a comparison: with the
// routing key of a sandbox, or with none.
package request

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Bounds of a list.
const (
	MaxRequests = 100_000
	MaxList     = 64 << 20 // bytes of the file
	maxBody     = 8 << 20  // bytes of a body that a list names by its file
	maxTarget   = 64 << 10 // bytes
	maxHeaders  = 200      // of a request
)

// A Request is one of a list. Where it goes is for who sends it to say: a list was made somewhere else.
type Request struct {
	Method string
	Target string // path and query, beginning with "/"
	Header http.Header
	Body   []byte
}

// Name says which request it is.
func (r Request) Name() string { return r.Method + " " + r.Target }

// A Format is how a list is written.
type Format string

// Formats.
const (
	FormatAuto       Format = "auto"        // which of the others is seen from the list's beginning
	FormatVegeta     Format = "vegeta"      // vegeta's targets, -format=http
	FormatVegetaJSON Format = "vegeta-json" // vegeta's targets, -format=json
	FormatHAR        Format = "har"         // HTTP Archive 1.2, as browsers record it
	FormatK6         Format = "k6"          // what k6 run --out=json=FILE writes: methods and URLs
)

// Formats returns all of them.
func Formats() []Format {
	return []Format{FormatAuto, FormatVegeta, FormatVegetaJSON, FormatHAR, FormatK6}
}

// A List is what was read.
type List struct {
	Requests []Request
	// Host is the one, of those that a recording's requests went to, whose requests these are; empty: the list names none.
	Host string
	// LeftOut are those of a recording that are not among Requests.
	LeftOut []result.LeftOut
}

// Parse reads a list. open gives a body that the list names by its file. All requests of a list must be to one host, but for
// recordings, of which those to one host are taken: to prefer, the host that the requests will go to, if there are such; else to that of
// the most.
func Parse(data []byte, format Format, prefer string, open func(name string) (io.ReadCloser, error)) (List, error) {
	if len(data) > MaxList {
		return List{}, fmt.Errorf("the list is %d bytes long, more than %d", len(data), MaxList)
	}
	if format == FormatAuto {
		format = detect(data)
	}
	var l List
	var err error
	switch format {
	case FormatVegeta:
		l, err = parseVegeta(data, open)
	case FormatVegetaJSON:
		l, err = parseVegetaJSON(data)
	case FormatHAR:
		l, err = parseHAR(data, prefer)
	case FormatK6:
		l, err = parseK6(data, prefer)
	default:
		return List{}, fmt.Errorf("unknown format %q: must be one of %v", format, Formats())
	}
	if err != nil {
		return List{}, fmt.Errorf("reading the list as %s: %w", format, err)
	}
	if len(l.Requests) == 0 {
		return List{}, fmt.Errorf("reading the list as %s: it has no request%s", format, result.FormatLeftOut(" that can be sent; ", l.LeftOut))
	}
	return l, nil
}

func detect(data []byte) Format {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if !bytes.HasPrefix(data, []byte("{")) {
		return FormatVegeta
	}
	line, _, more := bytes.Cut(data, []byte("\n"))
	first := memberNames(line)
	switch {
	case first["metric"] && first["type"]:
		return FormatK6
	case first["method"] && first["url"]:
		return FormatVegetaJSON
	case first["log"] || more:
		return FormatHAR
	}
	return FormatVegetaJSON
}

// origin holds the requests of a list to one host. Requests that name none go along with any.
type origin struct{ seen string }

func (o *origin) same(u *url.URL) bool {
	if u.Host == "" {
		return true
	}
	this := strings.ToLower(u.Scheme + "://" + u.Host)
	if o.seen == "" {
		o.seen = this
	}
	return o.seen == this
}

// newRequest makes a request of what a list says, or says what is wrong with it.
func newRequest(method string, u *url.URL, header http.Header, body []byte) (Request, error) {
	if !httpguts.ValidHeaderFieldName(method) || method == http.MethodConnect {
		return Request{}, fmt.Errorf("%.40q is no method to send", method)
	}
	if u.Host != "" && u.Scheme != "http" && u.Scheme != "https" {
		return Request{}, fmt.Errorf("%.40q is no scheme of HTTP", u.Scheme)
	}
	target := u.RequestURI()
	if !strings.HasPrefix(target, "/") || len(target) > maxTarget {
		return Request{}, fmt.Errorf("%.200q is no path to send", target)
	}
	clean := make(http.Header, len(header))
	for name, values := range header {
		if !sendable(name) {
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return Request{}, fmt.Errorf("%.60q is no header's name", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return Request{}, fmt.Errorf("the value of header %s is none that HTTP carries", name)
			}
			clean.Add(name, v)
		}
	}
	if len(clean) > maxHeaders {
		return Request{}, fmt.Errorf("it has %d headers, more than %d", len(clean), maxHeaders)
	}
	return Request{Method: method, Target: target, Header: clean, Body: body}, nil
}

// sendable says whether a header of a list is sent again: not those that belong to the connection (RFC 9110, section 7.6.1) or are
// made from the request itself, and no pseudo-headers of HTTP/2, which recordings have.
func sendable(name string) bool {
	if strings.HasPrefix(name, ":") {
		return false
	}
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Te",
		"Trailer", "Upgrade", "Expect", "Http2-Settings":
		return false
	}
	return true
}

// Unstamp takes every routing key out of h: a list may have been recorded in a sandbox.
func Unstamp(h http.Header, c route.Carriers) {
	h.Del(c.Header)
	for _, list := range []string{"Baggage", "Tracestate"} {
		var kept []string
		for _, v := range h.Values(list) {
			for member := range strings.SplitSeq(v, ",") {
				name, _, _ := strings.Cut(member, "=")
				if strings.TrimSpace(name) != c.Member && strings.TrimSpace(member) != "" {
					kept = append(kept, strings.TrimSpace(member))
				}
			}
		}
		h.Del(list)
		if len(kept) > 0 {
			h.Set(list, strings.Join(kept, ","))
		}
	}
}

// Stamp puts a routing key on h, as the router does: into the header and into baggage, so that it is carried on by services that pass
// on either. An empty key leaves h as it is.
func Stamp(h http.Header, c route.Carriers, key string) {
	if key == "" {
		return
	}
	h.Set(c.Header, key)
	h.Set("Baggage", strings.Join(append(slices.Clone(h.Values("Baggage")), c.Member+"="+key), ","))
}

// Base reads the URL of the service that requests go to: a scheme and a host.
func Base(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q must be http://HOST[:PORT] or https://HOST[:PORT], without a path", s)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// errPath says that a body's file is not beside the list.
var errPath = errors.New("a body's file is named by its path from the list's folder")
