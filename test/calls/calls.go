// Package calls runs the plugin in this process and tells which requests it made to the API server.
package calls

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/command"
)

// A Call is one request.
type Call struct {
	Method, Path string
	Selector     string // of labels or fields, if any
	Watch        bool
	Start, End   time.Time // from the request to the end of its answer, for a watch to its head
	Bytes        int64     // read of the answer
}

func (c Call) String() string {
	s := c.Method + " " + c.Path
	if c.Selector != "" {
		s += " " + c.Selector
	}
	return s
}

// Plugin runs `kubectl sandbox ARGS` and returns its calls, watches among them, in the order in which they began.
func Plugin(ctx context.Context, args ...string) ([]Call, error) {
	var out bytes.Buffer
	r := &recorder{}
	cmd := command.New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out}, func(next http.RoundTripper) http.RoundTripper {
		return recording{r, next}
	})
	if code := command.Run(ctx, cmd, args); code != 0 {
		return nil, fmt.Errorf("kubectl sandbox %s: exit code %d\n%s", strings.Join(args, " "), code, out.Bytes())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Call, len(r.calls))
	for i, c := range r.calls {
		all[i] = *c
	}
	return all, nil
}

// Watches splits the watches off.
func Watches(all []Call) (watches, others []Call) {
	for _, c := range all {
		if c.Watch {
			watches = append(watches, c)
		} else {
			others = append(others, c)
		}
	}
	return watches, others
}

// Bytes returns the sum of all answers.
func Bytes(all []Call) (n int64) {
	for _, c := range all {
		n += c.Bytes
	}
	return n
}

type recorder struct {
	mu    sync.Mutex
	calls []*Call
}

type recording struct {
	*recorder
	next http.RoundTripper
}

func (r recording) RoundTrip(request *http.Request) (*http.Response, error) {
	q := request.URL.Query()
	c := &Call{
		Method: request.Method, Path: request.URL.Path, Selector: q.Get("labelSelector") + q.Get("fieldSelector"),
		Watch: q.Has("watch"), Start: time.Now(),
	}
	r.mu.Lock()
	r.calls = append(r.calls, c)
	r.mu.Unlock()
	resp, err := r.next.RoundTrip(request)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.End = time.Now()
	if err == nil {
		resp.Body = &body{resp.Body, r.recorder, c}
	}
	return resp, err
}

// A body counts what is read of it.
type body struct {
	io.ReadCloser
	recorder *recorder
	call     *Call
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.recorder.mu.Lock()
	defer b.recorder.mu.Unlock()
	b.call.Bytes += int64(n)
	if !b.call.Watch {
		b.call.End = time.Now()
	}
	return n, err
}
