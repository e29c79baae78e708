package router

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// observing returns a table of one fork, of key "k", in which keys are observed.
func observing(counter uint64, keys ...string) *route.Table {
	t := table(counter, map[string][]string{"k": {"127.0.0.2"}})
	t.Observe = keys
	return t
}

func TestRouter_observes_keys_that_pass(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/500":
				w.WriteHeader(http.StatusInternalServerError)
			case "/404":
				w.WriteHeader(http.StatusNotFound)
			case "/broken":
				panic(http.ErrAbortHandler)
			case "/slow":
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			case "/failed and broken":
				w.WriteHeader(http.StatusBadGateway)
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			case "/grpc", "/grpc at once":
				status := r.Header.Get("X-Status")
				w.Header().Set("Content-Type", "application/grpc")
				if r.URL.Path == "/grpc" {
					_, _ = io.WriteString(w, "message")
					_ = http.NewResponseController(w).Flush()
					w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
				} else {
					w.Header().Set("Grpc-Status", status)
				}
			}
		}))
		startPod(t, "fork", "127.0.0.2", u.app, nil)
		u.setTable(observing(1, "k", "seen"))
		want := route.Observation{Turn: 2}
		for _, step := range []struct {
			path, key, status string
			requests, failed  uint64
		}{
			{"/", "seen", "", 1, 0}, {"/404", "seen", "", 1, 0}, {"/500", "seen", "", 1, 1},
			{"/", "", "", 0, 0}, {"/", "another", "", 0, 0}, {"/500", "another", "", 0, 0}, {"/", "k", "", 0, 0},
			{"/broken", "seen", "", 1, 1}, {"/failed and broken", "seen", "", 1, 1},
			{"/slow", "seen", "", 1, 0}, // its caller gives up
			{"/grpc", "seen", "0", 1, 0}, {"/grpc", "seen", "5", 1, 0}, {"/grpc", "seen", "13", 1, 1},
			{"/grpc at once", "seen", "14", 1, 1}, {"/grpc at once", "seen", "3", 1, 0},
		} {
			grpc := step.status != ""
			if grpc && !protocols.UnencryptedHTTP2() {
				continue
			}
			began := time.Now().UnixMilli()
			want.Requests, want.Failed = want.Requests+step.requests, want.Failed+step.failed
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if step.path == "/slow" {
				ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
			}
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+u.addr+step.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if step.key != "" {
				req.Header.Set(sandbox.DefaultHeader, step.key)
			}
			if grpc {
				req.Header.Set("Content-Type", "application/grpc")
				req.Header.Set("X-Status", step.status)
			}
			if resp, err := newClient(t, protocols).Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			all := u.routes.counts()
			got := all.Observed["seen"]
			if step.requests > 0 && (got.Last < began || got.Last > time.Now().UnixMilli()) {
				t.Errorf("%v: last at %d, began at %d", step, got.Last, began)
			}
			if got.Last = 0; got != want {
				t.Errorf("%v: got %+v, want %+v", step, got, want)
			}
			if len(all.Observed) != 1 {
				t.Errorf("%v: observed %v", step, all.Observed)
			}
		}
		if c := u.routes.counts().Keys["k"]; c != (route.Count{Fork: 1}) {
			t.Errorf("the fork's key was counted as %+v", c)
		}
	})
}

func TestRouter_observes_anew_a_key_that_came_back(t *testing.T) {
	u := startRouter(t, testConfig(t))
	app := startPod(t, "app", "127.0.0.1", u.app, nil)
	for i, step := range []struct {
		keys []string
		want route.Observation
	}{
		{[]string{"seen"}, route.Observation{Requests: 1, Turn: 1}},
		{[]string{"also", "seen"}, route.Observation{Requests: 2, Turn: 1}},
		{nil, route.Observation{}},
		{[]string{"seen"}, route.Observation{Requests: 1, Turn: 3}},
	} {
		u.setTable(observing(uint64(i+1), step.keys...))
		ask(t, newClient(t, nil), "http://"+u.addr, sandbox.DefaultHeader, "seen")
		got := u.routes.counts().Observed["seen"]
		if got.Last = 0; got != step.want {
			t.Errorf("step %d: got %+v, want %+v", i, got, step.want)
		}
	}
	_ = app.srv.Close()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+u.addr, nil)
	req.Header.Set(sandbox.DefaultHeader, "seen")
	if resp, err := newClient(t, nil).Do(req); err == nil {
		resp.Body.Close()
	}
	if got := u.routes.counts().Observed["seen"]; got.Requests != 2 || got.Failed != 1 {
		t.Errorf("the app refused the connection: %+v", got)
	}
}
