package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sample() *experiment.Report {
	checks := []suite.Check{
		{Name: "smoke", Kind: suite.E2E, Required: true, Source: "suite.yaml, document 1"},
		{Name: "browse", Kind: suite.Load, Source: "suite.yaml, document 2"},
	}
	variants := []suite.Variant{{Name: "a", Sandbox: "r1-a"}, {Name: "b", Sandbox: "r1-b"}, {Name: "c", Sandbox: "r1-c"}, {Name: "d", Sandbox: "r1-d"}}
	r := experiment.NewReport(&suite.Run{ID: "r1", Namespace: "shop"}, experiment.RequireAny, checks, variants, true)
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.Version, r.Window = "v1.2.3", experiment.Window{Began: began, Ended: began.Add(42 * time.Second)}
	r.Reproduce = []string{"kubectl", "sandbox", "test", "deploy/api", "--variant=a=api:a", "--filename=a suite.yaml"}
	judged := func(name, check string, v experiment.Verdict, served uint64, log ...string) {
		x := r.Variant(name).Result(check)
		x.Verdict, x.Log, x.Job = v, log, check+"-"+name
		x.Window = experiment.Window{Began: began, Ended: began.Add(3 * time.Second)}
		x.Sent, x.Requests = &route.Sent{Begun: 4, Answered: 4}, route.Totals{"deployment.api": {Fork: served}}
	}
	for _, v := range r.Variants {
		r.Variant(v.Name).Describe(&experiment.Result{}, &experiment.State{Forks: []experiment.ForkState{{
			Workload: "deployment.api", Pods: []experiment.ForkPod{{Images: []experiment.Image{{Container: "api", Image: "api:" + v.Name, Digest: "sha256:" + v.Name}}}},
		}}})
	}
	passed := experiment.Verdict{Outcome: experiment.Passed}
	judged("b", "smoke", passed, 4)
	judged("b", "browse", experiment.Verdict{Outcome: experiment.Failed, Reasons: []experiment.Reason{{Code: experiment.TimedOut, Message: "the test did not end within 10m0s (--timeout)", Fault: experiment.FaultVariant}}}, 4)
	judged("a", "smoke", experiment.Verdict{Outcome: experiment.Failed, Reasons: []experiment.Reason{{Code: experiment.TestFailed, Message: "container test exited with status 1", Fault: experiment.FaultVariant}}}, 4,
		"GET /customer: 500 | <script>alert(1)</script>", "``` not the end ``` @team")
	judged("a", "browse", passed, 4)
	judged("c", "browse", experiment.Verdict{Outcome: experiment.Inconclusive, Reasons: []experiment.Reason{{
		Code: experiment.NotRun, Message: "pod/browse-c: image \"k7\" of container test can't be pulled: not found", Fault: experiment.FaultTest, Cause: "ImagePullFailed",
	}}}, 0)
	judged("c", "smoke", experiment.Verdict{Outcome: experiment.Inconclusive, Reasons: []experiment.Reason{{Code: experiment.NotReached, Message: "the key was last seen at the test's own router"}}}, 0)
	r.Variant("d").Verdict = experiment.Verdict{Outcome: experiment.Inconclusive, Reasons: []experiment.Reason{{Code: experiment.NotForked, Message: "image api:d can't be pulled"}}}
	r.Checks[1].Load = &experiment.LoadReport{
		Rate: 600, Seed: 7, Rounds: 25, Planned: 75, Settled: true, Took: 50, Requests: 5000, Agree: true,
		List: result.List{Requests: 3, Host: "api.example.com", LeftOut: []result.LeftOut{{Requests: 2, Why: "to fonts.example.net"}}}, Statuses: map[int]int{200: 9990, 404: 10},
		Edges: []float64{1, 10, 100, 1000}, Baseline: []float64{0.9, 0.1, 0}, Again: []float64{0.8, 0.2, 0},
	}
	r.Variant("b").Result("browse").Measured = &experiment.Measured{
		Requests: 5000, Statuses: map[int]int{200: 4999, 502: 1}, Shares: []float64{0, 0.4, 0.6},
		Differences: []experiment.Difference{{Metric: "p95", Value: 0.132, Baseline: 0.05, Estimate: 0.082, Low: 0.074, High: 0.091, Text: "p95 +82 ms [74, 91]"}},
		Budgets:     []experiment.BudgetReport{{Budget: "p95<=baseline+10%", Verdict: "fail", Found: "p95 +82 ms [74, 91]"}},
		Examples:    []result.Failure{{Request: "GET /<b>", Class: result.ErrorServer, Message: "Bad Gateway"}},
	}
	r.Variant("b").Result("browse").Bystanders = []experiment.BystanderRow{
		{Workload: "deployment/cart", Variant: experiment.Passing{Requests: 40, Failed: 8}, Baseline: experiment.Passing{Requests: 80}, Fails: true},
		{Workload: "deployment/mail", Baseline: experiment.Passing{Requests: 80}, Note: "deployment/mail got no request of the variant's, and 80 of the baseline's"},
	}
	r.Variant("a").Result("smoke").Contract = &experiment.ContractReport{
		Protocol: "openapi", Operations: 2, Skipped: []string{"POST /order: not a method that is sent"}, More: 1,
		Findings: []result.Finding{{Arm: "a", Reason: result.ReasonFieldGone, Operation: "GET /customer", Path: "/name", Message: "it has no name"}},
	}
	r.Conclude()
	return r
}

