package contract

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
)

// MaxDocument bounds a document, in bytes.
const MaxDocument = 16 << 20

// ParseDocument reads an OpenAPI 3 document, in JSON or YAML. References to other documents are refused: they would be read from
// wherever the document says.
func ParseDocument(ctx context.Context, data []byte) (doc *openapi3.T, err error) {
	defer recovered(&err)
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("the document is more than %d bytes long", MaxDocument)
	}
	loader := openapi3.NewLoader()
	loader.Context = ctx
	loader.IsExternalRefsAllowed = false
	doc, err = loader.LoadFromData(data)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.") {
		return nil, fmt.Errorf("it is of OpenAPI %.20q, not 3", doc.OpenAPI)
	}
	if err := doc.Validate(ctx, openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation()); err != nil {
		return nil, err
	}
	if doc.Paths.Len() == 0 {
		return nil, errors.New("it has no path")
	}
	return doc, nil
}

// recovered converts a panic of a library, caused by a variant's document, to an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("it cannot be worked with: %v", p)
	}
}

// An operation is an operation of a document.
type operation struct {
	method, path string
	prefix       string // that the first server's URL puts before path
	item         *openapi3.PathItem
	op           *openapi3.Operation
}

func (o operation) name() string { return o.method + " " + o.prefix + o.path }

// operations returns the operations of a document, by path and method.
func operations(doc *openapi3.T) []operation {
	prefix := ""
	if len(doc.Servers) > 0 {
		prefix = serverPath(doc.Servers[0])
	}
	var all []operation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		item := doc.Paths.Value(path)
		ops := item.Operations()
		for _, method := range slices.Sorted(maps.Keys(ops)) {
			all = append(all, operation{method: method, path: path, prefix: prefix, item: item, op: ops[method]})
		}
	}
	return all
}

// serverPath returns the path of a server's URL, with the defaults of its variables; empty if it can't be parsed.
func serverPath(s *openapi3.Server) string {
	text := s.URL
	for name, v := range s.Variables {
		if v != nil {
			text = strings.ReplaceAll(text, "{"+name+"}", v.Default)
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return strings.TrimRight(u.Path, "/")
}

// parameters returns an operation's parameters, including those of its path, by place and name.
func (o operation) parameters() []*openapi3.Parameter {
	byName := map[string]*openapi3.Parameter{}
	for _, list := range []openapi3.Parameters{o.item.Parameters, o.op.Parameters} {
		for _, p := range list {
			if p != nil && p.Value != nil {
				byName[p.Value.In+"/"+p.Value.Name] = p.Value
			}
		}
	}
	var all []*openapi3.Parameter
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, byName[name])
	}
	return all
}

// compareDocuments returns what the variant's own document breaks for callers of the baseline's: removed operations,
// and newly required parts of requests. Missing parts of answers are found in answers.
func compareDocuments(base, variant *openapi3.T) (found []result.Finding, err error) {
	defer recovered(&err)
	has := map[string]operation{}
	for _, o := range operations(variant) {
		has[o.name()] = o
	}
	for _, was := range operations(base) {
		is, ok := has[was.name()]
		if !ok {
			found = append(found, result.Finding{
				Reason: result.ReasonOperationRemoved, Operation: was.name(), Message: "the variant's document does not have it",
			})
			continue
		}
		for _, path := range newlyRequired(was, is) {
			found = append(found, result.Finding{
				Reason: result.ReasonNewRequired, Operation: was.name(), Path: path, Message: "the variant's document requires it, and the baseline's does not",
			})
		}
	}
	return found, nil
}

// requirements are the places that requests of an operation must have, and those that its schema knows.
type requirements struct{ required, known map[string]bool }

func (o operation) requirements() requirements {
	r := requirements{required: map[string]bool{}, known: map[string]bool{}}
	for _, p := range o.parameters() {
		r.known["/"+p.In] = true
		if p.Required {
			r.required["/"+p.In+"/"+escape(p.Name)] = true
		}
	}
	r.known["/body"] = true
	if b := o.op.RequestBody; b != nil && b.Value != nil {
		if b.Value.Required {
			r.required["/body"] = true
		}
		if m := b.Value.Content.Get("application/json"); m != nil {
			r.fields("/body", m.Schema, nil)
		}
	}
	return r
}

// fields adds the places of a schema, and those below it.
func (r requirements) fields(at string, ref *openapi3.SchemaRef, above []*openapi3.Schema) {
	if ref == nil || ref.Value == nil || slices.Contains(above, ref.Value) || len(above) > maxDepth || len(r.known) > maxPlaces {
		return
	}
	r.known[at] = true
	s := ref.Value
	above = append(slices.Clone(above), s)
	for _, name := range s.Required {
		r.required[at+"/"+escape(name)] = true
	}
	for name, p := range s.Properties {
		r.fields(at+"/"+escape(name), p, above)
	}
	r.fields(at+"/*", s.Items, above)
	for _, part := range s.AllOf {
		r.fields(at, part, above)
	}
}

// newlyRequired returns what requests must have for is, but not for was. It ignores required parts of an optional
// object that was does not know.
func newlyRequired(was, is operation) []string {
	before := was.requirements()
	var paths []string
	for _, at := range slices.Sorted(maps.Keys(is.requirements().required)) {
		parent := at[:strings.LastIndex(at, "/")]
		if !before.required[at] && (before.known[parent] || parent == "" || strings.Count(at, "/") == 2 && !strings.HasPrefix(at, "/body")) {
			paths = append(paths, at)
		}
	}
	return paths
}
