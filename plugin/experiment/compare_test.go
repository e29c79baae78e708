package experiment

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/judge"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

func loadCheck(t *testing.T, budgets string) *suite.Check {
	t.Helper()
	b, err := stats.ParseBudgets(budgets)
	if err != nil {
		t.Fatal(err)
	}
	return &suite.Check{Name: "latency", Kind: suite.Load, Required: true, Probe: &suite.Probe{Budgets: b}}
}

var compared = []suite.Variant{{Name: "good"}, {Name: "slow"}, {Name: "failing"}} //nolint:gochecknoglobals // what every test here compares

// measuredLoad is a run in which slow takes 80 ms longer and failing fails 5 % of its requests.
func measuredLoad(change func(l *result.Load)) result.Load {
	header := result.Header{APIVersion: result.APIVersion, Kind: result.KindLoad, Arms: []result.Arm{
		{Name: result.NameBaseline, Role: result.RoleBaseline}, {Name: result.NameControl, Role: result.RoleControl},
		{Name: "good", Role: result.RoleVariant}, {Name: "slow", Role: result.RoleVariant}, {Name: "failing", Role: result.RoleVariant},
	}}
	const rounds = 60
	l := result.Load{Header: header, Planned: rounds, Rate: 100, Seed: 1, Round: 2, Totals: make([]result.Total, 5)}
	for k := range rounds {
		var r result.Round
		for arm := range l.Arms {
			b := result.Block{Sent: 40, Errors: map[result.ErrorClass]int{}}
			for i := range int64(40) {
				micros := 20_000 + 500*i + 37*((int64(k)*7+i*3+int64(arm))%11)
				switch {
				case arm == 3:
					micros += 80_000
				case arm == 4 && i < 2:
					b.Errors[result.ErrorServer]++
					continue
				}
				b.Latencies = append(b.Latencies, result.Count{Micros: micros, N: 1})
			}
			slices.SortFunc(b.Latencies, func(a, b result.Count) int { return int(a.Micros - b.Micros) })
			r.Blocks = append(r.Blocks, b)
			l.Totals[arm].Sent += 41
			l.Totals[arm].Statuses = map[int]int{200: 40 * (k + 1)}
		}
		l.Rounds = append(l.Rounds, r)
	}
	if change != nil {
		change(&l)
	}
	return l
}

func printed[T result.Load | result.Contract](t *testing.T, v T) io.Reader {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("time=1 level=INFO msg=load\n")
	if err := result.Write(&b, v); err != nil {
		t.Fatal(err)
	}
	return &b
}

// observed is the evidence of a load check that passed.
func observed() *Evidence {
	e := sound()
	e.Passed, e.Baseline = map[string]route.Observation{}, map[string]route.Observation{}
	return e
}

func codes(v Verdict) (all []Code) {
	for _, r := range v.Reasons {
		all = append(all, r.Code)
	}
	return all
}

func TestCompared_JudgesVariantsUnderLoad(t *testing.T) {
	m := ReadComparison(loadCheck(t, judge.DefaultBudgets+", p99<1s"), compared, printed(t, measuredLoad(nil)))
	for variant, want := range map[string]string{"good": "", "slow": "p95 +80.0 ms [", "failing": "errors +5.0 points ["} {
		v := JudgeComparison(m, variant, observed(), nil)
		if want == "" && (v.Outcome != Passed || len(v.Reasons) > 0) ||
			want != "" && (v.Outcome != Failed || !slices.Equal(codes(v), []Code{BudgetMissed}) || !strings.HasPrefix(v.Reasons[0].Message, want[:strings.Index(want, " ")])) {
			t.Errorf("%s: %+v", variant, v)
		}
	}
	if v := JudgeComparison(m, "good", observed(), []BystanderRow{{Workload: "deployment/route", Fails: true}}); v.Outcome != Failed || !slices.Equal(codes(v), []Code{Bystander}) {
		t.Errorf("it breaks a bystander: %+v", v)
	}
	// A variant that was not tested has neither passed nor failed.
	for name, way := range vacuous() {
		if strings.HasPrefix(name, "admission") || way.want == NotReported {
			continue // the probe's pod gets no router
		}
		for _, variant := range []string{"good", "slow"} {
			e := observed()
			way.spoil(e)
			v := JudgeComparison(m, variant, e, nil)
			if v.Outcome == Passed || variant == "good" && v.Outcome != Inconclusive || !slices.Contains(codes(v), way.want) {
				t.Errorf("%s, %s: %+v", variant, name, v)
			}
		}
	}
}

