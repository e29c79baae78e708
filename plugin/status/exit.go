package status

// Exit statuses. 0 to 3 mean in every command what they mean in `kubectl sandbox test`: yes, no, unknown, not carried out.
const (
	ExitOK          = 0
	ExitFailed      = 1   // refused or failed; not routed (status --exit-code); differences (diff); no variant passed (test)
	ExitUnknown     = 2   // unknown (status --exit-code, test); diff failed
	ExitNotRun      = 3   // test and report: could not run, or was interrupted, whatever the reason
	ExitUsage       = 4   // the command line is wrong; nothing was read or changed
	ExitTimedOut    = 5   // timed out (--timeout); what was started continues
	ExitNoCluster   = 6   // no cluster, no answer from it, or credentials that it does not accept
	ExitInterrupted = 130 // by a signal, as shells report SIGINT
)

// ExitOf returns the exit status that goes with the code of an Error.
func ExitOf(code string) int {
	switch code {
	case CodeUsage:
		return ExitUsage
	case CodeTimedOut:
		return ExitTimedOut
	case CodeNoCluster, CodeUnauthorized:
		return ExitNoCluster
	case CodeInterrupted:
		return ExitInterrupted
	}
	return ExitFailed
}
