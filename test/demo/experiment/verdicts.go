package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
)

// The checks of the suite.
const (
	smoke    = "smoke"
	contract = "contract"
	load     = "load"
)

// Size of the load check: with seven arms, on 2 cores, some 3,200 requests an arm.
const (
	rate       = 150
	duration   = "150s"
	thresholds = "p95<=baseline+10%, errors<=baseline+0.7%"
)

// A wanted is what must be said of a variant: its outcome, and one reason among those of a check.
type wanted struct {
	variant string
	outcome experiment.Outcome
	check   string
	code    experiment.Code
	says    string // within the reason
}

func allWanted() []wanted {
	return []wanted{
		{variant: "good", outcome: experiment.Passed},
		{"slow", experiment.Failed, load, experiment.BudgetMissed, "p95"},
		{"failing", experiment.Failed, load, experiment.BudgetMissed, "errors"},
		{"broken", experiment.Failed, contract, experiment.ContractBroken, "/customer"},
		{"lost", experiment.Inconclusive, smoke, experiment.NotReached, ""},
	}
}

// wrong says what is not as it must be; empty: nothing.
func (w wanted) wrong(r *experiment.Report) string {
	i := slices.IndexFunc(r.Variants, func(v experiment.VariantReport) bool { return v.Name == w.variant })
	if i < 0 {
		return w.variant + " is not in the report"
	}
	v := &r.Variants[i]
	if v.Outcome != w.outcome {
		return fmt.Sprintf("%s is %s, not %s: %v", w.variant, v.Outcome, w.outcome, v.Reasons)
	}
	if w.check == "" {
		return ""
	}
	j := slices.IndexFunc(v.Results, func(x experiment.Result) bool { return x.Check == w.check })
	if j < 0 || !slices.ContainsFunc(v.Results[j].Reasons, func(x experiment.Reason) bool {
		return x.Code == w.code && strings.Contains(x.Message, w.says)
	}) {
		return fmt.Sprintf("%s is %s, and not for %s of check %s: %v", w.variant, v.Outcome, w.code, w.check, v.Reasons)
	}
	return ""
}

// verdicts runs the experiment, and holds every verdict to what it must be.
func (s *stage) verdicts(ctx context.Context, runs int) error {
	suite, err := s.suite(
		job(smoke, "", fmt.Sprintf(`image: %s
        args: [check, http, "$(SANDBOX_URL)/customer?customer=123", --retry=5]`, s.target.Reference(apps.Podcli))),
		job(contract, "", `image: sandbox-probe
        args: [contract, openapi, --document=/suite/openapi.yaml]`),
		job(load, `, kubectl-sandbox.dev/thresholds: "`+thresholds+`"`, fmt.Sprintf(`image: sandbox-probe
        args: [load, --requests=/suite/requests, --rate=%d, --duration=%s]`, rate, duration)),
	)
	if err != nil {
		return err
	}
	var bad int
	for i := range runs {
		start := time.Now()
		if err := s.fork(ctx); err != nil {
			return err
		}
		id := fmt.Sprintf("demo-%d", i+1)
		if err := s.forget(ctx, id); err != nil { // of a run that was broken off
			return err
		}
		r, err := s.test(ctx, id, i == 0, "good", "slow", "failing", "broken", "lost", "--id="+id, "--filename="+suite)
		if err != nil {
			return err
		}
		var wrong []string
		for _, w := range allWanted() {
			if what := w.wrong(r); what != "" {
				wrong = append(wrong, what)
			}
		}
		told := "all verdicts right"
		if len(wrong) > 0 {
			bad++
			told = "WRONG: " + strings.Join(wrong, "; ")
		}
		fmt.Printf("run %d of %d: %s (%s; %s)\n", i+1, runs, told, measured(r), time.Since(start).Round(time.Second)) //nolint:forbidigo // the program's output
		if err := s.sandbox(ctx, "delete", "--all"); err != nil {
			return err
		}
		if err := s.forget(ctx, id); err != nil {
			return err
		}
	}
	fmt.Printf("%d of %d runs with all verdicts right; reports are in %s\n", runs-bad, runs, s.out) //nolint:forbidigo // the program's output
	if bad > 0 {
		return fmt.Errorf("%d of %d runs had a wrong verdict", bad, runs)
	}
	return nil
}

// measured tells how the load check of a run was.
func measured(r *experiment.Report) string {
	for _, c := range r.Checks {
		if l := c.Load; l != nil {
			return fmt.Sprintf("seed %d, %d requests an arm in %.0f s, load average %s", l.Seed, l.Requests, l.Took, average())
		}
	}
	return "no load was measured"
}

// average is the machine's load, which bears on what can be told.
func average() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}

// fork makes the variants: of HotROD's own options, and of Caddy beside or in place of it.
func (s *stage) fork(ctx context.Context) error {
	caddy := s.target.Reference(apps.Caddy)
	volumes := []any{map[string]any{"name": "faults", "configMap": map[string]any{"name": faultsMap}}}
	mounts := []any{map[string]any{"name": "faults", "mountPath": "/faults"}}
	run := func(config string) []string {
		return []string{"run", "--adapter=caddyfile", "--config=/faults/" + config}
	}
	deployments, _ := hotrod.Objects()
	i := slices.Index(hotrod.Services(), hotrod.Customer)
	args := append(deployments[i].Spec.Template.Spec.Containers[0].Args, "--customer-service-port=18081")
	patch := func(containers ...any) (string, error) {
		b, err := json.Marshal(map[string]any{"spec": map[string]any{"volumes": volumes, "containers": containers}})
		return "--patch=" + string(b), err
	}
	before, err := patch(map[string]any{"name": "hotrod", "args": args},
		map[string]any{"name": "faults", "image": caddy, "imagePullPolicy": "IfNotPresent", "args": run("failing"), "volumeMounts": mounts})
	if err != nil {
		return err
	}
	instead, err := patch(map[string]any{"name": "hotrod", "image": caddy, "args": run("broken"), "volumeMounts": mounts})
	if err != nil {
		return err
	}
	for _, f := range [][]string{
		{"deploy/customer", "--name=good", "--env=RELEASE=next"},
		{"deploy/customer", "--name=slow", "--image=" + s.target.Reference(apps.HotrodSlow)},
		{"deploy/customer", "--name=failing", before},
		{"deploy/customer", "--name=broken", instead},
		{"deploy/route", "--name=lost", "--env=RELEASE=next"}, // customer does not call route: nothing with its key gets there
	} {
		if err := s.sandbox(ctx, append([]string{"fork"}, f...)...); err != nil {
			return err
		}
	}
	return nil
}
