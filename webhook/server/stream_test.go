package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serveStream serves handler as routes are served, and returns a client that trusts it.
func serveStream(t *testing.T, handler http.Handler) (url string, client *http.Client, stop func() error) {
	t.Helper()
	borrowed := httptest.NewUnstartedServer(nil) // for its certificate
	borrowed.StartTLS()
	t.Cleanup(borrowed.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	s := &stream{address: address, handler: handler, secure: func(c *tls.Config) { c.Certificates = borrowed.TLS.Certificates }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	eventually(t, "it listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	roots := x509.NewCertPool()
	roots.AddCert(borrowed.Certificate())
	client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	return "https://" + address, client, func() error { cancel(); return <-done }
}

func TestStream_IsOpenBothWays(t *testing.T) {
	url, client, stop := serveStream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		control.Flush()
		for lines := bufio.NewScanner(r.Body); lines.Scan(); control.Flush() {
			fmt.Fprintln(w, "got", lines.Text(), r.Proto)
		}
	}))
	out, in := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, out)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for _, say := range []string{"one", "two"} {
		fmt.Fprintln(in, say)
		if !lines.Scan() || lines.Text() != "got "+say+" HTTP/2.0" {
			t.Fatalf("got %q, %v", lines.Text(), lines.Err())
		}
	}
	in.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestStream_EndsThoseThatWouldNotEnd(t *testing.T) {
	url, client, stop := serveStream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).Flush()
		<-t.Context().Done()
	}))
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	start := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	if _, err := io.ReadAll(answer.Body); err == nil {
		t.Error("the stream looks as if it had come to its end")
	}
}

func TestStream_SpeaksHTTP2AndTLS13Only(t *testing.T) {
	url, client, _ := serveStream(t, http.NotFoundHandler())
	config := client.Transport.(*http.Transport).TLSClientConfig
	one := &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone()}}
	one.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
	if answer, err := one.Get(url); err == nil {
		answer.Body.Close()
		t.Error("it speaks HTTP/1.1")
	}
	old := config.Clone()
	old.MaxVersion = tls.VersionTLS12
	if conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), old); err == nil {
		conn.Close()
		t.Error("it speaks TLS 1.2")
	}
}