func TestDraw(t *testing.T) {
	r := sample()
	p := draw(loadOf(r, "browse"), r.Variant("b").Result("browse").Measured.Shares)
	if p == nil || len(p.Ticks) < 3 || p.Ticks[0].Label != "1 ms" || !strings.HasSuffix(p.Baseline, "Z") || strings.HasSuffix(p.Variant, "Z") {
		t.Fatalf("drew %+v", p)
	}
	for what, l := range map[string]*experiment.LoadReport{
		"no load": nil, "no edges": {Baseline: []float64{1}, Again: []float64{1}}, "no request": {Edges: []float64{1, 2}, Baseline: []float64{0}, Again: []float64{0}},
	} {
		if got := draw(l, []float64{0}); got != nil {
			t.Errorf("%s: drew %+v", what, got)
		}
	}
}

func TestWrite_Golden(t *testing.T) {
	for _, format := range append(Formats(), Text) {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			if err := Write(&out, format, sample()); err != nil {
				t.Fatal(err)
			}
			file := "testdata/report." + format
			if *update {
				if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%s differs (go test -update writes it anew); got:\n%s", file, out.Bytes())
			}
		})
	}
	if err := Write(&bytes.Buffer{}, "pdf", sample()); err == nil {
		t.Error("wrote what it can't")
	}
}

func TestWrite_JSONSurvivesReading(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, JSON, sample()); err != nil {
		t.Fatal(err)
	}
	var got experiment.Report
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || !reflect.DeepEqual(&got, sample()) {
		t.Errorf("got %+v (%v)", got, err)
	}
}

func TestWrite_JUnitIsXML(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, JUnit, sample()); err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(out.Bytes(), &got); err != nil || len(got.Suites) != 4 || got.Suites[0].Name != "b" || got.Suites[0].Failures != 1 {
		t.Errorf("got %+v (%v)", got, err)
	}
}

func TestWrite_WhatATestLogsIsNoMarkup(t *testing.T) {
	for _, format := range []string{HTML, Markdown} {
		r := sample()
		r.Variant("a").Results[0].Reasons[0].Message = "<img src=x> | [x](http://elsewhere/)"
		r.Conclude()
		var out bytes.Buffer
		if err := Write(&out, format, r); err != nil {
			t.Fatal(err)
		}
		s := out.String()
		if strings.Contains(s, "<img") || format == HTML && strings.Contains(s, "<script") || format == Markdown && strings.Contains(s, "[x](") {
			t.Errorf("%s lets it through:\n%s", format, s)
		}
	}
}

func TestWrite_HTMLLoadsNothing(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, HTML, sample()); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"src=", "href=", "url(", "@import", "<script"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("holds %q", bad)
		}
	}
}

// hostile is a report whose texts all mean harm.
func hostile(text string) *experiment.Report {
	r := sample()
	v := r.Variant("a")
	x := v.Result("smoke")
	x.Log = []string{text}
	x.Reasons[0].Message, x.Reasons[0].Cause = text, text
	r.Conclude()
	r.Version, r.ID, r.Namespace, r.Reproduce = text, text, text, []string{text}
	r.Checks[0].Name, v.Name = text, text
	for i := range r.Variants {
		r.Variants[i].Results[0].Check = text
	}
	return r
}

func TestWrite_WhatIsReadDoesNothingToATerminal(t *testing.T) {
	const text = "\x1b]52;c;cm0gLXJm\x07 \u202etxt \u009b2J\nVARIANT passed"
	for _, format := range []string{Text, JUnit, Markdown, HTML} {
		var out bytes.Buffer
		if err := Write(&out, format, hostile(text)); err != nil {
			t.Fatal(err)
		}
		if s := out.String(); strings.ContainsAny(s, "\x1b\x07\u202e\u009b") || strings.Contains(s, "\nVARIANT passed") || !strings.Contains(s, "u001b") {
			t.Errorf("%s lets it through:\n%q", format, s)
		}
	}
}

func FuzzWrite(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x0b\ufffe", "]]>", "<script>alert(1)</script>", "\" onload=\"x", "a\tb\nc", "\xff", "](http://x)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, format := range append(Formats(), Text) {
			var out bytes.Buffer
			if err := Write(&out, format, hostile(s)); err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			for _, r := range out.String() {
				if r < ' ' && r != '\n' && r != '\t' && format != JSON || r == 0x1b {
					t.Fatalf("%s lets %U through: %q", format, r, out.String())
				}
			}
			if format == JUnit {
				decoder := xml.NewDecoder(&out)
				for {
					if _, err := decoder.Token(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						t.Fatalf("%q: no XML: %v", s, err)
					}
				}
			}
		}
	})
}
