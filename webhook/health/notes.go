package health

// notes are what is worth telling of a fork that requests reach, and what is not known.
func (f Facts) notes() (notes []Cause, unknown []string) {
	if f.Deployment == nil || !f.takesRequests() {
		return nil, nil
	}
	if b := f.Baseline; b == nil {
		unknown = append(unknown, "whether the baseline's pods have routers")
	} else {
		if b.Services == nil {
			unknown = append(unknown, "whether the baseline's Services lead to its routers")
		}
		if b.Others == nil {
			unknown = append(unknown, "whether the baseline's Services lead to other workloads as well")
		}
		if b.Behind != nil && *b.Behind {
			notes = append(notes, Cause{Code: BaselineBehind, Fault: FaultApp, Message: "the baseline " + f.workload() + " has changed since the fork was made from it",
				Say: "apply the fork's change to the baseline as it is now", Fix: kubectl("sandbox", "rebase", f.sandbox(), f.workload())})
		}
	}
	if f.Routing == nil {
		unknown = append(unknown, "whether the routers still have the route: the control plane has published nothing")
	}
	return notes, unknown
}
