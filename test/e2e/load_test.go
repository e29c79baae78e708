package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A load is a steady, open-loop stream of requests: it keeps its rate whatever the answers do, as users do.
type load struct {
	name     string
	t        *testing.T
	judge    func(answer) error // nil: any answer is right
	attacker *vegeta.Attacker
	cancel   context.CancelFunc
	done     sync.WaitGroup

	mu       sync.Mutex
	requests int
	failures []failure
}

// A failure is a request that got no answer, or a wrong one.
type failure struct {
	at     time.Time
	reason string
	wrong  bool // answered, by the wrong one
}

// startHTTP sends rate GETs a second to http://address/path over kept-alive connections, with the header given.
func startHTTP(t *testing.T, name, address, path string, rate int, header http.Header, judge func(answer) error) *load {
	return startAttack(t, name, address, path, rate, header, judge, vegeta.KeepAlive(true))
}

// startAttack is startHTTP over connections of the kind given.
func startAttack(t *testing.T, name, address, path string, rate int, header http.Header, judge func(answer) error, connections func(*vegeta.Attacker)) *load {
	l := &load{name: name, t: t, judge: judge}
	l.attacker = vegeta.NewAttacker(vegeta.Timeout(10*time.Second), vegeta.Connections(16), vegeta.MaxBody(64<<10), connections)
	target := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: "http://" + address + path, Header: header})
	results := l.attacker.Attack(target, vegeta.Rate{Freq: rate, Per: time.Second}, 0, name)
	l.done.Go(func() {
		for r := range results {
			reason, wrong := l.judgeHTTP(r)
			l.note(r.Timestamp, reason, wrong)
		}
	})
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) judgeHTTP(r *vegeta.Result) (reason string, wrong bool) {
	switch {
	case r.Code == 0:
		return "no answer: " + r.Error, false
	case r.Code != http.StatusOK:
		return fmt.Sprintf("%d %s%s", r.Code, r.Headers.Get(sandbox.HeaderError), tail(string(r.Body), 200)), false
	case l.judge == nil:
		return "", false
	}
	var a answer
	if err := json.Unmarshal(r.Body, &a); err != nil {
		return fmt.Sprintf("%v in %q", err, r.Body), true
	}
	a.ServedBy = r.Headers.Get(sandbox.HeaderServedBy)
	if err := l.judge(a); err != nil {
		return err.Error(), true
	}
	return "", false
}

// startGRPC makes rate calls a second over a few channels.
func startGRPC(t *testing.T, name, address string, rate int, carry carrier, judge func(answer) error) *load {
	l := &load{name: name, t: t, judge: judge}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	channels := make([]*grpcCaller, 4)
	for i := range channels {
		channels[i] = newGRPC(address)
		t.Cleanup(channels[i].close)
	}
	l.done.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			c := channels[i%len(channels)]
			l.done.Go(func() {
				at := time.Now()
				// Not ctx: what is in flight when the load stops is still to be answered.
				a, err := c.call(context.WithoutCancel(ctx), carry)
				switch {
				case err != nil:
					l.note(at, "no answer: "+err.Error(), false)
				case l.judge == nil:
					l.note(at, "", false)
				default:
					if err := l.judge(a); err != nil {
						l.note(at, err.Error(), true)
						return
					}
					l.note(at, "", false)
				}
			})
		}
	})
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) note(at time.Time, reason string, wrong bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if reason != "" {
		l.failures = append(l.failures, failure{at, reason, wrong})
	}
}

// stop ends the load and returns how many requests it sent and which failed.
func (l *load) stop() (int, []failure) {
	if l.attacker != nil {
		l.attacker.Stop()
	}
	if l.cancel != nil {
		l.cancel()
	}
	l.done.Wait()
	return l.requests, l.failures
}

// mark returns what failed so far, so that a test can blame a step.
func (l *load) mark() (requests, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests, len(l.failures)
}

// unscathed stops the load and fails the test if any request did, or if there were too few for that to mean much.
func (l *load) unscathed(atLeast int) {
	l.t.Helper()
	n, failed := l.stop()
	l.t.Logf("%s: %d requests, %d failed", l.name, n, len(failed))
	if n < atLeast {
		l.t.Errorf("%s: only %d requests, want at least %d", l.name, n, atLeast)
	}
	if len(failed) > 0 {
		l.t.Errorf("%s: %d of %d requests failed:\n%s", l.name, len(failed), n, listed(failed))
	}
}

// neverWrong stops the load and fails the test if any request was answered by the wrong pod; it may have got no answer.
func (l *load) neverWrong() {
	l.t.Helper()
	n, failed := l.stop()
	var wrong []failure
	for _, f := range failed {
		if f.wrong {
			wrong = append(wrong, f)
		}
	}
	l.t.Logf("%s: %d requests, %d not answered, %d answered by the wrong pod", l.name, n, len(failed)-len(wrong), len(wrong))
	if len(wrong) > 0 {
		l.t.Errorf("%s: %d of %d requests answered by the wrong pod:\n%s", l.name, len(wrong), n, listed(wrong))
	}
}

func listed(failures []failure) string {
	var b strings.Builder
	for i, f := range failures {
		if i == 10 {
			fmt.Fprintf(&b, "  and %d more", len(failures)-i)
			break
		}
		fmt.Fprintf(&b, "  %s %s\n", f.at.Format("15:04:05.000"), f.reason)
	}
	return b.String()
}

// says returns a judge that wants one message of every answer, and of a keyed one the router's word for the same pod.
func says(message string, keyed bool) func(answer) error {
	return func(a answer) error {
		switch {
		case a.Message != message:
			return fmt.Errorf("answered by %s (%q), want %q", a.Hostname, a.Message, message)
		case keyed && a.ServedBy != a.Hostname:
			return fmt.Errorf("answered by %s, while the router says %q", a.Hostname, a.ServedBy)
		}
		return nil
	}
}
