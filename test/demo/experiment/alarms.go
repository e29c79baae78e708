package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// tolerated is how many of 20 runs may raise a false alarm: at a chance of 5 % each, more come once in sixty times.
const tolerated = 3

// A tally is what came of one run with variants that equal the baseline.
type tally struct {
	alarms       []string // what was said of a variant that is not so
	inconclusive int      // variants
}

// count counts what a report says of variants that equal the baseline.
func count(r *experiment.Report) tally {
	var t tally
	for _, v := range r.Variants {
		switch v.Outcome {
		case experiment.Failed:
			t.alarms = append(t.alarms, v.Name+" failed")
		case experiment.Inconclusive:
			t.inconclusive++
		}
		for _, result := range v.Results {
			if result.Measured == nil {
				continue
			}
			for _, d := range result.Measured.Differences {
				if d.Low > 0 || d.High < 0 {
					t.alarms = append(t.alarms, v.Name+" "+d.Text)
				}
			}
		}
	}
	return t
}

// alarms runs experiments of two variants that equal the baseline, by the load check as it is without flags.
func (s *stage) alarms(ctx context.Context, runs int) error {
	suite, err := s.suite(job(load, "", `image: sandbox-probe
        args: [load, --requests=/suite/requests]`))
	if err != nil {
		return err
	}
	image := s.target.Reference(apps.HotrodEven)
	var alarmed, inconclusive int
	fmt.Println("| run | a | b | alarms | requests an arm | seconds | seed | load average |\n|---|---|---|---|---|---|---|---|") //nolint:forbidigo // the program's output
	for i := range runs {
		id := fmt.Sprintf("alarms-%d-%d", i+1, time.Now().Unix())
		r, err := s.test(ctx, fmt.Sprintf("alarms-%d", i+1), false, "deploy/customer", "--variant=a="+image, "--variant=b="+image, "--id="+id,
			"--delete=all", "--filename="+suite)
		if err != nil {
			return err
		}
		t := count(r)
		if len(t.alarms) > 0 {
			alarmed++
		}
		inconclusive += t.inconclusive
		said := func(name string) string {
			v := r.Variant(name)
			what := string(v.Outcome)
			for _, reason := range v.Reasons {
				what += ", " + string(reason.Code)
			}
			return what
		}
		l := experiment.LoadReport{}
		if r.Checks[0].Load != nil {
			l = *r.Checks[0].Load
		}
		fmt.Printf("| %d | %s | %s | %s | %d | %.0f | %d | %s |\n", //nolint:forbidigo // the program's output
			i+1, said("a"), said("b"), strings.Join(t.alarms, "; "), l.Requests, l.Took, l.Seed, average())
		if err := s.forget(ctx, id); err != nil {
			return err
		}
	}
	fmt.Printf("\n%d of %d runs raised an alarm; %d of %d variants were inconclusive\n", alarmed, runs, inconclusive, 2*runs) //nolint:forbidigo // the program's output
	if alarmed > tolerated {
		return fmt.Errorf("%d of %d runs raised a false alarm, more than %d", alarmed, runs, tolerated)
	}
	return nil
}

// forget deletes what the cluster keeps of an experiment: its report has been written.
func (s *stage) forget(ctx context.Context, id string) error {
	err := s.client.CoreV1().ConfigMaps(s.namespace).Delete(ctx, sandbox.RunName(id), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
