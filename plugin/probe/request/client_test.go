package request

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func carriers() route.Carriers {
	return route.Carriers{Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember}
}

func client(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	base, err := Base(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(base, carriers(), 4, false)
	t.Cleanup(c.Renew)
	return c
}

func TestClient_SendsTheArmsKeyAndNoOther(t *testing.T) {
	recorded := http.Header{"X-Sandbox-Key": {"old"}, "Baggage": {"user=7, sandbox-key=old"}, "Tracestate": {"sandbox-key=old"}, "Accept": {"text/html"}}
	for key, want := range map[string]string{"": "|user=7||text/html", "new": "new|user=7,sandbox-key=new||text/html"} {
		var got string
		c := client(t, func(w http.ResponseWriter, r *http.Request) {
			got = strings.Join([]string{r.Header.Get("X-Sandbox-Key"), r.Header.Get("Baggage"), r.Header.Get("Tracestate"), r.Header.Get("Accept")}, "|")
			w.Header().Set(sandbox.HeaderServedBy, "pod-1")
		})
		a, err := c.Send(t.Context(), Request{Method: "GET", Target: "/a?b=%2F", Header: recorded}, key, 100, false)
		if err != nil || got != want || a.ServedBy != "pod-1" {
			t.Errorf("key %q: the server saw %q, want %q; answer %+v, %v", key, got, want, a, err)
		}
	}
	if recorded.Get("X-Sandbox-Key") != "old" {
		t.Error("the list's request was changed")
	}
}

func TestClient_GoesNowhereElse(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	c := client(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
	// A target that looks like an authority is a path all the same.
	for _, target := range []string{"/", "//" + strings.TrimPrefix(elsewhere.URL, "http://") + "/"} {
		a, err := c.Send(t.Context(), Request{Method: "GET", Target: target}, "", 1000, false)
		if err != nil || a.Status != http.StatusFound && a.Status != http.StatusMovedPermanently {
			t.Errorf("%s: got %+v, %v; want the redirect itself", target, a, err)
		}
	}
}

func TestClient_BoundsAnswers(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 101))
		case "/head":
			w.Header().Set("X-A", strings.Repeat("x", 2*maxAnswerHeader))
		case "/hang":
			<-r.Context().Done()
		}
	})
	if _, err := c.Send(t.Context(), Request{Method: "GET", Target: "/long"}, "", 100, true); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if a, err := c.Send(t.Context(), Request{Method: "GET", Target: "/head"}, "", 100, true); err == nil {
		t.Errorf("got %+v, want an error", a.Status)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Send(ctx, Request{Method: "GET", Target: "/hang"}, "", 100, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

func TestBase(t *testing.T) {
	for s, ok := range map[string]bool{
		"http://api": true, "https://api:8443/": true, "api": false, "http://api/path": false, "http://u@api": false, "ftp://api": false, "http://": false,
	} {
		if _, err := Base(s); (err == nil) != ok {
			t.Errorf("Base(%q): %v", s, err)
		}
	}
}
