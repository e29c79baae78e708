package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sample() *experiment.Report {
	checks := []experiment.Check{
		{Name: "smoke", Kind: experiment.E2E, Required: true, Source: "suite.yaml, document 1"},
		{Name: "browse", Kind: experiment.Load, Source: "suite.yaml, document 2"},
	}
	variants := []experiment.Variant{{Name: "a", Sandbox: "r1-a"}, {Name: "b", Sandbox: "r1-b"}, {Name: "c", Sandbox: "r1-c"}, {Name: "d", Sandbox: "r1-d"}}
	r := experiment.NewReport(&experiment.Run{ID: "r1", Namespace: "shop"}, experiment.RequireAny, checks, variants, true)
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.Version, r.Window = "v1.2.3", experiment.Window{Began: began, Ended: began.Add(42 * time.Second)}
	r.Reproduce = []string{"kubectl", "sandbox", "test", "deploy/api", "--variant=a=api:a", "--filename=a suite.yaml"}
	result := func(name, check string, v experiment.Verdict, served uint64, log ...string) {
		x := r.Variant(name).Result(check)
		x.Verdict, x.Log, x.Job = v, log, check+"-"+name
		x.Window = experiment.Window{Began: began, Ended: began.Add(3 * time.Second)}
		x.Sent, x.Requests = &route.Sent{Begun: 4, Answered: 4}, route.Totals{"deployment.api": {Fork: served}}
	}
	for _, v := range r.Variants {
		r.Variant(v.Name).Describe(&experiment.State{Forks: []experiment.ForkState{{
			Workload: "deployment.api", Pods: []experiment.ForkPod{{Images: []experiment.Image{{Container: "api", Image: "api:" + v.Name, Digest: "sha256:" + v.Name}}}},
		}}})
	}
	passed := experiment.Verdict{Outcome: experiment.Passed}
	result("b", "smoke", passed, 4)
	result("b", "browse", experiment.Verdict{Outcome: experiment.Failed, Reasons: []experiment.Reason{{Code: experiment.TimedOut, Message: "the test did not end within its time"}}}, 4)
	result("a", "smoke", experiment.Verdict{Outcome: experiment.Failed, Reasons: []experiment.Reason{{Code: experiment.TestFailed, Message: "container test exited with status 1"}}}, 4,
		"GET /customer: 500 | <script>alert(1)</script>", "``` not the end ``` @team")
	result("a", "browse", passed, 4)
	result("c", "smoke", experiment.Verdict{Outcome: experiment.Inconclusive, Reasons: []experiment.Reason{{Code: experiment.NotReached, Message: "the key was last seen at the test's own router"}}}, 0)
	r.Variant("d").Verdict = experiment.Verdict{Outcome: experiment.Inconclusive, Reasons: []experiment.Reason{{Code: experiment.NotForked, Message: "image api:d can't be pulled"}}}
	r.Conclude()
	return r
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
