package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// statusFlags are the flags of `status`.
type statusFlags struct {
	*tool
	print *genericclioptions.PrintFlags
	name  string
}

func newStatus(t *tool) *cobra.Command {
	f := &statusFlags{tool: t, print: genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "status NAME",
		DisableFlagsInUseLine: true,
		Short:                 "Show what is ready in a sandbox, what is not, and why",
		Long: templates.LongDesc(`
			Show a sandbox: its forks, whether requests with its key reach each of them, and if not why, with the command
			that fixes it. With -o yaml, json and the like, its objects are printed.`),
		Example: templates.Examples(`
			# What is ready in a sandbox, and what is not
			kubectl sandbox status pr-42

			# Its objects
			kubectl sandbox status pr-42 -o yaml`),
		ValidArgsFunction: t.completeSandboxes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	f.print.AddFlags(cmd)
	return cmd
}

func (f *statusFlags) complete(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(cmd, "status takes the name of one sandbox")
	}
	f.name = sandboxArg(args[0])
	return validName(cmd, f.name)
}

func (f *statusFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	s, err := c.Status(ctx, f.name)
	if err != nil {
		return err
	}
	if p := (&objectPrinter{flags: f.print, out: f.Out}); p.structured() {
		return printSandbox(p, &s.Sandbox)
	}
	return f.show(s, time.Now())
}

// printSandbox prints a sandbox's objects: each for itself where the format can hold several, else as a list.
func printSandbox(p *objectPrinter, s *plan.Sandbox) error {
	var objects []runtime.Object
	if s.ConfigMap != nil {
		objects = append(objects, typed(s.ConfigMap))
	}
	for i := range s.Policies {
		objects = append(objects, typedPolicy(&s.Policies[i]))
	}
	for i := range s.Forks {
		d := s.Forks[i].DeepCopy()
		d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
		objects = append(objects, d)
	}
	return p.printAll("", objects)
}

func (f *statusFlags) show(s *cluster.Status, now time.Time) error {
	about := []string{"sandbox " + s.Name + " in " + s.Namespace, "key " + none(s.Key)}
	if s.ConfigMap == nil {
		about = append(about, "its ConfigMap is gone")
	} else {
		made := "made " + duration.HumanDuration(now.Sub(s.Created)) + " ago"
		if s.CreatedBy != "" {
			made += " by " + s.CreatedBy
		}
		about = append(about, made)
	}
	fmt.Fprintln(f.Out, strings.Join(append(about, expiry(s.Expires, now)), ", "))
	if len(s.Sandbox.Forks) == 0 {
		fmt.Fprintln(f.Out, "no forks")
		return nil
	}
	table := tableFlags{print: f.print}
	var rows []metav1.TableRow
	for i := range s.Forks {
		d := &s.Sandbox.Forks[i]
		count := s.Counts[d.Labels[sandbox.LabelWorkload]]
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		rows = append(rows, metav1.TableRow{Cells: []any{
			d.Name, plan.WorkloadOf(d), fmt.Sprintf("%d/%d", d.Status.AvailableReplicas, want),
			fmt.Sprint(count.Fork + count.FellBack + count.Refused), string(s.Forks[i].State), duration.HumanDuration(now.Sub(d.CreationTimestamp.Time)),
		}})
	}
	fmt.Fprintln(f.Out)
	err := table.printTable(f.Out, []metav1.TableColumnDefinition{
		column("Fork", false), column("Of", false), column("Ready", false), column("Requests", false), column("State", false), column("Age", false),
	}, rows)
	if err != nil {
		return err
	}
	switch {
	case s.ConfigMap == nil:
	case !s.Counted:
		fmt.Fprintln(f.Out, "\nrequests: as last written; the webhook did not answer, or you may not patch configmaps")
	case s.Uncounted != "":
		fmt.Fprintf(f.Out, "\nrequests: without the latest of %s, which did not answer\n", s.Uncounted)
	}
	for _, url := range s.Previews {
		fmt.Fprintf(f.Out, "\npreview: %s\n", url)
	}
	f.showForks(s)
	f.showStandings(s)
	f.showPolicies(s)
	return nil
}

// showPolicies names the policies of forks, and those on whose account they are there.
func (f *statusFlags) showPolicies(s *cluster.Status) {
	for i := range s.Policies {
		p := &s.Policies[i]
		fmt.Fprintf(f.Out, "\npolicy: networkpolicy/%s has hold for the fork of %s what does for the baseline by %s\n", p.Name,
			strings.Replace(p.Labels[sandbox.LabelWorkload], ".", "/", 1), strings.ReplaceAll(none(p.Annotations[sandbox.AnnotationPolicies]), ",", ", "))
	}
}

// showForks says of each fork why requests do not reach it, or not all, and what else is to be known of it.
func (f *statusFlags) showForks(s *cluster.Status) {
	for i, fork := range s.Forks {
		d := &s.Sandbox.Forks[i]
		for _, c := range fork.Causes {
			fmt.Fprintln(f.Out)
			word := "failed: "
			switch {
			case c.Outlook == health.OutlookWaits:
				word = "waiting: "
			case c.Partial:
				word = "warning: "
			case c.Path:
				word = "not routed: "
			}
			printProblem(f.Out, word, plan.CauseProblem(d, c), given(f.globals))
		}
		for _, clause := range fork.Unknown {
			fmt.Fprintf(f.Out, "\nnot known: deployment.apps/%s: %s\n", d.Name, clause)
		}
	}
}

// showStandings says which forks are behind their baselines, and what mends it.
func (f *statusFlags) showStandings(s *cluster.Status) {
	for i, standing := range s.Standings {
		d := &s.Sandbox.Forks[i]
		if p := standing.Problem(d); p != nil {
			fmt.Fprintln(f.Out)
			printProblem(f.Out, standing.Word()+": ", p, given(f.globals))
		} else if said, err := sandbox.ParseFollowed(d.Annotations[sandbox.AnnotationFollowed]); standing.Follows && err == nil {
			fmt.Fprintf(f.Out, "\nfollows: deployment.apps/%s was laid on generation %d of %s at %s\n", d.Name, said.Generation, plan.WorkloadOf(d), said.Time)
		} else if standing.Follows {
			fmt.Fprintf(f.Out, "\nfollows: deployment.apps/%s is laid on %s whenever that changes\n", d.Name, plan.WorkloadOf(d))
		}
	}
}

// expiry says when a sandbox ends.
func expiry(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "never expires"
	case at.Before(now):
		return "expired " + duration.HumanDuration(now.Sub(at)) + " ago"
	}
	return fmt.Sprintf("expires in %s (%s)", duration.HumanDuration(at.Sub(now).Round(time.Second)), at.Local().Format(time.RFC3339))
}
