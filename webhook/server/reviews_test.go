package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// serveReviews serves handler as admission is served, at an address, to clients that are slower than a second for
// nothing.
func serveReviews(t *testing.T, handler http.Handler) (address string, stop func() error) {
	t.Helper()
	borrowed := httptest.NewUnstartedServer(nil) // for its certificate
	borrowed.StartTLS()
	t.Cleanup(borrowed.Close)
	address = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s := &reviews{
		Server: webhook.NewServer(webhook.Options{}), address: address, headers: 300 * time.Millisecond, whole: 600 * time.Millisecond,
		secure: func(c *tls.Config) { c.Certificates = borrowed.TLS.Certificates },
	}
	s.Register("/x", handler)
	if s.StartedChecker()(nil) == nil {
		t.Error("it is ready before it listens")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	eventually(t, "it listens", func() bool { return s.StartedChecker()(nil) == nil })
	return address, func() error { cancel(); return <-done }
}

func TestReviews_AreCutWhenTheyDoNotCome(t *testing.T) {
	address, stop := serveReviews(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, "late", http.StatusRequestTimeout)
		}
	}))
	for name, tt := range map[string]struct{ sent, want string }{
		"no head":        {"", ""},
		"half a head":    {"POST /x HTTP/1.1\r\nHost: x\r\n", ""},
		"a long head":    {"POST /x HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a:\r\n", 5000) + "\r\n", "HTTP/1.1 431"},
		"half a body":    {"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 408"},
		"a whole review": {"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200"},
	} {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, _ = io.WriteString(conn, tt.sent)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		got, _ := io.ReadAll(conn)
		conn.Close()
		if !bytes.HasPrefix(got, []byte(tt.want)) || tt.want == "" && len(got) > 0 || time.Since(begun) > 30*time.Second {
			t.Errorf("%s: got %q after %s, want %s", name, got, time.Since(begun), tt.want)
		}
	}
	plain, err := net.Dial("tcp", address) // no handshake
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_ = plain.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadAll(plain); err != nil {
		t.Errorf("a connection without a handshake is kept: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestLimitMemory(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	for _, tt := range []struct {
		value string
		set   int64 // before
		limit int64
		want  int64
		fails bool
	}{
		{value: "", set: math.MaxInt64, limit: 0, want: math.MaxInt64},
		{value: "536870912", set: math.MaxInt64, limit: 512 << 20, want: 536870912 / 10 * 9},
		{value: "536870912", set: 100 << 20, limit: 512 << 20, want: 100 << 20}, // GOMEMLIMIT
		{value: "512Mi", set: math.MaxInt64, want: math.MaxInt64, fails: true},
		{value: "0", set: math.MaxInt64, want: math.MaxInt64, fails: true},
	} {
		debug.SetMemoryLimit(tt.set)
		limit, err := LimitMemory(func(name string) string { return map[string]string{EnvMemoryLimit: tt.value}[name] })
		if got := debug.SetMemoryLimit(-1); limit != tt.limit || got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%q with %d: got %d, %d, %v", tt.value, tt.set, limit, got, err)
		}
	}
}
