package request

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
)

// A recording holds requests that were not recorded for replay: they may have gone to any number of hosts.
type recording struct {
	entries []recorded
	without map[string]int // what can't be sent again, by why
}

// An entry is one entry of a recording, in the form of its format.
type entry struct {
	method, target string
	header         http.Header
	body           []byte
	without        string // why it can't be sent again; empty: it can
}

// A recorded is an entry that can be sent again if it is well-formed.
type recorded struct {
	entry
	url  *url.URL
	host string
}

func (r *recording) add(e entry) {
	u, err := url.Parse(e.target)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		e.without = cmp.Or(e.without, "without a URL of HTTP")
	}
	if e.without != "" {
		if r.without == nil {
			r.without = map[string]int{}
		}
		r.without[e.without]++
		return
	}
	r.entries = append(r.entries, recorded{e, u, hostOf(u)})
}

// hostOf returns a URL's host, with its port unless that is the scheme's default, so that a site has one host for
// http and https.
func hostOf(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		return host
	}
	return net.JoinHostPort(host, port)
}

// list returns the requests to one host.
func (r *recording) list(prefer string) (List, error) {
	hosts := map[string]int{}
	for _, e := range r.entries {
		hosts[e.host]++
	}
	host := r.choose(hosts, prefer)
	l := List{Host: limited(host)}
	for _, e := range r.entries {
		if e.host != host {
			continue
		}
		request, err := newRequest(e.method, e.url, e.header, e.body)
		if err == nil {
			err = l.add(request)
		}
		if err != nil {
			return List{}, fmt.Errorf("%s %s: %w", e.method, limited(e.target), err)
		}
	}
	delete(hosts, host)
	for _, why := range slices.Sorted(maps.Keys(r.without)) {
		l.LeftOut = append(l.LeftOut, result.LeftOut{Requests: r.without[why], Why: why})
	}
	others := slices.SortedFunc(maps.Keys(hosts), func(a, b string) int { return cmp.Or(cmp.Compare(hosts[b], hosts[a]), cmp.Compare(a, b)) })
	for i, other := range others {
		if i == maxHosts {
			rest := result.LeftOut{Why: fmt.Sprintf("to %d more hosts", len(others)-i)}
			for _, o := range others[i:] {
				rest.Requests += hosts[o]
			}
			l.LeftOut = append(l.LeftOut, rest)
			break
		}
		l.LeftOut = append(l.LeftOut, result.LeftOut{Requests: hosts[other], Why: "to " + limited(other)})
	}
	return l, nil
}

// maxHosts bounds how many of the skipped hosts are named.
const maxHosts = 5

// choose returns the preferred host, in any form of a Service's name, or else the host with the most requests, of
// several the first.
func (r *recording) choose(hosts map[string]int, prefer string) string {
	most := ""
	for _, e := range r.entries {
		name, _, err := net.SplitHostPort(e.host)
		if err != nil {
			name = e.host
		}
		if prefer != "" && (name == prefer || strings.HasPrefix(name, prefer+".") && strings.Contains(name, ".svc")) {
			return e.host
		}
		if hosts[e.host] > hosts[most] {
			most = e.host
		}
	}
	return most
}

func limited(host string) string {
	const most = 100
	if len(host) > most {
		return host[:most] + "..."
	}
	return host
}
