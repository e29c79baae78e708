package contract

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const shop = `
openapi: 3.0.3
info: {title: shop, version: "1"}
servers: [{url: "https://shop.example/{v}", variables: {v: {default: v1}}}]
paths:
  /customer:
    get:
      parameters:
      - {name: customer, in: query, required: true, schema: {type: string}, examples: {one: {value: "123"}, two: {value: "392"}}}
      responses:
        "200":
          description: one
          content:
            application/json:
              schema: {$ref: "#/components/schemas/Customer"}
        "404": {description: none}
  /customer/{id}:
    get:
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
      responses: {"200": {description: one}}
  /order:
    post:
      requestBody:
        content:
          application/json:
            schema:
              type: object
              required: [item]
              properties: {item: {type: string}, note: {type: string}}
            example: {item: pen}
      responses: {"201": {description: made}}
components:
  schemas:
    Customer:
      type: object
      required: [id, name]
      properties:
        id: {type: integer}
        name: {type: string}
        tags: {type: array, items: {type: string}}
`

func client(t *testing.T, h http.HandlerFunc) *request.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	base, err := request.Base(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := request.NewClient(base, carriers(), 4, false)
	t.Cleanup(c.Renew)
	return c
}

func carriers() route.Carriers {
	return route.Carriers{Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember}
}

// check looks at a server that answers arms by their key.
func check(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, key string), change func(*OpenAPI), variants ...string) result.Contract {
	t.Helper()
	doc, err := ParseDocument(t.Context(), []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	o := OpenAPI{
		Version: "v1", Document: doc, Methods: []string{"GET", "HEAD"}, Samples: 2, Rate: 5000, Timeout: 20 * time.Second,
		Client: client(t, func(w http.ResponseWriter, r *http.Request) { answer(w, r, r.Header.Get(sandbox.DefaultHeader)) }),
	}
	for _, v := range variants {
		o.Variants = append(o.Variants, Arm{Name: v, Key: v})
	}
	if change != nil {
		change(&o)
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	c, err := o.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("the result is none: %v", err)
	}
	return c
}

func of(c result.Contract, arm string) []string {
	var own []result.Finding
	for _, f := range c.Findings {
		if f.Arm == arm {
			own = append(own, f)
		}
	}
	return reasons(own)
}

func sayJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func TestOpenAPI_NamesWhatEachVariantBreaks(t *testing.T) {
	c := check(t, func(w http.ResponseWriter, r *http.Request, key string) {
		if r.URL.Path != "/v1/customer" || r.URL.Query().Get("customer") == "" {
			t.Errorf("it was asked for %s", r.URL)
		}
		if key != "" {
			w.Header().Set(sandbox.HeaderServedBy, "pod-"+key)
		}
		switch key {
		case "gone":
			sayJSON(w, 200, `{"id":1,"tags":["a"]}`)
		case "type":
			sayJSON(w, 200, `{"id":"1","name":"x","tags":["a"]}`)
		case "status":
			sayJSON(w, 202, `{}`)
		case "rejects":
			sayJSON(w, 404, ``)
		case "html":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<p>")
		case "cut":
			sayJSON(w, 200, `{"id":1,`)
		case "unready":
			w.Header().Set(sandbox.HeaderError, "no pod is ready")
			w.WriteHeader(503)
		case "broken":
			panic(http.ErrAbortHandler)
		default:
			sayJSON(w, 200, `{"id":1,"name":"x","tags":["a","b"]}`)
		}
	}, nil, "good", "gone", "type", "status", "rejects", "html", "cut", "unready", "broken")
	const op = "GET /v1/customer"
	for arm, want := range map[string][]string{
		result.NameBaseline: nil, "good": nil,
		"gone":    {"FieldGone " + op + " /name", "SchemaViolated " + op + " /name"},
		"type":    {"SchemaViolated " + op + " /id", "TypeChanged " + op + " /id"},
		"status":  {"StatusChanged " + op, "StatusUndeclared " + op + " 202"},
		"rejects": {"StatusChanged " + op},
		"html":    {"ContentType " + op + " 200"},
		"cut":     {"SchemaViolated " + op},
		"unready": {"NotServed " + op},
		"broken":  {"NoAnswer " + op},
	} {
		if got := of(c, arm); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", arm, got, want)
		}
	}
	if n := len(c.Operations); n != 3 {
		t.Fatalf("%d operations, want 3", n)
	}
	if o := c.Operations[0]; o.Skipped != "" || o.Seen[0].Statuses[200] != 8 || o.Seen[1].ServedBy["pod-good"] != 4 {
		t.Errorf("seen %+v", o.Seen)
	}
	for i, want := range map[int]string{1: "no example of its path parameter id", 2: "its method is not among"} {
		if got := c.Operations[i].Skipped; !strings.Contains(got, want) {
			t.Errorf("%s: skipped: %q, want %q", c.Operations[i].Name, got, want)
		}
	}
}

