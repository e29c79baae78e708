package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"golang.org/x/time/rate"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
)

// maxAnswer bounds the body of an answer, in bytes.
const maxAnswer = 8 << 20

// OpenAPI configures a check against an OpenAPI document. Document and Client must be set.
type OpenAPI struct {
	Version  string
	Client   *request.Client
	Document *openapi3.T
	// Served is the path at which each arm serves its own document; empty if it serves none.
	Served string
	// Requests are the requests to send. If empty, they are made from the document's examples, for the operations of
	// Methods.
	Requests []request.Request
	Methods  []string
	Variants []Arm
	Samples  int           // how often each request is sent to a variant, and twice as often to the baseline
	Rate     float64       // requests a second, at most
	Timeout  time.Duration // of a request
}

// Validate returns what is wrong with o, naming flags.
func (o OpenAPI) Validate() error {
	switch {
	case len(o.Variants)+1 > result.MaxArms:
		return fmt.Errorf("--variant: at most %d", result.MaxArms-1)
	case o.Samples < 1 || o.Samples > 100:
		return errors.New("--samples: must be 1 to 100")
	case !(o.Rate > 0) || o.Rate > 5000: // not a number is neither
		return errors.New("--rate: must be more than 0 and at most 5000 a second")
	case o.Timeout <= 0 || o.Timeout > time.Minute:
		return errors.New("--timeout: must be more than 0 and at most 1m")
	case o.Served != "" && !strings.HasPrefix(o.Served, "/"):
		return fmt.Errorf("--served-document=%s: must be a path, beginning with /", o.Served)
	}
	return nil
}

// A task is one operation with its requests.
type task struct {
	name     string
	route    *routers.Route // nil: the document does not have it
	requests []request.Request
	skipped  string
}

// Run runs the whole check and returns the result, which says so if ctx ended it early. It fails if the document is
// unusable.
func (o OpenAPI) Run(ctx context.Context) (result.Contract, error) {
	armList, keys := arms(o.Variants)
	c := result.Contract{
		Header:   result.Header{APIVersion: result.APIVersion, Kind: result.KindContract, Probe: o.Version, Start: time.Now().UTC(), Arms: armList},
		Protocol: result.ProtocolOpenAPI,
	}
	tasks, err := o.tasks()
	if err != nil {
		return c, err
	}
	w := &walker{OpenAPI: o, arms: armList, keys: keys, pace: rate.NewLimiter(rate.Limit(o.Rate), 1)}
	if o.Served != "" {
		w.compareServed(ctx)
	}
	done := 0
	for _, t := range tasks {
		one := result.Operation{Name: t.name, Skipped: t.skipped}
		if t.skipped == "" {
			one.Seen = w.look(ctx, t)
			if ctx.Err() != nil {
				break
			}
		}
		c.Operations = append(c.Operations, one)
		done++
	}
	if done < len(tasks) {
		c.Incomplete = fmt.Sprintf("it was ended after %d of %d operations", done, len(tasks))
	}
	w.found.blame()
	c.Findings, c.Dropped, c.End = w.found.sorted(armList), w.found.dropped, time.Now().UTC()
	return c, nil
}

