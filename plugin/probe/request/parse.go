package request

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
)

// parseVegeta reads targets as `vegeta attack -format=http` does (https://github.com/tsenart/vegeta#http-format). A
// request is a line METHOD URL, lines of headers, and a line @FILE that names the body's file. An empty line or the
// next METHOD URL ends it, and lines that begin with # are comments. Two things differ. A URL may be a path. And only
// files beside the list can be bodies, while vegeta's own parser reads any file of any length.
func parseVegeta(data []byte, open func(string) (io.ReadCloser, error)) (List, error) {
	var list List
	var from origin
	var method string
	var u *url.URL
	var header http.Header
	var body []byte
	flush := func() error {
		if u == nil {
			return nil
		}
		r, err := newRequest(method, u, header, body)
		if err != nil {
			return err
		}
		u, body = nil, nil
		return list.add(r)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		text := strings.TrimSpace(line)
		err := func() error {
			switch {
			case strings.HasPrefix(text, "#"):
				return nil
			case text == "":
				return flush()
			case strings.HasPrefix(text, "@"):
				if u == nil {
					return errors.New("a body before its request")
				}
				var err error
				body, err = readBody(strings.TrimSpace(text[1:]), open)
				return err
			}
			if m, rest, ok := strings.Cut(text, " "); ok && isMethod(m) {
				if err := flush(); err != nil {
					return err
				}
				target, err := url.Parse(strings.TrimSpace(rest))
				if err != nil {
					return err
				}
				if !from.same(target) {
					return fmt.Errorf("%s is another host than that of the first request, and all go to one", target.Host)
				}
				method, u, header = m, target, http.Header{}
				return nil
			}
			name, value, ok := strings.Cut(text, ":")
			if !ok || u == nil {
				return fmt.Errorf("%.80q is neither METHOD URL, nor a header, nor @FILE", text)
			}
			header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
			return nil
		}()
		if err != nil {
			return List{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return list, flush()
}

// isMethod reports whether a line's first word is a method: in capitals, as in vegeta.
func isMethod(s string) bool {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return s != ""
}

func readBody(name string, open func(string) (io.ReadCloser, error)) ([]byte, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("@%.200s: %w", name, errPath)
	}
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(f, maxBody+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("@%s: more than %d bytes", name, maxBody)
	}
	return body, nil
}

// parseVegetaJSON reads targets as `vegeta attack -format=json` does: one object per line, with its body in base64.
func parseVegetaJSON(data []byte) (List, error) {
	var list List
	var from origin
	return list, lines(data, func(line []byte) error {
		var t struct {
			Method string      `json:"method"`
			URL    string      `json:"url"`
			Body   []byte      `json:"body"`
			Header http.Header `json:"header"`
		}
		if err := json.Unmarshal(line, &t); err != nil {
			return err
		}
		u, err := url.Parse(t.URL)
		if err != nil {
			return err
		}
		if !from.same(u) {
			return fmt.Errorf("%s is another host than that of the first request, and all go to one", u.Host)
		}
		r, err := newRequest(t.Method, u, t.Header, t.Body)
		if err != nil {
			return err
		}
		return list.add(r)
	})
}

// parseK6 reads the stream of `k6 run --out=json=FILE`: its points of the metric http_reqs, one per request, with
// method and URL (https://grafana.com/docs/k6/latest/results-output/real-time/json/). It contains no bodies and
// headers, so methods other than GET and HEAD are skipped.
func parseK6(data []byte, prefer string) (List, error) {
	var r recording
	err := lines(data, func(line []byte) error {
		var p struct {
			Type   string `json:"type"`
			Metric string `json:"metric"`
			Data   struct {
				Tags struct {
					Method string `json:"method"`
					URL    string `json:"url"`
				} `json:"tags"`
			} `json:"data"`
		}
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		if p.Type != "Point" || p.Metric != "http_reqs" {
			return nil
		}
		e := entry{method: p.Data.Tags.Method, target: p.Data.Tags.URL}
		switch {
		case strings.Contains(e.target, "${}"):
			e.without = "whose URL is a template (k6's URL grouping)"
		case e.method != http.MethodGet && e.method != http.MethodHead:
			e.without = "whose body is not recorded"
		}
		r.add(e)
		return nil
	})
	if err != nil {
		return List{}, err
	}
	return r.list(prefer)
}

// parseHAR reads an HTTP Archive (http://www.softwareishard.com/blog/har-12-spec/).
func parseHAR(data []byte, prefer string) (List, error) {
	var har struct {
		Log struct {
			Entries []struct {
				Type    string `json:"_resourceType"`
				Request struct {
					Method  string `json:"method"`
					URL     string `json:"url"`
					Headers []struct {
						Name  string `json:"name"`
						Value string `json:"value"`
					} `json:"headers"`
					PostData *struct {
						MIMEType string `json:"mimeType"`
						Text     string `json:"text"`
						Params   []struct {
							Name  string `json:"name"`
							Value string `json:"value"`
							File  string `json:"fileName"`
						} `json:"params"`
					} `json:"postData"`
				} `json:"request"`
			} `json:"entries"`
		} `json:"log"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &har); err != nil {
		return List{}, err
	}
	var all recording
	for _, e := range har.Log.Entries {
		header := http.Header{}
		for _, h := range e.Request.Headers {
			if sendable(h.Name) {
				header.Add(h.Name, h.Value)
			}
		}
		var body []byte
		without := ""
		if e.Type == "websocket" {
			without = "that open WebSockets"
		}
		if post := e.Request.PostData; post != nil {
			body = []byte(post.Text)
			if post.Text == "" && len(post.Params) > 0 {
				form := url.Values{}
				for _, p := range post.Params {
					if p.File != "" {
						without = "whose body is not recorded"
					}
					form.Add(p.Name, p.Value)
				}
				if !strings.HasPrefix(post.MIMEType, "application/x-www-form-urlencoded") {
					without = "whose body is not recorded"
				}
				body = []byte(form.Encode())
			}
			if post.MIMEType != "" && header.Get("Content-Type") == "" {
				header.Set("Content-Type", post.MIMEType)
			}
		}
		all.add(entry{e.Request.Method, e.Request.URL, header, body, without})
	}
	return all.list(prefer)
}

func (l *List) add(r Request) error {
	if len(l.Requests) == MaxRequests {
		return fmt.Errorf("it has more than %d requests", MaxRequests)
	}
	l.Requests = append(l.Requests, r)
	return nil
}

// lines calls each with every non-empty line.
func lines(data []byte, each func([]byte) error) error {
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, MaxList)
	for n := 1; s.Scan(); n++ {
		if line := bytes.TrimSpace(s.Bytes()); len(line) > 0 {
			if err := each(line); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
	}
	return s.Err()
}

// memberNames returns the names of a JSON object's members.
func memberNames(object []byte) map[string]bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return nil
	}
	names := make(map[string]bool, len(members))
	for name := range members {
		names[name] = true
	}
	return names
}
