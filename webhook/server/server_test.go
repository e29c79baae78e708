package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"k8s.io/client-go/rest"
)

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// A replica that starts while the API server is away is alive, waits, and can be told to stop.
func TestRun_WaitsForAnAPIServer(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	health := "127.0.0.1:" + strconv.Itoa(freePort(t))
	o := parse(t, pod(), "--router-image=router:1", "--shutdown-delay=1s", "--metrics-address=0", "--health-address="+health,
		fmt.Sprintf("--admission-port=%d", freePort(t)), fmt.Sprintf("--routes-port=%d", freePort(t)))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, &rest.Config{Host: gone.URL}, o, testr.New(t)) }()
	ask := func(path string) int {
		answer, err := http.Get("http://" + health + path)
		if err != nil {
			return 0
		}
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode
	}
	eventually(t, "alive", func() bool { return ask("/healthz") == http.StatusOK })
	if code := ask("/readyz"); code != http.StatusInternalServerError {
		t.Errorf("readyz says %d without a certificate", code)
	}
	stop()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it does not stop")
	}
}

func TestOneRequestEach_ClosesAfterTheAnswer(t *testing.T) {
	server := httptest.NewServer(oneRequestEach(http.NotFoundHandler()))
	defer server.Close()
	answer, err := http.Post(server.URL, "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if !answer.Close {
		t.Error("the connection is kept")
	}
}
