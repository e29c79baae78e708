package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func newGate(t *testing.T, memory int64, wait time.Duration) *Gate {
	t.Helper()
	g, err := NewGate(memory, wait, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// post sends a review of a body that says to be size bytes long.
func post(h http.Handler, body io.Reader, size int64) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.ContentLength = size
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func spaces(n int64) io.Reader { return bytes.NewReader(bytes.Repeat([]byte(" "), int(n))) }

var served = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	fmt.Fprint(w, n)
})

type unread struct{ *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.Error("the body is read")
	return 0, io.EOF
}

func TestGate_RefusesBeforeItReads(t *testing.T) {
	h := newGate(t, 512<<20, time.Second).Bound(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("decided on") }))
	for name, tt := range map[string]struct {
		method, kind string
		size         int64
		want         int
	}{
		"a GET":              {http.MethodGet, "application/json", 1, http.StatusMethodNotAllowed},
		"another type":       {http.MethodPost, "text/plain", 1, http.StatusUnsupportedMediaType},
		"no length":          {http.MethodPost, "application/json", -1, http.StatusLengthRequired},
		"a byte too much":    {http.MethodPost, "application/json", MaxReview + 1, http.StatusRequestEntityTooLarge},
		"more than there is": {http.MethodPost, "application/json", 1 << 60, http.StatusRequestEntityTooLarge},
	} {
		r := httptest.NewRequest(tt.method, "/", unread{t})
		r.ContentLength = tt.size
		r.Header.Set("Content-Type", tt.kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want || w.Body.Len() == 0 {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, tt.want)
		}
	}
	if w := post(newGate(t, 512<<20, time.Second).Bound(served), spaces(MaxReview), MaxReview); w.Code != http.StatusOK || w.Body.String() != fmt.Sprint(MaxReview) {
		t.Errorf("the longest: got %d %s", w.Code, w.Body)
	}
}

func TestGate_RefusesWhatMayTakeMoreMemoryThanThereIs(t *testing.T) {
	h := newGate(t, 64<<20, time.Second).Bound(served) // 24 MiB are for decisions
	for objects, want := range map[int]int{10000: http.StatusOK, 13000: http.StatusRequestEntityTooLarge} {
		body := strings.Repeat("{}", objects)
		if w := post(h, strings.NewReader(body), int64(len(body))); w.Code != want {
			t.Errorf("%d objects: got %d %s, want %d", objects, w.Code, w.Body, want)
		}
	}
}

func TestGate_RefusesWhatDoesNotComeWhole(t *testing.T) {
	h := newGate(t, 64<<20, time.Second).Bound(served)
	if w := post(h, io.MultiReader(strings.NewReader("{"), failing{}), 100); w.Code != http.StatusRequestTimeout {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("timeout") }

// held is a body that is being read until it is let go.
type held struct {
	begun, letGo chan struct{}
	rest         io.Reader
	told         bool
}

func hold(n int64) *held { return &held{make(chan struct{}), make(chan struct{}), spaces(n), false} }

func (h *held) Read(b []byte) (int, error) {
	if !h.told {
		h.told = true
		close(h.begun)
		<-h.letGo
	}
	return h.rest.Read(b)
}

func TestGate_BoundsWhatIsReadAtATime(t *testing.T) {
	const most = 1 << 20
	h := newGate(t, 64*most, 100*time.Millisecond).Bound(served) // 4 MiB for long bodies
	var slow []*held
	answers := make(chan int, 4)
	for range 4 {
		body := hold(most)
		slow = append(slow, body)
		go func() { answers <- post(h, body, most).Code }()
		<-body.begun
	}
	if w := post(h, unread{t}, most); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
		t.Errorf("one too many: got %d %v", w.Code, w.Header())
	}
	if w := post(h, spaces(shortReview), shortReview); w.Code != http.StatusOK {
		t.Errorf("a short one beside them: got %d %s", w.Code, w.Body)
	}
	for _, body := range slow {
		close(body.letGo)
		<-answers
	}
	if w := post(h, spaces(most), most); w.Code != http.StatusOK {
		t.Errorf("after them: got %d %s", w.Code, w.Body)
	}
}

func TestGate_BoundsWhatIsDecidedOnAtATime(t *testing.T) {
	begun, letGo := make(chan struct{}), make(chan struct{})
	h := newGate(t, 64<<20, 100*time.Millisecond).Bound(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			begun <- struct{}{}
			<-letGo
		}
		panic(http.ErrAbortHandler) // what is held is given back all the same
	}))
	send := func(target string) (code int) {
		body := strings.Repeat("{}", 8000) // 16 of 24 MiB
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		defer func() {
			if recover() != nil {
				code = http.StatusOK
			}
		}()
		h.ServeHTTP(w, r)
		return w.Code
	}
	done := make(chan int)
	go func() { done <- send("/") }()
	<-begun
	if code := send("/?second"); code != http.StatusTooManyRequests {
		t.Errorf("a second: got %d", code)
	}
	close(letGo)
	<-done
	if code := send("/?third"); code != http.StatusOK {
		t.Errorf("after it: got %d", code)
	}
}