// tasks returns the operations to test, and those that are skipped.
func (o OpenAPI) tasks() (tasks []task, err error) {
	defer recovered(&err)
	if len(o.Requests) > 0 {
		return o.listed()
	}
	for _, op := range operations(o.Document) {
		t := task{name: op.name(), route: o.route(op.path, op.method)}
		if !slices.Contains(o.Methods, op.method) {
			t.skipped = "its method is not among those to send: " + strings.Join(o.Methods, ", ")
		} else if t.requests, err = op.requests(); err != nil {
			t.skipped = err.Error()
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

func (o OpenAPI) route(path, method string) *routers.Route {
	item := o.Document.Paths.Value(path)
	return &routers.Route{Spec: o.Document, Path: path, PathItem: item, Method: method, Operation: item.GetOperation(method)}
}

// listed finds the operations of the given requests.
func (o OpenAPI) listed() ([]task, error) {
	// Where a document says its servers are is not where requests go: all that counts of it is the path that they put before.
	spec := *o.Document
	prefix := ""
	if len(spec.Servers) > 0 {
		prefix = serverPath(spec.Servers[0])
	}
	spec.Servers = nil
	router, err := legacy.NewRouter(&spec, openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation())
	if err != nil {
		return nil, err
	}
	byName := map[string]*task{}
	var order []string
	for _, r := range o.Requests {
		path, _, _ := strings.Cut(r.Target, "?")
		name := r.Method + " " + path
		var route *routers.Route
		if rest, ok := strings.CutPrefix(r.Target, prefix); ok {
			if req, err := http.NewRequest(r.Method, rest, nil); err == nil { //nolint:noctx // it is matched and never sent
				if found, _, err := router.FindRoute(req); err == nil {
					route, name = o.route(found.Path, r.Method), r.Method+" "+prefix+found.Path
				}
			}
		}
		if byName[name] == nil {
			byName[name] = &task{name: name, route: route}
			order = append(order, name)
		}
		byName[name].requests = append(byName[name].requests, r)
	}
	tasks := make([]task, 0, len(order))
	for _, name := range order {
		tasks = append(tasks, *byName[name])
	}
	return tasks, nil
}

// A walker sends requests and compares their answers.
type walker struct {
	OpenAPI
	arms  []result.Arm
	keys  []string
	pace  *rate.Limiter
	found findings
}

// compareServed compares the documents that the arms themselves serve.
func (w *walker) compareServed(ctx context.Context) {
	read := func(arm int) (*openapi3.T, error) {
		a, err := w.send(ctx, request.Request{Method: http.MethodGet, Target: w.Served, Header: http.Header{}}, arm)
		if err != nil {
			return nil, err
		}
		if a.Status != http.StatusOK {
			return nil, fmt.Errorf("GET %s: status %d", w.Served, a.Status)
		}
		return ParseDocument(ctx, a.Body)
	}
	base, err := read(0)
	if err != nil {
		w.found.add(result.Finding{Arm: w.arms[0].Name, Reason: result.ReasonDocumentUnusable, Message: err.Error()})
		return
	}
	for arm := 1; arm < len(w.arms); arm++ {
		doc, err := read(arm)
		var all []result.Finding
		if err == nil {
			all, err = compareDocuments(base, doc)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			all = []result.Finding{{Reason: result.ReasonDocumentUnusable, Message: err.Error()}}
		}
		for _, f := range all {
			f.Arm = w.arms[arm].Name
			w.found.add(f)
		}
	}
}

func (w *walker) send(ctx context.Context, r request.Request, arm int) (request.Answer, error) {
	if err := w.pace.Wait(ctx); err != nil {
		return request.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	return w.Client.Send(ctx, r, w.keys[arm], maxAnswer, true)
}

// behaviour is what an arm answered to the requests of an operation.
type behaviour struct {
	statuses []map[int]int // by request
	failures []string      // by request: why it was not answered; empty: it was, at least once
	refused  string        // why a router answered in its place
	shapes   map[int]shape // by status
}

// look sends an operation's requests to all arms in turns, and compares the answers.
func (w *walker) look(ctx context.Context, t task) []result.Seen {
	seen := make([]result.Seen, len(w.arms))
	all := make([]behaviour, len(w.arms))
	for i := range all {
		seen[i] = result.Seen{Statuses: map[int]int{}, ServedBy: map[string]int{}}
		all[i] = behaviour{statuses: make([]map[int]int, len(t.requests)), failures: make([]string, len(t.requests)), shapes: map[int]shape{}}
	}
	for i, r := range t.requests {
		for arm := range all {
			all[arm].statuses[i] = map[int]int{}
		}
		for range w.Samples {
			// The baseline comes first and last, so that its own answers show what changes by itself.
			for _, arm := range turns(len(w.arms)) {
				w.once(ctx, t, i, r, arm, &all[arm], &seen[arm])
				if ctx.Err() != nil {
					return nil
				}
			}
		}
	}
	for arm := 1; arm < len(w.arms); arm++ {
		w.compare(t, arm, all[0], all[arm])
	}
	for i, why := range all[0].failures {
		if len(all[0].statuses[i]) == 0 {
			w.found.add(result.Finding{Arm: w.arms[0].Name, Reason: result.ReasonNoAnswer, Operation: t.name, Message: t.requests[i].Name() + ": " + why})
		}
	}
	return seen
}

// turns returns the arms in the order in which each request is sent to them, with the baseline twice.
func turns(arms int) []int {
	var order []int
	for arm := range arms {
		order = append(order, arm)
	}
	return append(order, 0)
}

func (w *walker) once(ctx context.Context, t task, i int, r request.Request, arm int, b *behaviour, seen *result.Seen) {
	a, err := w.send(ctx, r, arm)
	if err != nil {
		b.failures[i] = err.Error()
		return
	}
	seen.Statuses[a.Status]++
	if _, ok := seen.ServedBy[a.ServedBy]; ok || len(seen.ServedBy) < 50 {
		seen.ServedBy[a.ServedBy]++
	}
	if a.Refused != "" {
		b.refused = a.Refused
		return
	}
	b.statuses[i][a.Status]++
	if b.shapes[a.Status] == nil {
		b.shapes[a.Status] = shape{}
	}
	if isJSON(a.Header.Get("Content-Type")) && len(a.Body) > 0 {
		_ = b.shapes[a.Status].add(a.Body) // what is none has no shape; the document's validation says so
	}
	for _, f := range validate(ctx, t.route, r, a) {
		f.Arm, f.Operation = w.arms[arm].Name, t.name
		w.found.add(f)
	}
}

func isJSON(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")
}

// compare returns the differences of an arm from the baseline's behaviour.
func (w *walker) compare(t task, arm int, base, is behaviour) {
	add := func(f result.Finding) {
		f.Arm, f.Operation = w.arms[arm].Name, t.name
		w.found.add(f)
	}
	if is.refused != "" {
		add(result.Finding{Reason: result.ReasonNotServed, Message: "a router answered: " + is.refused})
	}
	for i, r := range t.requests {
		was, now := base.statuses[i], is.statuses[i]
		switch {
		case len(was) == 0: // nothing to compare with
		case len(now) == 0 && is.failures[i] != "":
			add(result.Finding{Reason: result.ReasonNoAnswer, Message: r.Name() + ": " + is.failures[i]})
		default:
			for _, status := range slices.Sorted(maps.Keys(now)) {
				// An occasional server error counts. Another status counts only if the arm gives none of the
				// baseline's statuses.
				if was[status] > 0 || status < 500 && shares(was, now) {
					continue
				}
				message := fmt.Sprintf("%s: %d of %d answers have status %d, and the baseline's %s", r.Name(), now[status], total(now), status, list(was))
				add(result.Finding{Reason: result.ReasonStatusChanged, Message: message})
			}
		}
	}
	for _, status := range slices.Sorted(maps.Keys(is.shapes)) {
		if base.shapes[status] == nil {
			continue
		}
		for _, f := range is.shapes[status].differences(base.shapes[status]) {
			f.Message = fmt.Sprintf("status %d: %s", status, f.Message)
			add(f)
		}
	}
}

func shares(a, b map[int]int) bool {
	for status := range a {
		if b[status] > 0 {
			return true
		}
	}
	return false
}

func total(m map[int]int) int {
	n := 0
	for _, c := range m {
		n += c
	}
	return n
}

func list(m map[int]int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(slices.Sorted(maps.Keys(m))), " ", ", "), "[]")
}

// validate compares an answer with the document.
func validate(ctx context.Context, route *routers.Route, r request.Request, a request.Answer) []result.Finding {
	if route == nil {
		return nil
	}
	declared := route.Operation.Responses
	response := declared.Status(a.Status)
	if response == nil {
		response = declared.Default()
	}
	if response == nil || response.Value == nil {
		return []result.Finding{{Reason: result.ReasonStatusUndeclared, Path: fmt.Sprint(a.Status), Message: "the document does not declare this status"}}
	}
	content := response.Value.Content
	if r.Method != http.MethodHead && len(content) > 0 && content.Get(a.Header.Get("Content-Type")) == nil {
		return []result.Finding{{
			Reason: result.ReasonContentType, Path: fmt.Sprint(a.Status),
			Message: fmt.Sprintf("%q is none of the media types that the document declares for status %d", a.Header.Get("Content-Type"), a.Status),
		}}
	}
	err := validateBody(ctx, route, r, a)
	var found []result.Finding
	for _, e := range flat(err, 0) {
		f := result.Finding{Reason: result.ReasonSchemaViolated, Message: e.Error()}
		var schema *openapi3.SchemaError
		if errors.As(e, &schema) {
			// The reason does not quote the answer.
			f.Path, f.Message = pointer(schema.JSONPointer()), schema.Reason
		}
		found = append(found, f)
	}
	return found
}

func validateBody(ctx context.Context, route *routers.Route, r request.Request, a request.Answer) (err error) {
	defer recovered(&err)
	req, err := http.NewRequestWithContext(ctx, r.Method, r.Target, nil)
	if err != nil {
		return err
	}
	return openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: route},
		Status:                 a.Status, Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.Body)),
		Options: &openapi3filter.Options{MultiError: true, ExcludeWriteOnlyValidations: true},
	})
}

// flat returns the single errors in err, to a bounded depth.
func flat(err error, depth int) []error {
	if err == nil {
		return nil
	}
	var response *openapi3filter.ResponseError
	if errors.As(err, &response) && response.Err != nil && depth < 10 {
		return flat(response.Err, depth+1)
	}
	many, ok := err.(openapi3.MultiError) //nolint:errorlint // what it wraps is seen one by one
	if !ok || depth >= 10 {
		return []error{err}
	}
	var all []error
	for _, e := range many {
		all = append(all, flat(e, depth+1)...)
	}
	return all
}

// pointer formats a path with "*" for the elements of lists.
func pointer(path []string) string {
	var b strings.Builder
	for _, p := range path {
		if strings.Trim(p, "0123456789") == "" {
			p = "*"
		}
		b.WriteString("/" + escape(p))
	}
	return b.String()
}
