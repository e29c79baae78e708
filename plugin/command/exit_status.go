package command

import (
	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"
)

// newExitStatus returns a help topic on exit statuses and error codes, as package status defines them.
func newExitStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-status",
		Short: "About exit statuses, and errors for programs",
		Long: templates.LongDesc(`
			Every command exits with one of these:

			    0    done; with status --exit-code: requests reach all forks
			    1    refused or failed; not routed (status --exit-code); differences (diff); no variant passed (test)
			    2    unknown (status --exit-code, test); diff failed
			    3    test and report: not carried out, for whatever reason
			    4    the command line is wrong; nothing was read or changed
			    5    timed out (--timeout); what was started continues
			    6    no cluster is configured, it does not answer, or it does not accept the credentials
			    130  interrupted

			With -o json, an error is one object of kind Error on standard error. Its field code is stable: Usage, Refused, Failed,
			TimedOut, Interrupted, NoCluster, Unauthorized, NotRouted, NoWebhook, the reason of a condition that status prints, or
			one of the API server's, such as NotFound, Forbidden and Conflict. Further fields are object, message and command: what
			it is about, a sentence, and what fixes it.`),
	}
}
