package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
)

// maxExamples is the maximum number of requests per operation.
const maxExamples = 5

// requests creates requests from an operation's examples, or returns which example is missing. It invents no values:
// every arm would answer 404 to them, which would look like a kept contract.
func (o operation) requests() ([]request.Request, error) {
	n := 1
	values := map[*openapi3.Parameter][]any{}
	for _, p := range o.parameters() {
		v := examples(p.Example, p.Examples, p.Schema)
		if len(v) == 0 && p.Required {
			return nil, fmt.Errorf("there is no example of its %s parameter %s", p.In, p.Name)
		}
		values[p] = v
		n = max(n, len(v))
	}
	mediaType, bodies, err := o.bodies()
	if err != nil {
		return nil, err
	}
	n = min(maxExamples, max(n, len(bodies)))
	var all []request.Request
	for i := range n {
		r, err := o.request(i, values)
		if err != nil {
			return nil, err
		}
		if len(bodies) > 0 {
			r.Header.Set("Content-Type", mediaType)
			r.Body = bodies[min(i, len(bodies)-1)]
		}
		all = append(all, r)
	}
	return all, nil
}

// request creates the i-th request: with the i-th example of each parameter, or its last one.
func (o operation) request(i int, values map[*openapi3.Parameter][]any) (request.Request, error) {
	r := request.Request{Method: o.method, Header: http.Header{"Accept": {"application/json, */*;q=0.5"}}}
	path, query := o.path, url.Values{}
	for _, p := range o.parameters() {
		v := values[p]
		if len(v) == 0 {
			continue
		}
		texts, err := written(v[min(i, len(v)-1)])
		if err != nil {
			return r, fmt.Errorf("the example of its %s parameter %s: %w", p.In, p.Name, err)
		}
		joined := strings.Join(texts, ",")
		switch p.In {
		case openapi3.ParameterInPath:
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(joined))
		case openapi3.ParameterInQuery:
			if p.Explode != nil && !*p.Explode {
				texts = []string{joined}
			}
			query[p.Name] = append(query[p.Name], texts...)
		case openapi3.ParameterInHeader:
			r.Header.Set(p.Name, joined)
		case openapi3.ParameterInCookie:
			r.Header.Add("Cookie", (&http.Cookie{Name: p.Name, Value: joined}).String()) //nolint:gosec // it is sent, not set
		}
	}
	if strings.ContainsAny(path, "{}") {
		return r, errors.New("its path has a parameter that it does not declare")
	}
	r.Target = o.prefix + path
	if len(query) > 0 {
		r.Target += "?" + query.Encode()
	}
	return r, nil
}

// bodies returns the examples of an operation's body.
func (o operation) bodies() (mediaType string, bodies [][]byte, err error) {
	ref := o.op.RequestBody
	if ref == nil || ref.Value == nil {
		return "", nil, nil
	}
	for _, mediaType := range slices.Sorted(maps.Keys(ref.Value.Content)) {
		m := ref.Value.Content[mediaType]
		if m == nil || mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") {
			continue
		}
		for _, e := range examples(m.Example, m.Examples, m.Schema) {
			b, err := json.Marshal(e)
			if err != nil {
				return "", nil, err
			}
			bodies = append(bodies, b)
		}
		if len(bodies) > 0 {
			return mediaType, bodies, nil
		}
	}
	if ref.Value.Required {
		return "", nil, errors.New("there is no example of its body in JSON")
	}
	return "", nil, nil
}

// examples returns the values that a document gives: its own examples, or those of its schema.
func examples(one any, many openapi3.Examples, schema *openapi3.SchemaRef) []any {
	if one != nil {
		return []any{one}
	}
	var all []any
	for _, name := range slices.Sorted(maps.Keys(many)) {
		if e := many[name]; e != nil && e.Value != nil && e.Value.Value != nil {
			all = append(all, e.Value.Value)
		}
	}
	if len(all) > 0 || schema == nil || schema.Value == nil {
		return all
	}
	switch s := schema.Value; {
	case s.Example != nil:
		return []any{s.Example}
	case s.Default != nil:
		return []any{s.Default}
	case len(s.Enum) > 0 && s.Enum[0] != nil:
		return []any{s.Enum[0]}
	}
	return nil
}

// written formats a value as parameters do: one string, or one per element.
func written(v any) ([]string, error) {
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		var all []string
		for _, e := range v {
			one, err := written(e)
			if err != nil || len(one) != 1 {
				return nil, errors.New("lists of lists cannot be sent")
			}
			all = append(all, one[0])
		}
		return all, nil
	case map[string]any:
		return nil, errors.New("objects cannot be sent")
	}
	b, err := json.Marshal(v)
	return []string{string(b)}, err
}
