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
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// statusFlags are the flags of `status`.
type statusFlags struct {
	*tool
	print    *genericclioptions.PrintFlags
	name     string
	exitCode bool
}

func newStatus(t *tool) *cobra.Command {
	f := &statusFlags{tool: t, print: genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "status NAME",
		DisableFlagsInUseLine: true,
		Short:                 "Show what is ready in a sandbox, what is not, and why",
		Long: templates.LongDesc(`
			Show a sandbox and its forks, and whether requests with its key reach each of them. If they do not, status
			prints the reason and the command that fixes it. With -o yaml, -o json and the like, the output is a
			SandboxStatus.

			With --exit-code, the exit status is 0 if requests with the key reach all forks, 1 if they do not, and 2 if
			that is unknown.`),
		Example: templates.Examples(`
			# What is ready in a sandbox, and what is not
			kubectl sandbox status pr-42

			# The same for programs
			kubectl sandbox status pr-42 -o yaml

			# Why requests do not reach it, in one word
			kubectl sandbox status pr-42 -o jsonpath='{.conditions[?(@.type=="Routed")].reason}'

			# In a script
			kubectl sandbox status pr-42 --exit-code >/dev/null || echo "not routed"`),
		ValidArgsFunction: t.completeSandboxes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&f.exitCode, "exit-code", false, "Exit with 1 if requests do not reach all forks, and with 2 if that is unknown.")
	f.print.AddFlags(cmd)
	return cmd
}

func (f *statusFlags) complete(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(cmd, "status takes the name of one sandbox")
	}
	if err := validOutput(cmd, f.print); err != nil {
		return err
	}
	f.name = sandboxArg(args[0])
	return validName(cmd, f.name)
}

func (f *statusFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	switch p := (&objectPrinter{flags: f.print, out: f.Out}); {
	case p.structured() && *f.print.OutputFormat != "name":
		v, err := c.SandboxInventory(ctx, f.name)
		if err != nil {
			return err
		}
		all := v.Sandboxes()
		if err := printStatus(f.print, f.Out, v.DescribeSandbox(&all[0], f.line)); err != nil {
			return err
		}
		return f.exit(v)
	default:
		s, err := c.Status(ctx, f.name)
		if err != nil {
			return err
		}
		if p.structured() {
			err = printSandbox(p, &s.Sandbox)
		} else {
			err = f.show(s, time.Now())
		}
		if err != nil || !f.exitCode {
			return err
		}
	}
	v, err := c.SandboxInventory(ctx, f.name)
	if err != nil {
		return err
	}
	return f.exit(v)
}

// exit returns the error for the exit status, with --exit-code.
func (f *statusFlags) exit(v *sandboxes.Inventory) error {
	all := v.Sandboxes()
	switch found := v.State(&all[0]); {
	case !f.exitCode, !found.Unknown && (found.Code == health.Routed || found.Code == health.Running):
		return nil
	case found.Unknown:
		return &exitError{code: status.ExitUnknown}
	}
	return &exitError{code: status.ExitFailed}
}

// printSandbox prints a sandbox's objects: one after the other if the format allows it, else as a list.
func printSandbox(p *objectPrinter, s *sandboxes.Sandbox) error {
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
		about = append(about, "its ConfigMap is missing")
	} else {
		made := "created " + duration.HumanDuration(now.Sub(s.Created)) + " ago"
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
			d.Name, sandboxes.WorkloadOf(d), fmt.Sprintf("%d/%d", d.Status.AvailableReplicas, want),
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
	f.showBaselineStates(s)
	f.showPolicies(s)
	return nil
}

// showPolicies prints the policies of forks, and the policies that they are derived from.
func (f *statusFlags) showPolicies(s *cluster.Status) {
	for i := range s.Policies {
		p := &s.Policies[i]
		fmt.Fprintf(f.Out, "\npolicy: networkpolicy/%s gives the fork of %s the rules that the baseline has by %s\n", p.Name,
			strings.Replace(p.Labels[sandbox.LabelWorkload], ".", "/", 1), strings.ReplaceAll(none(p.Annotations[sandbox.AnnotationPolicies]), ",", ", "))
	}
}

// showForks prints, for each fork, why requests do not reach it, or not all, and further facts about it.
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
			printProblem(f.Out, word, sandboxes.CauseProblem(d, c), given(f.globals))
		}
		for _, clause := range fork.Unknown {
			fmt.Fprintf(f.Out, "\nnot known: deployment.apps/%s: %s\n", d.Name, clause)
		}
	}
}

// showBaselineStates prints which forks are behind their baselines, and how to fix that.
func (f *statusFlags) showBaselineStates(s *cluster.Status) {
	for i, baselineState := range s.Standings {
		d := &s.Sandbox.Forks[i]
		if p := baselineState.Problem(d); p != nil {
			fmt.Fprintln(f.Out)
			printProblem(f.Out, baselineState.Word()+": ", p, given(f.globals))
		} else if said, err := sandbox.ParseFollowed(d.Annotations[sandbox.AnnotationFollowed]); baselineState.Follows && err == nil {
			fmt.Fprintf(f.Out, "\nfollows: deployment.apps/%s was rebased on generation %d of %s at %s\n", d.Name, said.Generation, sandboxes.WorkloadOf(d), said.Time)
		} else if baselineState.Follows {
			fmt.Fprintf(f.Out, "\nfollows: deployment.apps/%s is rebased whenever %s changes\n", d.Name, sandboxes.WorkloadOf(d))
		}
	}
}

// expiry describes when a sandbox expires.
func expiry(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "never expires"
	case at.Before(now):
		return "expired " + duration.HumanDuration(now.Sub(at)) + " ago"
	}
	return fmt.Sprintf("expires in %s (%s)", duration.HumanDuration(at.Sub(now).Round(time.Second)), at.Local().Format(time.RFC3339))
}

// warnUnrouted warns if requests with a sandbox's key do not reach all its forks, with the command that fixes it. It
// ignores what can't be read, because the command has another purpose.
func (t *tool) warnUnrouted(ctx context.Context, c *cluster.Client, name string) {
	v, err := c.Inventory(ctx, c.Namespace)
	if err != nil {
		return
	}
	for _, s := range v.Sandboxes() {
		found := v.State(&s)
		if s.Name != name || found.Unknown || found.Code == health.Routed || found.Code == health.Running {
			continue
		}
		about := found.Message
		if found.Fork != "" {
			about = "deployment.apps/" + found.Fork + ": " + about
		}
		t.warn("sandbox %s is %s: %s", name, found.Word(), about)
		if len(found.Fix) > 0 {
			fmt.Fprintf(t.ErrOut, "hint: %s\n", t.line(found.Fix))
		}
	}
}
