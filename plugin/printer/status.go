package printer

import (
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Status prints a sandbox as `status` shows it: its forks, and what keeps requests from them.
func Status(out io.Writer, s *read.Status, globals Globals, now time.Time) error {
	about := []string{"sandbox " + s.Name + " in " + s.Namespace, "key " + none(s.Key)}
	if s.ConfigMap == nil {
		about = append(about, "its ConfigMap is missing")
	} else {
		made := "created " + duration.HumanDuration(now.Sub(s.Created)) + " ago"
		if s.CreatedBy != "" {
			made += " by " + s.CreatedBy
		}
		about = append(about, made)
	}
	fmt.Fprintln(out, strings.Join(append(about, expiry(s.Expires, now)), ", "))
	if len(s.Sandbox.Forks) == 0 {
		fmt.Fprintln(out, "no forks")
		return nil
	}
	fmt.Fprintln(out)
	if err := printForks(out, s, now); err != nil {
		return err
	}
	switch {
	case s.ConfigMap == nil:
	case !s.Counted:
		fmt.Fprintln(out, "\nrequests: as last written; the webhook did not answer, or you may not patch configmaps")
	case s.Uncounted != "":
		fmt.Fprintf(out, "\nrequests: without the latest of %s, which did not answer\n", s.Uncounted)
	}
	for _, url := range s.Previews {
		fmt.Fprintf(out, "\npreview: %s\n", url)
	}
	printCauses(out, s, globals)
	printBaselineStates(out, s, globals)
	printPolicies(out, s)
	return nil
}

// printForks prints a row for each fork.
func printForks(out io.Writer, s *read.Status, now time.Time) error {
	var rows []metav1.TableRow
	for i := range s.Forks {
		d := &s.Sandbox.Forks[i]
		count := s.Counts[d.Labels[sandbox.LabelWorkload]]
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		rows = append(rows, metav1.TableRow{Cells: []any{
			d.Name, sandboxes.WorkloadOf(d), fmt.Sprintf("%d/%d", d.Status.AvailableReplicas, want),
			fmt.Sprint(count.Fork + count.FellBack + count.Refused), string(s.Forks[i].State),
			duration.HumanDuration(now.Sub(d.CreationTimestamp.Time)),
		}})
	}
	return table{}.print(out, columns("Fork", "Of", "Ready", "Requests", "State", "Age"), rows)
}

// printCauses prints, for each fork, why requests do not reach it, or not all, and further facts about it.
func printCauses(out io.Writer, s *read.Status, globals Globals) {
	for i, fork := range s.Forks {
		d := &s.Sandbox.Forks[i]
		for _, c := range fork.Causes {
			fmt.Fprintln(out)
			word := "failed: "
			switch {
			case c.Outlook == health.OutlookWaits:
				word = "waiting: "
			case c.Partial:
				word = "warning: "
			case c.Path:
				word = "not routed: "
			}
			Problem(out, word, sandboxes.CauseProblem(d, c), globals)
		}
		for _, clause := range fork.Unknown {
			fmt.Fprintf(out, "\nnot known: deployment.apps/%s: %s\n", d.Name, clause)
		}
	}
}

// printBaselineStates prints which forks are behind their baselines, and how to fix that.
func printBaselineStates(out io.Writer, s *read.Status, globals Globals) {
	for i, state := range s.Standings {
		d := &s.Sandbox.Forks[i]
		if p := state.Problem(d); p != nil {
			fmt.Fprintln(out)
			Problem(out, state.Word()+": ", p, globals)
			continue
		}
		if !state.Follows {
			continue
		}
		baseline := sandboxes.WorkloadOf(d)
		if said, err := sandbox.ParseFollowed(d.Annotations[sandbox.AnnotationFollowed]); err == nil {
			fmt.Fprintf(out, "\nfollows: deployment.apps/%s was rebased on generation %d of %s at %s\n",
				d.Name, said.Generation, baseline, said.Time)
		} else {
			fmt.Fprintf(out, "\nfollows: deployment.apps/%s is rebased whenever %s changes\n", d.Name, baseline)
		}
	}
}

// printPolicies prints the policies of forks, and the policies that they are derived from.
func printPolicies(out io.Writer, s *read.Status) {
	for i := range s.Policies {
		p := &s.Policies[i]
		fmt.Fprintf(out, "\npolicy: networkpolicy/%s gives the fork of %s the rules that the baseline has by %s\n", p.Name,
			strings.Replace(p.Labels[sandbox.LabelWorkload], ".", "/", 1),
			strings.ReplaceAll(none(p.Annotations[sandbox.AnnotationPolicies]), ",", ", "))
	}
}
