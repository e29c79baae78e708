package load

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/judge"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// options are of a short run against a server that answers arms by their key.
func options(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, key string), variants ...string) Options {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, r.Header.Get(sandbox.DefaultHeader))
	}))
	t.Cleanup(s.Close)
	base, err := request.Base(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Version:  "v1",
		Requests: []request.Request{{Method: "GET", Target: "/"}}, Rate: 400, Turn: 1, Round: 50 * time.Millisecond,
		Duration: 500 * time.Millisecond, WarmUp: 50 * time.Millisecond, Timeout: 20 * time.Second, Seed: 1,
	}
	for _, v := range variants {
		o.Variants = append(o.Variants, Arm{Name: v, Key: v})
	}
	o.Client = request.NewClient(base, route.Carriers{Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember}, Connections(len(variants)), false)
	t.Cleanup(o.Client.Renew)
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	return o
}

// run returns the last report, having looked at all.
func runAll(ctx context.Context, t *testing.T, o Options) result.Load {
	t.Helper()
	var last result.Load
	if err := Run(ctx, o, func(l result.Load) error {
		if err := l.Validate(); err != nil {
			t.Errorf("a report is none: %v", err)
		}
		last = l
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return last
}

// sum adds up the blocks of an arm.
func sum(l result.Load, arm int) (sent, failed int, errors map[result.ErrorClass]int, least, most time.Duration) {
	errors = map[result.ErrorClass]int{}
	least = time.Hour
	for _, r := range l.Rounds {
		b := r.Blocks[arm]
		sent, failed = sent+b.Sent, failed+b.Failed()
		for class, n := range b.Errors {
			errors[class] += n
		}
		for d := range b.Latencies.All() {
			least, most = min(least, d), max(most, d)
		}
	}
	return sent, failed, errors, least, most
}

func TestRun_TellsArmsApart(t *testing.T) {
	o := options(t, func(w http.ResponseWriter, r *http.Request, key string) {
		switch {
		case key != "":
			w.Header().Set(sandbox.HeaderServedBy, "pod-"+key)
		case r.Header.Get("Baggage") != "":
			t.Error("the baseline was sent a key")
		}
		switch key {
		case "slow":
			time.Sleep(80 * time.Millisecond)
		case "failing":
			w.WriteHeader(http.StatusBadGateway)
		case "missing":
			w.WriteHeader(http.StatusNotFound)
		case "unready":
			w.Header().Set(sandbox.HeaderError, "no pod is ready")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "broken":
			panic(http.ErrAbortHandler)
		}
	}, "good", "slow", "failing", "missing", "unready", "broken")
	l := runAll(t.Context(), t, o)
	if l.Incomplete != "" || len(l.Rounds) != o.schedule().measured {
		t.Fatalf("incomplete %q, %d rounds; want %d", l.Incomplete, len(l.Rounds), o.schedule().measured)
	}
	want := []struct {
		class  result.ErrorClass
		status int
	}{{}, {}, {}, {}, {result.ErrorServer, 502}, {result.ErrorStatus, 404}, {result.ErrorSandbox, 503}, {result.ErrorTransport, 0}}
	all, _, _, _, _ := sum(l, 0)
	for arm, w := range want {
		name := l.Arms[arm].Name
		sent, failed, errors, least, _ := sum(l, arm)
		if sent != all || sent == 0 {
			t.Errorf("%s: %d requests, and %d to the baseline", name, sent, all)
		}
		switch {
		case w.class == "" && failed != 0:
			t.Errorf("%s: failed %v; examples %v", name, errors, l.Totals[arm].Examples)
		case w.class != "" && errors[w.class] != sent:
			t.Errorf("%s: of %d requests failed %v, want all as %s", name, sent, errors, w.class)
		case w.class == "" && l.Totals[arm].Statuses[200] != sent, w.status != 0 && l.Totals[arm].Statuses[w.status] != sent:
			t.Errorf("%s: statuses %v", name, l.Totals[arm].Statuses)
		}
		if name == "slow" && least < 79*time.Millisecond { // to three digits
			t.Errorf("slow: an answer after %v", least)
		}
	}
	if pods := l.Totals[2].ServedBy; pods["pod-good"] != all || len(pods) != 1 {
		t.Errorf("good was served by %v", pods)
	}
	if pods := l.Totals[0].ServedBy; pods[""] != all {
		t.Errorf("the baseline was served by %v", pods)
	}
}

// A server that stands still for a while holds up all requests that are due meanwhile, sent or not, and each must show it.
func TestRun_LeavesNoRequestOutThatOthersHeldUp(t *testing.T) {
	var still atomic.Pointer[time.Time]
	const pause = 400 * time.Millisecond
	o := options(t, func(_ http.ResponseWriter, _ *http.Request, _ string) {
		end := time.Now().Add(pause)
		if !still.CompareAndSwap(nil, &end) {
			end = *still.Load()
		}
		time.Sleep(time.Until(end))
	}, "a")
	o.WarmUp = 0
	l := runAll(t.Context(), t, o)
	held := int64(0)
	for _, r := range l.Rounds {
		for _, b := range r.Blocks {
			for d := range b.Latencies.All() {
				if d >= 100*time.Millisecond {
					held++
				}
			}
		}
	}
	// At 400 a second, 300 ms bring 120 requests that wait for at least another 100.
	if held < 100 {
		t.Errorf("%d requests waited for 100 ms or more, want about 120", held)
	}
}

func TestRun_AHungArmTakesNothingFromTheOthers(t *testing.T) {
	o := options(t, func(_ http.ResponseWriter, r *http.Request, key string) {
		if key == "hung" {
			<-r.Context().Done()
		}
	}, "hung", "good")
	o.Timeout = 3 * time.Second // generous to the others, on a busy machine
	l := runAll(t.Context(), t, o)
	for arm, name := range []string{"baseline", "control", "hung", "good"} {
		sent, failed, errors, _, most := sum(l, arm)
		if name == "hung" && (errors[result.ErrorTimeout] != sent || most < 2900*time.Millisecond) {
			t.Errorf("hung: of %d requests failed %v, with at most %v", sent, errors, most)
		}
		if name != "hung" && failed > 0 {
			t.Errorf("%s: failed %v", name, errors)
		}
	}
}

func TestRun_EndedEarlyKeepsWholeRounds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var served atomic.Int64
	o := options(t, func(_ http.ResponseWriter, r *http.Request, key string) {
		if served.Add(1) > 200 {
			cancel()
			if key == "a" {
				<-r.Context().Done() // which must not hold up the end
			}
		}
	}, "a")
	o.Duration = time.Minute
	l := runAll(ctx, t, o)
	if l.Incomplete == "" || len(l.Rounds) == 0 || len(l.Rounds) >= o.schedule().measured {
		t.Errorf("incomplete %q with %d of %d rounds", l.Incomplete, len(l.Rounds), o.schedule().measured)
	}
	for i, r := range l.Rounds {
		for arm, b := range r.Blocks {
			if b.Sent != o.schedule().block() || b.Failed() != 0 {
				t.Errorf("round %d, arm %d: %d requests, failed %v", i, arm, b.Sent, b.Errors)
			}
		}
	}
}

// A variant that fails every request is plain at the first look, and the arms of the baseline carry the key they were given.
func TestRun_StopsAtTheLookThatSettlesItsBudgets(t *testing.T) {
	var strangers atomic.Int64
	o := options(t, func(w http.ResponseWriter, _ *http.Request, key string) {
		switch key {
		case "base":
		case "bad":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			strangers.Add(1)
		}
	}, "bad")
	budgets, err := stats.ParseBudgets("errors<=baseline+10%")
	if err != nil {
		t.Fatal(err)
	}
	o.BaselineKey, o.Budgets, o.Duration, o.Rate = "base", budgets, 3*time.Second, 1000
	l := runAll(t.Context(), t, o)
	if want := judge.Looks(l.Planned)[0]; !l.Settled || len(l.Rounds) != want || l.Incomplete != "" {
		t.Errorf("settled %v after %d of %d rounds, incomplete %q; want %d", l.Settled, len(l.Rounds), l.Planned, l.Incomplete, want)
	}
	if n := strangers.Load(); n > 0 {
		t.Errorf("%d requests carried another key", n)
	}
	if sent, _, _, _, _ := sum(l, 2); l.Totals[2].Sent < sent {
		t.Errorf("%d sent in all, %d in rounds", l.Totals[2].Sent, sent)
	}
}

func TestRun_ReportsOnTheWay(t *testing.T) {
	o := options(t, func(http.ResponseWriter, *http.Request, string) {}, "a")
	o.Every = 50 * time.Millisecond
	var reports, rounds int
	if err := Run(t.Context(), o, func(l result.Load) error {
		if len(l.Rounds) < rounds {
			t.Errorf("%d rounds after %d", len(l.Rounds), rounds)
		}
		reports, rounds = reports+1, len(l.Rounds)
		return nil
	}); err != nil || reports < 2 {
		t.Errorf("%d reports, %v", reports, err)
	}
}

func TestOptions_Validate(t *testing.T) {
	good := options(t, func(http.ResponseWriter, *http.Request, string) {}, "a")
	for name, change := range map[string]func(*Options){
		"no requests": func(o *Options) { o.Requests = nil }, "no rate": func(o *Options) { o.Rate = 0 },
		"too much": func(o *Options) { o.Rate = 1e9 }, "no turn": func(o *Options) { o.Turn = 0 }, "no timeout": func(o *Options) { o.Timeout = 0 },
		"no round in time": func(o *Options) { o.Duration = time.Millisecond }, "no end": func(o *Options) { o.Duration = 1000 * time.Hour },
		"backwards": func(o *Options) { o.WarmUp = -1 }, "no rounds": func(o *Options) { o.Round = 0 },
	} {
		o := good
		change(&o)
		if o.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
