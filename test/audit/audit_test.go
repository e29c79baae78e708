package audit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/audit"
)

var (
	webhook = audit.Source{Namespace: "kubectl-sandbox", Pod: "sandbox-webhook-6d8f9c7b5-x2x4p", Container: "webhook"}
	router  = audit.Source{Namespace: "e2e-abcde", Pod: "api-6d8f9c7b5-aaaaa", Container: "sandbox-router"}
	start   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

const reconcileError = `{"time":"2026-01-02T03:04:05Z","level":"ERROR","msg":"Reconciler error","controller":"guard","namespace":"e2e-abcde","name":"api","error":"no matches for kind \"PodList\""}`

func TestLine_FindsErrorsOfEveryFormatThatTheProgramsWrite(t *testing.T) {
	for _, tt := range []struct {
		line string
		want audit.Kind
	}{
		{reconcileError, audit.ErrorLine},
		{`{"time":"2026-01-02T03:04:05Z","level":"ERROR+2","msg":"x"}`, audit.ErrorLine},
		{`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"stopping","why":"an error"}`, ""},
		{`{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"route stream ended"}`, ""},
		{`{"time":"2026-01-02T03:04:05Z","level":"ERROR","msg":"panic in admission","stack":"goroutine 1"}`, audit.Panic},
		{`{"time":"2026-01-02T03:04:05Z","level":"ERROR","msg":"Observed a panic"}`, audit.Panic},
		{`{"level":"ERROR","msg":"Server rejected event (will not retry!)","err":"events.events.k8s.io \"api.1\" is forbidden: unable to create new content in namespace e2e-abcde because it is being terminated"}`, ""},
		{`{"level":"ERROR","msg":"Server rejected event (will not retry!)","err":"namespaces \"e2e-abcde\" not found"}`, ""},
		{`{"level":"ERROR","msg":"Server rejected event (will not retry!)","err":"events.events.k8s.io is forbidden: User \"x\" cannot create"}`, audit.ErrorLine},
		{`{"level":"ERROR","msg":"Error retrieving lease lock","err":"Get \"https://10.96.0.1:443/apis/coordination.k8s.io/v1/namespaces/n/leases/l?timeout=5s\": context canceled"}`, ""},
		{`{"level":"ERROR","msg":"Error retrieving lease lock","err":"Get \"https://10.96.0.1:443/apis/coordination.k8s.io/v1/namespaces/n/leases/l?timeout=5s\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"}`, ""},
		{`{"level":"ERROR","msg":"Failed to update lease","err":"Operation cannot be fulfilled on leases.coordination.k8s.io \"l\": the object has been modified; please apply your changes to the latest version and try again"}`, ""},
		{`{"level":"ERROR","msg":"Error retrieving lease lock","err":"leases.coordination.k8s.io \"l\" is forbidden: User \"x\" cannot get"}`, audit.ErrorLine},
		{`{"level":"ERROR","msg":"Problem running manager","err":"leader election lost"}`, audit.ErrorLine},
		{`time=2026-01-02T03:04:05Z level=ERROR msg="metrics and health are not served any more"`, audit.ErrorLine},
		{`time=2026-01-02T03:04:05Z level=WARN msg="route stream ended" error="level=ERROR"`, ""},
		{`time=2026-01-02T03:04:05Z level=INFO msg=serving`, ""},
		{`E0102 03:04:05.678901       1 reflector.go:205] "Failed to watch" err="x"`, audit.ErrorLine},
		{`I0102 03:04:05.678901       1 reflector.go:205] "Started"`, ""},
		{`sandbox-router: SANDBOX_KEY is no key`, audit.ErrorLine},
		{`error: --router-image is required`, audit.ErrorLine},
		{`panic: runtime error: invalid memory address or nil pointer dereference`, audit.Panic},
		{`fatal error: all goroutines are asleep - deadlock!`, audit.Panic},
		{`2026/01/02 03:04:05 http: panic serving 10.0.0.1:1234: boom`, audit.Panic},
		{`2026/01/02 03:04:05 http: TLS handshake error from 10.0.0.1:1234: EOF`, ""},
		{`{not json`, ""},
		{``, ""},
	} {
		f, found := audit.Line(webhook, start, tt.line)
		if found != (tt.want != "") || f.Kind != tt.want {
			t.Errorf("%s\nis %q (%t), want %q", tt.line, f.Kind, found, tt.want)
		}
	}
}

func TestLedger_HasWhatNoTestAnnounced(t *testing.T) {
	for name, tt := range map[string]struct {
		pattern, namespace string
		from, to           time.Duration // after start; to 0: never ends
		of                 audit.Source
		text               string
		covered            bool
	}{
		"its namespace is named in a line of the webhook": {"Reconciler error", "e2e-abcde", 0, time.Second, webhook, reconcileError, true},
		"another namespace, of which it is the beginning": {"Reconciler error", "e2e-abcd", 0, 0, webhook, reconcileError, false},
		"another namespace, that ends as it does":         {"Reconciler error", "2e-abcde", 0, 0, webhook, reconcileError, false},
		"a pod of its namespace, after the test":          {"restarted", "e2e-abcde", -time.Hour, -time.Minute, router, "restarted: exit code 137", true},
		"another pattern":                                 {"lease lost", "e2e-abcde", 0, 0, webhook, reconcileError, false},
		"the whole cluster, while the test runs":          {"Reconciler error", "", -time.Minute, 0, webhook, reconcileError, true},
		"the whole cluster, when the test has ended":      {"Reconciler error", "", -time.Hour, -time.Minute, webhook, reconcileError, false},
		"the whole cluster, before the test announced":    {"Reconciler error", "", time.Minute, 0, webhook, reconcileError, false},
	} {
		t.Run(name, func(t *testing.T) {
			var l audit.Ledger
			end, err := l.Announce("TestX", tt.pattern, tt.namespace, "it breaks it", start.Add(tt.from))
			if err != nil {
				t.Fatal(err)
			}
			if tt.to != 0 {
				end(start.Add(tt.to))
			}
			f, _ := audit.Line(tt.of, start, tt.text)
			l.Add(f)
			if left := l.Unannounced(); (len(left) == 0) != tt.covered {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestLedger_RefusesAnnouncementsThatSayNothing(t *testing.T) {
	for _, tt := range [][3]string{
		{".*", "e2e-x", "because"},
		{"", "e2e-x", "because"},
		{"(", "e2e-x", "because"},
		{"lease lost", "e2e-x", " "},
	} {
		if _, err := new(audit.Ledger).Announce("TestX", tt[0], tt[1], tt[2], start); err == nil {
			t.Errorf("%q was taken", tt)
		}
	}
}

func metricsOf(t *testing.T, text string) audit.Series {
	t.Helper()
	s, err := audit.ParseMetrics(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMetrics_FindWhatTheLogDoesNotTell(t *testing.T) {
	const errors = "# TYPE controller_runtime_reconcile_errors_total counter\ncontroller_runtime_reconcile_errors_total{controller=\"guard\"} %d\n"
	for name, tt := range map[string]struct {
		first, last string
		lines       int
		want        string // in the only finding; empty: none
	}{
		"none":                         {fmt.Sprintf(errors, 0), fmt.Sprintf(errors, 0), 0, ""},
		"failed before the suite":      {fmt.Sprintf(errors, 7), fmt.Sprintf(errors, 7), 0, ""},
		"as many as the log has":       {fmt.Sprintf(errors, 7), fmt.Sprintf(errors, 9), 2, ""},
		"more than the log has":        {fmt.Sprintf(errors, 7), fmt.Sprintf(errors, 10), 2, "rose by 3, and the log tells of 2"},
		"of a process that is new":     {"", fmt.Sprintf(errors, 1), 0, "rose by 1"},
		"a panic":                      {"", "controller_runtime_reconcile_panics_total{controller=\"gate\"} 1\n", 0, "panics_total"},
		"pods that could not be read":  {"", "sandbox_webhook_pods_total{outcome=\"failed\",reason=\"\",role=\"fork\"} 1\n", 0, "failed"},
		"pods that were declined":      {"", "sandbox_webhook_pods_total{outcome=\"declined\",reason=\"x\",role=\"fork\"} 1\n", 0, ""},
		"a reconcile that fails still": {"", "sandbox_webhook_reconcile_failing{controller=\"guard\"} 2\n", 0, "is 2"},
		"no reconcile fails":           {"", "sandbox_webhook_reconcile_failing{controller=\"guard\"} 0\n", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var l audit.Ledger
			for range tt.lines {
				f, _ := audit.Line(webhook, start, reconcileError)
				l.Add(f)
			}
			found := l.Metrics(audit.Reading{Source: webhook, First: metricsOf(t, tt.first), Last: metricsOf(t, tt.last), Since: start})
			switch {
			case tt.want == "" && len(found) > 0, tt.want != "" && len(found) != 1:
				t.Errorf("found %v, want %q", found, tt.want)
			case tt.want != "" && !strings.Contains(found[0].Text, tt.want):
				t.Errorf("found %v, want %q", found, tt.want)
			}
		})
	}
}

func TestReport_GroupsWhatDiffersInNamesAndNamesTheTest(t *testing.T) {
	var l audit.Ledger
	if got := l.Report(l.Unannounced()); got != "" {
		t.Errorf("with nothing found it says %q", got)
	}
	l.Owns("TestGuard", "e2e-abcde")
	for i := range 5000 {
		f, _ := audit.Line(webhook, start.Add(time.Duration(i)), strings.Replace(reconcileError, "05Z", fmt.Sprintf("05.%dZ", i), 1))
		l.Add(f)
	}
	l.Add(audit.Finding{Source: router, Kind: audit.Restart, Time: start, Text: "restarted: exit code 2"})
	got := l.Report(l.Unannounced())
	for _, want := range []string{"5001 failures", "of 2 kinds", "5000x error line", "(TestGuard)", "PodList", "1x restart"} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}
