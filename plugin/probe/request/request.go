// Package request reads lists of HTTP requests, in the formats of common tools, and sends them as an arm of a
// comparison: with the routing key of a sandbox, or without one.
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

// A Request is one request of a list. Its sender decides where it goes, because the list was made elsewhere.
type Request struct {
	Method string
	Target string // path and query, beginning with "/"
	Header http.Header
	Body   []byte
}

// Name identifies the request.
func (r Request) Name() string { return r.Method + " " + r.Target }

// A Format is the format of a list.
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

// A List is a parsed list of requests.
type List struct {
	Requests []Request
	// Host is the host of a recording whose requests these are; empty if the list names none.
	Host string
	// LeftOut are the requests of a recording that are not among Requests.
	LeftOut []result.LeftOut
}

// Parse reads a list. open opens the file of a body that the list names. All requests of a list must go to one host.
// Of a recording, only the requests to one host are used: to prefer, the host that the requests will be sent to, if
// there are any; else to the most frequent host.
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

// origin checks that all requests of a list go to one host. Requests that name none are accepted with any.
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

// newRequest creates a request from an entry of a list, or returns what is wrong with it.
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

// sendable reports whether a header of a list is sent again. Headers that belong to the connection (RFC 9110, section
// 7.6.1) or are derived from the request are not, nor are pseudo-headers of HTTP/2, which recordings contain.
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

// Unstamp removes every routing key from h: the list may have been recorded in a sandbox.
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

// Stamp sets a routing key in h, as the router does: in the header and in baggage, so that services that pass on
// either pass on the key. An empty key does not change h.
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

// errPath means that a body's file is not beside the list.
var errPath = errors.New("a body's file is named by its path from the list's folder")
