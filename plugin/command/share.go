package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// shareFlags are the flags and arguments of `share`.
type shareFlags struct {
	*tool
	expires       time.Duration
	revoke, token bool

	name, service string
}

func newShare(t *tool) *cobra.Command {
	f := &shareFlags{tool: t}
	cmd := &cobra.Command{
		Use:                   "share NAME [svc/SERVICE[.NAMESPACE]]",
		DisableFlagsInUseLine: true,
		Short:                 "Let people and tests into a sandbox by its preview URL",
		Long: templates.LongDesc(`
			Print a link that opens a sandbox in any browser, through the gateway of the cluster. Opening the link signs
			the browser in to that one preview until the link expires or is revoked. Everybody else is refused. With
			--token, print a token instead, which a program sends as "Authorization: Bearer TOKEN".

			The cluster keeps only a hash of the link or token, in a ConfigMap that belongs to the sandbox, so neither
			can be printed again.`),
		Example: templates.Examples(`
			# A link to the sandbox, by the Service through which requests enter the namespace
			kubectl sandbox share pr-42

			# By a Service that is named, for an hour
			kubectl sandbox share pr-42 svc/frontend --expires=1h

			# A token for a pipeline
			TOKEN=$(kubectl sandbox share pr-42 svc/frontend --token)

			# Let nobody in any more
			kubectl sandbox share pr-42 --revoke`),
		ValidArgsFunction: t.completeSandboxes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.expires, "expires", 24*time.Hour, "Lifetime of the link or token; it ends with the sandbox's at the latest.")
	flags.BoolVar(&f.revoke, "revoke", false, "Revoke all links and tokens of the sandbox, or those for the Service.")
	flags.BoolVar(&f.token, "token", false, "Print a token for programs.")
	return cmd
}

func (f *shareFlags) complete(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || len(args) > 2:
		return usageError(cmd, "share takes the name of one sandbox, and at most one svc/SERVICE")
	case f.revoke && (f.token || cmd.Flags().Changed("expires")):
		return usageError(cmd, "--revoke can't be combined with --token or --expires")
	case f.expires < time.Minute:
		return usageError(cmd, fmt.Sprintf("--expires %s is less than a minute", f.expires))
	}
	if len(args) == 2 {
		f.service = args[1]
		if _, err := sandboxes.ParseShared(f.service, "default"); err != nil {
			return usageError(cmd, err.Error())
		}
	}
	f.name = sandboxArg(args[0])
	return validName(cmd, f.name)
}

func (f *shareFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	use := operate.Share{Read: read.New(c), Write: apply.New(c)}
	o := operate.ShareOptions{Namespace: c.Namespace, Name: f.name, Service: f.service, Lifetime: f.expires}
	if f.revoke {
		n, err := use.Revoke(ctx, o)
		if err == nil {
			fmt.Fprintf(f.Out, "sandbox %s: %d links and tokens revoked\n", f.name, n)
		}
		return err
	}
	shared, err := use.Run(ctx, o)
	if err != nil {
		return err
	}
	printer.Unreached(f.ErrOut, shared.Unreached, f.chosen())
	if f.token {
		printer.Token(f.Out, f.ErrOut, shared)
	} else {
		printer.Link(f.Out, f.ErrOut, shared)
	}
	return nil
}