// What the baseline does wrong itself is no doing of a variant's.
func TestOpenAPI_KnowsTheBaselinesOwnFaults(t *testing.T) {
	c := check(t, func(w http.ResponseWriter, _ *http.Request, _ string) { sayJSON(w, 200, `{"id":1}`) }, nil, "a")
	if len(c.Findings) != 2 {
		t.Fatalf("got %v", reasons(c.Findings))
	}
	for _, f := range c.Findings {
		if f.Reason != result.ReasonSchemaViolated || f.Path != "/name" || !f.Baseline {
			t.Errorf("got %+v", f)
		}
	}
}

func TestOpenAPI_SendsAList(t *testing.T) {
	var order []string
	c := check(t, func(w http.ResponseWriter, r *http.Request, key string) {
		if key == "a" {
			body, _ := io.ReadAll(r.Body)
			order = append(order, r.Method+" "+r.URL.Path+" "+string(body))
		}
		if r.Method == "POST" && key != "" {
			w.WriteHeader(422)
			return
		}
		w.WriteHeader(201)
	}, func(o *OpenAPI) {
		o.Samples = 1
		o.Requests = []request.Request{
			{Method: "POST", Target: "/v1/order", Body: []byte("{}")}, {Method: "GET", Target: "/v1/customer/7"}, {Method: "GET", Target: "/other"},
		}
	}, "a")
	if want := []string{"POST /v1/order {}", "GET /v1/customer/7 ", "GET /other "}; !slices.Equal(order, want) {
		t.Errorf("it was sent %q, want %q", order, want)
	}
	want := []string{"StatusChanged POST /v1/order", "StatusUndeclared GET /v1/customer/{id} 201", "StatusUndeclared POST /v1/order 422"}
	if got := of(c, "a"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOpenAPI_ComparesServedDocuments(t *testing.T) {
	c := check(t, func(w http.ResponseWriter, r *http.Request, key string) {
		if r.URL.Path != "/openapi.yaml" {
			sayJSON(w, 200, `{"id":1,"name":"x"}`)
			return
		}
		doc := shop
		switch key {
		case "stricter":
			doc = strings.Replace(doc, "required: [item]", "required: [item, note]", 1)
		case "optional": // an object that may be left out, and must have something where it is not
			doc = strings.Replace(doc, "note: {type: string}", "note: {type: string}, box: {type: object, required: [size], properties: {size: {type: string}}}", 1)
		case "less":
			doc = strings.Replace(doc, "/customer/{id}:", "/buyer/{id}:", 1)
		case "elsewhere":
			doc = strings.Replace(doc, "#/components/schemas/Customer", "http://127.0.0.1:1/x.yaml", 1)
		case "rubbish":
			doc = "}{"
		}
		_, _ = io.WriteString(w, doc)
	}, func(o *OpenAPI) { o.Served = "/openapi.yaml" }, "same", "stricter", "optional", "less", "elsewhere", "rubbish")
	for arm, want := range map[string][]string{
		"same": nil, "stricter": {"NewRequired POST /v1/order /body/note"}, "optional": nil,
		"less": {"OperationRemoved GET /v1/customer/{id}"}, "elsewhere": {"DocumentUnusable"}, "rubbish": {"DocumentUnusable"},
	} {
		if got := of(c, arm); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", arm, got, want)
		}
	}
}

func TestOpenAPI_EndedEarlySaysSo(t *testing.T) {
	doc, err := ParseDocument(t.Context(), []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := OpenAPI{
		Document: doc, Methods: []string{"GET"}, Samples: 1, Rate: 100, Timeout: time.Minute, Variants: []Arm{{"a", "a"}},
		Client: client(t, func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		}),
	}
	c, err := o.Run(ctx)
	if err != nil || c.Incomplete == "" || len(c.Findings) > 0 {
		t.Errorf("incomplete %q, findings %v, %v", c.Incomplete, c.Findings, err)
	}
}

func TestParseDocument_RefusesWhatItCannotHoldAnswersTo(t *testing.T) {
	for name, doc := range map[string]string{
		"nothing": "", "swagger 2": `{"swagger":"2.0","info":{"title":"a","version":"1"},"paths":{}}`, "no path": `{"openapi":"3.0.0","info":{"title":"a","version":"1"},"paths":{}}`,
		"file": strings.Replace(shop, "#/components/schemas/Customer", "/etc/passwd", 1),
	} {
		if _, err := ParseDocument(t.Context(), []byte(doc)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(shop), []byte(`{"id":1}`))
	f.Fuzz(func(t *testing.T, data, body []byte) {
		doc, err := ParseDocument(t.Context(), data)
		if err != nil {
			return
		}
		o := OpenAPI{Document: doc, Methods: []string{"GET"}}
		tasks, err := o.tasks()
		if err != nil {
			return
		}
		_, _ = compareDocuments(doc, doc)
		for _, one := range tasks {
			for _, r := range one.requests {
				a := request.Answer{Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
				_ = fmt.Sprint(validate(t.Context(), one.route, r, a))
			}
		}
	})
}
