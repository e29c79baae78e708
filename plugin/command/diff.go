package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// diffFlags are the flags and arguments of `diff`.
type diffFlags struct {
	*tool
	output string

	name      string
	workloads []string
}

func newDiff(t *tool) *cobra.Command {
	f := &diffFlags{tool: t}
	cmd := &cobra.Command{
		Use:                   "diff NAME [TYPE/NAME...]",
		DisableFlagsInUseLine: true,
		Short:                 "Show how the forks of a sandbox differ from their baselines",
		Long: templates.LongDesc(`
			Show how the forks of a sandbox differ from their current baselines, as a unified diff of the pod templates.
			With -o json, print the patch (RFC 6902) that turns the baseline's pod template into the fork's.

			Exit status: 0 no difference; 1 there is a difference; more than 1 the command failed.`),
		Example: templates.Examples(`
			# Show the changes of a sandbox
			kubectl sandbox diff pr-42

			# Lay the change of one workload on another sandbox
			kubectl sandbox diff pr-42 deploy/api -o json | kubectl sandbox fork deploy/api --name=pr-43 --patch-type=json --patch-file=-`),
		ValidArgsFunction: t.completeSandboxes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := f.complete(cmd, args)
			if err == nil {
				err = f.run(cmd.Context())
			}
			var code *exitError
			if err != nil && !errors.As(err, &code) && status.ExitOf(problemOf(err).Reason()) == status.ExitFailed {
				err = &exitError{status.ExitUnknown, err} // as `kubectl diff` and diff (POSIX) have it, 1 is for differences
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "", `"json": print the patch (RFC 6902) of the pod template, as fork --patch-type=json takes it.`)
	completeValues(cmd, "output", "json")
	return cmd
}

func (f *diffFlags) complete(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError(cmd, "no sandbox is named")
	}
	if f.output != "" && f.output != "json" {
		return usageError(cmd, fmt.Sprintf("--output %q is not json", f.output))
	}
	f.name, f.workloads = sandboxArg(args[0]), args[1:]
	return validName(cmd, f.name)
}

func (f *diffFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	diffs, err := read.New(c).Diffs(ctx, f.name, f.workloads)
	if err != nil {
		return err
	}
	if f.output == "json" && len(diffs) != 1 {
		var have []string
		for _, d := range diffs {
			have = append(have, d.Baseline)
		}
		return &plan.Problem{
			What: fmt.Sprintf("--output json is one patch, and sandbox %q has forks of %s", f.name, strings.Join(have, ", ")),
			Hint: "name one", Fix: plan.Kubectl("sandbox", "diff", f.name, have[0], "-o", "json"),
		}
	}
	differs := false
	for _, d := range diffs {
		differs = differs || d.Unified != ""
		if f.output == "json" {
			fmt.Fprintf(f.Out, "%s\n", d.Patch)
		} else {
			fmt.Fprint(f.Out, d.Unified)
		}
		if d.Behind {
			f.warn("%s is behind %s: what the baseline changed since is not in it", d.Fork, d.Baseline)
		}
	}
	if differs {
		return &exitError{code: status.ExitFailed}
	}
	return nil
}