func TestCompared_SaysWhatItCannotTell(t *testing.T) {
	for name, tt := range map[string]struct {
		budgets string
		change  func(l *result.Load)
		want    Code
		says    string
	}{
		"noisy": {judge.DefaultBudgets, func(l *result.Load) {
			for k := range l.Rounds {
				for i := range l.Rounds[k].Blocks[1].Latencies {
					l.Rounds[k].Blocks[1].Latencies[i].Micros += 9_000
				}
			}
		}, TooNoisy, "the baseline differs from itself by p50 +9"},
		"close":  {"p95<=baseline+0ms", nil, TooClose, "can't be distinguished from p95<=baseline+0ms"},
		"few":    {"p99<1s", func(l *result.Load) { l.Rounds = l.Rounds[:12] }, TooFew, "to measure p99; some 1000 requests an arm would settle it"},
		"late":   {"p95<30ms", func(l *result.Load) { l.Lateness = result.Histogram{{Micros: 10, N: 95}, {Micros: 20_000, N: 5}} }, TooNoisy, "sent one in a hundred requests 20ms late"},
		"killed": {judge.DefaultBudgets, func(l *result.Load) { l.Incomplete = "it was ended after 60 of 75 rounds" }, NotFinished, "ended after 60 of 75"},
	} {
		m := ReadComparison(loadCheck(t, tt.budgets), compared, printed(t, measuredLoad(tt.change)))
		v := JudgeComparison(m, "good", observed(), nil)
		if v.Outcome != Inconclusive || len(v.Reasons) != 1 || v.Reasons[0].Code != tt.want || !strings.Contains(v.Reasons[0].Message, tt.says) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	for name, spoil := range map[string]func(*Evidence){
		"bystanders are not known": func(e *Evidence) { e.Baseline = nil }, "a bystander's router does not say": func(e *Evidence) { e.PassedMissing = "route-0" },
	} {
		e := observed()
		spoil(e)
		v := JudgeComparison(ReadComparison(loadCheck(t, judge.DefaultBudgets), compared, printed(t, measuredLoad(nil))), "good", e, nil)
		if v.Outcome != Inconclusive || !slices.Equal(codes(v), []Code{NotCounted}) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	for name, tt := range map[string]struct {
		passed map[string]route.Observation
		want   []Code
	}{
		"a bystander's router ends":             {map[string]route.Observation{"deployment.route": {Requests: 1}}, []Code{RouterLost}},
		"a router ends that no request came by": {map[string]route.Observation{}, nil},
	} {
		e := observed()
		e.Passed = tt.passed
		e.Before.Elsewhere = map[string][]string{"deployment.route": {"route-0/r1/0", "route-1/r1/0"}}
		e.After.Elsewhere = map[string][]string{"deployment.route": {"route-0/r1/1", "route-1/r1/0"}}
		v := JudgeComparison(ReadComparison(loadCheck(t, judge.DefaultBudgets), compared, printed(t, measuredLoad(nil))), "good", e, nil)
		if !slices.Equal(codes(v), tt.want) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	failed := sound()
	failed.Job = JobEnd{Failed: true, Pods: 1, Container: "p", Exit: 1}
	late := sound()
	late.Job = JobEnd{Failed: true, Pods: 1, TimedOut: "10m0s (--timeout)"}
	for name, tt := range map[string]struct {
		e    *Evidence
		log  io.Reader
		want Code
	}{
		"no result":           {sound(), strings.NewReader("kubectl-sandbox-result ???\n"), NotRun},
		"another's result":    {sound(), printed(t, measuredLoad(func(l *result.Load) { l.Arms[2].Name = "other" })), NotRun},
		"the probe fails":     {failed, printed(t, measuredLoad(nil)), NotRun},
		"the probe is killed": {late, strings.NewReader(""), NotFinished},
	} {
		m := ReadComparison(loadCheck(t, judge.DefaultBudgets), compared, tt.log)
		if v := JudgeComparison(m, "good", tt.e, nil); v.Outcome != Inconclusive || !slices.Contains(codes(v), tt.want) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// A load of error pages is no comparison, whatever the budgets came to; with which statuses was answered is in the report.
func TestCompared_PassesNothingWhereAllIsRefused(t *testing.T) {
	of := func(baseline, control, variant map[int]int) func(*result.Load) {
		return func(l *result.Load) {
			l.Totals[0].Statuses, l.Totals[1].Statuses, l.Totals[2].Statuses = baseline, control, variant
			l.List = result.List{Requests: 3, Host: "api.example.com", LeftOut: []result.LeftOut{{Requests: 2, Why: "to fonts.example.net"}}}
		}
	}
	for _, tt := range []struct {
		name     string
		change   func(*result.Load)
		compared bool
		say      string
	}{
		{"unauthorized", of(map[int]int{401: 2400}, map[int]int{401: 2400}, map[int]int{401: 2400}), false, "401 (4800 times)"},
		{"unauthorized and not found", of(map[int]int{401: 1, 404: 2399}, map[int]int{404: 2400}, map[int]int{404: 2400}), false, "404 (4799 times), 401 (1 time)"},
		{"the baseline fails", of(map[int]int{500: 2400}, map[int]int{503: 2400}, map[int]int{200: 2400}), false, "500 (2400 times), 503 (2400 times)"},
		{"the variant alone answers", of(map[int]int{404: 2400}, map[int]int{404: 2400}, map[int]int{200: 2400}), false, "left out: 2 to fonts.example.net"},
		{"a part is refused", of(map[int]int{200: 1, 404: 2399}, map[int]int{404: 2400}, map[int]int{200: 1, 404: 2399}), true, ""},
		{"redirects", of(map[int]int{302: 2400}, map[int]int{302: 2400}, map[int]int{302: 2400}), true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := ReadComparison(loadCheck(t, judge.DefaultBudgets), compared, printed(t, measuredLoad(tt.change)))
			v := JudgeComparison(m, "good", observed(), nil)
			if tt.compared && v.Outcome != Passed || !tt.compared && (v.Outcome != Inconclusive || !slices.Equal(codes(v), []Code{NothingCompared}) || !strings.Contains(v.Reasons[0].Message, tt.say)) {
				t.Errorf("got %+v", v)
			}
			if v := JudgeComparison(m, "slow", observed(), nil); !tt.compared && v.Outcome != Inconclusive {
				t.Errorf("slow: got %+v", v)
			}
			r := NewReport(&suite.Run{ID: "r1"}, RequireAny, []suite.Check{*loadCheck(t, judge.DefaultBudgets)}, compared, false)
			m.Fill(r, r.Checks[0].Name, compared)
			if l := r.Checks[0].Load; l.List.Host != "api.example.com" || len(l.Statuses) == 0 || len(r.Variant("good").Results[0].Measured.Statuses) == 0 {
				t.Errorf("the report says %+v", l)
			}
		})
	}
}

func TestCompared_JudgesContracts(t *testing.T) {
	check := &suite.Check{Name: "contract", Kind: suite.Contract, Probe: &suite.Probe{Contract: true}}
	c := result.Contract{
		Header: result.Header{APIVersion: result.APIVersion, Kind: result.KindContract, Arms: []result.Arm{
			{Name: result.NameBaseline, Role: result.RoleBaseline}, {Name: "good", Role: result.RoleVariant}, {Name: "broken", Role: result.RoleVariant},
		}},
		Protocol:   result.ProtocolOpenAPI,
		Operations: []result.Operation{{Name: "GET /customer", Seen: make([]result.Seen, 3)}, {Name: "POST /order", Skipped: "not sent"}},
		Findings: []result.Finding{
			{Arm: "good", Reason: result.ReasonSchemaViolated, Operation: "GET /customer", Path: "/id", Baseline: true},
			{Arm: "broken", Reason: result.ReasonFieldGone, Operation: "GET /customer", Path: "/name"},
			{Arm: "broken", Reason: result.ReasonTypeChanged, Operation: "GET /customer", Path: "/id"},
		},
	}
	c.Operations[0].Seen[2] = result.Seen{Statuses: map[int]int{200: 3}}
	variants := []suite.Variant{{Name: "good"}, {Name: "broken"}}
	m := ReadComparison(check, variants, printed(t, c))
	if v := JudgeComparison(m, "good", sound(), nil); v.Outcome != Passed {
		t.Errorf("what the baseline does as well: %+v", v)
	}
	v := JudgeComparison(m, "broken", sound(), nil)
	if want := "breaks the contract of GET /customer: FieldGone /name, TypeChanged /id"; v.Outcome != Failed || len(v.Reasons) != 1 || v.Reasons[0] != because(ContractBroken, want) {
		t.Errorf("got %+v", v)
	}
	if s := m.Sent("broken"); s == nil || *s != (route.Sent{Begun: 3, Answered: 3}) {
		t.Errorf("sent %v", s)
	}
	if v := grpcVerdict(t, variants); v.Outcome != Passed {
		t.Errorf("definitions, whose requests have no status: %+v", v)
	}
	for name, spoil := range map[string]func(*result.Contract){
		"the baseline does not answer":  func(c *result.Contract) { c.Findings = append(c.Findings, noAnswer("GET /customer")) },
		"it has no document of its own": func(c *result.Contract) { c.Findings = append(c.Findings, noAnswer("")) },
		"findings are left out":         func(c *result.Contract) { c.Dropped = 1 },
	} {
		spoiled := c
		spoiled.Findings = slices.Clone(c.Findings)
		spoil(&spoiled)
		if v := JudgeComparison(ReadComparison(check, variants, printed(t, spoiled)), "good", sound(), nil); v.Outcome != Inconclusive {
			t.Errorf("%s: %+v", name, v)
		}
	}
	c.Operations = c.Operations[1:]
	c.Findings = nil
	if v := JudgeComparison(ReadComparison(check, variants, printed(t, c)), "good", sound(), nil); v.Outcome != Inconclusive || !slices.Contains(codes(v), NothingCompared) {
		t.Errorf("nothing was compared: %+v", v)
	}
}

func noAnswer(operation string) result.Finding {
	return result.Finding{Arm: result.NameBaseline, Reason: result.ReasonNoAnswer, Operation: operation, Baseline: true}
}

// grpcVerdict is that on a variant whose definitions are those of the baseline.
func grpcVerdict(t *testing.T, variants []suite.Variant) Verdict {
	t.Helper()
	c := result.Contract{
		Header: result.Header{APIVersion: result.APIVersion, Kind: result.KindContract, Arms: []result.Arm{
			{Name: result.NameBaseline, Role: result.RoleBaseline}, {Name: "good", Role: result.RoleVariant}, {Name: "broken", Role: result.RoleVariant},
		}},
		Protocol: result.ProtocolGRPC, Operations: []result.Operation{{Name: "shop.Cart/Add"}},
	}
	m := ReadComparison(&suite.Check{Name: "contract", Kind: suite.Contract, Probe: &suite.Probe{Contract: true, GRPC: true}}, variants, printed(t, c))
	e := sound()
	e.Sent = m.Sent("good")
	return JudgeComparison(m, "good", e, nil)
}

func TestCompared_Fill(t *testing.T) {
	check := loadCheck(t, judge.DefaultBudgets)
	m := ReadComparison(check, compared, printed(t, measuredLoad(nil)))
	r := NewReport(&suite.Run{ID: "r1"}, RequireAny, []suite.Check{*check}, compared, false)
	began := time.Now()
	m.Fill(r, "latency", compared)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
	l := r.Checks[0].Load
	if l == nil || l.Requests != 2400 || !l.Agree || len(l.Edges) != bins+1 || len(l.Baseline) != bins || l.Took != 120 {
		t.Fatalf("load %+v", l)
	}
	x := r.Variant("slow").Result("latency").Measured
	if x == nil || x.Requests != 2400 || len(x.Shares) != bins || len(x.Budgets) != 2 || x.Budgets[0].Verdict != "fail" || len(x.Differences) != 4 {
		t.Errorf("measured %+v", x)
	}
	if s := m.Sent("slow"); s.Begun != 41*60 || s.Answered != 2400 {
		t.Errorf("sent %+v", s)
	}
}