// watchHeap returns what the heap held more at most, at any end of a collection until stop was called, than it did
// before.
func watchHeap(t *testing.T) (stop func() int64) {
	t.Helper()
	defer runtime.GC()
	percent := debug.SetGCPercent(5) // collections follow each other closely
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	read := func() int64 {
		metrics.Read(live)
		return int64(live[0].Value.Uint64())
	}
	runtime.GC()
	base, most := read(), int64(0)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			most = max(most, read()-base)
			select {
			case <-done:
				return
			default:
				runtime.Gosched()
			}
		}
	}()
	return func() int64 {
		close(done)
		<-stopped
		debug.SetGCPercent(percent)
		return most
	}
}

// What a review holds while it is decided on is no more than what the gate weighs it by, of whatever it is made.
func TestGate_WeighsReviewsByWhatTheyTake(t *testing.T) {
	updates, err := NewUpdates("own", nil, clocktesting.NewFakePassiveClock(time.Unix(0, 0)), prometheus.NewRegistry(), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	pods, err := NewPods("own", testConfig, prometheus.NewRegistry(), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	const n, few = 20000, 4000
	pod := `"metadata":{"name":"a","labels":{"` + sandbox.LabelRole + `":"baseline"},"annotations":{"` + sandbox.AnnotationPorts + `":"http=80"}`
	routed := `"metadata":{"name":"a","annotations":{"` + sandbox.AnnotationRouted + `":"{\"since\":\"2026-01-01T00:00:00Z\",\"ports\":\"http=80\"}"}`
	marked := `"metadata":{"name":"sandbox-a","labels":{"` + sandbox.LabelRole + `":"sandbox","` + sandbox.LabelSandbox + `":"a"}`
	list := func(n int, item string) string { return "[" + strings.Repeat(item+",", n) + item + "]" }
	members := func(n int, value string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%d":%s,`, i, value)
		}
		return "{" + b.String() + `"x":` + value + "}"
	}
	for name, tt := range map[string]struct {
		handler admission.Handler
		kind    string
		object  string
		both    bool
	}{
		"containers":            {pods, "Pod", `{` + pod + `},"spec":{"containers":` + list(few, `{}`) + `}}`, false},
		"variables":             {pods, "Pod", `{` + pod + `},"spec":{"containers":[{"name":"a","ports":[{"name":"http","containerPort":80}],"env":` + list(few, `{}`) + `}]}}`, false},
		"limits":                {pods, "Pod", `{` + pod + `},"spec":{"containers":` + list(few, `{"resources":{"limits":{"a":1}}}`) + `}}`, false},
		"words":                 {pods, "Pod", `{` + pod + `},"spec":{"containers":[{"args":` + list(n, `""`) + `}]}}`, false},
		"annotations":           {pods, "Pod", `{` + strings.Replace(pod, `"annotations":{`, `"annotations":`+members(n, `""`)[:len(members(n, `""`))-1]+`,`, 1) + `}}`, false},
		"managers":              {pods, "Pod", `{` + pod + `,"managedFields":` + list(few, `{}`) + `}}`, false},
		"owners of a workload":  {updates, "Deployment", `{"kind":"Deployment","apiVersion":"apps/v1",` + routed + `},"x":` + list(few, `{"a":0}`) + `}`, true},
		"numbers of a workload": {updates, "Deployment", `{"kind":"Deployment","apiVersion":"apps/v1",` + routed + `},"x":` + list(n, `0`) + `}`, true},
		"fields of a workload":  {updates, "Deployment", `{"kind":"Deployment","apiVersion":"apps/v1",` + routed + `},"x":` + members(n, `0`) + `}`, true},
		"owned fields": {updates, "Deployment", `{"kind":"Deployment","apiVersion":"apps/v1",` + routed + `,"managedFields":[{"manager":"sandbox","fieldsType":"FieldsV1","fieldsV1":{"f:spec":` +
			strings.NewReplacer(`{"`, `{"f:`, `,"`, `,"f:`).Replace(members(few, `{}`)) + `}}]}}`, true},
		"data":           {newRegistrar(t, 0), "ConfigMap", `{` + marked + `},"data":` + members(n, `""`) + `}`, false},
		"names of ports": {updates, "Deployment", `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"a","annotations":{"` + sandbox.AnnotationRouted + `":"{\"names\":` + list(few, `{}`) + `}"}}}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			old := ""
			operation := "CREATE"
			if tt.both {
				old, operation = `,"oldObject":`+tt.object, "UPDATE"
			}
			group := ""
			if tt.kind == "Deployment" {
				group = "apps"
			}
			body := []byte(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","dryRun":true,"namespace":"team","name":"sandbox-a","operation":"` +
				operation + `","kind":{"group":"` + group + `","version":"v1","kind":"` + tt.kind + `"},"object":` + tt.object + old + `}}`)
			if !json.Valid(body) {
				t.Fatalf("no JSON: %.600s", body)
			}
			h := newGate(t, 8<<30, time.Second).Bound(&admission.Webhook{Handler: tt.handler})
			stop := watchHeap(t)
			r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			took := stop()
			t.Logf("%d bytes took %d of %d: %d %.200s", len(body), took, cost(body), w.Code, w.Body)
			if took > cost(body) {
				t.Errorf("%d bytes took %d, and are weighed as %d", len(body), took, cost(body))
			}
		})
	}
}
