package router

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestWait_UntilTheRouterIsReady(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 5 || r.URL.Path != "/ready" {
			http.Error(w, "no table yet", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := Wait(t.Context(), ":"+port); err != nil || asked.Load() != 5 {
		t.Errorf("asked %d times, got %v", asked.Load(), err)
	}
	asked.Store(-1 << 30)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Wait(ctx, ":"+port); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: no table yet") {
		t.Errorf("got %v, want the router's own words", err)
	}
}

func TestWait_RefusesWhatIsNoAddress(t *testing.T) {
	if Wait(t.Context(), "") == nil {
		t.Error("got nil")
	}
}
