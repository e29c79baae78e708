package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/transport"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/command"
)

// faultEnv makes this test's program the plugin, with a fault (JSON) at one of its requests to the API server. So a fault strikes
// in a real process, and to the instruction: a proxy between it and the API server could not tell what the plugin has
// read of an answer.
const faultEnv = "E2E_FAULT"

// A fault is what befalls the plugin.
type fault struct {
	Of   subject // which requests count
	At   int64   // which of them it befalls, from 1 on; 0: none
	When moment
	How  blow
	// Report is the path of a file that the process keeps up to date: see faultReport.
	Report string
}

type (
	subject string
	moment  string
	blow    string
)

const (
	ofWrites  subject = "write" // those that change an object
	ofWatches subject = "watch"
	ofAll     subject = "request"

	before moment = "before" // the request is sent
	during moment = "during" // it is sent, and its answer has not come
	after  moment = "after"  // its answer came

	kill      blow = "kill"      // SIGKILL
	interrupt blow = "interrupt" // SIGINT, as Ctrl-C sends
	lose      blow = "lose"      // the API server did what it was asked, and its answer is lost
	refuse    blow = "refuse"    // the API server says no
	breakDown blow = "break"     // the API server fails, and may have done it or not: here it has not
)

// A faultReport is what a process with a fault tells of itself.
type faultReport struct {
	Writes, Watches, Requests int64
	Struck                    string // the request that the fault befell; empty: none yet
}

// pluginWithFault is main of the process: as cmd/kubectl-sandbox.
func pluginWithFault(raw string) int {
	var f fault
	if err := json.Unmarshal([]byte(raw), &f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	s := &striker{fault: f, interrupted: ctx.Done()}
	code := command.Run(ctx, command.New(streams, s.wrap()), os.Args[1:])
	s.report("")
	return code
}

// A striker stands in the plugin's transport.
type striker struct {
	fault       fault
	interrupted <-chan struct{}

	writes, watches, requests atomic.Int64
	struck                    atomic.Pointer[string]
}

func (s *striker) wrap() transport.WrapperFunc {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) { return s.roundTrip(r, next) })
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// counts counts the request, and says whether it is the one.
func (s *striker) counts(r *http.Request) bool {
	n, w, v := s.requests.Add(1), int64(0), int64(0)
	if writes(r) {
		w = s.writes.Add(1)
	}
	if r.URL.Query().Has("watch") {
		v = s.watches.Add(1)
	}
	return s.fault.At > 0 && s.fault.At == map[subject]int64{ofAll: n, ofWrites: w, ofWatches: v}[s.fault.Of]
}

func (s *striker) roundTrip(r *http.Request, next http.RoundTripper) (*http.Response, error) {
	if !s.counts(r) {
		return next.RoundTrip(r)
	}
	what := fmt.Sprintf("%s %s", r.Method, r.URL.RequestURI())
	switch f := s.fault; {
	case f.How == refuse:
		s.report(what)
		return statusAnswer(r, http.StatusForbidden, "Forbidden"), nil
	case f.How == breakDown:
		s.report(what)
		return statusAnswer(r, http.StatusInternalServerError, "InternalError"), nil
	case f.When == before:
		s.strike(what)
		return next.RoundTrip(r)
	case f.When == during && f.How == kill:
		// The API server may do it or not: its connection ends while it is at it.
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { s.strike(what) },
		}))
		return next.RoundTrip(r)
	}
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if s.fault.How == lose {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		s.report(what)
		return nil, io.ErrUnexpectedEOF
	}
	s.strike(what)
	return resp, nil
}

// strike kills or interrupts this process, and returns when it noticed.
func (s *striker) strike(what string) {
	s.report(what)
	by := map[blow]syscall.Signal{kill: syscall.SIGKILL, interrupt: syscall.SIGINT}[s.fault.How]
	if err := syscall.Kill(os.Getpid(), by); err != nil {
		panic(err)
	}
	<-s.interrupted
}

func (s *striker) report(struck string) {
	if struck != "" {
		s.struck.Store(&struck)
	}
	r := faultReport{Writes: s.writes.Load(), Watches: s.watches.Load(), Requests: s.requests.Load()}
	if p := s.struck.Load(); p != nil {
		r.Struck = *p
	}
	raw, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(s.fault.Report, raw, 0o600)
	}
	if err != nil {
		panic(err)
	}
}

// statusAnswer returns the API server's answer of an error, of a kind that is none of a quota's or an admission's.
func statusAnswer(r *http.Request, code int, reason string) *http.Response {
	body := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"a fault of the test","reason":%q,"code":%d}`, reason, code)
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// struck runs `kubectl sandbox ARGS` in the namespace, with a fault.
func (s *space) struck(f fault, args ...string) (result, faultReport) {
	s.t.Helper()
	program, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	f.Report = filepath.Join(s.t.TempDir(), "report")
	raw, err := json.Marshal(f)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := s.commandAt(s.t.Context(), program, append(args, "-n", s.name)...)
	cmd.Env = append(cmd.Env, faultEnv+"="+string(raw))
	r := run(cmd)
	var report faultReport
	if raw, err = os.ReadFile(f.Report); err == nil {
		err = json.Unmarshal(raw, &report)
	}
	if err != nil {
		s.t.Fatalf("%v: %v", r, err)
	}
	return r, report
}
